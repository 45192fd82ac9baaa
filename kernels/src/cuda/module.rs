//! Code on the device: which image of a source is loaded, and what it holds.
//!
//! In order: a CUBIN for the device's very architecture from the folder of compiled code, one that NVRTC makes now (and
//! that goes into the folder), and the PTX in the program, which the driver compiles. What the driver refuses is
//! remembered and the next is tried, since a newer NVRTC may make what an older driver does not take.

use super::cache::Cache;
use super::fault::CudaError;
use super::nvrtc::Nvrtc;
use super::sources::{Architecture, OPTIONS, Source};
use super::{Context, Gpu};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Where the code of a source comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Images {
    /// Compiled code on disk, else NVRTC, else the PTX in the program.
    #[default]
    Found,
    /// The PTX in the program alone.
    Ptx,
    /// These bytes, for every source: for a driver that has the kernels in itself, as the emulator's.
    Fixed(Vec<u8>),
}

/// An image, and where it came from.
struct Image {
    /// Ended by 0 where it is PTX.
    bytes: Vec<u8>,
    from: String,
    /// The kernels' parameters, where PTX says them.
    parameters: Parameters,
}

/// Kernels, with the sizes of their parameters in bytes.
type Parameters = HashMap<String, Vec<usize>>;

/// A way to an image of a source for a device.
type Way = fn(&Gpu, &Source) -> Result<Image, String>;

/// A source's code, loaded.
pub(crate) struct Module {
    raw: sys::CUmodule,
    image: String,
    context: Arc<Context>,
    parameters: Parameters,
}

// SAFETY: the driver's modules may be used from any thread whose current context is theirs.
unsafe impl Send for Module {}
// SAFETY: as above; nothing is changed after it is made.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: made by `load`, unloaded once; its functions hold the module, so none is left.
            let _ = unsafe { cudarc::driver::result::module::unload(self.raw) };
        }
    }
}

impl Module {
    pub(crate) fn load(gpu: &Gpu, source: &Source, images: &Images) -> Result<Module, CudaError> {
        gpu.bind()?;
        let device = gpu.architecture();
        let no_image = |tried: Vec<String>| CudaError::NoImage {
            source: source.name.to_string(),
            architecture: device.to_string(),
            tried,
        };
        if let Err(why) = fits(source, device)
            && !matches!(images, Images::Fixed(_))
        {
            return Err(no_image(vec![why]));
        }
        let mut tried = Vec::new();
        let ways: &[Way] = match images {
            Images::Found => &[cached, compiled, carried],
            Images::Ptx => &[carried],
            Images::Fixed(_) => &[],
        };
        if let Images::Fixed(bytes) = images {
            let image = Image {
                bytes: bytes.clone(),
                from: "fixed".to_string(),
                parameters: match parameters(&String::from_utf8_lossy(bytes)) {
                    none if none.is_empty() => carried_parameters(source),
                    said => said,
                },
            };
            return Module::of(gpu, image).map_err(|why| no_image(vec![why]));
        }
        for way in ways {
            match way(gpu, source).and_then(|image| Module::of(gpu, image)) {
                Ok(module) => return Ok(module),
                Err(why) => tried.push(why),
            }
        }
        Err(no_image(tried))
    }

