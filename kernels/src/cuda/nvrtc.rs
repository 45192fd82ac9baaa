//! NVIDIA's run-time compiler, found and loaded where it is installed; it needs no device.
//!
//! Its own wrapper in cudarc panics where the library is missing, knows the names of one CUDA version, and gives PTX only.
//! This one is a dozen functions. The library opens a second one, its builtins, by name alone, and finds it only in the
//! loader's folders; so that one is opened first, by its full path, for all the program to see.

use super::probe::{Version, origin};
use super::search::{NAMES, builtins, look};
use super::sources::{Architecture, OPTIONS, Source};
use libloading::Library;
use libloading::os::unix::{Library as Unix, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};

/// NVRTC, loaded.
pub struct Nvrtc {
    /// The library's file.
    path: PathBuf,
    /// The builtins' file, where it was found beside the library.
    builtins: Option<PathBuf>,
    version: Version,
    build: String,
    functions: Functions,
    // Behind the functions, so that it outlives them; the builtins stay for the process.
    _library: Library,
}

/// NVRTC is not there, or does not load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The files that were looked for, or the one that did not load.
    pub tried: Vec<PathBuf>,
    /// What was wrong with the file, where there was one.
    pub what: Option<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.what, self.tried.first()) {
            (Some(what), Some(path)) => {
                write!(f, "NVRTC did not load: {}: {what}", path.display())?;
            }
            _ => f.write_str("NVRTC was not found")?,
        }
        f.write_str(
            "; install it (PyPI `nvidia-cuda-nvrtc-cu12`) and set WEIR_NVRTC to libnvrtc.so.12",
        )
    }
}

impl std::error::Error for Missing {}

