//! How long the first value of a batch waits for others.

use std::time::Duration;

/// How long the first value of a batch waits for others, unless the batch is full before.
///
/// Waiting can save one batch: a value that comes too late for this one is in the next. So a stage's values wait no longer than its
/// last batch took, and what is lost by waiting is never more than what it could have saved. A stage that takes microseconds has its
/// values as they come, and no tile's memory is held up in front of it; a network's wait as long as its stage says. Of the first batch
/// nothing is known: it goes at once, so that what a stage does only once is done while slides are read.
#[derive(Debug)]
pub(super) enum Linger {
    /// As the pipeline file says.
    Told(Duration),
    /// As long as it is worth it.
    Learned {
        /// What the stage says.
        most: Duration,
        /// What the last batch took.
        last: Duration,
    },
}

impl Linger {
    pub(super) fn new(told: Option<Duration>, most: Duration) -> Linger {
        let last = Duration::ZERO;
        told.map_or(Linger::Learned { most, last }, Linger::Told)
    }

    pub(super) fn now(&self) -> Duration {
        match *self {
            Linger::Told(always) => always,
            Linger::Learned { most, last } => last.min(most),
        }
    }

    /// A batch took so long.
    pub(super) fn learn(&mut self, took: Duration) {
        if let Linger::Learned { last, .. } = self {
            *last = took;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_wait_as_long_as_the_last_batch_took_and_no_longer_than_the_stage_says() {
        let [short, long] = [2, 90].map(Duration::from_millis);
        let most = Duration::from_millis(5);
        let mut linger = Linger::new(None, most);
        assert_eq!(linger.now(), Duration::ZERO);
        linger.learn(long);
        assert_eq!(linger.now(), most);
        linger.learn(short);
        assert_eq!(linger.now(), short);
    }

    #[test]
    fn what_the_pipeline_file_says_is_kept_to() {
        let told = Duration::from_millis(20);
        let mut linger = Linger::new(Some(told), Duration::from_millis(5));
        linger.learn(Duration::ZERO);
        assert_eq!(linger.now(), told);
    }
}
