//! The device: everything of CUDA that is not a kernel's own launcher.
//!
//! | module | idea |
//! |---|---|
//! | [`probe`] | is there a driver that works? a typed reason where not; never a panic |
//! | [`report`] | what of it this machine has, for `weir doctor` |
//! | [`nvrtc`], [`cache`], [`sources`], [`module`] | from a CUDA source to code on the device |
//! | [`stream`], [`buffer`], [`launch`], [`work`] | order, memory, kernels, and a call with its arguments and results |
//! | [`trace`] | what a stream ran and when |
//!
//! A stream is the device's [`Kernels`](crate::kernels::Kernels): what is called on it runs in its order. A launcher is some
//! lines: place the arguments, launch, bring the results back.
//!
//! ```no_run
//! use weir_kernels::bags::Bags;
//! use weir_kernels::cuda::{Gpu, launch::Grid, stream::Stream};
//! use weir_kernels::error::KernelError;
//! use weir_kernels::view::{View, ViewMut};
//!
//! /// cuda/squares.cu: `extern "C" __global__ void weir_squares(const float* a, float* out, float* sums, unsigned n)`
//! fn squares(stream: &Stream, bags: &Bags, a: View<'_, 1>, out: ViewMut<'_, 1>) -> Result<(), KernelError> {
//!     let mut work = stream.begin("squares", bags.describe())?;
//!     let kernel = work.function("squares", "weir_squares")?;   // loaded once, then found
//!     let a = work.input("a", a)?;                              // a host's is carried over, a device's is used there
//!     let out = work.output("out", out)?;
//!     let sums = work.zeroed::<f32>(bags.len())?;               // scratch memory of the stream
//!     let rows = bags.total() as u32;
//!     let grid = Grid::new(rows.div_ceil(256), 256).shared(1024);
//!     // SAFETY: a and out have `rows` elements, sums one a bag, and the kernel stays within them.
//!     unsafe { work.launch(&kernel, grid, &[a.into(), out.into(), sums.into(), rows.into()]) }?;
//!     work.finish()                                             // waits where something goes to the host
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = Gpu::open(0)?;                                      // Unavailable says why not, and what to do
//! let stream = gpu.stream()?;
//! let (a, mut out) = ([1.0f32; 1000], [0.0f32; 1000]);
//! squares(&stream, &Bags::one(1000)?, View::new(&a, [1000])?, ViewMut::new(&mut out, [1000])?)?;
//! # Ok(())
//! # }
//! ```
//!
//! Device memory of others goes in by [`buffer::Span::from_raw`] and their streams by [`Gpu::borrow_stream`]; the context is
//! the device's primary one, which CUDA's other users share. One stream waits for another by [`stream::Stream::wait_for`],
//! without the host.

mod arena;
pub mod buffer;
pub mod cache;
mod fault;
mod gated;
mod gated_backward;
mod gated_head;
mod keep;
mod kernels;
pub mod launch;
mod lists;
pub mod module;
pub mod nvrtc;
mod pool;
pub mod probe;
pub mod report;
mod ring;
mod search;
pub mod sources;
pub mod stream;
mod tiles;
mod top_k;
pub mod trace;
mod unavailable;
mod weights;
pub mod work;

pub use fault::CudaError;
pub(crate) use gated_head::PlacedHeads;
pub(crate) use lists::Identity;
pub use probe::Version;
pub use unavailable::{Reason, Unavailable};

use crate::view::Place;
use buffer::{Buffer, Number, bytes_of};
use cache::Cache;
use cudarc::driver::{result, sys};
use keep::Keep;
use launch::Function;
use module::{Images, Module};
use nvrtc::Nvrtc;
use probe::Device;
use sources::{Architecture, Source};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock};
use stream::Stream;

/// An opened device. Cheap to clone; clones are the same device with the same loaded kernels.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<Context>,
    images: Images,
    cache: Option<Cache>,
    separate_scratch: bool,
    nvrtc: OnceLock<Result<Nvrtc, nvrtc::Missing>>,
    loaded: Mutex<Loaded>,
    keep: Mutex<Option<Keep>>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<usize, Arc<Module>>,
    /// Sources of which there is no code for this device, and what was tried.
    without: HashMap<usize, CudaError>,
    functions: HashMap<(usize, &'static str), Function>,
}

