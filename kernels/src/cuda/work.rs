//! One call of a kernel: inputs in, launches, results out.

use super::buffer::{Number, Span, bytes_of, bytes_of_mut};
use super::fault::CudaError;
use super::gated_head::{Form, PlacedHead};
use super::launch::{Argument, Function, Grid};
use super::lists;
pub use super::lists::PlacedBags;
use super::stream::{Held, Stream};
use crate::bags::Bags;
use crate::check::APART;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::view::{Dtype, Layout, Place, View, ViewMut};
use cudarc::driver::result;
use std::sync::Arc;

/// A call of a kernel that is being enqueued on a stream; its errors name the kernel and what it was asked to do.
///
/// It holds the stream's scratch memory and pinned rings, so one is made at a time: another thread waits for it, and in the
/// same thread the stream's other calls are [`CudaError::UnderWay`]. What it takes from them is the next one's too, which is
/// right because a stream runs in order. Results for the host are in their places when
/// [`Work::finish`] returns. Dropping it instead leaves what is enqueued and brings back nothing.
pub struct Work<'a> {
    stream: &'a Stream,
    workshop: Held<'a>,
    kernel: &'static str,
    shape: String,
    results: Vec<(u64, &'a mut [u8])>,
}

/// Where an argument lies on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<const N: usize> {
    /// Address of the first element; 0 where there is none.
    pub address: u64,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Elements along each axis.
    pub shape: [usize; N],
    /// Elements from one place of an axis to the next: those of the view where it lies on the device, dense ones where it
    /// was carried over.
    pub strides: [usize; N],
}

impl<const N: usize> From<Placed<N>> for Argument {
    fn from(placed: Placed<N>) -> Argument {
        placed.address.into()
    }
}

impl Stream {
    /// Begins a call of `kernel` on what `shape` says, as `64 bags, 262144 rows, 1024 bf16`.
    pub fn begin(
        &self,
        kernel: &'static str,
        shape: impl Into<String>,
    ) -> Result<Work<'_>, KernelError> {
        let shape = shape.into();
        let workshop = self.workshop("begin another").and_then(|mut workshop| {
            workshop.arena.begin(self.gpu())?;
            Ok(workshop)
        });
        let workshop = workshop.map_err(|error| error.of(kernel, &shape))?;
        Ok(Work {
            stream: self,
            workshop,
            kernel,
            shape,
            results: Vec::new(),
        })
    }

    /// Bytes of device memory that the stream holds: scratch, and lists of bags.
    pub fn scratch_bytes(&self) -> Result<usize, CudaError> {
        let workshop = self.workshop("count scratch memory")?;
        Ok(workshop.arena.bytes() + workshop.lists.bytes())
    }

    /// Enqueues the copy of host values to device memory of at least that size; the values are taken before this returns.
    pub fn upload<T: Number>(&self, values: &[T], to: Span<T>) -> Result<(), CudaError> {
        self.upload_parts(&[values], to)
    }

    /// The same of values that lie apart on the host and one after the other on the device: one copy, as far as a chunk of the ring
    /// holds them.
    pub fn upload_parts<T: Number>(&self, parts: &[&[T]], to: Span<T>) -> Result<(), CudaError> {
        room(parts.iter().map(|part| part.len()).sum(), to)?;
        let mut workshop = self.workshop("upload")?;
        let open = self.opened("to device")?;
        let parts = parts.iter().map(|part| bytes_of(part));
        let ring = &mut workshop.upload;
        ring.copy(self.gpu(), self.cu(), parts, to.address())?;
        self.closed(open)
    }

    /// Copies device memory to the host, after what the stream has so far, and waits for it.
    pub fn download<T: Number>(&self, from: Span<T>, values: &mut [T]) -> Result<(), CudaError> {
        room(values.len(), from)?;
        self.download_bytes(from.address(), bytes_of_mut(values))
    }

    pub(crate) fn download_bytes(&self, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        let mut workshop = self.workshop("download")?;
        let open = self.opened("to host")?;
        let ring = &mut workshop.download;
        ring.copy(self.gpu(), self.cu(), [(from, bytes)])?;
        self.closed(open)
    }

    /// Enqueues a copy within the device.
    pub fn copy<T: Number>(&self, from: Span<T>, to: Span<T>) -> Result<(), CudaError> {
        room(from.len(), to)?;
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
    pub fn fill<T: Number>(&self, span: Span<T>, byte: u8) -> Result<(), CudaError> {
        if span.is_empty() {
            return Ok(());
        }
        self.gpu().bind()?;
        // SAFETY: device memory of as many bytes, by the promise of whoever made the span.
        unsafe { result::memset_d8_async(span.address(), byte, span.bytes(), self.cu()) }.map_err(
            |error| CudaError::driver(format!("fill {} bytes on the device", span.bytes()), error),
        )
    }
}

