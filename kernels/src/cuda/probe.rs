//! Whether this machine has a CUDA driver that works, asked in a way that cannot panic.
//!
//! cudarc panics when the driver's library or one of its symbols is missing. So nothing of cudarc is called before
//! [`driver`] has opened the very library that cudarc will open, found every symbol that weir's paths through cudarc call,
//! and initialised it.

use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest CUDA version of a driver that does: cudarc is built for 12.0's symbols.
pub const OLDEST_DRIVER: Version = Version {
    major: 12,
    minor: 0,
};

/// The names under which cudarc looks for the driver's library, in its order.
const NAMES: [&str; 17] = [
    "libcuda.so",
    "libcuda64.so",
    "libcuda64_12.so",
    "libcuda64_120.so",
    "libcuda64_120_0.so",
    "libcuda64_120_0.so",
    "libcuda64_10.so",
    "libcuda64_11.so",
    "libcuda64_12.so",
    "libcuda64_120_0.so",
    "libcuda64_9.so",
    "libcuda.so.12",
    "libcuda.so.12",
    "libcuda.so.11",
    "libcuda.so.10",
    "libcuda.so.9",
    "libcuda.so.1",
];

/// Every symbol of the driver that weir calls, through cudarc or here.
pub const SYMBOLS: [&str; 40] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuLaunchKernel",
];

/// A CUDA version, as 12.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 12 of 12.4.
    pub major: u32,
    /// 4 of 12.4.
    pub minor: u32,
}

