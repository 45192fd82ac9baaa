//! The one way by which arrays that are kept go to a device: a stream and a ring of pinned memory, made for the first of them.

use super::fault::CudaError;
use super::ring::Upload;
use super::{Context, Gpu};
use cudarc::driver::{result, sys};
use std::sync::Arc;

/// A device's way. It belongs to the [`Gpu`], so it holds the context and not the `Gpu`.
pub(super) struct Keep {
    stream: sys::CUstream,
    ring: Upload,
    context: Arc<Context>,
}

// SAFETY: the driver's streams may be used from any thread whose current context is the stream's; every call binds it first.
unsafe impl Send for Keep {}

impl Keep {
    pub(super) fn new(gpu: &Gpu) -> Result<Keep, CudaError> {
        gpu.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|error| CudaError::driver("make a stream", error))?;
        Ok(Keep {
            stream,
            ring: Upload::default(),
            context: gpu.context().clone(),
        })
    }

    /// Copies the bytes to an address that has room for them, and waits until they are there.
    pub(super) fn carry(&mut self, gpu: &Gpu, bytes: &[u8], to: u64) -> Result<(), CudaError> {
        self.ring.copy(gpu, self.stream, [bytes], to)?;
        // SAFETY: the stream is alive while `self` is, and `copy` has bound the context.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|error| CudaError::driver("carry over what is kept", error))
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if self.context.bind().is_err() {
            return;
        }
        // The ring's copies are done before its memory goes, and its events before the stream.
        // SAFETY: the stream is alive: it is destroyed below.
        let _ = unsafe { result::stream::synchronize(self.stream) };
        self.ring = Upload::default();
        // SAFETY: made by `new`, and nothing else holds it.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}
