//! When a batch came to its turn, and who has the last word on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Since when a batch is worked on. The time that it may take ([`BatchShape::timeout`](super::BatchShape)) begins with its turn: a stage
/// that does one batch at a time says so while another one has it, lest what waits behind one that hangs is given up with it.
#[derive(Clone, Debug, Default)]
pub struct Turn(Option<Arc<Mutex<State>>>);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Waits,
    Since(Instant),
    /// It has its outcomes.
    Answered,
    /// It took too long: its rows are tried again, and what comes of it is nobody's.
    GivenUp,
}

impl Turn {
    /// Of a call that nobody has to wait for.
    pub const NOW: Turn = Turn(None);

    /// Of a batch that waits.
    pub(crate) fn waiting() -> Turn {
        Turn(Some(Arc::default()))
    }

    /// Its turn has come.
    pub fn begins(&self) {
        self.set(State::Since(Instant::now()));
    }

    /// It has to wait again.
    pub fn waits(&self) {
        self.set(State::Waits);
    }

    /// Whether it waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state()
            .is_some_and(|state| matches!(*state, State::Waits))
    }

    /// Since when; `None` while it waits, and when it is over.
    pub(crate) fn since(&self) -> Option<Instant> {
        match *self.state()? {
            State::Since(since) => Some(since),
            _ => None,
        }
    }

    /// The batch has its outcomes; whether they count, which they do unless it was given up before.
    pub(crate) fn answer(&self) -> bool {
        self.set(State::Answered)
    }

    /// It is waited for no longer; `false` when it has its outcomes, which are on their way then.
    pub(crate) fn give_up(&self) -> bool {
        self.set(State::GivenUp)
    }

    /// Whether the state is now `next`: what is over stays as it is.
    fn set(&self, next: State) -> bool {
        let Some(mut state) = self.state() else {
            return true;
        };
        let open = matches!(*state, State::Waits | State::Since(_));
        if open {
            *state = next;
        }
        open
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let turn = self.0.as_ref()?;
        Some(turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_answered_or_given_up_and_never_both() {
        let [one, two] = [Turn::waiting(), Turn::waiting()];
        assert!(one.is_waiting());
        one.begins();
        assert!(one.since().is_some() && !one.is_waiting());
        assert!(one.answer() && !one.give_up());
        assert!(two.give_up() && !two.answer());
        // A stage that was given up and comes back to its turn after all begins nothing.
        for over in [one, two] {
            over.begins();
            assert!(over.since().is_none());
            over.waits();
            assert!(!over.is_waiting());
        }
        assert!(Turn::NOW.answer());
    }
}