impl Version {
    /// Of the driver's number: 12040 is 12.4.
    fn of(number: c_int) -> Version {
        let number = u32::try_from(number).unwrap_or(0);
        Version {
            major: number / 1000,
            minor: number % 1000 / 10,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

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
            Reason::TooOld { needed, .. } => {
                format!("update NVIDIA's driver to one for CUDA {needed} or later (`nvidia-smi` shows its version)")
            }
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

/// A driver that works.
pub struct Driver {
    /// The library's file.
    pub library: PathBuf,
    /// The newest CUDA version that the driver takes.
    pub version: Version,
    /// How many devices there are, at least one.
    pub devices: usize,
    handle: Library,
}

/// What is known of a device without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub ordinal: usize,
    /// As `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its compute capability, as (9, 0).
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Its memory, bytes.
    pub memory: u64,
    /// Its L2 cache, bytes.
    pub l2: u64,
    /// Shared memory that a block may ask for, bytes.
    pub shared_per_block: u32,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_per_multiprocessor: u32,
    /// Threads that fit on a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// 32-bit registers of a multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// The multiprocessors' highest clock, kHz.
    pub clock_khz: u32,
}

/// The driver of this machine, checked and started.
pub fn driver() -> Result<Driver, Unavailable> {
    let mut last = String::new();
    for name in NAMES {
        match open(Path::new(name)) {
            Ok(handle) => return check(handle, Path::new(name)),
            Err(what) => last = what,
        }
    }
    Err(Reason::NoLibrary { what: last }.into())
}

fn open(path: &Path) -> Result<Library, String> {
    // SAFETY: the driver's library runs its own constructors, as it would for every CUDA program; nothing else is run here.
    unsafe { Library::new(path) }.map_err(|error| error.to_string())
}

fn check(handle: Library, asked: &Path) -> Result<Driver, Unavailable> {
    let library = origin(&handle, "cuInit").unwrap_or_else(|| asked.to_path_buf());
    for symbol in SYMBOLS {
        // SAFETY: only whether the symbol is there is asked; it is not called through this type.
        if unsafe { handle.get::<unsafe extern "C" fn()>(symbol.as_bytes()) }.is_err() {
            let symbol = symbol.to_string();
            return Err(Reason::NoSymbol { library, symbol }.into());
        }
    }
    let mut driver = Driver {
        library,
        version: Version { major: 0, minor: 0 },
        devices: 0,
        handle,
    };
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
    let mut number: c_int = 0;
    // Works before cuInit, so that an old driver is named as that.
    // SAFETY: cuDriverGetVersion(int*) writes one int.
    let code = unsafe { driver.call::<Number, _>("cuDriverGetVersion", |call| call(&mut number)) };
    let library = driver.library.clone();
    if code == 34 {
        return Err(Reason::Stub { library }.into());
    }
    driver.version = Version::of(number);
    if code == 0 && driver.version < OLDEST_DRIVER {
        let (found, needed) = (driver.version, OLDEST_DRIVER);
        return Err(Reason::TooOld {
            library,
            found,
            needed,
        }
        .into());
    }
    // SAFETY: cuInit(unsigned) takes flags, which must be 0.
    match unsafe { driver.call::<Init, _>("cuInit", |call| call(0)) } {
        0 => {}
        34 => return Err(Reason::Stub { library }.into()),
        100 => return Err(Reason::NoDevice { library }.into()),
        code => return Err(Reason::Init { library, code }.into()),
    }
    let mut count: c_int = 0;
    // SAFETY: cuDeviceGetCount(int*) writes one int.
    match unsafe { driver.call::<Number, _>("cuDeviceGetCount", |call| call(&mut count)) } {
        0 => {}
        code => return Err(Reason::Init { library, code }.into()),
    }
    driver.devices = usize::try_from(count).unwrap_or(0);
    if driver.devices == 0 {
        return Err(Reason::NoDevice { library }.into());
    }
    Ok(driver)
}

impl Driver {
    /// Calls a function of the library; an absent one answers "not found".
    ///
    /// # Safety
    /// `F` is the symbol's C type, and what `with` passes is what the symbol takes.
    unsafe fn call<F: Copy, R: From<c_int>>(&self, symbol: &str, with: impl FnOnce(F) -> R) -> R {
        // SAFETY: the caller names the symbol's type.
        match unsafe { self.handle.get::<F>(symbol.as_bytes()) } {
            Ok(function) => with(*function),
            Err(_) => R::from(500),
        }
    }

    /// What is known of device `ordinal`.
    pub fn device(&self, ordinal: usize) -> Result<Device, Unavailable> {
        type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
        type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
        type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
        let none = || Reason::NoSuchDevice {
            ordinal,
            count: self.devices,
        };
        if ordinal >= self.devices {
            return Err(none().into());
        }
        let number = c_int::try_from(ordinal).map_err(|_| none())?;
        let failed = |symbol: &str, code: c_int| Reason::Context {
            ordinal,
            what: format!("{symbol} answered {code}"),
        };
        let mut device: c_int = 0;
        // SAFETY: cuDeviceGet(int*, int) writes one int.
        match unsafe { self.call::<Get, _>("cuDeviceGet", |call| call(&mut device, number)) } {
            0 => {}
            code => return Err(failed("cuDeviceGet", code).into()),
        }
        let mut name = [0 as c_char; 256];
        // SAFETY: cuDeviceGetName(char*, int, CUdevice) writes at most so many characters, the last one 0.
        unsafe {
            self.call::<Name, c_int>("cuDeviceGetName", |call| {
                call(name.as_mut_ptr(), 255, device)
            })
        };
        // SAFETY: the array's last character is 0 in any case, since at most 255 of 256 are written.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        let mut memory = 0usize;
        // SAFETY: cuDeviceTotalMem_v2(size_t*, CUdevice) writes one size.
        unsafe {
            self.call::<Memory, c_int>("cuDeviceTotalMem_v2", |call| call(&mut memory, device))
        };
        let attribute = |which: c_int| {
            let mut value: c_int = 0;
            // SAFETY: cuDeviceGetAttribute(int*, CUdevice_attribute, CUdevice) writes one int.
            match unsafe {
                self.call::<Attribute, _>("cuDeviceGetAttribute", |call| {
                    call(&mut value, which, device)
                })
            } {
                0 => Ok(u32::try_from(value).unwrap_or(0)),
                code => Err(failed("cuDeviceGetAttribute", code)),
            }
        };
        Ok(Device {
            ordinal,
            name: name.to_string_lossy().into_owned(),
            capability: (attribute(75)?, attribute(76)?),
            multiprocessors: attribute(16)?,
            memory: memory as u64,
            l2: u64::from(attribute(38)?),
            shared_per_block: attribute(97)?.max(attribute(8)?),
            shared_per_multiprocessor: attribute(81)?,
            threads_per_multiprocessor: attribute(39)?,
            registers_per_multiprocessor: attribute(82)?,
            clock_khz: attribute(13)?,
        })
    }
}

/// The file that a library's symbol was loaded from, whole.
pub(crate) fn origin(library: &Library, symbol: &str) -> Option<PathBuf> {
    // SAFETY: the symbol's address is asked; it is not called through this type.
    let function = unsafe { library.get::<unsafe extern "C" fn()>(symbol.as_bytes()) }.ok()?;
    let address = *function as *const std::ffi::c_void;
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: dladdr(3) takes any address and writes the struct where it answers other than 0.
    if unsafe { libc::dladdr(address, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: dladdr answered other than 0, so it wrote the struct.
    let name = unsafe { info.assume_init() }.dli_fname;
    if name.is_null() {
        return None;
    }
    // SAFETY: the loader's name of a library that is loaded, ended by 0; the library stays while its handle is borrowed.
    let name = unsafe { CStr::from_ptr(name) };
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    Some(path.canonicalize().unwrap_or_else(|_| path.to_path_buf()))
}
