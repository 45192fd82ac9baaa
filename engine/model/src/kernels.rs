//! The kernels of the device that a run or a training names, beside those of the processor.

use crate::executor::Device;
use std::fmt;
use weir_kernels::cuda::stream::Stream;
use weir_kernels::cuda::{CudaError, Gpu, Unavailable};
use weir_kernels::{Auto, Cpu, KernelError};

/// Kernels that were opened.
#[derive(Debug)]
pub struct Opened {
    /// Those of the processor and, where one was named, of the device.
    pub kernels: Auto,
    /// The device's stream, where one was named: what else runs there takes it too, and needs no other order.
    pub stream: Option<Stream>,
    /// The same, if it is traced.
    pub traced: Option<Stream>,
}

/// Why a device's kernels could not be opened.
#[derive(Clone, Debug, PartialEq)]
pub enum NotOpened {
    /// There is no such device, or it cannot be used: the probe's reason.
    Unavailable {
        /// The device that was named.
        device: Device,
        /// Why not.
        why: Unavailable,
    },
    /// The device refused a stream.
    Stream {
        /// The device that was named.
        device: Device,
        /// What it said.
        error: CudaError,
    },
    /// The processor's threads could not be started, or what is asked for in place of measured thresholds is no number.
    Kernel(KernelError),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotOpened::Unavailable { device, why } => {
                write!(f, "device `{device}` cannot be used: {why}")
            }
            NotOpened::Stream { device, error } => write!(f, "device `{device}`: {error}"),
            NotOpened::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotOpened {}

/// A new stream of that device.
pub fn stream(number: u32) -> Result<Stream, NotOpened> {
    let device = Device::Cuda(number);
    let gpu = Gpu::open(number as usize).map_err(|why| NotOpened::Unavailable { device, why })?;
    gpu.stream()
        .map_err(|error| NotOpened::Stream { device, error })
}

/// Opens the kernels of `device`, with so many threads of the processor (0: one a core). Where that is the processor nothing of
/// CUDA is looked for. Thresholds are measured when they are asked for first.
pub fn open(device: Device, threads: usize, traced: bool) -> Result<Opened, NotOpened> {
    let cpu = Cpu::new(threads).map_err(NotOpened::Kernel)?;
    let Device::Cuda(number) = device else {
        return Ok(Opened {
            kernels: Auto::cpu(cpu),
            stream: None,
            traced: None,
        });
    };
    let stream = stream(number)?;
    // Before the measurement, so that the trace shows what that took. A trace that cannot be had is no reason to stop.
    let traced = (traced && stream.trace().is_ok()).then(|| stream.clone());
    let kernels = Auto::with(cpu, Box::new(stream.clone())).map_err(NotOpened::Kernel)?;
    Ok(Opened {
        kernels,
        stream: Some(stream),
        traced,
    })
}
