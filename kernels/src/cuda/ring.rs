//! Pinned memory of the host, in rings of a bounded number of chunks, through which all copies go.
//!
//! Copies from and to ordinary memory are staged by the driver in a way that makes the host wait. Through a ring the host
//! copies into a chunk and goes on; it waits only when the ring is full. Uploads use write-combined memory, which the
//! device reads fastest and the host only writes; results use plain pinned memory, which the host reads.

use super::fault::CudaError;
use super::stream::Event;
use super::{Context, Gpu};
use cudarc::driver::{result, sys};
use std::sync::Arc;

/// Bytes of a chunk: some 80 us of a PCIe 5 link, so a ring of four hides the host's copying.
const CHUNK: usize = 4 << 20;

/// Chunks of a ring.
const CHUNKS: usize = 4;

/// `CU_MEMHOSTALLOC_WRITECOMBINED`.
const WRITE_COMBINED: u32 = 4;

/// Pinned memory, and the event after which it is free again.
struct Chunk {
    host: *mut u8,
    free: Event,
    pending: bool,
    context: Arc<Context>,
}

// SAFETY: the chunk owns its memory; the driver's pinned memory may be used from any thread.
unsafe impl Send for Chunk {}

impl Chunk {
    fn new(gpu: &Gpu, flags: u32) -> Result<Chunk, CudaError> {
        let free = Event::new(gpu, false)?;
        // SAFETY: the context is bound (by the event); the size is not 0.
        let host = unsafe { result::malloc_host(CHUNK, flags) }.map_err(|error| {
            CudaError::driver(format!("pin {CHUNK} bytes of the host's memory"), error)
        })?;
        Ok(Chunk {
            host: host.cast(),
            free,
            pending: false,
            context: gpu.context().clone(),
        })
    }

    fn wait(&mut self) -> Result<(), CudaError> {
        if self.pending {
            self.free.synchronize()?;
            self.pending = false;
        }
        Ok(())
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.context.bind().is_ok() && self.wait().is_ok() {
            // SAFETY: made by `Chunk::new`, freed once, and no copy uses it any more.
            let _ = unsafe { result::free_host(self.host.cast()) };
        }
    }
}

/// The ring for uploads.
#[derive(Default)]
pub(crate) struct Upload {
    chunks: Vec<Chunk>,
    at: usize,
    used: usize,
}

impl Upload {
    /// Enqueues the copy of `runs`, one after the other, to `address`. The bytes are taken before this returns.
    pub(crate) fn copy<'a>(
        &mut self,
        gpu: &Gpu,
        stream: sys::CUstream,
        runs: impl IntoIterator<Item = &'a [u8]>,
        mut address: u64,
    ) -> Result<(), CudaError> {
        gpu.bind()?;
        if self.chunks.is_empty() {
            self.chunks.push(Chunk::new(gpu, WRITE_COMBINED)?);
        }
        // Where what is in the chunk and not yet enqueued begins: short runs make one copy.
        let mut from = self.used;
        for mut run in runs {
            while !run.is_empty() {
                if self.used == CHUNK {
                    self.enqueue(from, &mut address, stream)?;
                    self.turn(gpu, stream)?;
                    from = 0;
                }
                let (part, rest) = run.split_at((CHUNK - self.used).min(run.len()));
                // SAFETY: `used` and the part's bytes are at most the chunk's size, and nothing reads that part of it now
                // (`turn` waited).
                unsafe {
                    let to = self.chunks[self.at].host.add(self.used);
                    std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                }
                self.used += part.len();
                run = rest;
            }
        }
        self.enqueue(from, &mut address, stream)?;
        // Copies begin at multiples of 64 bytes, as the bus carries them.
        self.used = self.used.next_multiple_of(64).min(CHUNK);
        Ok(())
    }

    /// Enqueues the copy of what the chunk holds from `from` on.
    fn enqueue(
        &self,
        from: usize,
        address: &mut u64,
        stream: sys::CUstream,
    ) -> Result<(), CudaError> {
        let size = self.used - from;
        if size == 0 {
            return Ok(());
        }
        // SAFETY: these bytes of the chunk were written, and stay unchanged until the event behind the copy; the caller of
        // `copy` gives an address of as many bytes.
        unsafe {
            let part = std::slice::from_raw_parts(self.chunks[self.at].host.add(from), size);
            result::memcpy_htod_async(*address, part, stream)
        }
        .map_err(|error| CudaError::driver(format!("copy {size} bytes to the device"), error))?;
        *address += size as u64;
        Ok(())
    }

    /// Goes to the next chunk, when it is free.
    fn turn(&mut self, gpu: &Gpu, stream: sys::CUstream) -> Result<(), CudaError> {
        let full = &mut self.chunks[self.at];
        full.free.record_on(stream)?;
        full.pending = true;
        // The ring grows to its bound only when chunks are still in use.
        let next = (self.at + 1) % self.chunks.len();
        let grow = self.chunks.len() < CHUNKS && !self.chunks[next].free.reached()?;
        if grow {
            self.chunks
                .insert(self.at + 1, Chunk::new(gpu, WRITE_COMBINED)?);
            self.at += 1;
        } else {
            self.at = next;
        }
        self.used = 0;
        self.chunks[self.at].wait()
    }
}