fn room<T: Number>(len: usize, span: Span<T>) -> Result<(), CudaError> {
    if len <= span.len() {
        return Ok(());
    }
    Err(CudaError::Launch {
        kernel: "copy".to_string(),
        what: format!("{len} elements do not fit {span:?}"),
    })
}

impl<'a> Work<'a> {
    /// The stream.
    pub fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// An error of this call.
    pub fn refuse(&self, cause: Cause) -> KernelError {
        KernelError {
            kernel: self.kernel,
            shape: self.shape.clone(),
            cause,
        }
    }

    fn failed(&self, error: CudaError) -> KernelError {
        error.of(self.kernel, &self.shape)
    }

    /// Kernel `name` of `cuda/SOURCE.cu`.
    pub fn function(
        &self,
        source: &'static str,
        name: &'static str,
    ) -> Result<Function, KernelError> {
        self.stream
            .gpu()
            .function(source, name)
            .map_err(|error| self.failed(error))
    }

    /// A head on this device, in that form.
    pub(super) fn head(
        &self,
        head: &GatedHead,
        form: Form,
    ) -> Result<Arc<PlacedHead>, KernelError> {
        let placed = head.cuda().on(self.stream.gpu(), head.head(), form);
        placed.map_err(|error| self.failed(error))
    }

    /// Scratch memory for `len` elements, of undefined content, at a multiple of 256 bytes.
    pub fn take<T: Number>(&mut self, len: usize) -> Result<Span<T>, KernelError> {
        let address = self.take_bytes(len.saturating_mul(size_of::<T>()))?;
        Ok(Span::of(address, len))
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<u64, KernelError> {
        let taken = self.workshop.arena.take(self.stream.gpu(), bytes);
        taken.map_err(|error| self.failed(error))
    }

    /// Scratch memory of zeros.
    pub fn zeroed<T: Number>(&mut self, len: usize) -> Result<Span<T>, KernelError> {
        let span = self.take(len)?;
        self.stream
            .fill(span, 0)
            .map_err(|error| self.failed(error))?;
        Ok(span)
    }

    /// Pieces of scratch memory of so many bytes, of zeros, which one memset makes: addresses at multiples of 256.
    pub(super) fn zeros<const N: usize>(
        &mut self,
        bytes: [usize; N],
    ) -> Result<[u64; N], KernelError> {
        let mut addresses = [0; N];
        if self.stream.gpu().separate_scratch() {
            for (address, bytes) in addresses.iter_mut().zip(bytes) {
                *address = self.zeroed::<u8>(bytes)?.address();
            }
            return Ok(addresses);
        }
        let (places, all) = side_by_side(bytes);
        let address = self.zeroed::<u8>(all)?.address();
        Ok(places.map(|place| address + place as u64))
    }

    /// Scratch memory with these values, which are taken before this returns.
    pub fn upload<T: Number>(&mut self, values: &[T]) -> Result<Span<T>, KernelError> {
        let span = self.take(values.len())?;
        self.carry([bytes_of(values)], span.address())?;
        Ok(span)
    }

    fn carry<'b>(
        &mut self,
        runs: impl IntoIterator<Item = &'b [u8]>,
        to: u64,
    ) -> Result<(), KernelError> {
        let stream = self.stream;
        let ring = &mut self.workshop.upload;
        let carried = stream.opened("to device").and_then(|open| {
            ring.copy(stream.gpu(), stream.cu(), runs, to)?;
            stream.closed(open)
        });
        carried.map_err(|error| self.failed(error))
    }

