//! A model that ONNX Runtime has taken: opened from its file, run by as many threads as call.
//!
//! One session serves all of them. `OrtSession` may be run by several threads at once (onnxruntime_c_api.h, `Run`), and a pass of a
//! session with one intra-op thread is computed by the thread that calls, so passes neither share sums nor wait for each other, and
//! the weights lie in memory once however many threads there are. `ort`'s own `run` takes the session for itself alone, because
//! not every execution provider keeps that promise; of the two that are used here the processor's does, and on a CUDA device, where
//! passes stand in one queue anyway, [`crate::model`] lets calls take turns.

use crate::arena::{self, Held};
use crate::form::Numbers;
use crate::runtime::{self, Library};
use crate::signature::Signature;
use half::f16;
use ort::AsPointer;
use ort::ep::{self, ExecutionProvider as _};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::sys::ONNXTensorElementDataType as Type;
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use weir_plugin::{Error, Result};

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the processor.
    Cpu,
    /// On the CUDA device of this number.
    Cuda(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A model that was taken.
pub struct Session {
    library: &'static Library,
    inner: ort::session::Session,
    /// Of the numbers that go in.
    memory: MemoryInfo<'static>,
}

/// What a pass gave.
pub struct Given {
    /// Shape of the output, with the batch.
    pub shape: Vec<u64>,
    /// Its numbers, row-major.
    pub numbers: Vec<f32>,
}

/// What to do where `memory` is too little.
pub const MORE: &str =
    "give the stage more `memory`, and `run.memory` as much, or take a smaller `batch` or `size`";

/// As `12.5 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The ONNX file that a path means: itself, or the one in the folder, which then holds the weights as well. Of a folder the whole is
/// part of the plan; of a file, what lies beside it is not.
fn file_of(model: &Path) -> Result<PathBuf> {
    if !model.is_dir() {
        return Ok(model.to_owned());
    }
    let unreadable = |error: std::io::Error| {
        Error::param(
            "model",
            format!("{} cannot be read: {error}", model.display()),
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(model).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "onnx") {
            files.push(path);
        }
    }
    match &files[..] {
        [one] => Ok(one.clone()),
        several => Err(Error::param(
            "model",
            format!(
                "the folder {} holds {} files that end in .onnx",
                model.display(),
                several.len()
            ),
        )
        .help("name the file itself, or a folder with one of them and its weights")),
    }
}

impl Session {
    /// Opens the model: one thread a pass, deterministic kernels, no TF32; in the processor's memory it takes `memory` bytes at most.
    ///
    /// # Errors
    /// Without ONNX Runtime; of `device`, where the runtime cannot run it there; of `model`, where it does not take the file; of
    /// `memory`, where the file's weights have no room in it.
    pub fn open(model: &Path, place: Place, memory: u64) -> Result<Session> {
        let model = &file_of(model)?;
        let bytes = std::fs::metadata(model).map_or(0, |file| file.len());
        if bytes > memory {
            return Err(Error::param(
                "memory",
                format!(
                    "{} has {}, and {} are less",
                    model.display(),
                    mebibytes(bytes),
                    mebibytes(memory)
                ),
            )
            .help(MORE));
        }
        let library = runtime::library()?;
        let options = || -> ort::Result<SessionBuilder> {
            Ok(ort::session::Session::builder(&library.environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_parallel_execution(false)?
                .with_deterministic_compute(true)?
                .with_env_allocators()?
                .with_optimization_level(GraphOptimizationLevel::All)?)
        };
        let mut builder = options()
            .map_err(|error| Error::new(format!("{library} refused its options: {error}")))?;
        if let Place::Cuda(number) = place {
            builder = on_cuda(builder, number, library)?;
        }
        let made = arena::within(library, memory, || builder.commit_from_file(model));
        let inner = made.map_err(|error| {
            if arena::is_full(&error) {
                let memory = mebibytes(memory);
                let what = format!("the model does not fit into {memory}: {error}");
                return Error::param("memory", what).help(MORE);
            }
            Error::param(
                "model",
                format!("{library} does not take {}: {error}", model.display()),
            )
            .help("it must be an ONNX file; weights that lie in files of their own must stand beside it")
        })?;
        let memory = MemoryInfo::new(
            AllocationDevice::CPU,
            0,
            AllocatorType::Device,
            MemoryType::Default,
        )
        .map_err(|error| {
            Error::new(format!("{library} has no memory of the processor: {error}"))
        })?;
        Ok(Session {
            library,
            inner,
            memory,
        })
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> Signature {
        Signature::of(&self.inner)
    }

    /// What runs it.
    pub fn library(&self) -> &'static Library {
        self.library
    }

    /// What it holds of the processor's memory.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn held(&self) -> Result<Held> {
        arena::held(&self.inner).map_err(|error| {
            Error::new(format!(
                "{} does not say what it holds: {error}",
                self.library
            ))
        })
    }

    /// One pass: `numbers`, of this shape, into the input, and what comes out of the output. On the processor from any number of
    /// threads at once.
    ///
    /// # Errors
    /// What ONNX Runtime says; of `memory`, where that has no room for it now; what does not fit.
    pub fn run(
        &self,
        (input, numbers, shape): (&str, &mut Numbers, &[i64]),
        output: &str,
    ) -> Result<Given> {
        let failed = |error: ort::Error| {
            let what = format!("{} could not run the model: {error}", self.library);
            match arena::is_full(&error) {
                true => Error::param("memory", what).help(MORE),
                false => Error::new(what),
            }
        };
        let (input, output) = (CString::new(input)?, CString::new(output)?);
        let pixels = self.tensor(numbers, shape)?;
        let mut made = std::ptr::null_mut();
        // SAFETY: the session, the tensor and its numbers, and the two names live through the call; `OrtSession` may be run by several
        // threads at once, and on a device the model's turns keep them apart. No run options, and the output is to be allocated.
        let status = unsafe {
            (ort::api().Run)(
                self.inner.ptr().cast_mut(),
                std::ptr::null(),
                [input.as_ptr()].as_ptr(),
                [pixels.0.as_ptr().cast_const()].as_ptr(),
                1,
                [output.as_ptr()].as_ptr(),
                1,
                &mut made,
            )
        };
        // SAFETY: it is the status of a function of the library.
        unsafe { ort::Error::result_from_status(status) }.map_err(failed)?;
        let made = Owned::new(made)?;
        made.read().map_err(failed)?
    }

    fn tensor<'n>(&self, numbers: &'n mut Numbers, shape: &[i64]) -> Result<Owned<'n>> {
        let (at, len, bytes, of) = match numbers {
            Numbers::F32(it) => (
                it.as_mut_ptr().cast(),
                it.len(),
                size_of_val(&it[..]),
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            ),
            Numbers::F16(it) => (
                it.as_mut_ptr().cast(),
                it.len(),
                size_of_val(&it[..]),
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
            ),
            Numbers::U8(it) => (
                it.as_mut_ptr().cast(),
                it.len(),
                it.len(),
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
            ),
        };
        if usize::try_from(shape.iter().product::<i64>()) != Ok(len) {
            return Err(Error::new(format!("{len} numbers are no {shape:?}")));
        }
        let mut made = std::ptr::null_mut();
        // SAFETY: memory, shape and result are alive; the numbers are as many as the shape says and outlive the tensor (`'n`).
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                self.memory.ptr(),
                at,
                bytes,
                shape.as_ptr(),
                shape.len(),
                of,
                &mut made,
            )
        };
        // SAFETY: it is the status of a function of the library.
        unsafe { ort::Error::result_from_status(status)? };
        Owned::new(made)
    }
}

