//! Where open calls are kept, and the numbers under which plugins know them.
//!
//! A `weir_call *` is no address but a number: the place in its low bits, above them how often that place was taken. So a plugin that
//! names a call which is over, however late and from whatever thread, or one that never was, is found out and touches nothing: places
//! are never freed, and the number of a later call in the same place is another.
//!
//! What is known of a call is reached under its number only, and only while it is open: one word says both, and is the lock too. A
//! call is thus opened with a store and closed with one atomic operation, and so is each function of the host's that it calls; two
//! threads of one call seldom meet.

use crate::batch::task::Task;
use crate::desk::Desk;
use crate::who::Who;
use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// A call's state. Threads that are at calls of theirs do not meet in a cache line, nor in two that are fetched together.
#[repr(align(128))]
pub(crate) struct Place {
    /// Its own number.
    at: u32,
    /// How often it was taken, above [`OPEN`] and [`HELD`].
    state: AtomicU64,
    /// Whose call it is, or was, and from which turn on: a stage that is gone is not held on to, nor the run's memory with it.
    whose: Mutex<(u64, Weak<Who>)>,
    desk: UnsafeCell<Desk>,
}

// SAFETY: the desk is reached by who holds the lock of an open call, and by who has taken the place while no call is open in it.
unsafe impl Sync for Place {}

/// A call is open in the place.
const OPEN: u64 = 1;
/// A thread is at its desk.
const HELD: u64 = 2;
/// Bits of the two.
const FLAGS: u32 = 2;

impl Place {
    /// The desk of call number `number`, the caller's alone; `None` when it is over.
    #[inline]
    pub fn desk(&self, number: u64) -> Option<AtDesk<'_>> {
        let open = turn(number) << FLAGS | OPEN;
        match self.swap(open, open | HELD) {
            Ok(()) => Some(AtDesk { place: self, open }),
            Err(now) => self.desk_later(open, now),
        }
    }

    /// The same where another thread is at it, or the call is over: its state, open, and as it was found.
    #[cold]
    fn desk_later(&self, open: u64, mut now: u64) -> Option<AtDesk<'_>> {
        let mut meeting = Meeting::default();
        while now == open | HELD {
            meeting.wait();
            match self.swap(open, open | HELD) {
                Ok(()) => return Some(AtDesk { place: self, open }),
                Err(other) => now = other,
            }
        }
        None
    }

    #[inline]
    fn swap(&self, from: u64, to: u64) -> Result<(), u64> {
        self.state
            .compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }

    /// Closes the call that is open, of that state when it is over, once nobody is at its desk.
    #[cold]
    fn close_later(&self, over: u64) {
        let mut meeting = Meeting::default();
        while self.swap(over | OPEN, over).is_err() {
            meeting.wait();
        }
    }

    /// Notes whose calls those in it are from that turn on.
    #[cold]
    fn is_now(&self, who: &Arc<Who>, turn: u64) {
        let mut whose = self.whose.lock().unwrap_or_else(PoisonError::into_inner);
        *whose = (turn, Arc::downgrade(who));
    }

    /// Whose call that one is, or was, as long as nobody else's took its place.
    pub fn whose(&self, number: u64) -> Option<Arc<Who>> {
        let whose = self.whose.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.state.load(Ordering::Acquire) >> FLAGS;
        let is = (whose.0..=last).contains(&turn(number));
        whose.1.upgrade().filter(|_| is)
    }
}

/// A thread that waits for another to leave a desk: that is soon, but for one that makes a large batch there.
#[derive(Default)]
struct Meeting(u32);

impl Meeting {
    #[cold]
    fn wait(&mut self) {
        self.0 += 1;
        match self.0 {
            0..64 => std::hint::spin_loop(),
            64..80 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

/// A thread at the desk of an open call.
pub(crate) struct AtDesk<'a> {
    place: &'a Place,
    open: u64,
}

impl Deref for AtDesk<'_> {
    type Target = Desk;
    #[inline]
    fn deref(&self) -> &Desk {
        // SAFETY: who set HELD has the desk alone until it is cleared.
        unsafe { &*self.place.desk.get() }
    }
}

impl DerefMut for AtDesk<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Desk {
        // SAFETY: as above.
        unsafe { &mut *self.place.desk.get() }
    }
}

impl Drop for AtDesk<'_> {
    #[inline]
    fn drop(&mut self) {
        self.place.state.store(self.open, Ordering::Release);
    }
}

const _: () = assert!(usize::BITS >= 64, "a call's number is as wide as a pointer");

/// Bits of a number that name the place.
const BITS: u32 = 20;
const BLOCK: usize = 256;
const BLOCKS: usize = (1 << BITS) / BLOCK;

