//! How long the first value of a batch waits for others.

use std::time::Duration;

/// How long the first value of a batch waits for others, unless the batch is full before.
///
/// Waiting saves calls, and a call saves no more than it takes: values wait four times as long as the last batch took, so that a stage
/// whose batches are not full works a fifth of the time at most, and no longer than it says itself. One that takes microseconds has
/// its values as they come, and no tile's memory is held up in front of it. Of the first batch nothing is known: it goes at once, so
/// that what a stage does only once is done while slides are read, and until it is back others wait as long as the stage says.
#[derive(Debug)]
pub(super) enum Linger {
    /// As the pipeline file says.
    Told(Duration),
    /// As long as it is worth it.
    Learned {
        /// What the stage says.
        most: Duration,
        now: Duration,
        /// No batch went yet.
        first: bool,
    },
}

/// Times that a batch takes, that its values wait for others.
const WAITS: u32 = 4;
/// A shorter wait is none: to be woken after it takes as long.
const SHORT: Duration = Duration::from_micros(100);

impl Linger {
    pub(super) fn new(told: Option<Duration>, most: Duration) -> Linger {
        let (now, first) = (Duration::ZERO, true);
        told.map_or(Linger::Learned { most, now, first }, Linger::Told)
    }

    pub(super) fn now(&self) -> Duration {
        match *self {
            Linger::Told(always) => always,
            Linger::Learned { now, .. } => now,
        }
    }

    /// A batch goes.
    pub(super) fn sent(&mut self) {
        if let Linger::Learned { most, now, first } = self
            && std::mem::take(first)
        {
            *now = *most;
        }
    }

    /// A batch took so long.
    pub(super) fn learn(&mut self, took: Duration) {
        if let Linger::Learned { most, now, .. } = self {
            *now = took.saturating_mul(WAITS).min(*most);
            if *now < SHORT {
                *now = Duration::ZERO;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_goes_at_once_and_others_wait_by_what_the_last_one_took() {
        let [short, long] = [1, 90].map(Duration::from_millis);
        let most = Duration::from_millis(5);
        let mut linger = Linger::new(None, most);
        assert_eq!(linger.now(), Duration::ZERO);
        linger.sent();
        assert_eq!(linger.now(), most);
        linger.learn(short);
        linger.sent();
        assert_eq!(linger.now(), WAITS * short);
        linger.learn(long);
        assert_eq!(linger.now(), most);
        linger.learn(SHORT / (WAITS + 1));
        assert_eq!(linger.now(), Duration::ZERO);
    }

    #[test]
    fn what_the_pipeline_file_says_is_kept_to() {
        let told = Duration::from_millis(20);
        let mut linger = Linger::new(Some(told), Duration::from_millis(5));
        linger.sent();
        linger.learn(Duration::ZERO);
        assert_eq!(linger.now(), told);
    }
}
