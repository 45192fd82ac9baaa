//! An ONNX Runtime session that reads tiles and writes features where they lie, in memory that is not its own.
//!
//! A slot's two tensors are made once, over its addresses, and the one to write goes into the slot's run options. That is the way of
//! [`Session::run_with_options`]: ONNX Runtime uses either where it lies, as it would by its I/O binding, which `ort` would
//! have copy an input that is borrowed, by a session of its own and a wait.
//!
//! On a device the session's compute stream is the kernels' (`user_compute_stream`) and a run does not synchronise
//! (`disable_synchronize_execution_providers`). Then a run is launches in that stream; the arena of the session may
//! give a run's memory to the next at once, which is right because there is one order. **ONNX Runtime's CUDA provider itself has not been
//! run in this form**: the tests run the CPU provider over an emulated device's memory, and the order of passes in a stream
//! that is lazy with a network of copies.

use super::device_batch::{PassError, Passes, Slot};
use super::onnxruntime::{Library, session};
use super::{Device, ExecutorError};
use crate::onnx;
use ort::AsPointer;
use ort::ep;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{DynTensor, Value};
use std::ptr::NonNull;
use weir_kernels::cuda::buffer::Span;
use weir_kernels::cuda::stream::Stream;

/// A session and the slots that it works on.
pub struct Bound {
    // In the order in which they are dropped: the tensors are of the session, and the session works on the stream.
    slots: Vec<Tensors>,
    session: Session,
    memory: MemoryInfo<'static>,
    /// [1, 3, size, size] and [1, feature].
    shapes: ([i64; 4], [i64; 2]),
    _stream: Option<Stream>,
}

struct Tensors {
    numbers: DynTensor,
    /// With the tensor of the features.
    run: RunOptions<HasSelectedOutputs>,
}

impl Bound {
    /// On the device of `stream`, in which the passes then stand. `graph` is of tiles of `size` px and that many features.
    pub fn on_device(
        library: &'static Library,
        graph: &[u8],
        (size, feature): (usize, usize),
        stream: &Stream,
    ) -> Result<Bound, ExecutorError> {
        let ordinal = stream.gpu().device().ordinal;
        let number = u32::try_from(ordinal).unwrap_or(u32::MAX);
        let device = i32::try_from(ordinal).unwrap_or(i32::MAX);
        let provider = ep::CUDA::default()
            .with_device_id(device)
            // TF32 rounds products to 10 bits: far from the CPU's answer.
            .with_tf32(false)
            .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Default);
        // SAFETY: the stream is kept in the same struct as the session and dropped after it.
        let provider = unsafe { provider.with_compute_stream(stream.raw().cast()) };
        let provider = provider.build().error_on_failure();
        let made = session(library, graph, Some((provider, Device::Cuda(number))))?;
        let place = (AllocationDevice::CUDA, device);
        Bound::new(made, (size, feature), place, Some(stream.clone()))
    }

    /// On the processor, which must be able to read and write the slots' memory: an emulated device's is such.
    pub fn on_processor(
        library: &'static Library,
        graph: &[u8],
        (size, feature): (usize, usize),
    ) -> Result<Bound, ExecutorError> {
        let made = session(library, graph, None)?;
        Bound::new(made, (size, feature), (AllocationDevice::CPU, 0), None)
    }

    fn new(
        session: Session,
        (size, feature): (usize, usize),
        (device, number): (AllocationDevice<'static>, i32),
        stream: Option<Stream>,
    ) -> Result<Bound, ExecutorError> {
        let memory = MemoryInfo::new(device, number, AllocatorType::Device, MemoryType::Default);
        Ok(Bound {
            slots: Vec::new(),
            session,
            memory: memory.map_err(|error| ExecutorError::Library {
                executor: "onnxruntime",
                doing: "describe a device's memory",
                what: error.to_string(),
            })?,
            shapes: ([1, 3, size as i64, size as i64], [1, feature as i64]),
            _stream: stream,
        })
    }

    /// A tensor over memory that is not ONNX Runtime's.
    ///
    /// # Safety
    /// The span's memory lies where `self.memory` says and stays as long as the tensor.
    unsafe fn tensor(&self, span: Span<f32>, shape: &[i64]) -> ort::Result<DynTensor> {
        let numbers: i64 = shape.iter().product();
        if usize::try_from(numbers) != Ok(span.len()) {
            return Err(ort::Error::new(format!("{span:?} is no tensor {shape:?}")));
        }
        let mut raw = std::ptr::null_mut();
        // SAFETY: the library is loaded, since there is a session; memory, shape and result are alive, the span has as many bytes,
        // and the rest is the caller's promise.
        unsafe {
            let status = (ort::api().CreateTensorWithDataAsOrtValue)(
                self.memory.ptr(),
                span.address() as *mut _,
                span.bytes(),
                shape.as_ptr(),
                shape.len(),
                ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                &mut raw,
            );
            ort::Error::result_from_status(status)?;
        }
        let raw = NonNull::new(raw).ok_or_else(|| ort::Error::new("there is no tensor"))?;
        // SAFETY: it was just made, and nobody else has it. It owns no memory, so the allocator is asked for nothing.
        Ok(unsafe { Value::from_ptr(raw, Some(self.session.allocator())) })
    }

    /// # Safety
    /// As for [`Passes::place`].
    unsafe fn tensors(&self, slot: &Slot) -> ort::Result<Tensors> {
        // SAFETY: the caller's promise.
        let (numbers, features) = unsafe {
            (
                self.tensor(slot.numbers, &self.shapes.0)?,
                self.tensor(slot.features, &self.shapes.1)?,
            )
        };
        let mut run = RunOptions::new()?;
        run.disable_device_sync()?;
        let outputs = OutputSelector::default().preallocate(onnx::OUTPUT, features);
        Ok(Tensors {
            numbers,
            run: run.with_outputs(outputs),
        })
    }
}

impl Passes for Bound {
    const EXECUTOR: &'static str = "onnxruntime";

    unsafe fn place(&mut self, slots: &[Slot]) -> Result<(), PassError> {
        self.slots.clear();
        // SAFETY: the caller's promise.
        let tensors = slots.iter().map(|slot| unsafe { self.tensors(slot) });
        let tensors: ort::Result<Vec<Tensors>> = tensors.collect();
        self.slots = tensors.map_err(failed("bind a batch's memory"))?;
        Ok(())
    }

    fn enqueue(&mut self, slot: usize) -> Result<(), PassError> {
        let Some(slot) = self.slots.get(slot) else {
            return Err(PassError {
                doing: "run the network",
                what: format!("there are {} slots", self.slots.len()),
                out_of_memory: false,
            });
        };
        let inputs = ort::inputs![onnx::INPUT => &slot.numbers];
        let outputs = self.session.run_with_options(inputs, &slot.run);
        outputs.map(drop).map_err(failed("run the network"))
    }
}

fn failed(doing: &'static str) -> impl Fn(ort::Error) -> PassError {
    // It has no code for that: these are the words of its arena, of CUDA, cuDNN and cuBLAS.
    const FULL: [&str; 3] = [
        "Failed to allocate memory",
        "out of memory",
        "STATUS_ALLOC_FAILED",
    ];
    move |error| {
        let what = error.to_string();
        PassError {
            doing,
            out_of_memory: FULL.iter().any(|words| what.contains(words)),
            what,
        }
    }
}
