//! The batches that there are, by their addresses.
//!
//! A plugin names a batch by its address, and may name one that is gone: it emitted or released it before. So nothing is read there;
//! what has to be known of it, whose it is and how many references are the plugin's, is here. Of two batches that had the same address
//! one after the other, the plugin has the second only where it was handed that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weir_abi::column::Batch;

/// Whose a batch is, and who has it.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Number of the call that made it, or whose input it is.
    call: AtomicU64,
    /// References that are the plugin's to give up: none of an input that it was lent.
    held: AtomicU32,
}

impl References {
    /// Notes whose it is. Rows that are made are those of that call's input, so they can be emitted in no other.
    #[inline]
    pub fn belongs_to(&self, call: u64) {
        self.call.store(call, Ordering::Relaxed);
    }

    /// Number of the call that made it, or whose input it is.
    pub fn call(&self) -> u64 {
        self.call.load(Ordering::Relaxed)
    }

    /// A reference more is the plugin's.
    pub fn hand(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
    }

    /// The same where it has one already; whether it has.
    pub fn hand_again(&self) -> bool {
        let more = |held: u32| (held > 0).then_some(held + 1);
        let held = self
            .held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        held.is_ok()
    }

    /// A reference of the plugin's ends; false when it has none.
    pub fn hand_back(&self) -> bool {
        let less = |held: u32| held.checked_sub(1);
        let held = self
            .held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        held.is_ok()
    }
}

type Set = HashMap<usize, Arc<References>>;

/// Several sets, so that threads seldom meet at one.
const SETS: usize = 16;

static LIVE: [Mutex<Option<Set>>; SETS] = [const { Mutex::new(None) }; SETS];

fn set(at: usize) -> MutexGuard<'static, Option<Set>> {
    // Batches lie at multiples of their alignment, and are some hundred bytes long.
    let set = &LIVE[(at >> 9 ^ at >> 13) % SETS];
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a batch, where it stays.
fn born(at: usize, references: &Arc<References>) {
    set(at)
        .get_or_insert_default()
        .insert(at, references.clone());
}

/// Forgets it.
pub(crate) fn gone(at: usize) {
    if let Some(live) = set(at).as_mut() {
        live.remove(&at);
    }
}

/// What `look` finds of a batch; `None` where there is none. The batch itself stays until `look` is done where a reference to it is the
/// plugin's: who ends that comes here first.
fn with<T>(at: usize, look: impl FnOnce(&References) -> T) -> Option<T> {
    let set = set(at);
    let of = set.as_ref().and_then(|live| live.get(&at));
    of.map(|of| look(of))
}

/// A batch that plugins know by its address.
///
/// # Safety
/// It is `repr(C)`, with the header's struct first, and is no longer known ([`gone`]) once it is dropped; of no other type are batches
/// noted in the same process.
pub(crate) unsafe trait Noted: Sized {
    /// Whose it is, and who has it.
    fn references(&self) -> &Arc<References>;

    /// The host's side of a batch that a plugin names.
    #[inline]
    fn of(batch: *const Batch) -> *const Self {
        batch.cast()
    }

    /// In its place, where plugins may know it.
    fn placed(self) -> Arc<Self> {
        let batch = Arc::new(self);
        born(Arc::as_ptr(&batch).addr(), batch.references());
        batch
    }

    /// What `look` finds of a batch that a plugin names; `None` where there is none any more.
    fn named<T>(batch: *const Batch, look: impl FnOnce(&References) -> T) -> Option<T> {
        with(batch.addr(), look)
    }

    /// Another reference for the plugin to a batch of which it has one already; false where it has none.
    fn retained(batch: *const Batch) -> bool {
        let again = with(batch.addr(), |of| {
            let again = of.hand_again();
            if again {
                // SAFETY: of this type alone are batches noted; the reference that the plugin has stays until it was handed back,
                // which is done in turns with this.
                unsafe { Arc::increment_strong_count(Self::of(batch)) };
            }
            again
        });
        again == Some(true)
    }

    /// Its address, for a plugin, with one reference.
    fn into_ptr(batch: Arc<Self>) -> *mut Batch {
        Arc::into_raw(batch).cast_mut().cast()
    }

    /// Its address, as long as the caller has it.
    #[inline]
    fn as_ptr(self: &Arc<Self>) -> *const Batch {
        Arc::as_ptr(self).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_end_as_often_as_they_were_handed_out_and_what_has_none_gets_no_more() {
        let references = References::default();
        assert!(!references.hand_back() && !references.hand_again());
        references.hand();
        assert!(references.hand_again());
        assert!(references.hand_back() && references.hand_back());
        assert!(!references.hand_back() && !references.hand_again());
    }

    #[test]
    fn a_batch_that_is_gone_is_known_no_more() {
        let references = Arc::new(References::default());
        references.belongs_to(7);
        let at = Arc::as_ptr(&references).addr();
        assert_eq!(with(at, References::call), None);
        born(at, &references);
        assert_eq!(with(at, References::call), Some(7));
        gone(at);
        assert_eq!(with(at, References::call), None);
    }
}
