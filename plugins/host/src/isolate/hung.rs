//! Whether a stage's or reader's processes still answer: where one call after the other is late, nothing is left to wait for.
//!
//! Each late call costs its whole time, and the next process begins with the next one: a plugin that hangs at every call, or that
//! somebody stops again and again, would cost that for every tile. So a number of late calls in a row is the end of it. In a row means
//! one begun after the other was over, since whatever makes one late (a disk, a service) makes those beside it late too; and of the same
//! function, since others may go on answering.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// So many late calls in a row, and no further one is made.
pub(crate) const MOST: u32 = 8;

/// Late calls of a stage or reader.
#[derive(Debug, Default)]
pub(crate) struct Hung {
    /// By the function's number: how many in a row, and when the last of them was over.
    late: Mutex<BTreeMap<u8, (u32, Instant)>>,
    /// Something is in there: calls that answer need not look, but where something was late.
    some: AtomicBool,
    over: AtomicBool,
}

impl Hung {
    fn late(&self) -> MutexGuard<'_, BTreeMap<u8, (u32, Instant)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that began then did not come back in time.
    pub fn was_late(&self, function: u8, began: Instant) {
        let mut late = self.late();
        self.some.store(true, Ordering::SeqCst);
        let now = Instant::now();
        let (count, last) = late.entry(function).or_insert((0, began));
        if began >= *last {
            (*count, *last) = (*count + 1, now);
        }
        if *count >= MOST {
            self.over.store(true, Ordering::SeqCst);
        }
    }

    /// A call came back.
    pub fn answered(&self, function: u8) {
        if self.some.load(Ordering::SeqCst) {
            self.late().remove(&function);
        }
    }

    /// Whether no further call is made.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_are_late_one_after_the_other_are_the_end_and_a_good_one_between_is_not() {
        let hung = Hung::default();
        for round in 0..3 {
            for _ in 1..MOST {
                hung.was_late(3, Instant::now());
                // Another function that answers says nothing of this one.
                hung.answered(4);
            }
            assert!(!hung.is_over(), "{round}");
            hung.answered(3);
        }
        for late in 1..=MOST {
            assert!(!hung.is_over());
            hung.was_late(3, Instant::now());
            assert_eq!(hung.is_over(), late == MOST);
        }
    }

    #[test]
    fn calls_that_are_late_at_once_count_as_one() {
        let hung = Hung::default();
        for _ in 1..MOST {
            let began = Instant::now();
            for _ in 0..100 {
                hung.was_late(3, began);
            }
        }
        assert!(!hung.is_over());
    }
}
