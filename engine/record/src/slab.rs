//! Recycled byte buffers: allocating on one thread and freeing on another makes the allocator's arenas grow without bound.

use crate::Budget;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A pool of byte buffers by length. Free buffers hold no more than what the budget has left, so that they and everything
/// that is leased, cached and reserved stay within it together.
#[derive(Clone, Debug)]
pub struct Slab(Arc<Shelves>);

#[derive(Debug)]
struct Shelves {
    room: Room,
    free: Mutex<Free>,
}

#[derive(Debug)]
enum Room {
    Bytes(usize),
    Rest(Budget),
}

impl Room {
    fn bytes(&self) -> usize {
        match self {
            Room::Bytes(bytes) => *bytes,
            Room::Rest(budget) => budget.rest(),
        }
    }
}

#[derive(Debug, Default)]
struct Free {
    bytes: usize,
    by_length: HashMap<usize, Vec<Vec<u8>>>,
}

impl Slab {
    /// A slab that keeps at most `cap` free bytes.
    pub fn new(cap: usize) -> Self {
        Self::with(Room::Bytes(cap))
    }

    /// A slab that keeps at most what is left of `budget`.
    pub fn within(budget: &Budget) -> Self {
        Self::with(Room::Rest(budget.clone()))
    }

    fn with(room: Room) -> Self {
        Slab(Arc::new(Shelves {
            room,
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
            } else {
                // Its bytes are leased by now: what lies free must not stand beside them.
                free.trim(self.0.room.bytes(), len);
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
    #[inline]
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
        let len = data.len();
        free.bytes += len;
        free.by_length.entry(len).or_default().push(data);
        // Its own lease ends right after this.
        free.trim(home.room.bytes() + len, len);
    }
}

impl Free {
    /// Gives memory back until no more than `room` bytes lie free; buffers of `len` bytes, which are asked for now, last.
    fn trim(&mut self, room: usize, len: usize) {
        while self.bytes > room {
            let other = self
                .by_length
                .iter_mut()
                .filter(|(other, _)| **other != len);
            let other = other.map(|(_, shelf)| shelf).find_map(Vec::pop);
            let own = || self.by_length.get_mut(&len).and_then(Vec::pop);
            let Some(buffer) = other.or_else(own) else {
                return;
            };
            self.bytes -= buffer.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Class, TileBuf};

    #[test]
    fn free_buffers_and_leases_share_the_budget_and_a_full_one_still_recycles() {
        let budget = Budget::new(120);
        let slab = Slab::within(&budget);
        let tile = |side: u32| {
            let bytes = TileBuf::bytes(side, side);
            let lease = budget.try_lease(Class::Fetch, bytes).unwrap();
            TileBuf::new(side, side, slab.take(bytes), Some(lease)).unwrap()
        };
        let full: Vec<TileBuf> = (0..10).map(|_| tile(2)).collect();
        assert_eq!(budget.rest(), 0);
        drop(full);
        assert_eq!(slab.free_bytes(), 120);
        let other = tile(4);
        assert_eq!(budget.leased() + slab.free_bytes(), 48 + 72);
        drop(other);
        assert_eq!(slab.free_bytes(), 120);
    }
}
