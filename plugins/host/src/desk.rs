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
    /// For a call of that number with the task that is there; the desk is clean.
    #[inline(always)]
    pub(crate) fn begin(&mut self, number: u64) {
        if let Some(input) = self.task.input() {
            input.references().belongs_to(number);
        }
    }

    /// Whether nothing was said of the call but what its task has.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        self.completed.is_none() && self.breach.is_none() && self.error.is_none()
    }

    /// The call is over, or is left as it is; whether the plugin completed it.
    #[inline]
    pub(crate) fn end(&mut self) -> bool {
        self.waiter = None;
        self.completed.take().is_some()
    }

    /// Nothing is left of its last call.
    pub(crate) fn clear(&mut self) {
        self.end();
        (self.task, self.error, self.breach) = (Task::Setup, None, None);
    }
}