/// The ring for results.
#[derive(Default)]
pub(crate) struct Download {
    chunks: Vec<Chunk>,
}

/// A part of a chunk, and where it goes on the host.
struct Landing<'a> {
    from: usize,
    to: &'a mut [u8],
}

/// Memory of the device that goes to a chunk.
struct Stretch {
    chunk: usize,
    from: usize,
    address: u64,
    bytes: usize,
}

impl Download {
    /// Copies each address's bytes to the host, after what the stream has so far, and waits for them.
    pub(crate) fn copy<'a>(
        &mut self,
        gpu: &Gpu,
        stream: sys::CUstream,
        parts: impl IntoIterator<Item = (u64, &'a mut [u8])>,
    ) -> Result<(), CudaError> {
        gpu.bind()?;
        let mut landings: Vec<Vec<Landing<'a>>> = Vec::new();
        landings.resize_with(CHUNKS, Vec::new);
        let (mut at, mut used) = (0, 0);
        // What is to be copied and not yet enqueued: neighbours on the device make one copy.
        let mut open: Option<Stretch> = None;
        for (mut address, mut rest) in parts {
            while !rest.is_empty() {
                if used == CHUNK {
                    self.enqueue(open.take(), stream)?;
                    self.close(at, stream)?;
                    at = (at + 1) % CHUNKS;
                    used = 0;
                    self.land(at, &mut landings[at])?;
                }
                if self.chunks.len() <= at {
                    self.chunks.push(Chunk::new(gpu, 0)?);
                }
                let follows = |open: &Stretch| open.address + open.bytes as u64 == address;
                if !open.as_ref().is_some_and(follows) {
                    self.enqueue(open.take(), stream)?;
                    used = used.next_multiple_of(64);
                    if used >= CHUNK {
                        used = CHUNK;
                        continue;
                    }
                }
                let size = (CHUNK - used).min(rest.len());
                let (to, after) = rest.split_at_mut(size);
                open.get_or_insert(Stretch {
                    chunk: at,
                    from: used,
                    address,
                    bytes: 0,
                })
                .bytes += size;
                landings[at].push(Landing { from: used, to });
                used += size;
                address += size as u64;
                rest = after;
            }
        }
        if used > 0 {
            self.enqueue(open, stream)?;
            self.close(at, stream)?;
        }
        // The oldest first.
        for place in (at + 1..CHUNKS).chain(0..=at) {
            self.land(place, &mut landings[place])?;
        }
        Ok(())
    }

    fn enqueue(&self, open: Option<Stretch>, stream: sys::CUstream) -> Result<(), CudaError> {
        let Some(Stretch {
            chunk,
            from,
            address,
            bytes,
        }) = open
        else {
            return Ok(());
        };
        // SAFETY: `from` and `bytes` are within the chunk, and nothing else uses that part of it until it lands; the caller
        // of `copy` gives an address of as many bytes.
        unsafe {
            let part = std::slice::from_raw_parts_mut(self.chunks[chunk].host.add(from), bytes);
            result::memcpy_dtoh_async(part, address, stream)
        }
        .map_err(|error| CudaError::driver(format!("copy {bytes} bytes from the device"), error))
    }

    fn close(&mut self, at: usize, stream: sys::CUstream) -> Result<(), CudaError> {
        let chunk = &mut self.chunks[at];
        chunk.free.record_on(stream)?;
        chunk.pending = true;
        Ok(())
    }

    fn land(&mut self, at: usize, landings: &mut Vec<Landing<'_>>) -> Result<(), CudaError> {
        let Some(chunk) = self.chunks.get_mut(at) else {
            return Ok(());
        };
        chunk.wait()?;
        for Landing { from, to } in landings.drain(..) {
            // SAFETY: the copy into this part is done, and the part has as many bytes as its landing.
            let part = unsafe { std::slice::from_raw_parts(chunk.host.add(from), to.len()) };
            to.copy_from_slice(part);
        }
        Ok(())
    }
}
