//! What can go wrong with an opened device, as errors that say where, why and what to do.

use crate::error::{Cause, KernelError, OUT_OF_MEMORY};
use cudarc::driver::result::DriverError;
use std::fmt;

/// A device that was opened refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaError {
    /// The driver answered a call with an error.
    Driver {
        /// What was being done, as "allocate 4096 bytes".
        doing: String,
        /// The driver's number for it, as 700.
        code: i32,
        /// The driver's name for it, as `CUDA_ERROR_ILLEGAL_ADDRESS`.
        name: String,
        /// The driver's own words.
        text: String,
    },
    /// No code of a source could be had for this device.
    NoImage {
        /// The source's name, as `pool`.
        source: String,
        /// The device's architecture, as `sm_90a`.
        architecture: String,
        /// What was tried, in order, and why it did not do.
        tried: Vec<String>,
    },
    /// There is no source of that name in this build.
    NoSource {
        /// The name that was asked for.
        source: String,
    },
    /// A launch that cannot work, seen before the driver was asked.
    Launch {
        /// The kernel's name.
        kernel: String,
        /// Why it cannot work.
        what: String,
    },
    /// A stream was asked for something by the thread that has a call under way on it, and would wait for itself.
    UnderWay {
        /// What it was asked for.
        doing: &'static str,
    },
}

impl CudaError {
    /// The driver's answer to `doing`.
    pub(crate) fn driver(doing: impl Into<String>, error: DriverError) -> CudaError {
        let words = |text: Result<&std::ffi::CStr, DriverError>| {
            text.map(|text| text.to_string_lossy().into_owned())
                .unwrap_or_else(|_| "no description".to_string())
        };
        CudaError::Driver {
            doing: doing.into(),
            code: error.0 as i32,
            name: words(error.error_name()),
            text: words(error.error_string()),
        }
    }

    /// The same as an error of a kernel's call.
    pub(crate) fn of(self, kernel: &'static str, shape: &str) -> KernelError {
        KernelError {
            kernel,
            shape: shape.to_string(),
            cause: Cause::Driver {
                doing: "use the device",
                code: match self {
                    CudaError::Driver { code, .. } => Some(code),
                    _ => None,
                },
                what: self.to_string(),
            },
        }
    }

    /// Whether the device's memory did not suffice.
    pub fn out_of_memory(&self) -> bool {
        matches!(
            self,
            CudaError::Driver {
                code: OUT_OF_MEMORY,
                ..
            }
        )
    }

    fn remedy(code: i32) -> &'static str {
        match code {
            OUT_OF_MEMORY => {
                "; the device's memory is full: give fewer or smaller bags at once, or end other programs on this device"
            }
            209 | 218 | 222 => {
                "; the code does not fit the driver: update the driver or install an NVRTC of the driver's version"
            }
            700 | 715 | 716 | 717 | 718 | 719 => {
                "; the device's context is lost: start the program again, and report this as a bug of the kernel with its shapes"
            }
            _ => "",
        }
    }
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CudaError::Driver {
                doing,
                code,
                name,
                text,
            } => write!(
                f,
                "CUDA could not {doing}: {name} ({code}), {text}{}",
                CudaError::remedy(*code)
            ),
            CudaError::NoImage {
                source,
                architecture,
                tried,
            } => {
                write!(f, "no code of kernel source `{source}` for {architecture}")?;
                for (place, what) in tried.iter().enumerate() {
                    write!(f, "{} {what}", if place == 0 { ":" } else { ";" })?;
                }
                f.write_str("; install NVRTC of the driver's CUDA version (PyPI `nvidia-cuda-nvrtc-cu12`) and set WEIR_NVRTC to it, or use the CPU")
            }
            CudaError::NoSource { source } => {
                write!(f, "this build has no kernel source `{source}`")
            }
            CudaError::Launch { kernel, what } => {
                write!(f, "kernel `{kernel}` cannot be launched: {what}")
            }
            CudaError::UnderWay { doing } => write!(
                f,
                "the stream cannot {doing} while this thread has a call under way on it (`Stream::begin`): finish that call or drop it first, or use the call's own `upload`, `read` and `download`"
            ),
        }
    }
}

impl std::error::Error for CudaError {}
