//! Recycled byte buffers: allocating on one thread and freeing on another makes the allocator's arenas grow without bound.

use crate::Budget;
use crate::arena::{Arena, Piece};
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
    /// Where buffers lie that another process may read.
    arena: Option<Arena>,
    free: Mutex<Free>,
}

/// Shorter buffers are no arena's: each takes whole pages there.
const SHORT: usize = 4 << 10;

/// Places of an arena for each byte of the budget: buffers of other lengths need other places.
const SPREAD: usize = 4;
// A buffer may be as long as the budget, and lies in one file.
const _: () = assert!(SPREAD >= Arena::FILES);

/// The least size of an arena.
const LEAST: usize = 1 << 30;

impl Drop for Shelves {
    fn drop(&mut self) {
        if let Some(arena) = self.arena.take() {
            let free = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
            let free = std::mem::take(&mut free.by_length).into_values().flatten();
            arena.keep(free.filter_map(|data| match data {
                Data::Shared(piece) => Some(piece),
                Data::Own { .. } => None,
            }));
        }
    }
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
    by_length: HashMap<usize, Vec<Data>>,
}

/// A buffer's memory.
#[derive(Debug)]
enum Data {
    Own {
        memory: Vec<u8>,
        /// Bytes before the buffer's.
        lead: usize,
    },
    Shared(Piece),
}

/// Bytes before a buffer's own where it would begin at a multiple of 32. A row of pixels that begins there libjpeg-turbo writes past the
/// caches (`vmovntdq` in jdcolext-avx2): the stores that follow wait for it, 3 to 5 % of reading JPEGs, and who looks at the tile next
/// finds it in memory. Rows of 256 px all begin as the first one does; of 240 px every second one does, wherever the first begins.
///
/// No budget counts them: of a tile in an [`Arena`] they may take a page. Other processors have no such stores.
pub(crate) const LEAD: usize = if cfg!(target_arch = "x86_64") { 16 } else { 0 };

impl Default for Data {
    fn default() -> Self {
        Data::Own {
            memory: Vec::new(),
            lead: 0,
        }
    }
}

impl Data {
    /// Memory of this process, `len` bytes.
    fn own(len: usize) -> Data {
        if len < SHORT {
            let memory = vec![0; len];
            return Data::Own { memory, lead: 0 };
        }
        let mut memory = vec![0; len + LEAD];
        let lead = match (memory.as_ptr() as usize).is_multiple_of(2 * LEAD) {
            true => LEAD,
            false => 0,
        };
        memory.truncate(lead + len);
        Data::Own { memory, lead }
    }
}

impl Deref for Data {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Data::Own { memory, lead } => &memory[*lead..],
            Data::Shared(piece) => piece,
        }
    }
}

impl DerefMut for Data {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Data::Own { memory, lead } => &mut memory[*lead..],
            Data::Shared(piece) => piece,
        }
    }
}

impl Slab {
    /// A slab that keeps at most `cap` free bytes.
    pub fn new(cap: usize) -> Self {
        Self::with(Room::Bytes(cap), None)
    }

    /// A slab that keeps at most what is left of `budget`.
    pub fn within(budget: &Budget) -> Self {
        Self::with(Room::Rest(budget.clone()), None)
    }

    /// The same, with buffers that other processes may read where they lie ([`Slab::arena`]), and that so many threads mostly take.
    /// Where the system has no such memory, and once its places are used up, buffers are this process's own, as those of less than a
    /// page always are.
    pub fn shared_within(budget: &Budget, writers: usize) -> Self {
        let size = budget.cap().saturating_mul(SPREAD).max(LEAST);
        Self::with(
            Room::Rest(budget.clone()),
            Arena::kept_or_new(size, writers).ok(),
        )
    }

    fn with(room: Room, arena: Option<Arena>) -> Self {
        Slab(Arc::new(Shelves {
            room,
            arena,
            free: Mutex::default(),
        }))
    }

    /// The memory that other processes may read.
    pub fn arena(&self) -> Option<&Arena> {
        self.0.arena.as_ref()
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
        let fresh = || {
            let arena = self.0.arena.as_ref().filter(|_| len >= SHORT);
            match arena.and_then(|arena| arena.piece(len)) {
                Some(piece) => Data::Shared(piece),
                None => Data::own(len),
            }
        };
        SlabBuf {
            data: recycled.unwrap_or_else(fresh),
            home: Some(self.0.clone()),
        }
    }

    /// Bytes that lie free; without the memory, 64 MiB at most, that a shared slab's arena has kept of an earlier run.
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
    data: Data,
    home: Option<Arc<Shelves>>,
}

impl From<Vec<u8>> for SlabBuf {
    /// A buffer of no slab.
    fn from(data: Vec<u8>) -> Self {
        SlabBuf {
            data: Data::Own {
                memory: data,
                lead: 0,
            },
            home: None,
        }
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
    fn buffers_of_a_shared_slab_lie_in_its_arena_and_take_no_more_than_the_budget_has() {
        let _turn = crate::arena::TURN.lock().unwrap();
        let budget = Budget::new(3 << 20);
        let slab = Slab::shared_within(&budget, 2);
        let arena = slab.arena().unwrap();
        let mut buffer = slab.take(1 << 20);
        buffer.fill(3);
        assert!(arena.offset(&buffer).is_some());
        assert_eq!(arena.offset(&slab.take(16)), None);
        drop(buffer);
        assert_eq!(slab.free_bytes(), (1 << 20) + 16);
        let lease = budget.try_lease(Class::Fetch, 3 << 20).unwrap();
        // Another length: what lies free goes.
        let other = slab.take(2 << 20);
        assert!(arena.offset(&other).is_some());
        assert_eq!(slab.free_bytes(), 0);
        drop(lease);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn no_buffer_begins_where_decoders_write_past_the_caches() {
        let _turn = crate::arena::TURN.lock().unwrap();
        let budget = Budget::new(64 << 20);
        let own = Slab::within(&budget);
        let shared = Slab::shared_within(&budget, 2);
        let lengths = [SHORT, 5_000, 100_000, 240 * 240 * 3, 256 * 256 * 3, 3 << 20];
        for slab in [&own, &shared] {
            // Many of each: among short ones half begin at a multiple of 32 as the allocator has them.
            let take = || lengths.map(|len| [(); 4].map(|()| slab.take(len)));
            let is_shared = std::ptr::eq(slab, &shared);
            let mut buffers = take();
            for round in 0..2 {
                for (buffers, len) in buffers.iter_mut().zip(lengths) {
                    for buffer in buffers {
                        assert_eq!(buffer.len(), len);
                        assert!(!(buffer.as_ptr() as usize).is_multiple_of(32));
                        let offset = shared.arena().unwrap().offset(buffer);
                        assert_eq!(offset.is_some(), is_shared);
                        buffer.fill(round);
                    }
                }
                // Those that were given back are given out again, whole.
                let bytes = 4 * lengths.iter().sum::<usize>();
                drop(buffers);
                assert_eq!(slab.free_bytes(), bytes);
                buffers = take();
                assert_eq!(slab.free_bytes(), 0);
            }
        }
    }

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
