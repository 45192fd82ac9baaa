//! Whether this machine has a CUDA driver that works, asked in a way that cannot panic.
//!
//! cudarc panics when the driver's library or one of its symbols is missing. So nothing of cudarc is called before
//! [`driver`] has opened the very library that cudarc will open, found every symbol that weir's paths through cudarc call,
//! and initialised it.

use super::unavailable::{Reason, Unavailable};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// The oldest CUDA version of a driver that does: cudarc is built for 12.0's symbols, and the PTX in the program is in 12.0's
/// language.
pub const OLDEST_DRIVER: Version = Version {
    major: 12,
    minor: 0,
};

/// The first release of the driver that is for [`OLDEST_DRIVER`].
pub const OLDEST_RELEASE: &str = "525.60";

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

/// A driver that works.
pub struct Driver {
    /// The library's file.
    pub library: PathBuf,
    /// The newest CUDA version that the driver takes.
    pub version: Version,
    /// How many devices there are, at least one.
    pub devices: usize,
    // A driver that was started may have threads of its own: it stays loaded.
    handle: ManuallyDrop<Library>,
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
    first_of(&NAMES.map(Path::new))
}

/// The first library that loads, as cudarc takes it.
fn first_of(names: &[&Path]) -> Result<Driver, Unavailable> {
    let mut last = String::new();
    for name in names {
        match open(name) {
            Ok(handle) => return check(handle, name),
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
        handle: ManuallyDrop::new(handle),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    /// A library as the driver's, with every symbol but `without`; `cuInit` answers `init`, `cuDriverGetVersion` says
    /// `version`, and there are `devices` devices.
    fn library(folder: &Path, without: &[&str], init: i32, version: i32, devices: i32) -> PathBuf {
        let mut text = String::from("#include <string.h>\n");
        for symbol in SYMBOLS.iter().filter(|symbol| !without.contains(symbol)) {
            let body = match *symbol {
                "cuInit" => format!("(unsigned flags) {{ return flags ? 1 : {init}; }}"),
                "cuDriverGetVersion" => format!("(int* v) {{ *v = {version}; return 0; }}"),
                "cuDeviceGetCount" => format!("(int* n) {{ *n = {devices}; return 0; }}"),
                "cuDeviceGet" => "(int* d, int n) { *d = n; return 0; }".to_string(),
                "cuDeviceGetName" => {
                    "(char* s, int n, int d) { strncpy(s, \"A device\", n); return 0; }".to_string()
                }
                "cuDeviceTotalMem_v2" => {
                    "(unsigned long* n, int d) { *n = 80ul << 30; return 0; }".to_string()
                }
                "cuDeviceGetAttribute" => {
                    "(int* v, int a, int d) { *v = a == 75 ? 9 : a == 76 ? 0 : a; return 0; }"
                        .to_string()
                }
                _ => "(void) { return 999; }".to_string(),
            };
            text += &format!("int {symbol}{body}\n");
        }
        let (source, library) = (folder.join("driver.c"), folder.join("libcuda.so.1"));
        std::fs::write(&source, text).unwrap();
        let made = Command::new("gcc")
            .args(["-shared", "-fPIC", "-w", "-o"])
            .args([&library, &source])
            .status()
            .unwrap();
        assert!(made.success());
        library
    }

    fn reason(path: &Path) -> Reason {
        let error = first_of(&[path]).err().unwrap();
        assert!(!error.remedy().is_empty());
        assert!(error.to_string().ends_with(&error.remedy()), "{error}");
        error.reason
    }

    #[test]
    fn the_probe_opens_the_library_that_cudarc_will_open() {
        let theirs = cudarc::get_lib_name_candidates("cuda");
        assert_eq!(theirs, NAMES);
    }

    #[test]
    fn a_whole_driver_is_taken_and_its_devices_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = library(folder.path(), &[], 0, 12080, 2);
        let driver = first_of(&[Path::new("libnothing.so.1"), &path])
            .ok()
            .unwrap();
        assert_eq!(driver.library, path.canonicalize().unwrap());
        assert_eq!(
            (driver.version.to_string(), driver.devices),
            ("12.8".into(), 2)
        );
        let device = driver.device(1).unwrap();
        assert_eq!(
            (device.name.as_str(), device.capability),
            ("A device", (9, 0))
        );
        assert_eq!(device.memory, 80 << 30);
        let none = driver.device(2).err().unwrap();
        let reason = Reason::NoSuchDevice {
            ordinal: 2,
            count: 2,
        };
        assert_eq!(none.reason, reason);
    }

    #[test]
    fn no_library_an_empty_file_and_a_library_of_something_else_are_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("libcuda.so.1");
        assert!(matches!(reason(&nowhere), Reason::NoLibrary { .. }));
        std::fs::write(&nowhere, "").unwrap();
        assert!(matches!(reason(&nowhere), Reason::NoLibrary { .. }));
        let all: Vec<&str> = SYMBOLS.to_vec();
        let empty = library(folder.path(), &all, 0, 0, 0);
        let symbol = "cuInit".to_string();
        let library = empty.clone();
        assert_eq!(reason(&empty), Reason::NoSymbol { library, symbol });
    }

    #[test]
    fn each_missing_symbol_is_found_before_anything_is_called() {
        for symbol in ["cuGetErrorString", "cuLaunchKernel", "cuModuleLoadDataEx"] {
            let folder = tempfile::tempdir().unwrap();
            let path = library(folder.path(), &[symbol], 0, 12080, 1);
            let symbol = symbol.to_string();
            let Reason::NoSymbol {
                symbol: missing, ..
            } = reason(&path)
            else {
                panic!("{symbol} was not missed");
            };
            assert_eq!(missing, symbol);
        }
    }

    #[test]
    fn an_old_driver_a_stub_no_device_and_a_failed_start_are_told_apart() {
        let of = |init, version, devices| {
            let folder = tempfile::tempdir().unwrap();
            reason(&library(folder.path(), &[], init, version, devices))
        };
        match of(0, 11080, 1) {
            Reason::TooOld { found, needed, .. } => {
                assert_eq!((found.to_string(), needed), ("11.8".into(), OLDEST_DRIVER));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(of(34, 12080, 1), Reason::Stub { .. }));
        assert!(matches!(of(100, 12080, 0), Reason::NoDevice { .. }));
        assert!(matches!(of(0, 12080, 0), Reason::NoDevice { .. }));
        for code in [3, 101, 802, 803, 804, 999, 7] {
            assert!(matches!(of(code, 12080, 1), Reason::Init { code: said, .. } if said == code));
        }
    }
}
