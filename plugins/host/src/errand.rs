//! A thread that stands ready for what the run cannot do on its own threads, since it may hang, and what most often takes no time: the
//! last call into an instance. To start a thread for it would take longer than it does.
//!
//! One that hangs keeps the thread, and others get threads of their own meanwhile. What a plugin leaves on the thread the next one finds
//! there, a signal mask as well as values of `thread_local`, whose destructors do not run: as on the run's own threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SendError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::Builder;

/// What is to be run.
pub(crate) type Errand = Box<dyn FnOnce() + Send>;

struct Place {
    /// Whether the thread waits.
    waits: bool,
    next: Option<Errand>,
}

static PLACE: Mutex<Place> = Mutex::new(Place {
    waits: false,
    next: None,
});
static CALLED: Condvar = Condvar::new();

fn place() -> MutexGuard<'static, Place> {
    PLACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, the first time. Where it cannot be started, each errand is tried on one of its own.
pub(crate) fn stand_by() {
    static THREAD: Once = Once::new();
    THREAD.call_once(|| {
        let _ = Builder::new().name(NAME.into()).spawn(serve);
    });
}

const NAME: &str = "weir-errand";

fn serve() {
    let mut place = place();
    loop {
        place = match place.next.take() {
            Some(errand) => {
                drop(place);
                done(errand);
                self::place()
            }
            None => {
                place.waits = true;
                CALLED.wait(place).unwrap_or_else(PoisonError::into_inner)
            }
        };
    }
}

/// Whoever waits for it hears of a panic as the end of what it had.
fn done(errand: Errand) {
    let _ = catch_unwind(AssertUnwindSafe(errand));
}

/// Has it run at once on another thread: on that one where it waits, else on one of its own; here where there is none to be had.
pub(crate) fn run(errand: Errand) {
    let mut place = place();
    // Taken by the next one's hand-over, so that nothing comes behind an errand that hangs.
    match std::mem::take(&mut place.waits) {
        true => {
            place.next = Some(errand);
            CALLED.notify_one();
        }
        false => {
            drop(place);
            apart(errand);
        }
    }
}

fn apart(errand: Errand) {
    let (give, given) = channel::<Errand>();
    let thread = Builder::new().name(NAME.into());
    let started = thread.spawn(move || given.into_iter().for_each(done));
    match started {
        Ok(_) => {
            if let Err(SendError(errand)) = give.send(errand) {
                done(errand);
            }
        }
        Err(_) => done(errand),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::{Receiver, Sender};
    use std::thread::{ThreadId, current};
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(60);

    /// An errand that says when it begins, and ends when it is told to or the sender is dropped.
    fn begun() -> Sender<()> {
        let (begin, begins) = channel();
        let (end, ends): (_, Receiver<()>) = channel();
        run(Box::new(move || {
            begin.send(()).unwrap();
            let _ = ends.recv();
        }));
        begins.recv_timeout(LONG).unwrap();
        end
    }

    /// Errands until two of them, one after the other, were run by the same thread: the one that stands by.
    fn standing() -> ThreadId {
        let until = Instant::now() + LONG;
        let mut last = None;
        loop {
            let (told, tells) = channel();
            run(Box::new(move || told.send(current().id()).unwrap()));
            let now = tells.recv_timeout(LONG).unwrap();
            if last.replace(now) == Some(now) {
                return now;
            }
            assert!(Instant::now() < until, "no thread stands by");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn errands_that_hang_or_panic_keep_no_other_from_being_run_and_the_thread_stands_by_again() {
        stand_by();
        let thread = standing();
        let hanging = [begun(), begun(), begun()];
        drop(begun());
        drop(hanging);
        assert_eq!(standing(), thread);
        for _ in 0..3 {
            let (told, tells) = channel::<()>();
            run(Box::new(move || {
                let _told = told;
                panic!("an errand");
            }));
            // Its end is heard.
            assert!(tells.recv_timeout(LONG).is_err());
            assert_eq!(standing(), thread);
        }
    }
}
