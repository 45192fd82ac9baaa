//! One call at a time over all instances of a stage in this process: what a manifest's `"serial"` promises where every open slide has an
//! instance of its own.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whose turn it is.
#[derive(Default)]
pub(crate) struct Alone {
    calls: Mutex<Calls>,
    over: Condvar,
}

#[derive(Default)]
struct Calls {
    under_way: bool,
    /// Since when that one is, as seen by who waited first: a call that nobody waits for need not know the time.
    since: Option<Instant>,
    waiting: usize,
}

/// A call that is the only one until this is dropped.
pub(crate) struct Turned<'a>(&'a Alone);

impl Alone {
    /// The turn of a call, when nobody has it.
    #[inline]
    pub fn now(&self) -> Option<Turned<'_>> {
        let mut calls = self.calls();
        match std::mem::replace(&mut calls.under_way, true) {
            true => None,
            false => Some(Turned(self)),
        }
    }

    /// The turn of a call, however long that takes. Whenever another one has been under way for `patience`, `late` is told, once for
    /// all who wait: it may be slow and well; if it hangs, nothing can be done about it in this process.
    pub fn awaited(&self, patience: Duration, late: impl Fn()) -> Turned<'_> {
        let mut calls = self.calls();
        calls.waiting += 1;
        loop {
            if !calls.under_way {
                calls.under_way = true;
                calls.waiting -= 1;
                return Turned(self);
            }
            let now = Instant::now();
            let since = *calls.since.get_or_insert(now);
            let left = (since + patience).saturating_duration_since(now);
            if left.is_zero() {
                calls.since = Some(now);
                drop(calls);
                late();
                calls = self.calls();
                continue;
            }
            let over = self.over.wait_timeout(calls, left);
            (calls, _) = over.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turned<'_> {
    #[inline]
    fn drop(&mut self) {
        let mut calls = self.0.calls();
        calls.under_way = false;
        calls.since = None;
        if calls.waiting > 0 {
            self.0.over.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn calls_of_many_threads_come_one_at_a_time_and_all_of_them_come() {
        let (alone, inside, all) = (Alone::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let turn = alone.now();
                        let turn =
                            turn.unwrap_or_else(|| alone.awaited(Duration::from_secs(60), || ()));
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        all.fetch_add(1, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(all.into_inner(), 2000);
    }

    #[test]
    fn a_call_that_takes_long_is_told_of_at_each_of_its_times_and_once_for_all_who_wait() {
        let (alone, told) = (Alone::default(), AtomicUsize::new(0));
        let (patience, began) = (Duration::from_millis(200), Instant::now());
        let long = alone.now().unwrap();
        assert!(alone.now().is_none());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    alone.awaited(patience, || {
                        told.fetch_add(1, Ordering::SeqCst);
                    });
                });
            }
            while told.load(Ordering::SeqCst) < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(long);
        });
        let times = began.elapsed().as_millis() / patience.as_millis();
        let told = told.into_inner();
        assert!(told as u128 <= times, "{told} of {times}");
        // The next one has its own time.
        let (next, began) = (alone.now().unwrap(), Instant::now());
        std::thread::scope(|scope| {
            scope.spawn(|| alone.awaited(patience, || assert!(began.elapsed() >= patience)));
            std::thread::sleep(2 * patience);
            drop(next);
        });
    }
}
