//! What is known of a call while it is open.

use crate::batch::live::Noted;
use crate::batch::task::Task;
use crate::who::Who;
use std::thread::Thread;
use weir_abi::desk::Said;
use weir_abi::status::Status;

/// What is known of a call, in its place.
pub(crate) struct Desk {
    /// Whose call it was that had the place last: only to be compared.
    pub(crate) who: *const Who,
    pub task: Task,
    pub(crate) completed: Option<Status>,
    /// Who waits for it to be completed.
    pub(crate) waiter: Option<Thread>,
    pub(crate) error: Option<Box<Said>>,
    /// The first thing that was done against the rules.
    pub(crate) breach: Option<Box<str>>,
}

// SAFETY: `who` is never followed.
unsafe impl Send for Desk {}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            who: std::ptr::null(),
            task: Task::Setup,
            completed: None,
            waiter: None,
            error: None,
            breach: None,
        }
    }
}

impl Desk {
    /// For a call of that number with that task, where one is over whose end took what it left.
    #[inline]
    pub(crate) fn begin(&mut self, number: u64, task: Task) {
        if let Some(input) = task.input() {
            input.references().belongs_to(number);
        }
        self.task = task;
        self.completed = None;
        // What a call left that was never ended.
        if self.error.is_some() || self.breach.is_some() || self.waiter.is_some() {
            (self.error, self.breach, self.waiter) = (None, None, None);
        }
    }
}
