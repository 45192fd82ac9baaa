//! When a batch came to its turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Since when a batch is worked on. The time that it may take ([`BatchShape::timeout`](super::BatchShape)) begins with its turn: a stage
/// that does one batch at a time says so while another one has it, lest what waits behind one that hangs is given up with it.
#[derive(Clone, Debug, Default)]
pub struct Turn(Option<Arc<Mutex<Option<Instant>>>>);

impl Turn {
    /// Of a call that nobody has to wait for.
    pub const NOW: Turn = Turn(None);

    /// Of a batch that waits.
    pub(crate) fn waiting() -> Turn {
        Turn(Some(Arc::default()))
    }

    /// Its turn has come.
    pub fn begins(&self) {
        self.set(Some(Instant::now()));
    }

    /// It has to wait again.
    pub fn waits(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        if let Some(turn) = &self.0 {
            *turn.lock().unwrap_or_else(PoisonError::into_inner) = since;
        }
    }

    /// Since when; `None` while it waits.
    pub(crate) fn since(&self) -> Option<Instant> {
        let turn = self.0.as_ref()?;
        *turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