    /// The lists of `bags`: carried over the first time that the stream is given these bags or a clone of them, one after the
    /// other in one copy.
    pub fn bags(&mut self, bags: &Bags) -> Result<PlacedBags, KernelError> {
        let lists = lists::of(bags);
        let mut spans = [Span::none(); 5];
        if self.stream.gpu().separate_scratch() {
            // A memory checker sees the end of each.
            for (span, list) in spans.iter_mut().zip(lists) {
                *span = self.upload(list)?;
            }
        } else {
            let bytes = lists.iter().map(|list| size_of_val(*list)).sum();
            let (gpu, identity) = (self.stream.gpu(), bags.identity());
            let placed = self.workshop.lists.place(gpu, identity, bytes);
            let mut address = match placed.map_err(|error| self.failed(error))? {
                lists::Place::Known(address) => address,
                lists::Place::New(address) => {
                    let carried = self.carry(lists.map(bytes_of), address);
                    if carried.is_err() {
                        self.workshop.lists.forget(identity);
                    }
                    carried?;
                    address
                }
            };
            for (span, list) in spans.iter_mut().zip(lists) {
                *span = Span::of(address, list.len());
                address += size_of_val(list) as u64;
            }
        }
        Ok(PlacedBags::of(bags, spans))
    }

    /// An argument to read: where it lies when that is this device, else carried over, dense.
    pub fn input<const N: usize>(
        &mut self,
        name: &'static str,
        view: View<'_, N>,
    ) -> Result<Placed<N>, KernelError> {
        let layout = *view.layout();
        if let Some(placed) = self.here(name, &layout)? {
            return Ok(placed);
        }
        let size = layout.dtype.bytes();
        let address = self.take_bytes(layout.len() * size)?;
        let runs = runs(&layout).into_iter().map(|(from, bytes)| {
            // SAFETY: the view's layout says that these bytes are initialised and lie on the host while it is borrowed.
            unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }
        });
        self.carry(runs, address)?;
        Ok(Placed {
            address,
            dtype: layout.dtype,
            shape: layout.shape,
            strides: crate::view::dense(layout.shape),
        })
    }

    /// An argument to write: where it lies when that is this device; else scratch memory, dense, that [`Work::finish`]
    /// brings to the host. The kernel must write every element of it.
    pub fn output<const N: usize>(
        &mut self,
        name: &'static str,
        view: ViewMut<'a, N>,
    ) -> Result<Placed<N>, KernelError> {
        let layout = *view.layout();
        if !layout.apart() {
            return Err(self.refuse(Cause::Strides {
                argument: name,
                expected: APART,
            }));
        }
        if let Some(placed) = self.here(name, &layout)? {
            return Ok(placed);
        }
        let size = layout.dtype.bytes();
        let address = self.take_bytes(layout.len() * size)?;
        let mut from = address;
        for (to, bytes) in runs(&layout) {
            // SAFETY: the view's layout says that these bytes lie on the host, that nobody else uses them for 'a; no two
            // of its places are one element, as was just seen, so runs do not overlap.
            let run = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
            self.results.push((from, run));
            from += bytes as u64;
        }
        Ok(Placed {
            address,
            dtype: layout.dtype,
            shape: layout.shape,
            strides: crate::view::dense(layout.shape),
        })
    }

    /// Whether an argument lies on this device; an error when it lies on another.
    fn here<const N: usize>(
        &self,
        argument: &'static str,
        layout: &Layout<N>,
    ) -> Result<Option<Placed<N>>, KernelError> {
        let here = self.stream.gpu().place();
        match layout.place {
            Place::Host => Ok(None),
            place if place == here => Ok(Some(Placed {
                address: layout.address,
                dtype: layout.dtype,
                shape: layout.shape,
                strides: layout.strides,
            })),
            got => Err(self.refuse(Cause::Place {
                argument,
                expected: here,
                got,
            })),
        }
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
    ) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe { function.launch(self.stream, grid, arguments) }.map_err(|error| self.failed(error))
    }

    /// Asks that the memory be in `values` when [`Work::finish`] returns.
    pub fn download<T: Number>(
        &mut self,
        from: Span<T>,
        values: &'a mut [T],
    ) -> Result<(), KernelError> {
        room(values.len(), from).map_err(|error| self.failed(error))?;
        self.results.push((from.address(), bytes_of_mut(values)));
        Ok(())
    }

    /// Enqueues that every byte of the memory becomes `byte`.
    pub fn fill<T: Number>(&mut self, span: Span<T>, byte: u8) -> Result<(), KernelError> {
        let filled = self.stream.fill(span, byte);
        filled.map_err(|error| self.failed(error))
    }

    /// Enqueues a copy within the device.
    pub fn copy<T: Number>(&mut self, from: Span<T>, to: Span<T>) -> Result<(), KernelError> {
        let copied = self.stream.copy(from, to);
        copied.map_err(|error| self.failed(error))
    }

    /// The values that the memory has after what was enqueued so far, for which this waits.
    pub fn read<T: Number>(&mut self, from: Span<T>) -> Result<Vec<T>, KernelError> {
        let mut bytes = vec![0u8; from.bytes()];
        let (gpu, stream) = (self.stream.gpu(), self.stream.cu());
        let landed = self
            .workshop
            .download
            .copy(gpu, stream, [(from.address(), &mut bytes[..])]);
        landed.map_err(|error| self.failed(error))?;
        Ok(bytes
            .chunks_exact(size_of::<T>())
            .map(|bytes| {
                // SAFETY: any bytes are a number, and there are as many as it has.
                unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
            })
            .collect())
    }

    /// Ends the call. Waits for it only where results go to the host; those on the device are there for whatever comes
    /// later in the stream.
    pub fn finish(mut self) -> Result<(), KernelError> {
        let results = std::mem::take(&mut self.results);
        if results.is_empty() {
            return Ok(());
        }
        let stream = self.stream;
        let ring = &mut self.workshop.download;
        let landed = stream.opened("to host").and_then(|open| {
            ring.copy(stream.gpu(), stream.cu(), results)?;
            stream.closed(open)
        });
        landed.map_err(|error| self.failed(error))
    }
}

