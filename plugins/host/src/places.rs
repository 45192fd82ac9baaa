//! Where open calls are kept, and the numbers under which plugins know them.
//!
//! A `weir_call *` is no address but a number: the place in its low bits, above them how often that place was taken. So a plugin that
//! names a call which is over, however late and from whatever thread, or one that never was, is found out and touches nothing: places
//! are never freed, and the number of a later call in the same place is another.

use crate::call::Desk;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A call's state, and who waits for its end.
#[derive(Default)]
pub(crate) struct Place {
    desk: Mutex<Desk>,
    pub over: Condvar,
}

impl Place {
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const _: () = assert!(usize::BITS >= 64, "a call's number is as wide as a pointer");

/// Bits of a number that name the place.
const BITS: u32 = 20;
const BLOCK: usize = 256;
const BLOCKS: usize = (1 << BITS) / BLOCK;

/// Blocks of places; a block that is there stays.
static PLACES: [OnceLock<Box<[Place]>>; BLOCKS] = [const { OnceLock::new() }; BLOCKS];

/// Places that no thread has for its own, and how many there are.
static SPARE: Mutex<(VecDeque<usize>, usize)> = Mutex::new((VecDeque::new(), 0));

/// A thread's places that no call has. The one that was used longest ago is taken first: a call that is named too late is then known
/// for what it was as long as can be.
struct Own(VecDeque<usize>);

/// A thread keeps at least so many.
const KEPT: usize = 16;

impl Drop for Own {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        spare.0.extend(self.0.drain(..));
    }
}

thread_local! {
    static OWN: RefCell<Own> = const { RefCell::new(Own(VecDeque::new())) };
}

/// A place that no other call has until it is given back.
pub(crate) struct Taken {
    at: usize,
    pub place: &'static Place,
}

impl Taken {
    pub fn take() -> Taken {
        let own = OWN.try_with(|own| {
            let mut own = own.borrow_mut();
            (own.0.len() >= KEPT).then(|| own.0.pop_front()).flatten()
        });
        let at = own.ok().flatten().unwrap_or_else(fresh);
        Taken { at, place: of(at) }
    }

    /// The number of the call that comes after the one of `last` in this place.
    pub fn next(&self, last: u64) -> u64 {
        let turn = (last >> BITS).wrapping_add(1).max(1) & (u64::MAX >> BITS);
        turn.max(1) << BITS | self.at as u64
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let kept = OWN.try_with(|own| own.borrow_mut().0.push_back(self.at));
        if kept.is_err() {
            // The thread is ending.
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            spare.0.push_back(self.at);
        }
    }
}

/// A place that no thread has.
fn fresh() -> usize {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    spare.0.pop_front().unwrap_or_else(|| {
        spare.1 += 1;
        // A process has far fewer calls open at once.
        assert!(spare.1 <= BLOCKS * BLOCK, "too many calls are open");
        spare.1 - 1
    })
}

fn of(at: usize) -> &'static Place {
    let block = PLACES[at / BLOCK].get_or_init(|| (0..BLOCK).map(|_| Place::default()).collect());
    &block[at % BLOCK]
}

/// The place that a number names; `None` where no call ever was.
pub(crate) fn named(number: u64) -> Option<&'static Place> {
    let at = (number & ((1 << BITS) - 1)) as usize;
    PLACES[at / BLOCK].get()?.get(at % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_calls_have_one_number_and_a_place_comes_back_late() {
        let mut seen = std::collections::HashSet::new();
        let mut last = None;
        for _ in 0..100 {
            let taken = Taken::take();
            let number = taken.next(taken.place.desk().number());
            *taken.place.desk() = Desk::numbered(number);
            assert!(seen.insert(number));
            assert_ne!(number, 0);
            assert!(named(number).is_some_and(|place| std::ptr::eq(place, taken.place)));
            let place = number & 0xF_FFFF;
            assert_ne!(Some(place), last, "the place that was used last");
            last = Some(place);
        }
    }

    #[test]
    fn what_never_was_a_call_names_no_place() {
        assert!(named(u64::MAX).is_none());
        assert!(named(0x7FFF_DEAD_BEE0 | 0xF_0000).is_none());
    }
}
