//! The batches that there are, by their addresses.
//!
//! A plugin names a batch by its address, and may name one that is gone: it emitted or released it before. So nothing is read there
//! before it is known that a batch is. Of two batches that had the same address one after the other, the plugin has the second only
//! where it was handed that.

use super::HostBatch;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Several sets, so that threads seldom meet at one.
const SETS: usize = 16;

static LIVE: [Mutex<Option<HashSet<usize>>>; SETS] = [const { Mutex::new(None) }; SETS];

fn set(at: usize) -> MutexGuard<'static, Option<HashSet<usize>>> {
    // Batches lie at multiples of their alignment, and are some hundred bytes long.
    let set = &LIVE[(at >> 9 ^ at >> 13) % SETS];
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a batch, where it stays.
pub(super) fn born(batch: *const HostBatch) {
    let at = batch.addr();
    set(at).get_or_insert_default().insert(at);
}

/// Forgets it.
pub(super) fn gone(batch: *const HostBatch) {
    let at = batch.addr();
    if let Some(live) = set(at).as_mut() {
        live.remove(&at);
    }
}

/// What `look` finds at a batch, which stays as long; `None` where there is none.
pub(super) fn with<T>(batch: *const HostBatch, look: impl FnOnce(&HostBatch) -> T) -> Option<T> {
    let at = batch.addr();
    let set = set(at);
    let live = set.as_ref().is_some_and(|live| live.contains(&at));
    // SAFETY: it is there, and who drops it comes here first.
    live.then(|| look(unsafe { &*batch }))
}
