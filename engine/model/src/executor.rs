//! Running an encoder on pixels: one trait, two executors, and how one of them is chosen.
//!
//! On every device one tile is one forward pass, so that what comes out for a tile cannot hang on its neighbours in the
//! batch: fixed padded batches are not enough, as the edge kernels of a matrix product differ from the inner ones. On the
//! processor the engine's helper threads give the parallelism; inside a pass there is one thread. On a CUDA device a batch's passes
//! stand in the stream of the kernels, one after the other ([`device_batch`]).

pub mod bound;
pub mod burn;
pub mod device_batch;
pub mod onnxruntime;

use crate::input::{Input, WrongSize};
use crate::network::{Network, NetworkError};
use crate::weights::{Weights, WeightsError};
use onnxruntime::Missing;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use weir_kernels::KernelError;
use weir_kernels::cuda::stream::Stream;

/// Runs an encoder.
pub trait Executor: Send + Sync {
    /// The features of each tile, in the order of the tiles. A tile is interleaved RGB, u8, of the model's size.
    /// May be called from many threads at once.
    fn forward(&self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError>;

    /// `burn` or `onnxruntime`.
    fn name(&self) -> &'static str;

    /// Of the library, as `1.32.0`.
    fn version(&self) -> &str;

    /// `cpu`, `cuda:0`.
    fn device(&self) -> String;
}

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `run.executor`.
    pub executor: Which,
    /// `run.devices`.
    pub device: Device,
    /// Where ONNX Runtime's library lies, when the user said so; before the environment and the usual places.
    pub library: Option<PathBuf>,
    /// The stream of that device which the process's kernels use, for the network's passes to stand in too; without one the executor
    /// makes its own.
    pub stream: Option<Stream>,
}

/// `run.executor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// ONNX Runtime when it is found, else burn.
    #[default]
    Auto,
    /// Always there.
    Burn,
    /// Only that, or an error.
    OnnxRuntime,
}

/// `run.devices`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of that number.
    Cuda(u32),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Which::Auto),
            "burn" => Ok(Which::Burn),
            "onnxruntime" => Ok(Which::OnnxRuntime),
            other => Err(format!(
                "there is no executor `{other}`; there are auto, burn, onnxruntime"
            )),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// `auto` is `cpu` in this version: a GPU is used where it is named.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "cpu" => return Ok(Device::Cpu),
            "cuda" => return Ok(Device::Cuda(0)),
            _ => {}
        }
        text.strip_prefix("cuda:")
            .and_then(|number| number.parse().ok())
            .map(Device::Cuda)
            .ok_or_else(|| {
                format!("there is no device `{text}`; there are cpu, cuda:0, cuda:1, ...")
            })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Why an executor could not be made, or a tile could not be run.
