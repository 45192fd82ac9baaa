//! How many passes of a model run at once.

use std::sync::{Condvar, Mutex, PoisonError};

/// Turns that are given out and given back.
#[derive(Debug)]
pub struct Turns {
    all: usize,
    free: Mutex<usize>,
    given_back: Condvar,
}

/// Turns that somebody has, until it is dropped.
#[derive(Debug)]
pub struct Turn<'t> {
    of: &'t Turns,
    count: usize,
}

impl Turns {
    /// So many, at least one.
    pub fn new(all: usize) -> Turns {
        let all = all.max(1);
        Turns {
            all,
            free: Mutex::new(all),
            given_back: Condvar::new(),
        }
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.all
    }

    /// One turn; waits for it.
    pub fn one(&self) -> Turn<'_> {
        self.take(1)
    }

    /// All turns; waits for them. Who has one already waits for ever.
    pub fn alone(&self) -> Turn<'_> {
        self.take(self.all)
    }

    fn take(&self, count: usize) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |free: &mut usize| *free < count;
        let mut free = self
            .given_back
            .wait_while(free, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        Turn { of: self, count }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut free = self.of.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free += self.count;
        // All: who waits for several must not be the only one that is woken.
        self.of.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn as_many_at_once_as_there_are_turns_and_one_who_is_alone() {
        let turns = Turns::new(3);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (turns, now, most) = (&turns, &now, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let alone = number == 0;
                        let turn = if alone { turns.alone() } else { turns.one() };
                        let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(at_once, Ordering::SeqCst);
                        assert!(at_once == 1 || !alone);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(Turns::new(0).all(), 1);
    }
}
