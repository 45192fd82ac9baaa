//! Decoded native tiles, each decoded once where the budget allows.

use crate::SlideError;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use weir_record::{Budget, CacheShare, Lease, Slab, SlabBuf};

/// A cache of decoded native tiles, shared by all slides and reader threads of a process.
///
/// * Its bytes come from the [`Budget`], out of a share of their own, so it never keeps anybody waiting.
/// * Two threads that want the same native tile decode it once: the second waits for the first.
/// * When the share is used up, tiles of the row of native tiles that was used least recently go first: tiles are read row by
///   row, so that row is done with.
/// * When nothing can go, the caller decodes into a buffer of its thread, so nothing here ever waits for memory.
#[derive(Clone)]
pub struct TileCache(Arc<Shared>);

struct Shared {
    share: CacheShare,
    slab: Slab,
    state: Mutex<State>,
    ready: Condvar,
}

/// Free buffers that are kept for the next tiles; beyond the budget, so only a few.
const SPARE: usize = 4 << 20;

#[derive(Default)]
struct State {
    clock: u64,
    next_slide: u64,
    bands: HashMap<Band, Row>,
}

/// A row of native tiles of a level of a slide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Band {
    pub(crate) slide: u64,
    pub(crate) view: u32,
    pub(crate) row: u32,
}

#[derive(Default)]
struct Row {
    used: u64,
    tiles: BTreeMap<u32, Slot>,
}

enum Slot {
    /// A thread is decoding it.
    Pending,
    Ready(Arc<Decoded>),
}

/// A decoded native tile: interleaved RGB.
pub(crate) struct Decoded {
    pixels: SlabBuf,
    _lease: Lease,
}

impl std::ops::Deref for Decoded {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.pixels
    }
}

/// Takes the mark of a tile away when decoding fails or panics, so that nobody waits for ever.
struct Mark<'a> {
    cache: &'a Shared,
    band: Band,
    column: u32,
    armed: bool,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if self.armed {
            let mut state = self.cache.lock();
            if let Some(row) = state.bands.get_mut(&self.band) {
                row.tiles.remove(&self.column);
                if row.tiles.is_empty() {
                    state.bands.remove(&self.band);
                }
            }
            drop(state);
            self.cache.ready.notify_all();
        }
    }
}

impl TileCache {
    /// A cache that takes its bytes from `budget`.
    pub fn new(budget: &Budget) -> Self {
        TileCache(Arc::new(Shared {
            share: budget.open_cache(),
            slab: Slab::new(SPARE),
            state: Mutex::default(),
            ready: Condvar::new(),
        }))
    }

    /// Bytes that it may hold.
    pub fn bytes(&self) -> usize {
        self.0.share.bytes()
    }

    /// A number for a slide that opens.
    pub(crate) fn enter(&self) -> u64 {
        let mut state = self.0.lock();
        state.next_slide += 1;
        state.next_slide
    }

    /// Forgets a slide.
    pub(crate) fn leave(&self, slide: u64) {
        let mut gone = Vec::new();
        let mut state = self.0.lock();
        state.bands.retain(|band, row| {
            let keep = band.slide != slide;
            if !keep {
                gone.push(std::mem::take(row));
            }
            keep
        });
        drop(state);
    }

    /// The tile at `column` of `band`, decoded by `decode` into `bytes` bytes when it is not there. `Ok(None)`: there is no room
    /// for it and the caller decodes for itself.
    pub(crate) fn get(
        &self,
        band: Band,
        column: u32,
        bytes: usize,
        decode: impl FnOnce(&mut [u8]) -> Result<(), SlideError>,
    ) -> Result<Option<Arc<Decoded>>, SlideError> {
        let cache = &*self.0;
        let mut state = cache.lock();
        loop {
            state.clock += 1;
            let now = state.clock;
            let row = state.bands.entry(band).or_default();
            row.used = now;
            match row.tiles.get(&column) {
                Some(Slot::Ready(tile)) => return Ok(Some(tile.clone())),
                Some(Slot::Pending) => {
                    state = cache
                        .ready
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    row.tiles.insert(column, Slot::Pending);
                    break;
                }
            }
        }
        drop(state);
        let mut mark = Mark {
            cache,
            band,
            column,
            armed: true,
        };
        let Some(lease) = cache.lease(bytes) else {
            return Ok(None);
        };
        let mut pixels = cache.slab.take(bytes);
        decode(&mut pixels)?;
        let tile = Arc::new(Decoded {
            pixels,
            _lease: lease,
        });
        let mut state = cache.lock();
        mark.armed = false;
        if let Some(row) = state.bands.get_mut(&band) {
            row.tiles.insert(column, Slot::Ready(tile.clone()));
        }
        drop(state);
        cache.ready.notify_all();
        Ok(Some(tile))
    }