fn on_cuda(
    builder: SessionBuilder,
    number: u32,
    library: &'static Library,
) -> Result<SessionBuilder> {
    let refused = |what: String| {
        Error::param("device", what).help(
            "take the library of the PyPI wheel `onnxruntime-gpu` with CUDA and cuDNN as its notes say and set WEIR_ONNXRUNTIME to it, or use \"cpu\"",
        )
    };
    if !ep::CUDA::is_available().unwrap_or(false) {
        return Err(refused(format!("{library} was built without CUDA")));
    }
    let device = i32::try_from(number)
        .map_err(|_| Error::param("cuda-device", format!("there is no device {number}")))?;
    let provider = ep::CUDA::default()
        .with_device_id(device)
        // TF32 rounds products to 10 bits: far from the processor's answer.
        .with_tf32(false)
        // The search by measuring could choose another algorithm, and with it other bits, in the next run.
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Default)
        .build()
        .error_on_failure();
    builder
        .with_execution_providers([provider])
        .map_err(|error| refused(format!("{library} cannot use cuda:{number}: {error}")))
}

/// A value of ONNX Runtime's, which may stand over numbers that are not its own.
struct Owned<'n>(
    NonNull<ort::sys::OrtValue>,
    std::marker::PhantomData<&'n mut ()>,
);

impl<'n> Owned<'n> {
    fn new(made: *mut ort::sys::OrtValue) -> Result<Owned<'n>> {
        NonNull::new(made)
            .map(|made| Owned(made, std::marker::PhantomData))
            .ok_or_else(|| Error::new("ONNX Runtime made no tensor"))
    }

    fn as_ptr(&self) -> *mut ort::sys::OrtValue {
        self.0.as_ptr()
    }

    /// Copies the numbers out. Inner error: numbers that are not read.
    fn read(&self) -> ort::Result<Result<Given>> {
        let mut of = Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut dims, mut rank, mut at) = (std::ptr::null(), 0, std::ptr::null_mut());
        // SAFETY: the value lives, and is a tensor: outputs of another kind were refused when the model was opened. What is
        // written to is alive; the dimensions and the numbers are the value's.
        unsafe {
            let status = (ort::api().GetTensorElementTypeAndShapeDataReference)(
                self.as_ptr(),
                &mut of,
                &mut dims,
                &mut rank,
            );
            ort::Error::result_from_status(status)?;
            let status = (ort::api().GetTensorMutableData)(self.as_ptr(), &mut at);
            ort::Error::result_from_status(status)?;
        }
        let shape: Vec<u64> = if rank == 0 || dims.is_null() {
            Vec::new()
        } else {
            // SAFETY: the value has that many dimensions.
            unsafe { std::slice::from_raw_parts(dims, rank) }
                .iter()
                .map(|&extent| u64::try_from(extent).unwrap_or(0))
                .collect()
        };
        let count = shape.iter().product::<u64>() as usize;
        let numbers = if count == 0 || at.is_null() {
            Vec::new()
        } else {
            match of {
                // SAFETY: the tensor has as many numbers as its shape says, of this type, aligned by its allocator.
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT => unsafe {
                    std::slice::from_raw_parts(at.cast::<f32>(), count).to_vec()
                },
                // SAFETY: as above.
                Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 => unsafe {
                    std::slice::from_raw_parts(at.cast::<u16>(), count)
                        .iter()
                        .map(|&bits| f16::from_bits(bits).to_f32())
                        .collect()
                },
                other => {
                    return Ok(Err(Error::new(format!(
                        "the model's output is of type {other:?}, not f32 or f16"
                    ))));
                }
            }
        };
        Ok(Ok(Given { shape, numbers }))
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: it was made by the library, and nobody else has it.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}
