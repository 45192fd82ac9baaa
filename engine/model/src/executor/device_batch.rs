//! A batch of tiles on a CUDA device, in one stream, with one wait of the host.
//!
//! ```text
//! bytes, u8, 3 a pixel      one copy, by the pinned ring
//!   kernel (e)              f32 [tiles, 3, size, size], which never leaves the device
//!   a pass a tile           from the tile's slice to the tile's row of f32 [tiles, feature]
//! rows                      one copy, which the host waits for
//! ```
//!
//! One thing follows another by the stream's order: it is the stream of the process's kernels, so the pools stand in it too. A tile is
//! a pass of its own, as on the processor, so its bits hang on no neighbour.
//!
//! Where the device's memory does not suffice the batch is halved, down to a tile, and stays so.

use super::{ExecutorError, finite};
use crate::input::Input;
use std::fmt;
use weir_kernels::KernelError;
use weir_kernels::cuda::CudaError;
use weir_kernels::cuda::buffer::{Buffer, Number, Span};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::view::{Element, Layout, View, ViewMut, dense};

/// The most tiles of a batch: 64 of 256 x 256 px are 12.6 MB of bytes and 50 MB of numbers, and their launches are enough to keep a
/// device busy while the next batch is gathered. More tiles are more batches.
pub const TILES: usize = 64;

/// Slices and rows begin at multiples of so many numbers, 256 bytes, as memory does that a library allocates for itself.
const ALIGNMENT: usize = 64;

/// A tile's place on the device.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its numbers, f32 [3, size, size].
    pub numbers: Span<f32>,
    /// Its features, f32 `[feature]`.
    pub features: Span<f32>,
}

/// A network that passes over tiles in a stream.
pub trait Passes: Send {
    /// As errors name what runs the network.
    const EXECUTOR: &'static str;

    /// Gives the slots from now on; what was made of the ones before is dropped. On an error there are none.
    ///
    /// # Safety
    /// The slots' memory stays until other slots are given, or `self` is dropped.
    unsafe fn place(&mut self, slots: &[Slot]) -> Result<(), PassError>;

    /// Enqueues the pass over a slot's numbers, which makes its features, and waits for nothing.
    fn enqueue(&mut self, slot: usize) -> Result<(), PassError>;
}

/// Why a network cannot pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassError {
    /// What was being done.
    pub doing: &'static str,
    /// What the library said.
    pub what: String,
    /// Whether memory of the device did not suffice.
    pub out_of_memory: bool,
}

/// Runs batches.
pub struct DeviceBatch<P> {
    // Dropped before the memory that it was given.
    passes: P,
    memory: Option<Memory>,
    stream: Stream,
    input: Input,
    feature: usize,
    /// The most tiles that are tried.
    most: usize,
    /// The rows on the host.
    rows: Vec<f32>,
}

/// Room for so many tiles.
struct Memory {
    tiles: usize,
    bytes: Buffer<u8>,
    numbers: Buffer<f32>,
    rows: Buffer<f32>,
}

/// What can go wrong with a batch.
enum Fault {
    Cuda(CudaError),
    Kernel(KernelError),
    Pass(PassError),
}

impl Fault {
    fn out_of_memory(&self) -> bool {
        match self {
            Fault::Cuda(error) => error.out_of_memory(),
            Fault::Kernel(error) => error.out_of_memory(),
            Fault::Pass(error) => error.out_of_memory,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Cuda(error) => error.fmt(f),
            Fault::Kernel(error) => error.fmt(f),
            Fault::Pass(error) => write!(f, "could not {}: {}", error.doing, error.what),
        }
    }
}

impl From<CudaError> for Fault {
    fn from(error: CudaError) -> Fault {
        Fault::Cuda(error)
    }
}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Fault {
        Fault::Kernel(error)
    }
}

impl From<PassError> for Fault {
    fn from(error: PassError) -> Fault {
        Fault::Pass(error)
    }
}

impl<P> Drop for DeviceBatch<P> {
    fn drop(&mut self) {
        // A batch that failed half way leaves work behind; what it uses is freed after this.
        let _ = self.stream.synchronize();
    }
}

impl<P: Passes> DeviceBatch<P> {
    /// For tiles of `input`, of each of which the network makes `feature` numbers. No memory is taken before the first batch.
    pub fn new(passes: P, stream: &Stream, input: &Input, feature: usize) -> DeviceBatch<P> {
        DeviceBatch {
            passes,
            memory: None,
            stream: stream.clone(),
            input: input.clone(),
            feature,
            most: TILES,
            rows: Vec::new(),
        }
    }