    /// The tile if it is there already.
    pub(crate) fn peek(&self, band: Band, column: u32) -> Option<Arc<Decoded>> {
        match self.0.lock().bands.get(&band)?.tiles.get(&column)? {
            Slot::Ready(tile) => Some(tile.clone()),
            Slot::Pending => None,
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease, after dropping as much as it takes; `None` when there is nothing left to drop.
    fn lease(&self, bytes: usize) -> Option<Lease> {
        loop {
            if let Some(lease) = self.share.try_lease(bytes) {
                return Some(lease);
            }
            // Dropped outside of the lock: it gives back to the slab and the budget.
            let gone = self.lock().oldest()?;
            drop(gone);
        }
    }
}

impl State {
    /// Takes out a tile that nobody else holds, of the row used least recently that has one.
    fn oldest(&mut self) -> Option<Arc<Decoded>> {
        let idle = |slot: &Slot| matches!(slot, Slot::Ready(tile) if Arc::strong_count(tile) == 1);
        let band = self
            .bands
            .iter()
            .filter(|(_, row)| row.tiles.values().any(idle))
            .min_by_key(|(_, row)| row.used)
            .map(|(band, _)| *band)?;
        let row = self.bands.get_mut(&band)?;
        let column = *row.tiles.iter().find(|(_, slot)| idle(slot))?.0;
        let slot = row.tiles.remove(&column);
        if row.tiles.is_empty() {
            self.bands.remove(&band);
        }
        match slot {
            Some(Slot::Ready(tile)) => Some(tile),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Fault;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const fn band(row: u32) -> Band {
        Band {
            slide: 1,
            view: 0,
            row,
        }
    }

    #[test]
    fn a_tile_that_two_threads_want_is_decoded_once() {
        let cache = TileCache::new(&Budget::new(1 << 20));
        let decoded = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for column in 0..50 {
                        let tile = cache
                            .get(band(0), column, 100, |into| {
                                decoded.fetch_add(1, Ordering::SeqCst);
                                std::thread::sleep(std::time::Duration::from_micros(300));
                                into.fill(column as u8);
                                Ok(())
                            })
                            .unwrap()
                            .unwrap();
                        assert!(tile.iter().all(|byte| *byte == column as u8));
                    }
                });
            }
        });
        assert_eq!(decoded.load(Ordering::SeqCst), 50);
    }

    #[test]
    fn the_row_used_least_recently_goes_first_and_the_share_is_kept() {
        let budget = Budget::new(4 * 400);
        let cache = TileCache::new(&budget);
        let get = |row, column| {
            cache
                .get(band(row), column, 100, |_| Ok(()))
                .unwrap()
                .is_some()
        };
        assert!(get(0, 0) && get(1, 0) && get(0, 1) && get(1, 1));
        assert!(get(1, 2));
        assert!(budget.cached() <= 400);
        assert!(
            cache.peek(band(0), 0).is_none(),
            "the oldest row's first tile went"
        );
        assert!(cache.peek(band(1), 0).is_some());
    }

    #[test]
    fn a_failure_is_not_kept_and_wakes_whoever_waits() {
        let cache = TileCache::new(&Budget::new(1 << 20));
        let error = SlideError::new(Fault::Damaged, "a", "b", "");
        let tried = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let got = cache.get(band(0), 0, 10, |_| {
                        tried.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(5));
                        Err(error.clone())
                    });
                    assert!(got.is_err());
                });
            }
        });
        assert_eq!(tried.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn without_room_the_caller_decodes_for_itself() {
        let budget = Budget::new(100);
        let cache = TileCache::new(&budget);
        let got = cache.get(band(0), 0, 1_000, |_| Ok(())).unwrap();
        assert!(got.is_none());
        cache.leave(1);
        assert_eq!(budget.cached(), 0);
    }
}
