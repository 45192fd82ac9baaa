//! Memory for what a plugin makes, out of what the host shares.
//!
//! A block ends at a page that nobody may touch, so a plugin that writes beyond what it was given dies there, and the host says of
//! what. Blocks are used again when their batch is gone; a plugin that keeps a batch keeps its blocks.

use crate::isolate::answer::Spot;
use crate::isolate::memory::{Mapping, PAGE};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes to which what a plugin is given is aligned.
const ALIGN: usize = 16;

/// Bytes of memory that small blocks are cut from.
const CHUNK: usize = 256 << 10;

/// Blocks that lie free, and the memories that all are in.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Shelves>);

#[derive(Debug, Default)]
struct Shelves {
    memories: Vec<Arc<Mapping>>,
    /// By size.
    free: HashMap<usize, Vec<Start>>,
}

/// Where a block begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    memory: u32,
    at: usize,
}

/// A block; it lies free again when it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    home: Arc<Blocks>,
    size: usize,
    start: Start,
    /// Of what was asked for.
    spot: Spot,
    pointer: *mut c_void,
}

// SAFETY: a block is memory of its own; who gets it decides who writes.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Where byte `at` of it lies, here and for the host.
    pub fn place(&self, at: usize) -> (*mut c_void, Spot) {
        let spot = Spot {
            at: self.spot.at + at as u64,
            ..self.spot
        };
        (self.pointer.wrapping_byte_add(at), spot)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut shelves = self.home.shelves();
        shelves.free.entry(self.size).or_default().push(self.start);
    }
}

/// Bytes of a block that can hold so many. Large ones are alike, an eighth apart, so that one is used again for another size; what
/// is not asked for lies before what is, and takes no memory.
fn shelf(bytes: usize) -> usize {
    let whole = bytes.max(1).next_multiple_of(PAGE);
    let step = (whole.checked_next_power_of_two().unwrap_or(whole) / 8).max(PAGE);
    whole.checked_next_multiple_of(step).unwrap_or(whole)
}

impl Blocks {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of at least `bytes`, for who needs one at a time and none for long, and of any size: the smallest that lies free, or
    /// one of the next power of two, so that all that was ever made is less than four times the largest.
    pub fn take_one(
        self: &Arc<Blocks>,
        bytes: usize,
        more: impl FnOnce(usize) -> Result<Mapping, String>,
    ) -> Result<Block, String> {
        let least = shelf(bytes);
        let free = {
            let shelves = self.shelves();
            let free = shelves.free.iter().filter(|(_, starts)| !starts.is_empty());
            free.map(|(size, _)| *size)
                .filter(|size| *size >= least)
                .min()
        };
        let size = free.unwrap_or_else(|| least.checked_next_power_of_two().unwrap_or(least));
        self.of_size(size, bytes, 1, 1, more)?
            .pop()
            .ok_or_else(|| "there is no memory".to_owned())
    }

    /// `n` blocks of `bytes`; `more` asks the host for so many bytes of memory.
    pub fn take(
        self: &Arc<Blocks>,
        bytes: usize,
        n: usize,
        more: impl FnOnce(usize) -> Result<Mapping, String>,
    ) -> Result<Vec<Block>, String> {
        // Small ones are had by the dozen: every piece of memory is a mapping, here and in the host.
        let size = shelf(bytes);
        self.of_size(size, bytes, n, (CHUNK / (size + PAGE)).min(16), more)
    }

    /// `n` blocks of `bytes`, each of size `size`; where they lack, at least `made` are made.
    fn of_size(
        self: &Arc<Blocks>,
        size: usize,
        bytes: usize,
        n: usize,
        made: usize,
        more: impl FnOnce(usize) -> Result<Mapping, String>,
    ) -> Result<Vec<Block>, String> {
        let lacking = {
            let shelves = self.shelves();
            n.saturating_sub(shelves.free.get(&size).map_or(0, Vec::len))
        };
        if lacking > 0 {
            let stride = size + PAGE;
            let lacking = lacking.max(made);
            let all = lacking
                .checked_mul(stride)
                .ok_or("it asked for more memory than there is")?
                + PAGE;
            let mapping = more(all)?;
            // Nobody can reach below the first block either.
            for at in (0..=lacking).map(|block| block * stride) {
                mapping
                    .guard(at, PAGE)
                    .map_err(|error| format!("it holds too many batches at once: {error}"))?;
            }
            let mut shelves = self.shelves();
            let memory = shelves.memories.len() as u32;
            shelves.memories.push(Arc::new(mapping));
            let starts = (0..lacking).map(|block| Start {
                memory,
                at: PAGE + block * stride,
            });
            shelves.free.entry(size).or_default().extend(starts);
        }
        let mut shelves = self.shelves();
        let shelf = shelves.free.entry(size).or_default();
        // Another thread may have been quicker.
        let from = shelf.len().saturating_sub(n);
        let starts = shelf.split_off(from);
        let blocks = starts
            .into_iter()
            .map(|start| {
                // What was asked for ends where the block ends, but for its alignment.
                let at = (start.at + size - bytes.next_multiple_of(ALIGN)) as u64;
                let mapping = &shelves.memories[start.memory as usize];
                let memory = start.memory;
                Block {
                    home: self.clone(),
                    size,
                    start,
                    spot: Spot { memory, at },
                    pointer: mapping
                        .at(at, bytes)
                        .map_or(std::ptr::null_mut(), |pointer| pointer.cast()),
                }
            })
            .collect::<Vec<_>>();
        drop(shelves);
        match blocks.len() == n {
            true => Ok(blocks),
            false => Err("its threads ask for memory faster than it comes".into()),
        }
    }
}