/// Where pieces of so many bytes begin when they lie one after the other at multiples of 256 bytes, and how many they are.
pub(super) fn side_by_side<const N: usize>(bytes: [usize; N]) -> ([usize; N], usize) {
    let mut all = 0usize;
    let places = bytes.map(|bytes| {
        let place = all;
        all = all
            .saturating_add(bytes)
            .checked_next_multiple_of(256)
            .unwrap_or(usize::MAX);
        place
    });
    (places, all)
}

/// The stretches of memory that a layout's elements fill, in order: address and bytes.
fn runs<const N: usize>(layout: &Layout<N>) -> Vec<(u64, usize)> {
    if layout.is_empty() {
        return Vec::new();
    }
    let size = layout.dtype.bytes();
    // The axes from `inner` on lie without gaps.
    let (mut inner, mut run) = (N, 1);
    while inner > 0 && (layout.strides[inner - 1] == run || layout.shape[inner - 1] == 1) {
        inner -= 1;
        run *= layout.shape[inner];
    }
    let outer: usize = layout.shape[..inner].iter().product();
    (0..outer)
        .map(|number| {
            let (mut rest, mut element) = (number, 0);
            for axis in (0..inner).rev() {
                element += rest % layout.shape[axis] * layout.strides[axis];
                rest /= layout.shape[axis];
            }
            (layout.address + (element * size) as u64, run * size)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_layout_is_copied_in_the_fewest_stretches_in_the_order_of_its_elements() {
        let data: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let read = |layout: &Layout<3>| -> (usize, Vec<f32>) {
            let runs = runs(layout);
            let start = data.as_ptr() as u64;
            let values = runs.iter().flat_map(|(address, bytes)| {
                let from = (address - start) as usize / 4;
                data[from..from + bytes / 4].to_vec()
            });
            (runs.len(), values.collect())
        };
        let view = |shape, strides| View::strided(&data, shape, strides).unwrap();
        let whole = view([2, 3, 4], [12, 4, 1]);
        assert_eq!(read(whole.layout()), (1, data.clone()));
        // Rows of a wider array, and a column of it.
        let (count, values) = read(view([2, 3, 2], [12, 4, 1]).layout());
        assert_eq!(count, 6);
        assert_eq!(
            values,
            [0., 1., 4., 5., 8., 9., 12., 13., 16., 17., 20., 21.]
        );
        let (count, values) = read(view([2, 2, 1], [12, 4, 1]).layout());
        assert_eq!((count, values), (4, vec![0., 4., 12., 16.]));
        // An axis of one place does not break a stretch, whatever its stride.
        assert_eq!(read(view([1, 3, 4], [999, 4, 1]).layout()).0, 1);
        assert_eq!(read(view([2, 0, 4], [0, 4, 1]).layout()).0, 0);
    }
}