    fn of(gpu: &Gpu, image: Image) -> Result<Module, String> {
        let raw = load(&image.bytes).map_err(|why| format!("{}: {why}", image.from))?;
        Ok(Module {
            raw,
            image: image.from,
            context: gpu.context().clone(),
            parameters: image.parameters,
        })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// The sizes of a kernel's parameters, bytes, where the PTX in the program says them.
    pub(crate) fn parameters(&self, kernel: &str) -> Option<&[usize]> {
        self.parameters.get(kernel).map(Vec::as_slice)
    }

    pub(crate) fn function(&self, name: &str) -> Result<sys::CUfunction, CudaError> {
        self.context.bind()?;
        let symbol = CString::new(name).map_err(|_| CudaError::Launch {
            kernel: name.to_string(),
            what: "its name has a zero in it".to_string(),
        })?;
        // SAFETY: the module is loaded.
        unsafe { cudarc::driver::result::module::get_function(self.raw, symbol) }.map_err(|error| {
            CudaError::driver(format!("find kernel `{name}` in {}", self.image), error)
        })
    }
}

/// Whether a source has code for a device at all.
pub(crate) fn fits(source: &Source, device: Architecture) -> Result<(), String> {
    let needs = source.needs();
    if needs.runs_on(device) {
        Ok(())
    } else if needs.specific {
        Err(format!("it is made for {needs} alone"))
    } else {
        Err(format!("it needs {needs} or later"))
    }
}

fn cached(gpu: &Gpu, source: &Source) -> Result<Image, String> {
    let nvrtc = gpu.nvrtc().map_err(|why| why.to_string())?;
    let cache = gpu.cache().ok_or("no folder for compiled code")?;
    let key = key(source, gpu.architecture(), nvrtc);
    let bytes = cache.read(&key)?;
    Ok(Image {
        bytes,
        from: format!(
            "CUBIN for {} by NVRTC {}, from {}",
            gpu.architecture(),
            nvrtc.version(),
            cache.folder().display()
        ),
        parameters: carried_parameters(source),
    })
}

fn compiled(gpu: &Gpu, source: &Source) -> Result<Image, String> {
    let nvrtc = gpu.nvrtc().map_err(|why| why.to_string())?;
    let device = gpu.architecture();
    let code = nvrtc
        .compile(source, device)
        .map_err(|error| error.to_string())?;
    if let Some(cache) = gpu.cache() {
        // A folder that cannot be written costs the compiling each time, nothing else.
        let _ = cache.write(&key(source, device, nvrtc), &code.cubin);
    }
    Ok(Image {
        parameters: parameters(&code.ptx),
        bytes: code.cubin,
        from: format!("CUBIN for {device} by NVRTC {}", nvrtc.version()),
    })
}

fn carried(gpu: &Gpu, source: &Source) -> Result<Image, String> {
    let ptx = source.ptx_for(gpu.architecture())?;
    let mut bytes = ptx.text.as_bytes().to_vec();
    bytes.push(0);
    Ok(Image {
        bytes,
        parameters: parameters(ptx.text),
        from: format!("PTX for {} in the program", ptx.target),
    })
}

/// What the PTX in the program says of the kernels' parameters, where it is of this version of the source.
fn carried_parameters(source: &Source) -> Parameters {
    let hash = source.hash();
    let fresh = source
        .ptx
        .iter()
        .find(|ptx| ptx.made_of() == Some(hash.as_str()));
    fresh.map(|ptx| parameters(ptx.text)).unwrap_or_default()
}

/// The key of compiled code: everything that makes it what it is.
pub(crate) fn key(source: &Source, device: Architecture, nvrtc: &Nvrtc) -> String {
    Cache::key(&[
        source.name,
        &source.hash(),
        &device.to_string(),
        &OPTIONS.join(" "),
        &nvrtc.version().to_string(),
        nvrtc.build(),
    ])
}

/// Loads an image, with the driver's own account of what is wrong with it.
fn load(image: &[u8]) -> Result<sys::CUmodule, String> {
    use sys::CUjit_option_enum as Jit;
    const LOG: usize = 8192;
    let mut log = vec![0u8; LOG];
    let mut options = [
        Jit::CU_JIT_ERROR_LOG_BUFFER,
        Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values: [*mut c_void; 2] = [
        log.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(LOG),
    ];
    let mut module = std::ptr::null_mut();
    // SAFETY: the image is PTX ended by 0 or a CUBIN, whose header says its size; the log has as many bytes as is said.
    let answer = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    answer.result().map(|()| module).map_err(|error| {
        let said = CudaError::driver("load it", error).to_string();
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(LOG);
        let log = String::from_utf8_lossy(&log[..end]);
        match log.trim() {
            "" => said,
            log => format!("{said} ({})", log.replace('\n', ", ")),
        }
    })
}

/// The kernels of a PTX text, with the sizes of their parameters in bytes.
pub(crate) fn parameters(ptx: &str) -> Parameters {
    let mut found = HashMap::new();
    for entry in ptx.split(".entry ").skip(1) {
        let Some((name, rest)) = entry.split_once('(') else {
            continue;
        };
        let list = rest.split(')').next().unwrap_or("");
        let sizes = list.split(',').filter_map(parameter).collect();
        found.insert(name.trim().to_string(), sizes);
    }
    found
}

/// The size of `.param .u64 name` or `.param .align 4 .b8 name[32]`.
fn parameter(text: &str) -> Option<usize> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == ".param")?;
    let kind = words[at + 1..].iter().find(|word| {
        word.strip_prefix('.').is_some_and(|kind| {
            kind.strip_prefix(['u', 's', 'f', 'b'])
                .is_some_and(|bits| bits.parse::<usize>().is_ok())
        })
    })?;
    let bytes = kind[2..].parse::<usize>().ok()? / 8;
    let many = words
        .last()
        .and_then(|name| name.strip_suffix(']'))
        .and_then(|name| name.rsplit('[').next())
        .and_then(|count| count.parse::<usize>().ok())
        .unwrap_or(1);
    Some(bytes * many)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sizes_of_a_kernels_parameters_are_read_from_its_ptx() {
        let ptx = "
.visible .entry weir_pool(
\t.param .u64 .ptr .align 1 weir_pool_param_0,
\t.param .u32 weir_pool_param_1,
\t.param .f32 weir_pool_param_2,
\t.param .align 4 .b8 weir_pool_param_3[24]
)
.maxntid 256, 1, 1
{ ret; }
.visible .entry weir_empty()
{ ret; }";
        let found = parameters(ptx);
        assert_eq!(found["weir_pool"], [8, 4, 4, 24]);
        assert!(found["weir_empty"].is_empty());
    }
}
