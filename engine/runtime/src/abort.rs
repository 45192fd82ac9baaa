//! When something is broken beyond one tile or slide, everything ends within seconds and the first message is told first.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

/// The run's abort flag and the message that set it.
#[derive(Clone, Default)]
pub struct Abort(Arc<Inner>);

#[derive(Default)]
struct Inner {
    set: AtomicBool,
    first: Mutex<Option<String>>,
    workers: Mutex<Vec<Thread>>,
}

impl Abort {
    /// Ends the run: keeps the first message, wakes every worker.
    pub fn fatal(&self, message: String) {
        self.0
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(message);
        self.0.set.store(true, Ordering::SeqCst);
        for worker in self
            .0
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            worker.unpark();
        }
    }

    /// Whether the run is to end.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// The first message.
    pub fn first(&self) -> Option<String> {
        self.0
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The calling thread is a worker: it is woken when the run ends.
    pub(crate) fn enlist(&self) {
        self.0
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(std::thread::current());
    }
}

/// The text of a caught panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    let thread = std::thread::current()
        .name()
        .unwrap_or("a thread without a name")
        .to_owned();
    format!("{thread} panicked: {text}")
}

/// A handle that stops a run from outside: the first request drains it, the second aborts it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks for the end; returns how often that was asked now.
    pub fn request(&self) -> u8 {
        self.0.fetch_add(1, Ordering::SeqCst).saturating_add(1)
    }

    /// How often the end was asked for.
    pub fn level(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}