/// The device's primary context, retained. Code on the device holds it too, so it is not the [`Gpu`], which holds the code.
pub(crate) struct Context {
    number: sys::CUdevice,
    raw: sys::CUcontext,
    device: Device,
    driver: Version,
}

// SAFETY: a context may be current in any thread, and in several at once.
unsafe impl Send for Context {}
// SAFETY: as above; nothing is changed after it is made.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `Context::of`, released once.
        let _ = unsafe { result::primary_ctx::release(self.number) };
    }
}

impl Context {
    fn of(ordinal: usize) -> Result<Context, Unavailable> {
        let driver = probe::driver()?;
        let device = driver.device(ordinal)?;
        // From here on cudarc may be called: the driver is whole, new enough and started.
        let failed = |error| {
            let error = CudaError::driver("retain its primary context", error);
            let what = error.to_string();
            Unavailable::from(Reason::Context { ordinal, what })
        };
        let number = i32::try_from(ordinal)
            .map_err(|_| {
                Unavailable::from(Reason::NoSuchDevice {
                    ordinal,
                    count: driver.devices,
                })
            })
            .and_then(|ordinal| result::device::get(ordinal).map_err(failed))?;
        // SAFETY: the device is there; released by `drop`.
        let raw = unsafe { result::primary_ctx::retain(number) }.map_err(failed)?;
        Ok(Context {
            number,
            raw,
            device,
            driver: driver.version,
        })
    }

    /// Makes the context the calling thread's; what every call of the driver needs.
    pub(crate) fn bind(&self) -> Result<(), CudaError> {
        let failed = |error| CudaError::driver("make the device's context current", error);
        if result::ctx::get_current().map_err(failed)? == Some(self.raw) {
            return Ok(());
        }
        // SAFETY: the context is retained while `self` is.
        unsafe { result::ctx::set_current(self.raw) }.map_err(failed)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where kernels' code comes from.
    pub images: Images,
    /// The folder of compiled code; `None` for none.
    pub cache: Option<Cache>,
    /// Every piece of scratch memory is an allocation of its own, of its very size, so that a memory checker sees where it
    /// ends. Slow. The default asks WEIR_CHECK_MEMORY.
    pub separate_scratch: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            images: Images::Found,
            cache: Cache::find(),
            separate_scratch: std::env::var_os("WEIR_CHECK_MEMORY").is_some_and(|set| set == "1"),
        }
    }
}

impl Gpu {
    /// Device `ordinal`, or why it cannot be used.
    pub fn open(ordinal: usize) -> Result<Gpu, Unavailable> {
        Gpu::open_with(ordinal, Options::default())
    }

    /// As [`Gpu::open`], with the code's origin given.
    pub fn open_with(ordinal: usize, options: Options) -> Result<Gpu, Unavailable> {
        Ok(Gpu {
            shared: Arc::new(Shared {
                context: Arc::new(Context::of(ordinal)?),
                images: options.images,
                cache: options.cache,
                separate_scratch: options.separate_scratch,
                nvrtc: OnceLock::new(),
                loaded: Mutex::default(),
                keep: Mutex::default(),
            }),
        })
    }

    /// What is known of the device.
    pub fn device(&self) -> &Device {
        self.shared.context.device()
    }

    /// The newest CUDA version that the driver takes.
    pub fn driver(&self) -> Version {
        self.shared.context.driver
    }

    /// What code is made for.
    pub fn architecture(&self) -> Architecture {
        Architecture::of(self.device().capability)
    }

    /// Where its memory lies.
    pub fn place(&self) -> Place {
        Place::Cuda(u32::try_from(self.device().ordinal).unwrap_or(u32::MAX))
    }

    /// Makes the device's context the calling thread's, for a call of another library; calls of this module do it
    /// themselves.
    pub fn bind(&self) -> Result<(), CudaError> {
        self.shared.context.bind()
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.shared.context
    }

