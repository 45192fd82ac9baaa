//! What this machine has of CUDA, and where each kernel's code would come from: what `weir doctor` prints.

use super::cache::Cache;
use super::module::{fits, key};
use super::nvrtc::{Missing, Nvrtc};
use super::probe::{self, Device, Version};
use super::sources::{Architecture, SOURCES, Source};
use super::unavailable::Unavailable;
use std::fmt;
use std::path::PathBuf;

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The driver and its devices, or why none can be used.
    pub driver: Result<Driver, Unavailable>,
    /// NVRTC, or why it is not there.
    pub nvrtc: Result<Compiler, Missing>,
    /// The folder of compiled code; `None` where there is none.
    pub cache: Option<Stored>,
    /// Where each kernel source's code would come from, for each device.
    pub code: Vec<Origin>,
}

/// The driver.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Its library.
    pub library: PathBuf,
    /// The newest CUDA version that it takes.
    pub version: Version,
    /// Its devices, by number; an error where one could not be asked.
    pub devices: Vec<Result<Device, Unavailable>>,
}

/// NVRTC.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Its library.
    pub library: PathBuf,
    /// Its builtins beside it; without them the loader must find them.
    pub builtins: Option<PathBuf>,
    /// As 12.4.
    pub version: Version,
}

/// The folder of compiled code.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The folder; it need not be there yet.
    pub folder: PathBuf,
    /// Images in it.
    pub images: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Where the code of a source comes from on a device.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The device.
    pub device: usize,
    /// The source.
    pub source: &'static str,
    /// The image.
    pub image: Image,
}

/// An image of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Compiled code from the folder.
    Cached,
    /// NVRTC compiles it at the first launch.
    Compiled(Architecture),
    /// The driver compiles the program's PTX of this target at the first launch.
    Ptx(&'static str),
    /// There is none, and why.
    None(Vec<String>),
}

impl Report {
    /// Looks at this machine. Opens no device.
    pub fn new() -> Report {
        let driver = probe::driver().map(|driver| Driver {
            devices: (0..driver.devices)
                .map(|number| driver.device(number))
                .collect(),
            version: driver.version,
            library: driver.library,
        });
        let version = driver.as_ref().ok().map(|driver| driver.version);
        let nvrtc = Nvrtc::find(version);
        let cache = Cache::find();
        let devices = driver.as_ref().map_or(&[][..], |driver| &driver.devices);
        let code = devices
            .iter()
            .flatten()
            .flat_map(|device| {
                SOURCES.iter().map(|source| Origin {
                    device: device.ordinal,
                    source: source.name,
                    image: image(source, device, nvrtc.as_ref(), cache.as_ref()),
                })
            })
            .collect();
        Report {
            code,
            nvrtc: nvrtc.map(|nvrtc| Compiler {
                library: nvrtc.path().to_path_buf(),
                builtins: nvrtc.builtins().map(PathBuf::from),
                version: nvrtc.version(),
            }),
            cache: cache.map(|cache| stored(&cache)),
            driver,
        }
    }
}

impl Default for Report {
    fn default() -> Report {
        Report::new()
    }
}

fn image(
    source: &Source,
    device: &Device,
    nvrtc: Result<&Nvrtc, &Missing>,
    cache: Option<&Cache>,
) -> Image {
    let architecture = Architecture::of(device.capability);
    if let Err(why) = fits(source, architecture) {
        return Image::None(vec![why]);
    }
    match nvrtc {
        Ok(nvrtc) => {
            let key = key(source, architecture, nvrtc);
            match cache.map(|cache| cache.read(&key)) {
                Some(Ok(_)) => Image::Cached,
                _ => Image::Compiled(architecture),
            }
        }
        Err(missing) => match source.ptx_for(architecture) {
            Ok(ptx) => Image::Ptx(ptx.target),
            Err(why) => Image::None(vec![missing.to_string(), why]),
        },
    }
}

fn stored(cache: &Cache) -> Stored {
    let sizes: Vec<u64> = std::fs::read_dir(cache.folder())
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let image = entry.path().extension()? == "cubin";
            image.then(|| entry.metadata().ok().map(|file| file.len()))?
        })
        .collect();
    Stored {
        folder: cache.folder().to_path_buf(),
        images: sizes.len(),
        bytes: sizes.iter().sum(),
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Cached => f.write_str("compiled code from the folder"),
            Image::Compiled(architecture) => {
                write!(f, "NVRTC, for {architecture}, at the first launch")
            }
            Image::Ptx(target) => {
                write!(
                    f,
                    "PTX for {target} in the program, by the driver, at the first launch"
                )
            }
            Image::None(why) => write!(f, "none: {}", why.join("; ")),
        }
    }
}

impl fmt::Display for Report {
    /// A line a finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match &self.driver {
            Err(why) => writeln!(f, "CUDA: not used: {why}")?,
            Ok(driver) => {
                writeln!(
                    f,
                    "CUDA driver: {}, for CUDA {}",
                    driver.library.display(),
                    driver.version
                )?;
                for (number, device) in driver.devices.iter().enumerate() {
                    match device {
                        Err(why) => writeln!(f, "cuda:{number}: {why}")?,
                        Ok(device) => writeln!(
                            f,
                            "cuda:{number}: {}, {}, {} multiprocessors, {} MiB of memory, {} MiB of L2",
                            device.name,
                            Architecture::of(device.capability),
                            device.multiprocessors,
                            device.memory / MIB,
                            device.l2 / MIB
                        )?,
                    }
                }
            }
        }
        match &self.nvrtc {
            Err(why) => writeln!(f, "NVRTC: {why}")?,
            Ok(nvrtc) => {
                write!(f, "NVRTC: {} {}", nvrtc.library.display(), nvrtc.version)?;
                match &nvrtc.builtins {
                    Some(builtins) => writeln!(f, ", builtins {}", builtins.display())?,
                    None => writeln!(f, ", no builtins beside it")?,
                }
            }
        }
        match &self.cache {
            None => writeln!(f, "compiled kernels: not kept (WEIR_CACHE is empty)")?,
            Some(stored) => writeln!(
                f,
                "compiled kernels: {}, {} images, {} KiB",
                stored.folder.display(),
                stored.images,
                stored.bytes.div_ceil(1024)
            )?,
        }
        for origin in &self.code {
            writeln!(
                f,
                "kernel {} on cuda:{}: {}",
                origin.source, origin.device, origin.image
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_can_be_made_on_any_machine_and_says_why_what_is_missing_is() {
        let report = Report::new();
        let text = report.to_string();
        assert!(text.contains("CUDA") && text.contains("NVRTC"), "{text}");
        if report.driver.is_err() {
            assert!(text.starts_with("CUDA: not used: "), "{text}");
            assert!(report.code.is_empty());
        }
    }
}
