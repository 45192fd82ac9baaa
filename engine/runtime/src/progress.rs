//! Counters that are always on: what the progress line and the run record read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_record::{Body, Row};

/// Counters of a run, of this process.
#[derive(Debug, Default)]
pub struct Progress {
    /// Slides of this process.
    pub slides: AtomicU64,
    /// Slides that were opened, whatever became of them.
    pub slides_opened: AtomicU64,
    /// Slides that are final.
    pub slides_done: AtomicU64,
    /// Slides that failed.
    pub slides_failed: AtomicU64,
    /// Tiles that the open and closed slides have.
    pub tiles: AtomicU64,
    /// Tiles that were read, failed ones included.
    pub tiles_read: AtomicU64,
    /// Tiles that could not be read.
    pub tiles_failed: AtomicU64,
    /// Stages, in the plan's order.
    pub stages: Vec<StageCounters>,
}

/// Counters of a stage.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Name in the pipeline file.
    pub name: String,
    /// Values that the stage took or, for a source, sent.
    pub rows: AtomicU64,
    /// Time that its code ran, over all threads, ns.
    pub busy: AtomicU64,
    /// Values that wait for it.
    pub waiting: AtomicU64,
    /// Outcomes that it made; a stage makes the same number on each of its outputs. Nothing for a sink.
    pub made: Made,
}

/// Outcomes by kind, corrections included.
#[derive(Debug, Default)]
pub struct Made {
    /// Values.
    pub value: AtomicU64,
    /// Left out on purpose.
    pub skip: AtomicU64,
    /// Failed.
    pub fail: AtomicU64,
    /// Withdrawn.
    pub gone: AtomicU64,
}

impl Made {
    pub(crate) fn count(&self, rows: &[Row]) {
        let [mut value, mut skip, mut fail, mut gone] = [0; 4];
        for row in rows {
            match &row.body {
                Body::Skip(_) => skip += 1,
                Body::Fail(_) => fail += 1,
                Body::Gone => gone += 1,
                body if body.is_version() => value += 1,
                _ => {}
            }
        }
        for (counter, n) in [
            (&self.value, value),
            (&self.skip, skip),
            (&self.fail, fail),
            (&self.gone, gone),
        ] {
            if n > 0 {
                add(counter, n);
            }
        }
    }
}

impl Progress {
    /// Counters for stages of these names.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let stages = names
            .into_iter()
            .map(|name| StageCounters {
                name,
                ..StageCounters::default()
            })
            .collect();
        Progress {
            stages,
            ..Progress::default()
        }
    }

    /// The stage whose code ran longest, and its share of all stages' time.
    pub fn busiest(&self) -> Option<(&str, f64)> {
        let busy = |stage: &StageCounters| stage.busy.load(Ordering::Relaxed);
        let all: u64 = self.stages.iter().map(busy).sum();
        let most = self.stages.iter().max_by_key(|stage| busy(stage))?;
        (all > 0).then(|| (most.name.as_str(), busy(most) as f64 / all as f64))
    }
}

impl StageCounters {
    pub(crate) fn worked(&self, rows: u64, took: Duration) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.busy
            .fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