    /// NVRTC, looked for once, where something has to be compiled.
    pub(crate) fn nvrtc(&self) -> Result<&Nvrtc, &nvrtc::Missing> {
        self.shared
            .nvrtc
            .get_or_init(|| Nvrtc::find(Some(self.driver())))
            .as_ref()
    }

    pub(crate) fn separate_scratch(&self) -> bool {
        self.shared.separate_scratch
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.shared.cache.as_ref()
    }

    /// A new stream, not ordered with any other, nor with the null stream.
    pub fn stream(&self) -> Result<Stream, CudaError> {
        Stream::new(self)
    }

    /// Another library's stream (`CUstream`; null is the null stream). It is not destroyed here.
    ///
    /// # Safety
    /// The stream is of this device's primary context and stays until the last clone of the returned one is gone.
    pub unsafe fn borrow_stream(&self, raw: *mut c_void) -> Stream {
        Stream::of(self, raw.cast(), false)
    }

    /// Device memory for `len` elements, of undefined content.
    pub fn allocate<T: Number>(&self, len: usize) -> Result<Buffer<T>, CudaError> {
        Buffer::new(self, len)
    }

    /// Device memory with these values, there for every stream when this returns: for what is used again, as weights. All go
    /// one after the other through one stream and one ring of pinned memory that the device keeps.
    pub fn keep<T: Number>(&self, values: &[T]) -> Result<Buffer<T>, CudaError> {
        let buffer = self.allocate(values.len())?;
        // A panic leaves the ring consistent: it is changed last.
        let keep = self.shared.keep.lock();
        let mut keep = keep.unwrap_or_else(|poisoned| poisoned.into_inner());
        let keep = match &mut *keep {
            Some(keep) => keep,
            none => none.insert(Keep::new(self)?),
        };
        keep.carry(self, bytes_of(values), buffer.span().address())?;
        Ok(buffer)
    }

    /// Free and all device memory, bytes.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.bind()?;
        result::mem_get_info().map_err(|error| CudaError::driver("ask for its free memory", error))
    }

    /// The kernels that were loaded so far, by name.
    pub fn functions(&self) -> Vec<Function> {
        let loaded = self
            .shared
            .loaded
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut functions: Vec<Function> = loaded.functions.values().cloned().collect();
        functions.sort_by_key(Function::name);
        functions
    }

    /// Kernel `name` of `cuda/SOURCE.cu`; the source is loaded the first time.
    pub fn function(
        &self,
        source: &'static str,
        name: &'static str,
    ) -> Result<Function, CudaError> {
        let found = sources::source(source).ok_or_else(|| CudaError::NoSource {
            source: source.to_string(),
        })?;
        self.function_of(found, name)
    }

    /// Kernel `name` of a source that need not be this crate's.
    pub fn function_of(
        &self,
        source: &'static Source,
        name: &'static str,
    ) -> Result<Function, CudaError> {
        // Held while loading, so that two threads do not compile it twice. A panic leaves both maps whole.
        let mut loaded = self
            .shared
            .loaded
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // Sources are told apart by where their text lies: two may have one name.
        let key = source.text.as_ptr().addr();
        if let Some(function) = loaded.functions.get(&(key, name)) {
            return Ok(function.clone());
        }
        if let Some(none) = loaded.without.get(&key) {
            return Err(none.clone());
        }
        let module = match loaded.modules.get(&key) {
            Some(module) => module.clone(),
            None => match Module::load(self, source, &self.shared.images) {
                Ok(module) => {
                    let module = Arc::new(module);
                    loaded.modules.insert(key, module.clone());
                    module
                }
                Err(error) => {
                    // Whoever has another way asks again with each call: no reason to compile it each time.
                    if matches!(error, CudaError::NoImage { .. }) {
                        loaded.without.insert(key, error.clone());
                    }
                    return Err(error);
                }
            },
        };
        let function = Function::load(module, name)?;
        loaded.functions.insert((key, name), function.clone());
        Ok(function)
    }
}