#[derive(Debug)]
pub enum ExecutorError {
    /// ONNX Runtime was asked for and is not there.
    Missing(Missing),
    /// The device cannot be used.
    Device {
        /// As the user wrote it.
        device: String,
        /// `burn` or `onnxruntime`.
        executor: &'static str,
        /// What is in the way.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// The library refused a graph or failed while running it.
    Library {
        /// `burn` or `onnxruntime`.
        executor: &'static str,
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        what: String,
    },
    /// A feature is a NaN or an infinity.
    NonFinite {
        /// Place of the tile in the call.
        tile: usize,
    },
    /// The tile has another size.
    Tile(WrongSize),
    /// A kernel of the processor.
    Kernel(KernelError),
    /// The architecture.
    Network(NetworkError),
    /// The weights.
    Weights(WeightsError),
}

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecutorError::Missing(missing) => missing.fmt(f),
            ExecutorError::Device {
                device,
                executor,
                what,
                help,
            } => write!(f, "device `{device}` with {executor}: {what}; {help}"),
            ExecutorError::Library {
                executor,
                doing,
                what,
            } => write!(f, "{executor} could not {doing}: {what}"),
            ExecutorError::NonFinite { tile } => write!(
                f,
                "the network made no finite number of tile {tile} of the batch; are the weights sound?"
            ),
            ExecutorError::Tile(error) => error.fmt(f),
            ExecutorError::Kernel(error) => error.fmt(f),
            ExecutorError::Network(error) => error.fmt(f),
            ExecutorError::Weights(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExecutorError {}

impl From<WrongSize> for ExecutorError {
    fn from(error: WrongSize) -> Self {
        ExecutorError::Tile(error)
    }
}

impl From<KernelError> for ExecutorError {
    fn from(error: KernelError) -> Self {
        ExecutorError::Kernel(error)
    }
}

impl From<NetworkError> for ExecutorError {
    fn from(error: NetworkError) -> Self {
        ExecutorError::Network(error)
    }
}

impl From<WeightsError> for ExecutorError {
    fn from(error: WeightsError) -> Self {
        ExecutorError::Weights(error)
    }
}

/// An executor that was chosen and tried.
pub struct Chosen {
    /// What runs.
    pub executor: Box<dyn Executor>,
    /// Why this one, for the run's record, as `auto: found .onnxruntime/libonnxruntime.so`.
    pub why: String,
    /// Whether a tile's features were the same, bit for bit, alone and at several places among others.
    pub invariant: bool,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chosen({}, invariant: {})", self.key(), self.invariant)
    }
}

impl Chosen {
    /// Resolves `choice`, builds the executor, and tries whether it is batch-invariant.
    pub fn load(
        network: &Network,
        weights: &Weights,
        input: &Input,
        choice: &Choice,
    ) -> Result<Chosen, ExecutorError> {
        network.check_tile(input.size())?;
        let device = choice.device;
        let use_burn = |why: String| {
            let executor = burn::Burn::new(network, weights, input, device)?;
            Ok((Box::new(executor) as Box<dyn Executor>, why))
        };
        let use_onnxruntime = |how: &str| {
            let library = onnxruntime::library(choice.library.as_deref())?;
            let why = format!("{how}: {}", library.path.display());
            let executor = onnxruntime::OnnxRuntime::new(
                library,
                network,
                weights,
                input,
                device,
                choice.stream.as_ref(),
            )?;
            Ok((Box::new(executor) as Box<dyn Executor>, why))
        };
        let (executor, why) = match choice.executor {
            Which::Burn => use_burn("asked for".to_string()),
            Which::OnnxRuntime => use_onnxruntime("asked for"),
            Which::Auto => match use_onnxruntime("auto, found") {
                // A library that the user named must be the one that runs.
                Err(ExecutorError::Missing(missing)) if !missing.named => {
                    use_burn(format!("auto, {}", missing.short()))
                }
                other => other,
            },
        }?;
        let invariant = batch_invariant(executor.as_ref(), input)?;
        Ok(Chosen {
            executor,
            why,
            invariant,
        })
    }

    /// What stands for the executor in the key that says whether a slide is done, as `onnxruntime 1.32.0 cpu`.
    pub fn key(&self) -> String {
        format!(
            "{} {} {}",
            self.executor.name(),
            self.executor.version(),
            self.executor.device()
        )
    }
}

/// Whether a tile's features are the same, bit for bit, alone and at each place of batches of 2, 3 and 5 others.
pub fn batch_invariant(executor: &dyn Executor, input: &Input) -> Result<bool, ExecutorError> {
    const TILES: usize = 5;
    // Tiles that differ in every byte: a Weyl sequence, so that no generator is needed.
    let tiles: Vec<Vec<u8>> = (0..TILES)
        .map(|tile| {
            let mut state = tile as u32;
            (0..input.len())
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect()
        })
        .collect();
    let bits =
        |features: Vec<f32>| -> Vec<u32> { features.into_iter().map(f32::to_bits).collect() };
    let mut alone = Vec::with_capacity(TILES);
    for tile in &tiles {
        alone.extend(executor.forward(&[tile])?.into_iter().map(bits));
    }
    for batch in [2, 3, TILES] {
        for turn in 0..batch {
            let order: Vec<usize> = (0..batch).map(|place| (place + turn) % batch).collect();
            let call: Vec<&[u8]> = order.iter().map(|&tile| tiles[tile].as_slice()).collect();
            for (place, features) in executor.forward(&call)?.into_iter().enumerate() {
                if bits(features) != alone[order[place]] {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Refuses a feature vector with a NaN or an infinity: it must never reach a pool.
pub(crate) fn finite(tile: usize, features: Vec<f32>) -> Result<Vec<f32>, ExecutorError> {
    if features.iter().all(|value| value.is_finite()) {
        Ok(features)
    } else {
        Err(ExecutorError::NonFinite { tile })
    }
}
