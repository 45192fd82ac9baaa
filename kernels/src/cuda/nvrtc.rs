//! NVIDIA's run-time compiler, found and loaded where it is installed; it needs no device.
//!
//! Its own wrapper in cudarc panics where the library is missing, knows the names of one CUDA version, and gives PTX only.
//! This one is a dozen functions. The library opens a second one, its builtins, by name alone, and finds it only in the
//! loader's folders; so that one is opened first, by its full path, for all the program to see.

use super::probe::{Version, origin};
use super::sources::{Architecture, OPTIONS, Source};
use libloading::Library;
use libloading::os::unix::{Library as Unix, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};

/// The library's names, by CUDA version, the newest first.
const NAMES: [&str; 5] = [
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so.11.1",
    "libnvrtc.so",
];

/// The folders of a pip environment's packages that hold it.
const WHEELS: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// The folder in a checkout into which `make kernels` unpacks it.
const UNPACKED: &str = ".cuda";

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
    /// The library that WEIR_NVRTC names, else the first that loads of: beside the program, `.cuda` in the checkout that
    /// it was built in, CUDA_PATH and CUDA_HOME, the packages of the Python environment VIRTUAL_ENV, and the loader's
    /// folders.
    pub fn find() -> Result<Nvrtc, Missing> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(path) = variable("WEIR_NVRTC") {
            return Nvrtc::load(&path);
        }
        let program = std::env::current_exe().ok();
        let (files, tried) = look(program.as_deref(), variable);
        let mut first = None;
        for path in files {
            match Nvrtc::load(&path) {
                Ok(nvrtc) => return Ok(nvrtc),
                Err(missing) => first = first.or(Some(missing)),
            }
        }
        for name in NAMES {
            // SAFETY: NVIDIA's library of that name, in the folders that the loader trusts; only its constructors run.
            if let Ok(library) = unsafe { Library::new(name) }
                && let Some(path) = origin(&library, "nvrtcVersion")
            {
                return Nvrtc::load(&path);
            }
        }
        Err(first.unwrap_or(Missing { tried, what: None }))
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

/// The builtins beside a library: `libnvrtc-builtins.so.12.4` of `libnvrtc.so.12`.
fn builtins(library: &Path) -> Option<PathBuf> {
    // The library's own folder first, then that of what a link leads to.
    let folders = [
        library.parent().map(Path::to_path_buf),
        library
            .canonicalize()
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf)),
    ];
    folders.into_iter().flatten().find_map(|folder| {
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with("libnvrtc-builtins.so."))
            })
            .collect();
        // Several versions may lie in one folder: the one of the library's major version.
        let major = library
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("libnvrtc.so."))
            .and_then(|version| version.split('.').next())
            .map(|major| format!("libnvrtc-builtins.so.{major}."));
        found.sort();
        let of_major = |path: &&PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy());
            match (&major, name) {
                (Some(major), Some(name)) => name.starts_with(major.as_str()),
                _ => true,
            }
        };
        found.iter().rev().find(of_major).cloned()
    })
}

/// The size and time of the file, which differ between builds of one version.
fn stamp(path: &Path) -> String {
    let Ok(file) = std::fs::metadata(path) else {
        return String::new();
    };
    file.len().to_string()
}

/// The files to load, those that are there, and all that were looked for.
fn look(
    program: Option<&Path>,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut folders = Vec::new();
    if let Some(program) = program {
        // Beside the program, and in the checkout that it was built in (target/release/weir, target/release/deps/test):
        // never in a folder that is only above it or worked in, where anybody may have put a library.
        let built_in = |folder: &&Path| folder.join("Cargo.lock").is_file();
        let above = || program.ancestors().skip(1);
        folders.extend(above().next().map(Path::to_path_buf));
        let of_program = above()
            .next()
            .into_iter()
            .chain(above().take(4).find(built_in));
        for folder in of_program {
            folders.push(folder.join(UNPACKED).join("13"));
            folders.push(folder.join(UNPACKED).join("12"));
        }
    }
    for name in ["CUDA_PATH", "CUDA_HOME"] {
        if let Some(folder) = variable(name) {
            folders
                .extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|lib| folder.join(lib)));
        }
    }
    if let Some(environment) = variable("VIRTUAL_ENV") {
        // lib/python3.11/site-packages
        let mut pythons: Vec<PathBuf> = std::fs::read_dir(environment.join("lib"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("site-packages")))
            .filter(|path| path.is_dir())
            .collect();
        pythons.sort();
        for packages in pythons {
            folders.extend(WHEELS.map(|wheel| packages.join(wheel)));
        }
    }
    for folder in ["/usr/local/cuda/lib64", "/opt/cuda/lib64"] {
        folders.push(PathBuf::from(folder));
    }
    let tried: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .collect();
    let files = tried
        .iter()
        .filter(|path| path.is_file())
        .cloned()
        .collect();
    (files, tried)
}
