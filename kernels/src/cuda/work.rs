//! One piece of work of a stream: inputs in, kernels, results out.

use super::buffer::{Element, Span, bytes_of, bytes_of_mut};
use super::fault::CudaError;
use super::launch::{Argument, Function, Grid};
use super::stream::{Stream, Workshop};
use cudarc::driver::result;
use std::sync::MutexGuard;

/// A piece of work that is being enqueued on a stream.
///
/// It holds the stream's scratch memory and pinned rings, so one is made at a time; what it takes from them is the next
/// one's too, which is right because a stream runs in order. Results asked for by [`Work::download`] are in their places
/// when [`Work::finish`] returns. Dropping it instead leaves what is enqueued and brings back nothing.
pub struct Work<'a> {
    stream: &'a Stream,
    workshop: MutexGuard<'a, Workshop>,
    results: Vec<(u64, &'a mut [u8])>,
}

impl Stream {
    /// Begins a piece of work.
    pub fn work(&self) -> Result<Work<'_>, CudaError> {
        let mut workshop = self.workshop();
        workshop.arena.begin(self.gpu())?;
        Ok(Work {
            stream: self,
            workshop,
            results: Vec::new(),
        })
    }

    /// Bytes of device memory that the stream holds as scratch.
    pub fn scratch_bytes(&self) -> usize {
        self.workshop().arena.bytes()
    }

    /// Enqueues the copy of host values to device memory of at least that size; the values are taken before this returns.
    pub fn upload<T: Element>(&self, values: &[T], to: Span<T>) -> Result<(), CudaError> {
        self.room(values.len(), to)?;
        self.workshop()
            .upload
            .copy(self.gpu(), self.cu(), bytes_of(values), to.address())
    }

    /// Copies device memory to the host, after what the stream has so far, and waits for it.
    pub fn download<T: Element>(&self, from: Span<T>, values: &mut [T]) -> Result<(), CudaError> {
        self.room(values.len(), from)?;
        self.download_bytes(from.address(), bytes_of_mut(values))
    }

    pub(crate) fn download_bytes(&self, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.workshop()
            .download
            .copy(self.gpu(), self.cu(), [(from, bytes)])
    }

    /// Enqueues a copy within the device.
    pub fn copy<T: Element>(&self, from: Span<T>, to: Span<T>) -> Result<(), CudaError> {
        self.room(from.len(), to)?;
        if from.is_empty() {
            return Ok(());
        }
        self.gpu().bind()?;
        // SAFETY: both are device memory of as many bytes, by the promise of whoever made the spans.
        unsafe { result::memcpy_dtod_async(to.address(), from.address(), from.bytes(), self.cu()) }
            .map_err(|error| {
                CudaError::driver(format!("copy {} bytes on the device", from.bytes()), error)
            })
    }

    /// Enqueues that every byte of the memory becomes `byte`.
    pub fn fill<T: Element>(&self, span: Span<T>, byte: u8) -> Result<(), CudaError> {
        if span.is_empty() {
            return Ok(());
        }
        self.gpu().bind()?;
        // SAFETY: device memory of as many bytes, by the promise of whoever made the span.
        unsafe { result::memset_d8_async(span.address(), byte, span.bytes(), self.cu()) }.map_err(
            |error| CudaError::driver(format!("fill {} bytes on the device", span.bytes()), error),
        )
    }

    fn room<T: Element>(&self, len: usize, span: Span<T>) -> Result<(), CudaError> {
        if len <= span.len() {
            return Ok(());
        }
        Err(CudaError::Launch {
            kernel: "copy".to_string(),
            what: format!("{len} elements do not fit {span:?}"),
        })
    }
}

impl<'a> Work<'a> {
    /// The stream.
    pub fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// Scratch memory for `len` elements, of undefined content, at a multiple of 256 bytes.
    pub fn take<T: Element>(&mut self, len: usize) -> Result<Span<T>, CudaError> {
        let bytes = len.saturating_mul(size_of::<T>());
        let address = self.workshop.arena.take(self.stream.gpu(), bytes)?;
        Ok(Span::of(address, len))
    }

    /// Scratch memory of zeros.
    pub fn zeroed<T: Element>(&mut self, len: usize) -> Result<Span<T>, CudaError> {
        let span = self.take(len)?;
        self.stream.fill(span, 0)?;
        Ok(span)
    }

    /// Scratch memory with these values, which are taken before this returns.
    pub fn upload<T: Element>(&mut self, values: &[T]) -> Result<Span<T>, CudaError> {
        let span = self.take(values.len())?;
        let stream = self.stream;
        self.workshop
            .upload
            .copy(stream.gpu(), stream.cu(), bytes_of(values), span.address())?;
        Ok(span)
    }

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// As for [`Function::launch`].
    pub unsafe fn launch(
        &mut self,
        function: &Function,
        grid: Grid,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { function.launch(self.stream, grid, arguments) }
    }

    /// Asks that the memory be in `values` when [`Work::finish`] returns.
    pub fn download<T: Element>(
        &mut self,
        from: Span<T>,
        values: &'a mut [T],
    ) -> Result<(), CudaError> {
        self.stream.room(values.len(), from)?;
        self.results.push((from.address(), bytes_of_mut(values)));
        Ok(())
    }

    /// Ends the piece of work. Waits for it only where results go to the host.
    pub fn finish(mut self) -> Result<(), CudaError> {
        let results = std::mem::take(&mut self.results);
        if results.is_empty() {
            return Ok(());
        }
        let stream = self.stream;
        self.workshop
            .download
            .copy(stream.gpu(), stream.cu(), results)
    }
}