    /// The most tiles that a batch has now.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The features of each tile (interleaved RGB, u8, of the input's size), in their order.
    pub fn forward(&mut self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        for tile in tiles {
            self.input.check(tile)?;
        }
        let mut features = Vec::with_capacity(tiles.len());
        while features.len() < tiles.len() {
            let rest = &tiles[features.len()..];
            let batch = &rest[..rest.len().min(self.most)];
            match self.run(batch) {
                Ok(()) => {
                    for row in self.rows.chunks_exact(self.row()).take(batch.len()) {
                        features.push(finite(features.len(), row[..self.feature].to_vec())?);
                    }
                }
                Err(fault) if fault.out_of_memory() && batch.len() > 1 => {
                    self.release().map_err(|fault| self.failed(fault))?;
                    self.most = batch.len() / 2;
                }
                Err(fault) => return Err(self.failed(fault)),
            }
        }
        Ok(features)
    }

    /// Numbers from one tile's slice to the next.
    fn slice(&self) -> usize {
        self.input.len().next_multiple_of(ALIGNMENT)
    }

    /// Numbers from one tile's row to the next.
    fn row(&self) -> usize {
        self.feature.next_multiple_of(ALIGNMENT)
    }

    fn failed(&self, fault: Fault) -> ExecutorError {
        ExecutorError::Device {
            device: self.stream.gpu().place().to_string(),
            executor: P::EXECUTOR,
            help: match fault.out_of_memory() {
                true => {
                    "there is no room for a single tile beside the network: end other programs on this device, or use `cpu`"
                }
                false => "`weir doctor` says what of CUDA was found; or use `cpu`",
            },
            what: fault.to_string(),
        }
    }

    /// Frees the memory of batches.
    fn release(&mut self) -> Result<(), Fault> {
        // SAFETY: there is no slot.
        unsafe { self.passes.place(&[]) }?;
        self.memory = None;
        Ok(())
    }

    /// Room for that many tiles: doubled where it grows, so that it seldom does.
    fn reserve(&mut self, tiles: usize) -> Result<(), Fault> {
        if self.memory.as_ref().is_some_and(|held| held.tiles >= tiles) {
            return Ok(());
        }
        self.release()?;
        let tiles = tiles.next_power_of_two().min(self.most);
        let (slice, row) = (self.slice(), self.row());
        let gpu = self.stream.gpu();
        let memory = Memory {
            tiles,
            bytes: gpu.allocate(tiles.saturating_mul(self.input.len()))?,
            numbers: gpu.allocate(tiles.saturating_mul(slice))?,
            rows: gpu.allocate(tiles.saturating_mul(row))?,
        };
        let part = |of: &Buffer<f32>, from, len| of.span().part(from, len).unwrap_or(Span::none());
        let slots: Vec<Slot> = (0..tiles)
            .map(|tile| Slot {
                numbers: part(&memory.numbers, tile * slice, self.input.len()),
                features: part(&memory.rows, tile * row, self.feature),
            })
            .collect();
        // SAFETY: the memory goes here, where there are no slots, by `release`, which takes them back first, or with `self`, after
        // `passes`.
        unsafe { self.passes.place(&slots) }?;
        self.memory = Some(memory);
        Ok(())
    }

    /// One batch; its rows are then in `rows`.
    fn run(&mut self, tiles: &[&[u8]]) -> Result<(), Fault> {
        self.reserve(tiles.len())?;
        let (count, size, slice, row) = (tiles.len(), self.input.size(), self.slice(), self.row());
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        let stream = &self.stream;
        stream.upload_parts(tiles, memory.bytes.span())?;
        let shape = [count, size, size, 3];
        let bytes = self.layout(&memory.bytes, shape, dense(shape));
        let planes = [count, 3, size, size];
        let numbers = self.layout(&memory.numbers, planes, [slice, size * size, size, 1]);
        // SAFETY: both lie in the batch's memory, which has room for these tiles and stays while work uses it, and are used in
        // this stream alone.
        let (bytes, numbers) = unsafe { (View::foreign(bytes), ViewMut::foreign(numbers)) };
        self.input.normalise(stream, bytes, numbers)?;
        let passes = &mut self.passes;
        stream.traced("network", || {
            (0..count).try_for_each(|slot| passes.enqueue(slot))
        })??;
        self.rows.resize(count * row, 0.0);
        let made = memory.rows.span().part(0, count * row);
        Ok(stream.download(made.unwrap_or(Span::none()), &mut self.rows)?)
    }

    fn layout<T: Number + Element>(
        &self,
        of: &Buffer<T>,
        shape: [usize; 4],
        strides: [usize; 4],
    ) -> Layout<4> {
        Layout {
            address: of.span().address(),
            dtype: T::DTYPE,
            shape,
            strides,
            place: self.stream.gpu().place(),
        }
    }
}
