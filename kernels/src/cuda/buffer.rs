//! Typed memory of the device.

use super::Gpu;
use super::fault::CudaError;
use super::stream::Stream;
use cudarc::driver::result;
use half::{bf16, f16};
use std::fmt;
use std::marker::PhantomData;

mod sealed {
    pub trait Sealed {}
}

/// What a device array can hold: plain numbers, of which every pattern of bits is one. The kernels' scratch memory holds
/// more kinds than views do.
///
/// # Safety
/// Implemented only for types without padding, pointers or patterns of bits that are no value.
pub unsafe trait Number: Copy + Send + Sync + sealed::Sealed + 'static {
    /// As `bf16`.
    const NAME: &'static str;
}

macro_rules! kinds {
    ($($number:ty),*) => {$(
        impl sealed::Sealed for $number {}
        // SAFETY: a number of a fixed width, of which every pattern of bits is one.
        unsafe impl Number for $number {
            const NAME: &'static str = stringify!($number);
        }
    )*};
}
kinds!(u8, i32, u32, i64, u64, f32, f64, f16, bf16);

/// The bytes of numbers.
pub(crate) fn bytes_of<T: Number>(values: &[T]) -> &[u8] {
    // SAFETY: a number has no padding; a byte may have any value and any address.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

/// The bytes of numbers, to be written.
pub(crate) fn bytes_of_mut<T: Number>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and every pattern of bits is a number.
    unsafe {
        std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), std::mem::size_of_val(values))
    }
}

/// A stretch of device memory: an address and a length, owned by something else. Copies are the same memory.
///
/// The driver gives addresses of at least 256 bytes' alignment; [`Span::part`] keeps to the elements' own.
pub struct Span<T> {
    address: u64,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Span<T> {
    fn clone(&self) -> Span<T> {
        *self
    }
}

impl<T> Copy for Span<T> {}

impl<T: Number> fmt::Debug for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} at {:#x}", self.len, T::NAME, self.address)
    }
}

impl<T: Number> Span<T> {
    /// `len` elements from `address` on, that somebody else owns.
    ///
    /// # Safety
    /// The address is of this device's memory (or of memory that it can reach), there are `len` elements, and they stay
    /// until all work that uses the span is done.
    pub unsafe fn from_raw(address: u64, len: usize) -> Span<T> {
        Span::of(address, len)
    }

    pub(crate) fn of(address: u64, len: usize) -> Span<T> {
        Span {
            address,
            len,
            element: PhantomData,
        }
    }

    /// No memory: address 0, as kernels take for "not given".
    pub fn none() -> Span<T> {
        Span::of(0, 0)
    }

    /// The address (`CUdeviceptr`).
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// `len` elements from element `from` on; `None` where it has fewer.
    pub fn part(&self, from: usize, len: usize) -> Option<Span<T>> {
        (from.checked_add(len)? <= self.len)
            .then(|| Span::of(self.address + (from * size_of::<T>()) as u64, len))
    }
}

/// Memory that this program allocated. Freeing waits until the device is idle, so that nothing still uses it: allocate
/// before the loop, not in it (a stream's scratch memory is for that, see [`Stream::begin`]).
pub(crate) struct Memory {
    address: u64,
    bytes: usize,
    gpu: Gpu,
}

impl Memory {
    pub(crate) fn new(gpu: &Gpu, bytes: usize) -> Result<Memory, CudaError> {
        gpu.bind()?;
        // The driver refuses 0 bytes.
        let size = bytes.max(1);
        // SAFETY: the context is bound; the size is not 0.
        let address = unsafe { result::malloc_sync(size) }.map_err(|error| {
            CudaError::driver(format!("allocate {bytes} bytes of device memory"), error)
        })?;
        Ok(Memory {
            address,
            bytes,
            gpu: gpu.clone(),
        })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() && result::ctx::synchronize().is_ok() {
            // SAFETY: made by `Memory::new`, freed once, and the device is idle.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// A device array that this program owns.
pub struct Buffer<T> {
    memory: Memory,
    span: Span<T>,
}

impl<T: Number> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.span.fmt(f)
    }
}

impl<T: Number> Buffer<T> {
    pub(crate) fn new(gpu: &Gpu, len: usize) -> Result<Buffer<T>, CudaError> {
        let bytes = len.saturating_mul(size_of::<T>());
        let memory = Memory::new(gpu, bytes)?;
        let span = Span::of(memory.address(), len);
        Ok(Buffer { memory, span })
    }

    /// Its elements, for kernels' arguments; valid while the buffer lives.
    pub fn span(&self) -> Span<T> {
        self.span
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.span.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.span.is_empty()
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.memory.gpu
    }

    /// Its elements on the host, after what `stream` has so far.
    pub fn read(&self, stream: &Stream) -> Result<Vec<T>, CudaError> {
        let mut bytes = vec![0u8; self.span.bytes()];
        stream.download_bytes(self.span.address(), &mut bytes)?;
        Ok(bytes
            .chunks_exact(size_of::<T>())
            // SAFETY: a chunk has the element's size, and every pattern of bits is an element.
            .map(|chunk| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() })
            .collect())
    }
}
