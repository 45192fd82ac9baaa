//! The executor that is always there: burn on its `flex` back end, or on CUDA with the cargo feature `cuda`.
//!
//! The device is always named: in a build with `cuda`, burn's default device is the GPU whatever the machine has. There, tiles are
//! normalised on the processor and each one's features are waited for: cubecl, below burn, gives out neither its streams nor events
//! on them, so that a batch cannot be laid out as in [`super::device_batch`].

use super::{Device, Executor, ExecutorError, finite};
use crate::burn_net::{Net, values};
use crate::input::Input;
use crate::network::Network;
use crate::weights::Weights;
use ::burn::tensor::{Tensor, TensorData};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Mutex;

/// The version that this crate is pinned to.
pub const VERSION: &str = "0.22.1";

/// Runs a [`Net`].
pub struct Burn {
    net: Net,
    input: Input,
    device: Device,
    on: ::burn::tensor::Device,
    /// One pool of a single thread for each call in progress: burn splits large matrix products over the pool that it
    /// runs in, and a pass shall have one thread.
    lanes: Mutex<Vec<ThreadPool>>,
}

impl Burn {
    /// The network on `device`.
    pub fn new(
        network: &Network,
        weights: &Weights,
        input: &Input,
        device: Device,
    ) -> Result<Burn, ExecutorError> {
        let on = open(device)?;
        Ok(Burn {
            net: Net::new(network, weights, &on)?,
            input: input.clone(),
            device,
            on,
            lanes: Mutex::default(),
        })
    }

    fn lane(&self) -> Result<ThreadPool, ExecutorError> {
        let free = self.lanes.lock().ok().and_then(|mut lanes| lanes.pop());
        if let Some(lane) = free {
            return Ok(lane);
        }
        ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| "burn".to_string())
            .build()
            .map_err(|error| ExecutorError::Library {
                executor: "burn",
                doing: "start a thread",
                what: error.to_string(),
            })
    }

    fn run(&self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let size = self.input.size();
        tiles
            .iter()
            .enumerate()
            .map(|(place, tile)| {
                let mut numbers = Vec::new();
                self.input.append(tile, &mut numbers)?;
                let data = TensorData::new(numbers, [1, 3, size, size]);
                let features = self.net.forward(Tensor::<4>::from_data(data, &self.on));
                finite(place, values(features))
            })
            .collect()
    }
}

impl Executor for Burn {
    fn forward(&self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let lane = self.lane()?;
        let features = lane.install(|| self.run(tiles));
        if let Ok(mut lanes) = self.lanes.lock() {
            lanes.push(lane);
        }
        features
    }

    fn name(&self) -> &'static str {
        "burn"
    }

    fn version(&self) -> &str {
        VERSION
    }

    fn device(&self) -> String {
        self.device.to_string()
    }
}

/// The device, or why it cannot be used.
fn open(device: Device) -> Result<::burn::tensor::Device, ExecutorError> {
    match device {
        Device::Cpu => Ok(::burn::tensor::Device::flex()),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => {
            // Using a device that is not there ends the process inside burn, so look first.
            let found = ::burn::tensor::Device::enumerate(::burn::tensor::DeviceType::Cuda);
            if (number as usize) < found.len() {
                Ok(::burn::tensor::Device::cuda(number as usize))
            } else {
                Err(ExecutorError::Device {
                    device: device.to_string(),
                    executor: "burn",
                    what: format!("this machine shows {} CUDA devices", found.len()),
                    help: "install the NVIDIA driver, or use `cpu`",
                })
            }
        }
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err(ExecutorError::Device {
            device: device.to_string(),
            executor: "burn",
            what: "this build is without burn's CUDA back end".to_string(),
            help: "use the executor `onnxruntime` with a library that has its CUDA provider, or build with `CUDARC_CUDA_VERSION=13000 cargo build --release -p weir --features cuda`",
        }),
    }
}
