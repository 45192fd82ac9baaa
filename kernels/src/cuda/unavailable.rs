//! Why no device can be used, and what to do about it.

use super::probe::{OLDEST_RELEASE, Version};
use std::fmt;
use std::path::PathBuf;

/// Why no device can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The reason.
    pub reason: Reason,
}

/// Why no device can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The driver's library is not there, or does not load.
    NoLibrary {
        /// What the loader said of the last name.
        what: String,
    },
    /// A library is there but lacks what a driver has.
    NoSymbol {
        /// The library.
        library: PathBuf,
        /// The first missing symbol.
        symbol: String,
    },
    /// The library is a toolkit's stub, made for linking.
    Stub {
        /// The library.
        library: PathBuf,
    },
    /// The driver is older than weir's oldest.
    TooOld {
        /// The library.
        library: PathBuf,
        /// The CUDA version that the driver takes.
        found: Version,
        /// The oldest that does.
        needed: Version,
    },
    /// The driver did not start.
    Init {
        /// The library.
        library: PathBuf,
        /// The driver's number for why.
        code: i32,
    },
    /// The driver works and sees no device.
    NoDevice {
        /// The library.
        library: PathBuf,
    },
    /// There is no device of that number.
    NoSuchDevice {
        /// What was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The device's context could not be had.
    Context {
        /// The device.
        ordinal: usize,
        /// What the driver said.
        what: String,
    },
}

impl From<Reason> for Unavailable {
    fn from(reason: Reason) -> Unavailable {
        Unavailable { reason }
    }
}

impl Unavailable {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match &self.reason {
            Reason::NoLibrary { .. } => "install NVIDIA's driver (in a container: start it with the GPU, as `docker run --gpus all`), or use the CPU".to_string(),
            Reason::NoSymbol { library, .. } | Reason::Stub { library } => format!(
                "the driver's own library must be found before {}: take its folder out of LD_LIBRARY_PATH",
                library.display()
            ),
            Reason::TooOld { needed, .. } => format!(
                "update NVIDIA's driver to one for CUDA {needed} or later: release {OLDEST_RELEASE} or later (`nvidia-smi` shows both)"
            ),
            Reason::Init { code, .. } => match code {
                3 => "the driver is being unloaded: start the program again".to_string(),
                100 => "the driver sees no device: check `nvidia-smi`, and CUDA_VISIBLE_DEVICES".to_string(),
                101 => "CUDA_VISIBLE_DEVICES names a device that is not there".to_string(),
                802 => "the machine's NVSwitch is not set up: start nvidia-fabricmanager".to_string(),
                803 => "the driver's library and its kernel module have different versions: restart the machine after a driver update, or take the library of the module's version".to_string(),
                804 => "this card does not take CUDA's forward compatibility: take the `compat` folder out of LD_LIBRARY_PATH".to_string(),
                999 => "check `nvidia-smi` and the rights on /dev/nvidia*; after a suspend, load the module nvidia_uvm again".to_string(),
                _ => "check `nvidia-smi`".to_string(),
            },
            Reason::NoDevice { .. } => "check `nvidia-smi`, and that CUDA_VISIBLE_DEVICES is not empty".to_string(),
            Reason::NoSuchDevice { .. } => "name a device that is there (`weir doctor` lists them)".to_string(),
            Reason::Context { .. } => "check with `nvidia-smi` that the device is free and has memory, and is not in prohibited mode".to_string(),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::NoLibrary { what } => {
                write!(f, "the CUDA driver (libcuda.so.1) was not found: {what}")
            }
            Reason::NoSymbol { library, symbol } => write!(
                f,
                "{} is no whole CUDA driver: it lacks {symbol}",
                library.display()
            ),
            Reason::Stub { library } => write!(
                f,
                "{} is a stub for linking, not a CUDA driver",
                library.display()
            ),
            Reason::TooOld {
                library,
                found,
                needed,
            } => write!(
                f,
                "the CUDA driver {} is for CUDA {found}, and {needed} is needed",
                library.display()
            ),
            Reason::Init { library, code } => write!(
                f,
                "the CUDA driver {} did not start: {} ({code})",
                library.display(),
                init_error(*code)
            ),
            Reason::NoDevice { library } => {
                write!(f, "the CUDA driver {} sees no device", library.display())
            }
            Reason::NoSuchDevice { ordinal, count } => {
                write!(f, "there is no CUDA device {ordinal}: there are {count}")
            }
            Reason::Context { ordinal, what } => {
                write!(f, "CUDA device {ordinal} could not be opened: {what}")
            }
        }?;
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for Unavailable {}

/// The names of what cuInit answers; asked before it is sure that the library can name them.
fn init_error(code: i32) -> &'static str {
    match code {
        2 => "CUDA_ERROR_OUT_OF_MEMORY",
        3 => "CUDA_ERROR_DEINITIALIZED",
        34 => "CUDA_ERROR_STUB_LIBRARY",
        100 => "CUDA_ERROR_NO_DEVICE",
        101 => "CUDA_ERROR_INVALID_DEVICE",
        802 => "CUDA_ERROR_SYSTEM_NOT_READY",
        803 => "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        804 => "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        999 => "CUDA_ERROR_UNKNOWN",
        _ => "an error of cuInit",
    }
}
