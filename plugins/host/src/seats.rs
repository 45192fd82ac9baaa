//! What threads that call a stage keep of it between their calls.

use crate::batch::task::Rows;
use crate::call::next_number;
use crate::instance::Instance;
use crate::places::Taken;
use std::cell::Cell;
use std::sync::Arc;
use thread_local::ThreadLocal;

/// A seat for each thread that calls a stage.
pub(crate) struct Seats {
    /// No other stage of this process has it, nor will one have it.
    number: u64,
    all: ThreadLocal<Seat>,
}

/// What a thread's last call needed: its next one takes it, and puts it back.
#[derive(Default)]
pub(crate) struct Seat(Cell<Option<Box<Near>>>);

/// A place for a call with the memory of its rows, and the instance that all calls have, where they have the same.
pub(crate) struct Near {
    pub taken: Taken,
    pub instance: Option<Arc<Instance>>,
}

thread_local! {
    /// The number of the stage that the thread called last, and where its seat there is.
    static LAST: Cell<(u64, *const Seat)> = const { Cell::new((0, std::ptr::null())) };
}

impl Default for Seats {
    fn default() -> Seats {
        Seats {
            number: next_number(),
            all: ThreadLocal::new(),
        }
    }
}

impl Seats {
    /// The calling thread's.
    #[inline(always)]
    pub fn own(&self) -> &Seat {
        let (number, seat) = LAST.get();
        match number == self.number {
            // SAFETY: it is this thread's seat here, which stays where it is as long as `self` lives.
            true => unsafe { &*seat },
            false => self.find(),
        }
    }

    #[inline(never)]
    fn find(&self) -> &Seat {
        let seat = self.all.get_or_default();
        LAST.set((self.number, seat));
        seat
    }
}

impl Seat {
    /// What the last call left, or a place without an instance.
    #[inline]
    pub fn take(&self) -> Box<Near> {
        self.0.take().unwrap_or_else(Near::unused)
    }

    /// For the next call.
    #[inline]
    pub fn put(&self, near: Box<Near>) {
        self.0.set(Some(near));
    }
}

impl Near {
    #[cold]
    fn unused() -> Box<Near> {
        Box::new(Near {
            taken: Taken::take(),
            instance: None,
        })
    }

    /// The rows of the last call, or such as `unused` makes.
    #[inline]
    pub fn rows(&mut self, unused: impl FnOnce() -> Box<Rows>) -> &mut Rows {
        self.taken.task().rows(unused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_one_seat_at_each_stage_and_no_other_thread_has_it() {
        let (one, other) = (Seats::default(), Seats::default());
        let seats = || [&one, &other, &one, &other].map(|all| std::ptr::from_ref(all.own()).addr());
        let mine = seats();
        assert_eq!(mine[..2], mine[2..]);
        assert_ne!(mine[0], mine[1]);
        let (here, there) = std::thread::scope(|threads| {
            let thread = threads.spawn(seats);
            (seats(), thread.join().unwrap_or_default())
        });
        assert_eq!(here, mine);
        assert!(there.iter().all(|seat| *seat != 0 && !mine.contains(seat)));
    }

    #[test]
    fn a_stage_that_comes_where_one_was_has_seats_of_its_own() {
        for turn in 0..100 {
            let seats = Seats::default();
            let near = seats.own().0.take();
            assert!(near.is_none(), "turn {turn}");
            seats.own().put(Near::unused());
        }
    }
}
