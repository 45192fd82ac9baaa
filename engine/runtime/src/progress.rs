//! Counters that are always on: what the progress line and the run record read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use weir_pipeline::{Plan, Rows};
use weir_record::{Body, Row};

/// How far back rates look.
const WINDOW: Duration = Duration::from_secs(10);
/// Least time between two samples that are kept for rates.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// Counters of a run, of this process.
#[derive(Debug)]
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
    start: Instant,
    samples: Mutex<VecDeque<Sample>>,
}

/// Counters of a stage.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Name in the pipeline file.
    pub name: String,
    /// Values that the stage took or, for a source, sent; versions for a reduce or a sink.
    pub rows: AtomicU64,
    /// Of these, values that the thread which made them went on with at once.
    pub chained: AtomicU64,
    /// Time that its code ran, over all threads, ns.
    pub busy: AtomicU64,
    /// Values that wait for it.
    pub waiting: AtomicU64,
    /// Outcomes that it made; a stage makes the same number on each of its outputs. Nothing for a sink.
    pub made: Made,
    /// Threads that run its code.
    threads: u64,
    /// Whether it closes the domain of all tiles: when it has a tile, the tile is scanned.
    scans: bool,
}

#[derive(Clone, Debug)]
struct Sample {
    at: Duration,
    tiles: u64,
    busy: Vec<u64>,
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

/// How far a run is.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Since the start, s.
    pub elapsed: f64,
    /// Slides of this process.
    pub slides: u64,
    /// Slides that are final, failed ones included.
    pub slides_done: u64,
    /// Slides that failed.
    pub slides_failed: u64,
    /// Tiles of the slides that were opened so far.
    pub tiles: u64,
    /// Tiles that every stage that takes all of them has had.
    pub tiles_done: u64,
    /// Tiles that could not be read.
    pub tiles_failed: u64,
    /// Over the last ten seconds.
    pub tiles_per_second: f64,
    /// Time left, s, when slides that are not open yet have as many tiles as the others on average.
    pub left: Option<f64>,
    /// The stage that the others wait for, once there is one.
    pub bottleneck: Option<String>,
    /// Stages, in the plan's order.
    pub stages: Vec<StageSnapshot>,
}

/// How a stage does.
#[derive(Clone, Debug, Serialize)]
pub struct StageSnapshot {
    /// Name in the pipeline file.
    pub name: String,
    /// Values taken or, for a source, sent.
    pub rows: u64,
    /// Values that wait for it.
    pub waiting: u64,
    /// Share of its threads' time that its code ran, over the last ten seconds.
    pub load: f64,
}

impl Progress {
    /// Counters for the stages of a plan.
    pub fn of(plan: &Plan) -> Self {
        let stages = plan.nodes.iter().map(|node| {
            let closes = matches!(node.schema.rows, Rows::Reduce | Rows::Sink);
            let (run, feeds) = (&plan.run, &node.inputs);
            StageCounters {
                name: node.name.clone(),
                threads: match node.schema.rows {
                    Rows::Source => run.readers.max(1) as u64,
                    Rows::Map | Rows::Filter => run.helpers.max(1) as u64,
                    Rows::Reduce | Rows::Sink => run.workers.max(1) as u64,
                },
                scans: closes && feeds.iter().any(|edge| !behind_a_reduce(plan, edge.node)),
                ..StageCounters::default()
            }
        });
        Progress {
            slides: AtomicU64::default(),
            slides_opened: AtomicU64::default(),
            slides_done: AtomicU64::default(),
            slides_failed: AtomicU64::default(),
            tiles: AtomicU64::default(),
            tiles_read: AtomicU64::default(),
            tiles_failed: AtomicU64::default(),
            stages: stages.collect(),
            start: Instant::now(),
            samples: Mutex::default(),
        }
    }

