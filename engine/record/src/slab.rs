//! Recycled byte buffers: allocating on one thread and freeing on another makes the allocator's arenas grow without bound.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A pool of byte buffers by length. Free buffers never hold more than `cap` bytes in all.
#[derive(Clone, Debug)]
pub struct Slab(Arc<Shelves>);

#[derive(Debug)]
struct Shelves {
    cap: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    bytes: usize,
    by_length: HashMap<usize, Vec<Vec<u8>>>,
}

impl Slab {
    /// A slab that keeps at most `cap` free bytes.
    pub fn new(cap: usize) -> Self {
        Slab(Arc::new(Shelves {
            cap,
            free: Mutex::default(),
        }))
    }

    /// A buffer of `len` bytes. Its content is whatever it was: the taker writes all of it.
    pub fn take(&self, len: usize) -> SlabBuf {
        let recycled = {
            let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
            let found = free.by_length.get_mut(&len).and_then(Vec::pop);
            if found.is_some() {
                free.bytes -= len;
            }
            found
        };
        SlabBuf {
            data: recycled.unwrap_or_else(|| vec![0; len]),
            home: Some(self.0.clone()),
        }
    }

    /// Bytes that lie free.
    pub fn free_bytes(&self) -> usize {
        self.0
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
    }
}

/// A buffer that returns to its slab when it is dropped.
#[derive(Debug, Default)]
pub struct SlabBuf {
    data: Vec<u8>,
    home: Option<Arc<Shelves>>,
}

impl From<Vec<u8>> for SlabBuf {
    /// A buffer of no slab.
    fn from(data: Vec<u8>) -> Self {
        SlabBuf { data, home: None }
    }
}

impl Deref for SlabBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl DerefMut for SlabBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

impl Drop for SlabBuf {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let data = std::mem::take(&mut self.data);
        let mut free = home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.bytes + data.len() <= home.cap {
            free.bytes += data.len();
            free.by_length.entry(data.len()).or_default().push(data);
        } else if let Some(other) = free.by_length.iter_mut().find_map(|(len, shelf)| {
            // Another length fills the shelves: it makes room, so that a run whose tile size changes still recycles.
            (*len != data.len()).then(|| shelf.pop()).flatten()
        }) {
            free.bytes -= other.len();
            if free.bytes + data.len() <= home.cap {
                free.bytes += data.len();
                free.by_length.entry(data.len()).or_default().push(data);
            }
        }
    }
}
