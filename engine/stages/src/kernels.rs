//! The kernels of a run's stages: the processor's, and those of the device that the plan names.
//!
//! All stages of a process share one stream of a device, so its calls run in one order, and each call returns when its
//! results lie on the host: a reduce waits for its own pool and for nothing else. What an encoder made reaches the pool
//! through the host, since neither library hands over what lies on the device: ONNX Runtime gives a session's outputs as host
//! memory and waits for its own stream first, and burn's streams cannot be had. Where a tensor does lie on
//! the device, the launchers take it there ([`weir_kernels::view::View::foreign`]) and one stream waits for the other's event.
//! With `--trace` each call's upload, kernel and download stand on the device's row, by the device's own clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_kernels::cuda::Gpu;
use weir_kernels::cuda::watch::{Took, Watch};
use weir_kernels::{Auto, Cpu, KernelError, Kernels, gated};
use weir_model::Device;
use weir_runtime::DeviceSpans;
use weir_runtime::stage::{Prepare, StageError};

use crate::executors::{Executors, Used, choice};

/// The kernels for the stage that is being prepared; one set a device for the process.
pub(crate) fn of(cx: &Prepare) -> Result<Arc<Auto>, StageError> {
    let device = choice(cx)?.device;
    let threads = cx.run().helpers.max(1);
    cx.shared.get_or_try(&device.to_string(), || {
        let cpu = Cpu::new(threads).map_err(refused)?;
        match device {
            Device::Cpu => Ok(Auto::cpu(cpu)),
            Device::Cuda(number) => {
                let gpu = Gpu::open(number as usize).map_err(|unavailable| {
                    let what = format!("device `{device}` cannot be used: {unavailable}");
                    StageError::new(what, "")
                })?;
                let stream = gpu.stream().map_err(|error| {
                    StageError::new(format!("device `{device}`: {error}"), DOCTOR)
                })?;
                let spans = cx.shared.get::<DeviceSpans>();
                if spans.wanted() {
                    let device = device.to_string();
                    stream.watch(Arc::new(Traced { device, spans }));
                }
                Auto::measured(cpu, Box::new(stream)).map_err(refused)
            }
        }
    })
}

/// Tells the trace what the device ran.
struct Traced {
    device: String,
    spans: Arc<DeviceSpans>,
}

impl Watch for Traced {
    fn ran(&self, kernel: &'static str, took: Took) {
        let mut end = Instant::now();
        for (part, milliseconds) in [
            ("download", took.download),
            ("kernel", took.kernel),
            ("upload", took.upload),
        ] {
            let took = Duration::from_secs_f32(milliseconds.max(0.0) / 1000.0);
            let Some(since) = end.checked_sub(took) else {
                return;
            };
            let what = format!("{kernel}, {part}");
            self.spans.add(&self.device, &what, since, took);
            end = since;
        }
    }
}

const DOCTOR: &str =
    "`weir doctor` says what of CUDA was found; the processor is run = { device = \"cpu\" }";

fn refused(error: KernelError) -> StageError {
    StageError::new(error.to_string(), DOCTOR)
}

/// Enters what runs the pool, for the run's record. The device is part of what says whether a slide is done only where it
/// changes bits.
pub(crate) fn enter(cx: &Prepare, kernels: &Auto, contract: &str) {
    let device = kernels.device();
    let fused = contract == gated::CONTRACT;
    let why = match (fused, kernels.threshold()) {
        (true, _) => "the plan says head = \"fused\"".to_owned(),
        (false, Some(from)) => format!("measured: calls of {from} B and more run on {device}"),
        (false, None) if device == "cpu" => "the processor was asked for".to_owned(),
        (false, None) => format!("measured: the processor is faster than {device} at every size"),
    };
    cx.shared.get::<Executors>().enter(
        &cx.node.name,
        Used {
            key: match fused {
                true => format!("kernels {contract} {device}"),
                false => format!("kernels {contract}"),
            },
            device,
            deterministic: true,
            why,
        },
    );
}