    /// How far the run is now. Meant to be called a few times a second.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tiles = get(&self.tiles);
        let scanned = self.stages.iter().filter(|stage| stage.scans);
        let done = scanned.map(|stage| get(&stage.rows)).min();
        let now = Sample {
            at: self.start.elapsed(),
            tiles: done.unwrap_or_else(|| get(&self.tiles_read)).min(tiles),
            busy: self.stages.iter().map(|stage| get(&stage.busy)).collect(),
        };
        let before = self.keep(&now);
        let span = now.at.saturating_sub(before.at).as_secs_f64();
        let rate = if span > 0.0 {
            now.tiles.saturating_sub(before.tiles) as f64 / span
        } else {
            0.0
        };
        let stages: Vec<StageSnapshot> = self
            .stages
            .iter()
            .enumerate()
            .map(|(at, stage)| {
                let busy = now.busy[at].saturating_sub(before.busy[at]) as f64 / 1e9;
                StageSnapshot {
                    name: stage.name.clone(),
                    rows: get(&stage.rows),
                    waiting: get(&stage.waiting),
                    load: if span > 0.0 {
                        busy / span / stage.threads as f64
                    } else {
                        0.0
                    },
                }
            })
            .collect();
        let (slides, opened) = (get(&self.slides), get(&self.slides_opened));
        let expected = match tiles.checked_div(opened) {
            Some(each) => tiles + slides.saturating_sub(opened) * each,
            None => 0,
        };
        let left = expected.saturating_sub(now.tiles) as f64 / rate;
        Snapshot {
            elapsed: now.at.as_secs_f64(),
            slides,
            slides_done: get(&self.slides_done),
            slides_failed: get(&self.slides_failed),
            tiles,
            tiles_done: now.tiles,
            tiles_failed: get(&self.tiles_failed),
            tiles_per_second: rate,
            left: (expected > 0 && left.is_finite()).then_some(left),
            bottleneck: bottleneck(&stages).map(str::to_owned),
            stages,
        }
    }

    /// Keeps a sample for later rates and returns the one that rates are taken against now.
    fn keep(&self, now: &Sample) -> Sample {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        while samples.len() > 1 && now.at.saturating_sub(samples[1].at) >= WINDOW {
            samples.pop_front();
        }
        let before = samples.front().cloned().unwrap_or_else(|| Sample {
            at: Duration::ZERO,
            tiles: 0,
            busy: vec![0; now.busy.len()],
        });
        let newest = samples.back().map(|sample| sample.at);
        if newest.is_none_or(|at| now.at.saturating_sub(at) >= SAMPLE_EVERY) {
            if samples.is_empty() {
                samples.push_back(before.clone());
            }
            samples.push_back(now.clone());
        }
        before
    }
}

/// Of the stages that are nearly as busy as the busiest, the one for which most rows wait: reading and working both look busy
/// when they share the cores, but rows pile up only where they cannot go on.
fn bottleneck(stages: &[StageSnapshot]) -> Option<&str> {
    let most = stages.iter().map(|stage| stage.load).fold(0.0, f64::max);
    let busy = stages
        .iter()
        .filter(|stage| most > 0.01 && stage.load >= 0.8 * most);
    let best = busy.max_by(|a, b| {
        (a.waiting, a.load)
            .partial_cmp(&(b.waiting, b.load))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    best.map(|stage| stage.name.as_str())
}

/// Whether what `node` sends stands behind a reduce: a few tiles of a slide, not all.
pub(crate) fn behind_a_reduce(plan: &Plan, node: usize) -> bool {
    let node = &plan.nodes[node];
    node.schema.rows == Rows::Reduce
        || node
            .inputs
            .iter()
            .any(|edge| behind_a_reduce(plan, edge.node))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, load: f64, waiting: u64) -> StageSnapshot {
        StageSnapshot {
            name: name.into(),
            rows: 0,
            waiting,
            load,
        }
    }

    #[test]
    fn the_bottleneck_is_where_rows_pile_up_among_the_busy() {
        let busy = [
            stage("read", 0.95, 0),
            stage("score", 0.9, 300),
            stage("sink", 0.1, 900),
        ];
        assert_eq!(bottleneck(&busy), Some("score"));
        let reading = [stage("read", 0.95, 0), stage("score", 0.3, 12)];
        assert_eq!(bottleneck(&reading), Some("read"));
        assert_eq!(bottleneck(&[stage("read", 0.0, 0)]), None);
    }
}
