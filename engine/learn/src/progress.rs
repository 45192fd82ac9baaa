//! What a training tells while it runs, and how it is told to stop.

use std::time::{Duration, Instant};

/// How far a training is.
#[derive(Clone, Debug, PartialEq)]
pub struct At<'a> {
    /// `scorer`, `bag-squared-average`, ...
    pub phase: &'a str,
    /// Epoch, from 1.
    pub epoch: u64,
    /// Of the phase.
    pub epochs: u64,
    /// Part of the epoch that is done, 0 to 1.
    pub part: f64,
    /// Mean loss so far in the epoch.
    pub loss: f64,
    /// Time left in the phase, from the time that its epochs of this run took; `None` before anything was measured.
    pub left: Option<Duration>,
}

/// Takes what a training tells.
pub trait Progress {
    /// Called after each step.
    fn at(&mut self, at: &At);
    /// A line worth keeping, as at the end of an epoch.
    fn note(&mut self, line: &str);
    /// Asked after each epoch, when its checkpoint is on disk; `false` ends the run, which `--resume` goes on with.
    fn go_on(&mut self) -> bool {
        true
    }
}

/// Measures a phase.
pub(crate) struct Clock {
    start: Instant,
    /// Epochs that an earlier run did.
    before: u64,
    epochs: u64,
}

impl Clock {
    pub(crate) fn new(before: u64, epochs: u64) -> Self {
        Clock {
            start: Instant::now(),
            before,
            epochs,
        }
    }

    /// Time left when `done` epochs and a part of the next are behind.
    pub(crate) fn left(&self, done: u64, part: f64) -> Option<Duration> {
        let here = (done - self.before) as f64 + part;
        let rest = (self.epochs - done) as f64 - part;
        (here > 0.02).then(|| self.start.elapsed().mul_f64((rest / here).max(0.0)))
    }
}
