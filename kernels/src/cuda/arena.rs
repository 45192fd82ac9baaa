//! A stream's scratch memory: taken in pieces by one launch after the other, so that a launch allocates nothing once the
//! arena is as large as the largest one needed.
//!
//! Pieces of one piece of work and of the next are the same memory. That is right because a stream runs its work in order.

use super::Gpu;
use super::buffer::Memory;
use super::fault::CudaError;

/// Bytes at which every piece begins at a multiple: what `cuMemAlloc` gives, and more than any load needs.
const ALIGNMENT: usize = 256;

/// The first block.
const SMALLEST: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Arena {
    /// The last one is taken from; the ones before it are full, until the next piece of work makes one of all.
    blocks: Vec<Memory>,
    used: usize,
}

impl Arena {
    /// Begins the next piece of work. Where the last one outgrew its block, one block that holds all takes their place
    /// (which waits for the device, once).
    pub(crate) fn begin(&mut self, gpu: &Gpu) -> Result<(), CudaError> {
        self.used = 0;
        if gpu.separate_scratch() {
            self.blocks.clear();
        }
        if self.blocks.len() > 1 {
            let bytes = self.blocks.iter().map(Memory::bytes).sum();
            self.blocks.clear();
            self.blocks.push(Memory::new(gpu, bytes)?);
        }
        Ok(())
    }

    /// The address of `bytes` bytes, undefined in content, at a multiple of 256.
    pub(crate) fn take(&mut self, gpu: &Gpu, bytes: usize) -> Result<u64, CudaError> {
        if gpu.separate_scratch() {
            let block = Memory::new(gpu, bytes)?;
            let address = block.address();
            self.blocks.push(block);
            return Ok(address);
        }
        let size = bytes
            .checked_next_multiple_of(ALIGNMENT)
            .unwrap_or(usize::MAX)
            .max(ALIGNMENT);
        if let Some(block) = self.blocks.last()
            && block.bytes() - self.used >= size
        {
            let address = block.address() + self.used as u64;
            self.used += size;
            return Ok(address);
        }
        let last = self.blocks.last().map_or(0, Memory::bytes);
        let block = Memory::new(gpu, size.max(SMALLEST).max(last))?;
        let address = block.address();
        self.blocks.push(block);
        self.used = size;
        Ok(address)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(Memory::bytes).sum()
    }
}
