//! The kernels of a run's stages: the processor's, and those of the device that the plan names.

use std::sync::Arc;

use weir_kernels::cuda::Gpu;
use weir_kernels::{Auto, Cpu, KernelError, Kernels, gated};
use weir_model::Device;
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
                Auto::measured(cpu, Box::new(stream)).map_err(refused)
            }
        }
    })
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