/// The turn after it is the first again.
const LAST_TURN: u64 = u64::MAX >> (BITS + FLAGS);

/// How often its place was taken, of a call's number.
#[inline]
pub(crate) const fn turn(number: u64) -> u64 {
    number >> BITS
}

/// Blocks of places; a block that is there stays.
static PLACES: [OnceLock<Box<[Place; BLOCK]>>; BLOCKS] = [const { OnceLock::new() }; BLOCKS];

/// Places that no thread has for its own, and how many there are.
static SPARE: Mutex<(VecDeque<&'static Place>, u32)> = Mutex::new((VecDeque::new(), 0));

/// A thread's places that no call has. They are taken in turns: a call that is named too late is known for what it was as long as its
/// place has no other.
struct Own {
    places: [Cell<Option<&'static Place>>; KEPT],
    next: Cell<usize>,
}

/// A thread keeps so many.
const KEPT: usize = 16;

impl Own {
    #[inline]
    fn take(&self) -> Option<&'static Place> {
        let next = self.next.get();
        self.next.set((next + 1) % KEPT);
        self.places[next].take()
    }

    /// Puts one where the last one was taken, or where there is room.
    #[inline]
    fn put(&self, place: &'static Place) -> bool {
        let last = (self.next.get() + KEPT - 1) % KEPT;
        let mut places = (last..last + KEPT).map(|at| &self.places[at % KEPT]);
        let free = places.find(|free| free.get().is_none());
        free.map(|free| free.set(Some(place))).is_some()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let left = self.places.iter().filter_map(Cell::take);
        spare().0.extend(left);
    }
}

thread_local! {
    static OWN: Own = const { Own {
        places: [const { Cell::new(None) }; KEPT],
        next: Cell::new(0),
    } };
}

fn spare() -> MutexGuard<'static, (VecDeque<&'static Place>, u32)> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place that no other call has until it is given back.
pub(crate) struct Taken(&'static Place);

impl Taken {
    #[inline]
    pub fn take() -> Taken {
        let own = OWN.try_with(Own::take);
        Taken(own.ok().flatten().unwrap_or_else(fresh))
    }

    /// Opens a call of `who` in the place, which has none, with the task that its desk has; its number, and where it is.
    #[inline(always)]
    pub fn open(&mut self, who: &Arc<Who>) -> (u64, &'static Place) {
        let place = self.0;
        let last = place.state.load(Ordering::Relaxed) >> FLAGS;
        let mut turn = (last + 1) & LAST_TURN;
        // SAFETY: no call is open in it, and nobody else has taken it.
        let desk = unsafe { &mut *place.desk.get() };
        // Turns that begin anew are those of nobody before, and are counted from 1.
        if turn <= 1 || !std::ptr::eq(desk.who, Arc::as_ptr(who)) {
            turn = turn.max(1);
            desk.who = Arc::as_ptr(who);
            place.is_now(who, turn);
        }
        let number = turn << BITS | u64::from(place.at);
        desk.begin(number);
        place.state.store(turn << FLAGS | OPEN, Ordering::Release);
        (number, place)
    }

    /// What the next call is to be given, or the last one was given and did; closes it.
    #[inline]
    pub fn task(&mut self) -> &mut Task {
        &mut self.close().task
    }

    /// Nothing is left of the last call; closes it.
    #[cold]
    pub fn forget(&mut self) {
        self.close().clear();
    }

    /// Closes the call that is open in the place. What it left is the caller's; nobody comes to its desk any more.
    #[inline]
    pub fn close(&mut self) -> &mut Desk {
        let place = self.0;
        let state = place.state.load(Ordering::Relaxed);
        // None but who has taken the place opens and closes.
        if state & OPEN != 0 {
            let over = state & !(OPEN | HELD);
            if place.swap(over | OPEN, over).is_err() {
                place.close_later(over);
            }
        }
        // SAFETY: no call is open in it now, and nobody else has taken it.
        unsafe { &mut *place.desk.get() }
    }
}

impl Drop for Taken {
    #[inline]
    fn drop(&mut self) {
        self.forget();
        // A thread that is ending keeps none.
        if !OWN.try_with(|own| own.put(self.0)).unwrap_or(false) {
            spare().0.push_back(self.0);
        }
    }
}

/// A place that no thread has.
#[cold]
fn fresh() -> &'static Place {
    let mut spare = spare();
    if let Some(place) = spare.0.pop_front() {
        return place;
    }
    let at = spare.1 as usize;
    // A process has far fewer calls open at once.
    assert!(at < BLOCKS * BLOCK, "too many calls are open");
    spare.1 += 1;
    let place = |i| Place {
        at: (at / BLOCK * BLOCK + i) as u32,
        state: AtomicU64::new(0),
        whose: Mutex::default(),
        desk: UnsafeCell::default(),
    };
    let block = PLACES[at / BLOCK].get_or_init(|| Box::new(std::array::from_fn(place)));
    &block[at % BLOCK]
}

