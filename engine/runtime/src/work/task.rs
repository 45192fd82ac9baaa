//! A batch's work on a helper thread: at once, then row by row, then again; what fails alone has failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_record::{Body, Failure, Key, Lease, SlideInfo, TileId};

use super::Value;
use crate::abort::{Abort, message};
use crate::reading::stopped;
use crate::stage::{Batch, StageError, Turn, Work};

/// How a stage's batches are worked on.
pub(super) struct Task {
    pub(super) work: Arc<dyn Work>,
    pub(super) name: String,
    pub(super) outputs: usize,
    pub(super) retries: u32,
    pub(super) abort: Abort,
}

/// A row of a batch: which version, its value, its slide, and the lease on what is made of it.
pub(super) type BatchRow = (Key, Body, Arc<SlideInfo>, Option<Lease>);

/// What became of a batch's rows.
#[derive(Default)]
pub(super) struct Outcomes {
    pub(super) rows: Vec<(Key, Arc<SlideInfo>)>,
    /// Row by row, the outputs side by side.
    pub(super) bodies: Vec<Body>,
}

impl Task {
    /// The outcomes of values; those of slides that were stopped meanwhile are not looked at. `turn` is told while it cannot begin.
    pub(super) fn take(&self, mut values: Vec<Value>, turn: &Turn) -> Outcomes {
        let void = values.extract_if(.., |value| {
            // What speaks of the slide as a whole says that it failed or was stopped: somebody must write that down.
            value.key.tile != TileId::SLIDE && value.aborted.load(Ordering::Relaxed)
        });
        let void: Vec<Value> = void.collect();
        let rows = values
            .into_iter()
            .map(|value| (value.key, value.body, value.info, value.lease));
        let mut outcomes = self.run(rows.collect(), turn);
        for value in void {
            outcomes.rows.push((value.key, value.info));
            let bodies = &mut outcomes.bodies;
            bodies.resize(bodies.len() + self.outputs, stopped(&self.name));
        }
        outcomes
    }

    /// The outcomes of a batch: all at once when that works, else row by row.
    pub(super) fn run(&self, values: Vec<BatchRow>, turn: &Turn) -> Outcomes {
        let mut outcomes = Outcomes::default();
        if values.is_empty() {
            return outcomes;
        }
        let mut batch = Batch::new(values, self.outputs).with_turn(turn);
        match self.attempt(&mut batch) {
            Ok(()) => self.put(batch, &mut outcomes),
            Err(error) if batch.len() == 1 => {
                self.again(&mut batch, error, self.retries);
                self.put(batch, &mut outcomes);
            }
            Err(_) => {
                for mut single in batch.singles() {
                    if let Err(error) = self.attempt(&mut single) {
                        self.again(&mut single, error, self.retries);
                    }
                    self.put(single, &mut outcomes);
                }
            }
        }
        outcomes
    }

    /// Adds what became of a batch; a row without an outcome has failed.
    fn put(&self, batch: Batch, to: &mut Outcomes) {
        let (keys, infos, outcomes) = batch.into_parts();
        let first = to.rows.len();
        to.rows.extend(keys.into_iter().zip(infos));
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let fault = match outcome {
                Some(body) if body.is_version() => {
                    to.bodies.push(body);
                    continue;
                }
                Some(_) => "the stage answered with what is no version",
                None => "the stage gave no outcome",
            };
            let (key, info) = &to.rows[first + at / self.outputs];
            let failure = failure(&self.name, info, *key, fault.into(), FAULT);
            to.bodies.push(failure);
        }
    }

    /// Tries a single row again; then it fails.
    fn again(&self, single: &mut Batch, mut error: StageError, retries: u32) {
        for _ in 0..retries {
            match self.attempt(single) {
                Ok(()) => return,
                Err(next) => error = next,
            }
        }
        let body = failure(
            &self.name,
            &single.info(0).clone(),
            single.key(0),
            error.what,
            &error.help,
        );
        single.set_all(0, body);
    }

    /// A panic is a fault of the stage, never of a tile: it ends the run.
    fn attempt(&self, batch: &mut Batch) -> Result<(), StageError> {
        catch_unwind(AssertUnwindSafe(|| self.work.run(batch))).unwrap_or_else(|panic| {
            let what = message(&*panic);
            self.abort.fatal(format!("stage `{}`: {what}", self.name));
            Err(StageError::new(what, FAULT))
        })
    }
}

const FAULT: &str = "this is a fault of the stage: please report it";

pub(super) fn failure(stage: &str, info: &SlideInfo, key: Key, what: String, help: &str) -> Body {
    let tile = (key.tile != weir_record::TileId::SLIDE).then(|| (key.tile.x(), key.tile.y()));
    Body::Fail(Arc::new(Failure {
        stage: stage.to_owned(),
        slide: info.id.clone(),
        tile,
        what,
        help: help.to_owned(),
    }))
}
