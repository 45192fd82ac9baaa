//! A batch's work on a helper thread: at once, then row by row, then again; what fails alone has failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_record::{Body, Failure, Key, Lease, SlideInfo, TileId};

use super::Value;
use crate::abort::{Abort, message};
use crate::reading::stopped;
use crate::stage::{Batch, StageError, Turn, Work};

/// A batch's work, on a helper thread.
pub(super) struct Task {
    pub(super) work: Arc<dyn Work>,
    pub(super) name: String,
    pub(super) outputs: usize,
    pub(super) retries: u32,
    pub(super) abort: Abort,
}

impl Task {
    /// The outcomes of values; those of slides that were stopped meanwhile are not looked at. `turn` is told while it cannot begin.
    pub(super) fn take(&self, values: Vec<Value>, turn: &Turn) -> Vec<(Key, Vec<Body>)> {
        let (void, values): (Vec<Value>, Vec<Value>) = values.into_iter().partition(|value| {
            // What speaks of the slide as a whole says that it failed or was stopped: somebody must write that down.
            value.key.tile != TileId::SLIDE && value.aborted.load(Ordering::Relaxed)
        });
        let skipped = |value: Value| (value.key, vec![stopped(&self.name); self.outputs]);
        let mut outcomes: Vec<_> = void.into_iter().map(skipped).collect();
        if !values.is_empty() {
            let rows = values
                .into_iter()
                .map(|value| (value.key, value.body, value.info, value.lease));
            outcomes.extend(self.run(rows.collect(), turn));
        }
        outcomes
    }

    /// The outcomes of a batch: all at once when that works, else row by row.
    fn run(
        &self,
        values: Vec<(Key, Body, Arc<SlideInfo>, Option<Lease>)>,
        turn: &Turn,
    ) -> Vec<(Key, Vec<Body>)> {
        let mut batch = Batch::new(values, self.outputs).with_turn(turn);
        let batches = match self.attempt(&mut batch) {
            Ok(()) => vec![batch],
            Err(error) if batch.len() == 1 => {
                self.again(&mut batch, error, self.retries);
                vec![batch]
            }
            Err(_) => {
                let alone = |mut single| {
                    if let Err(error) = self.attempt(&mut single) {
                        self.again(&mut single, error, self.retries);
                    }
                    single
                };
                batch.singles().map(alone).collect()
            }
        };
        let outcomes = batches.into_iter().flat_map(Batch::into_outcomes);
        let outcomes = outcomes.map(|(key, info, outcomes)| {
            let bodies = outcomes.into_iter().map(|outcome| match outcome {
                Some(body) if body.is_version() => body,
                Some(_) => failure(
                    &self.name,
                    &info,
                    key,
                    "the stage answered with what is no version".into(),
                    FAULT,
                ),
                None => failure(
                    &self.name,
                    &info,
                    key,
                    "the stage gave no outcome".into(),
                    FAULT,
                ),
            });
            (key, bodies.collect())
        });
        outcomes.collect()
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