/// The place that a number names; `None` where no call ever was.
#[inline]
pub(crate) fn named(number: u64) -> Option<&'static Place> {
    let at = (number & ((1 << BITS) - 1)) as usize;
    Some(&PLACES[at / BLOCK].get()?[at % BLOCK])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weir_abi::status;

    fn who(name: &str) -> Arc<Who> {
        Arc::new(Who::plugin(name, &semver::Version::new(1, 0, 0)))
    }

    #[test]
    fn no_two_calls_have_one_number_and_a_place_comes_back_late() {
        let mut seen = std::collections::HashSet::new();
        let mut last = VecDeque::new();
        let who = who("probe");
        for _ in 0..100 {
            let mut taken = Taken::take();
            let (number, place) = taken.open(&who);
            assert!(seen.insert(number));
            assert_ne!(number, 0);
            assert!(named(number).is_some_and(|named| std::ptr::eq(named, place)));
            let place = number & 0xF_FFFF;
            assert!(!last.contains(&place), "a place that was just used");
            last.push_back(place);
            if last.len() == KEPT {
                last.pop_front();
            }
        }
    }

    #[test]
    fn what_never_was_a_call_names_no_place() {
        assert!(named(u64::MAX).is_none());
        assert!(named(0x7FFF_DEAD_BEE0 | 0xF_0000).is_none());
    }

    #[test]
    fn a_call_has_its_desk_while_it_is_open_and_its_name_until_another_has_the_place() {
        let (first, second) = (who("first"), who("second"));
        let mut taken = Taken::take();
        let (one, place) = taken.open(&first);
        assert!(place.desk(one).is_some());
        taken.close();
        assert!(place.desk(one).is_none());
        assert_eq!(place.whose(one).unwrap().plugin_name, "first");
        let (again, _) = taken.open(&first);
        assert!(place.desk(one).is_none() && place.desk(again).is_some());
        for known in [one, again] {
            assert_eq!(place.whose(known).unwrap().plugin_name, "first");
        }
        taken.close();
        let (two, _) = taken.open(&second);
        for over in [one, again] {
            assert!(place.desk(over).is_none() && place.whose(over).is_none());
        }
        assert!(place.desk(two).is_some());
        assert_eq!(place.whose(two).unwrap().plugin_name, "second");
        drop(first);
        drop(second);
        assert!(place.whose(two).is_none(), "a stage that is gone is held");
    }

    #[test]
    fn calls_are_known_by_their_names_when_a_places_turns_begin_anew() {
        let who = who("probe");
        let mut taken = Taken::take();
        let (early, place) = taken.open(&who);
        taken.close();
        place
            .state
            .store((LAST_TURN - 1) << FLAGS, Ordering::Release);
        let (last, _) = taken.open(&who);
        assert!(place.whose(last).is_some() && place.desk(last).is_some());
        taken.close();
        let (first, _) = taken.open(&who);
        assert_eq!(turn(first), 1);
        assert!(place.whose(first).is_some() && place.desk(first).is_some());
        assert!(place.whose(last).is_none() && place.desk(last).is_none());
        assert!(place.desk(early).is_none());
    }

    #[test]
    fn threads_that_meet_at_a_desk_have_it_one_after_the_other_and_none_after_its_end() {
        let who = who("probe");
        for _ in 0..20 {
            let mut taken = Taken::take();
            let (number, place) = taken.open(&who);
            let (begun, told) = std::sync::mpsc::channel();
            let counted = std::thread::scope(|threads| {
                let all: Vec<_> = (0..4)
                    .map(|_| {
                        let begun = begun.clone();
                        threads.spawn(move || {
                            let mut done = 0;
                            while let Some(mut desk) = place.desk(number) {
                                let count = desk.completed.unwrap_or(status::OK);
                                std::hint::black_box(&count);
                                desk.completed = Some(count + 1);
                                drop(desk);
                                done += 1;
                                if done == 100 {
                                    begun.send(()).unwrap();
                                }
                            }
                            done
                        })
                    })
                    .collect();
                for _ in 0..4 {
                    told.recv().unwrap();
                }
                let at_end = taken.close().completed;
                let done = all.into_iter().map(|thread| thread.join().unwrap());
                (done.sum::<i32>(), at_end)
            });
            assert_eq!(Some(counted.0), counted.1);
        }
    }
}