/// A source did not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// The source's name.
    pub source: String,
    /// The architecture it was compiled for.
    pub architecture: Architecture,
    /// NVRTC's version.
    pub version: Version,
    /// What NVRTC answered, as `NVRTC_ERROR_COMPILATION`.
    pub error: String,
    /// The compiler's messages.
    pub log: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NVRTC {} did not compile `{}.cu` for {}: {}",
            self.version, self.source, self.architecture, self.error
        )?;
        if !self.log.trim().is_empty() {
            write!(f, "\n{}", self.log.trim())?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

/// What NVRTC made of a source.
pub struct Code {
    /// Code of the architecture, as the driver loads it.
    pub cubin: Vec<u8>,
    /// PTX, text.
    pub ptx: String,
    /// The compiler's messages.
    pub log: String,
}

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

struct Functions {
    create: Create,
    compile: Compile,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
    log_size: Size,
    log: Get,
    ptx_size: Size,
    ptx: Get,
    cubin_size: Size,
    cubin: Get,
}

impl Nvrtc {
    /// The library that WEIR_NVRTC names, else the first that loads of: beside the program, `.cuda` beside it and in the
    /// checkout that it was built in, CUDA_PATH and CUDA_HOME, the packages of the Python environment VIRTUAL_ENV, the
    /// toolkit's usual folders, and the loader's.
    ///
    /// One of a later major version than the driver's is taken only where there is no other: the driver may not take its
    /// code.
    pub fn find(driver: Option<Version>) -> Result<Nvrtc, Missing> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(path) = variable("WEIR_NVRTC") {
            return Nvrtc::load(&path);
        }
        let program = std::env::current_exe().ok();
        let found = look(program.as_deref(), variable);
        let of_loader = NAMES.iter().filter_map(|name| {
            // SAFETY: NVIDIA's library of that name, in the folders that the loader trusts; only its constructors run.
            let library = unsafe { Library::new(*name) }.ok()?;
            origin(&library, "nvrtcVersion")
        });
        let (mut later, mut broken) = (None, None);
        for path in found.files.into_iter().chain(of_loader) {
            match Nvrtc::load(&path) {
                Ok(nvrtc) if driver.is_none_or(|driver| nvrtc.version.major <= driver.major) => {
                    return Ok(nvrtc);
                }
                Ok(nvrtc) => later = later.or(Some(nvrtc)),
                Err(missing) => broken = broken.or(Some(missing)),
            }
        }
        later.ok_or_else(|| {
            broken.unwrap_or(Missing {
                tried: found.tried,
                what: None,
            })
        })
    }

    /// The library at that path.
    pub fn load(path: &Path) -> Result<Nvrtc, Missing> {
        let missing = |what: String| Missing {
            tried: vec![path.to_path_buf()],
            what: Some(what),
        };
        if !path.is_file() {
            return Err(missing("there is no such file".to_string()));
        }
        // A relative path without a slash would be looked for in the loader's folders.
        let path = std::path::absolute(path).map_err(|error| missing(error.to_string()))?;
        let builtins = builtins(&path);
        if let Some(builtins) = &builtins {
            // SAFETY: the file lies beside NVRTC and is part of it; it runs only its own constructors.
            let library = unsafe { Unix::open(Some(builtins), RTLD_NOW | RTLD_GLOBAL) }
                .map_err(|error| missing(format!("{}: {error}", builtins.display())))?;
            // It must stay as long as NVRTC may look for it.
            std::mem::forget(library);
        }
        // SAFETY: a file that the user or the installation names as NVRTC; it runs only its own constructors.
        let library = unsafe { Library::new(&path) }.map_err(|error| missing(error.to_string()))?;
        // SAFETY: each type is the one that nvrtc.h declares for the name, unchanged since CUDA 11.1.
        let functions = unsafe { Functions::of(&library) }
            .map_err(|error| missing(format!("it is no NVRTC: {error}")))?;
        let (mut major, mut minor) = (0, 0);
        type Number = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
        // SAFETY: nvrtcVersion(int*, int*) writes two ints.
        let code = unsafe {
            match library.get::<Number>(b"nvrtcVersion") {
                Ok(version) => version(&mut major, &mut minor),
                Err(error) => return Err(missing(format!("it is no NVRTC: {error}"))),
            }
        };
        if code != 0 {
            return Err(missing(format!("nvrtcVersion answered {code}")));
        }
        let version = Version {
            major: u32::try_from(major).unwrap_or(0),
            minor: u32::try_from(minor).unwrap_or(0),
        };
        Ok(Nvrtc {
            build: stamp(&path),
            builtins,
            path,
            version,
            functions,
            _library: library,
        })
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The builtins' file, where it lies beside the library.
    pub fn builtins(&self) -> Option<&Path> {
        self.builtins.as_deref()
    }

    /// As 12.4.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What tells builds of one version apart.
    pub fn build(&self) -> &str {
        &self.build
    }

    /// Compiles a source for an architecture: code for it, and PTX for it and later ones.
    pub fn compile(&self, source: &Source, for_: Architecture) -> Result<Code, CompileError> {
        let mut options = vec![format!("--gpu-architecture={for_}")];
        options.extend(OPTIONS.iter().map(|option| option.to_string()));
        let headers: Vec<(&str, &str)> = source
            .headers()
            .iter()
            .map(|header| (header.name, header.text))
            .collect();
        self.compile_text(source.name, source.text, &headers, &options, for_)
    }

    fn compile_text(
        &self,
        name: &str,
        text: &str,
        headers: &[(&str, &str)],
        options: &[String],
        architecture: Architecture,
    ) -> Result<Code, CompileError> {
        let failed = |error: String, log: String| CompileError {
            source: name.to_string(),
            architecture,
            version: self.version,
            error,
            log,
        };
        let string = |text: &str| {
            CString::new(text)
                .map_err(|_| failed("the text has a zero in it".to_string(), String::new()))
        };
        let (file, text) = (string(&format!("{name}.cu"))?, string(text)?);
        let strings = |texts: &mut dyn Iterator<Item = &str>| {
            texts.map(string).collect::<Result<Vec<CString>, _>>()
        };
        let names = strings(&mut headers.iter().map(|(name, _)| *name))?;
        let texts = strings(&mut headers.iter().map(|(_, text)| *text))?;
        let options = strings(&mut options.iter().map(String::as_str))?;
        let pointers =
            |strings: &[CString]| strings.iter().map(|one| one.as_ptr()).collect::<Vec<_>>();
        let (names, texts, options) = (pointers(&names), pointers(&texts), pointers(&options));
        let length = |list: &[*const c_char]| c_int::try_from(list.len()).unwrap_or(c_int::MAX);

        let mut program = Made {
            raw: std::ptr::null_mut(),
            functions: &self.functions,
        };
        // SAFETY: all strings end with 0 and outlive the call, which copies them; the counts are the lists'.
        let code = unsafe {
            (self.functions.create)(
                &mut program.raw,
                text.as_ptr(),
                file.as_ptr(),
                length(&names),
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        if code != 0 {
            return Err(failed(self.functions.name(code), String::new()));
        }
        // SAFETY: the program was made, the strings end with 0, the count is the list's.
        let code =
            unsafe { (self.functions.compile)(program.raw, length(&options), options.as_ptr()) };
        let functions = &self.functions;
        let log = program
            .get(functions.log_size, functions.log)
            .map(text_of)
            .unwrap_or_default();
        if code != 0 {
            return Err(failed(self.functions.name(code), log));
        }
        let got = |what: Result<Vec<u8>, c_int>| {
            what.map_err(|code| failed(self.functions.name(code), log.clone()))
        };
        let cubin = got(program.get(functions.cubin_size, functions.cubin))?;
        let ptx = text_of(got(program.get(functions.ptx_size, functions.ptx))?);
        if cubin.is_empty() {
            let why = "it made no code for that architecture".to_string();
            return Err(failed(why, log));
        }
        Ok(Code { cubin, ptx, log })
    }
}

/// A text that ends with 0.
fn text_of(mut bytes: Vec<u8>) -> String {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program of NVRTC, destroyed at the end.
struct Made<'a> {
    raw: Program,
    functions: &'a Functions,
}

impl Made<'_> {
    fn get(&self, size: Size, get: Get) -> Result<Vec<u8>, c_int> {
        let mut bytes = 0;
        // SAFETY: the program is alive; one size is written.
        match unsafe { size(self.raw, &mut bytes) } {
            0 => {}
            code => return Err(code),
        }
        let mut out = vec![0u8; bytes];
        // SAFETY: as many bytes are written as the library just said.
        match unsafe { get(self.raw, out.as_mut_ptr().cast()) } {
            0 => Ok(out),
            code => Err(code),
        }
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: made by create, destroyed once.
            unsafe { (self.functions.destroy)(&mut self.raw) };
        }
    }
}

impl Functions {
    /// # Safety
    /// The library is NVRTC.
    unsafe fn of(library: &Library) -> Result<Functions, libloading::Error> {
        // SAFETY: the caller says that these names have these types.
        unsafe {
            Ok(Functions {
                create: *library.get(b"nvrtcCreateProgram")?,
                compile: *library.get(b"nvrtcCompileProgram")?,
                destroy: *library.get(b"nvrtcDestroyProgram")?,
                error: *library.get(b"nvrtcGetErrorString")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize")?,
                log: *library.get(b"nvrtcGetProgramLog")?,
                ptx_size: *library.get(b"nvrtcGetPTXSize")?,
                ptx: *library.get(b"nvrtcGetPTX")?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize")?,
                cubin: *library.get(b"nvrtcGetCUBIN")?,
            })
        }
    }

    fn name(&self, code: c_int) -> String {
        // SAFETY: nvrtcGetErrorString gives a constant text, or null.
        let text = unsafe { (self.error)(code) };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: not null, constant, ended by 0.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }
}

/// The size of the file, which differs between builds of one version.
fn stamp(path: &Path) -> String {
    let Ok(file) = std::fs::metadata(path) else {
        return String::new();
    };
    file.len().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_is_no_nvrtc_is_an_error_that_names_it_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnvrtc.so.12");
        let absent = Nvrtc::load(&path).err().unwrap();
        assert!(absent.to_string().contains("there is no such file"));
        std::fs::write(&path, "not a library").unwrap();
        let broken = Nvrtc::load(&path).err().unwrap();
        assert_eq!(broken.tried, std::slice::from_ref(&path));
        assert!(broken.to_string().contains("WEIR_NVRTC"), "{broken}");

        let source = folder.path().join("other.c");
        std::fs::write(&source, "int other(void) { return 1; }").unwrap();
        let made = std::process::Command::new("gcc")
            .args(["-shared", "-o"])
            .args([&path, &source])
            .status()
            .unwrap();
        assert!(made.success());
        let other = Nvrtc::load(&path).err().unwrap();
        assert!(other.to_string().contains("it is no NVRTC"), "{other}");
    }
}
