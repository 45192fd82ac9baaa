//! A plugin's map or filter as the runtime's [`Work`].

use crate::batch::HostBatch;
use crate::call::{FAULT, Rows, Said, Task};
use crate::columns::Output;
use crate::instance::Pool;
use crate::kept::set_apart;
use crate::outcomes::{Asked, Outcome, Outcomes};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use weir_abi::status;
use weir_pipeline::Kind;
use weir_record::{Body, Class, Failure, Skip, SlideInfo, TileBuf, TileId};
use weir_runtime::stage::{Batch, StageError, Work};

/// A map or filter.
pub(crate) struct PluginWork {
    pub pool: Pool,
    pub rows: weir_pipeline::Rows,
    pub outputs: Arc<[Output]>,
    /// Numbers of a row of the input, where the values may have none.
    pub width: usize,
    /// The stage's name in the pipeline file.
    pub name: Arc<str>,
    /// What calls that are over needed: the next ones take it, with its memory.
    // A task has its rows in a box, so that it is moved as a pointer; the box is kept with them.
    #[allow(clippy::vec_box)]
    pub frames: Mutex<Vec<Box<Rows>>>,
}

/// So many frames are kept: a thread has one at a time.
const FRAMES: usize = 64;

impl Work for PluginWork {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let n = batch.len();
        let mut rows = self.frame();
        let values = (0..n).map(|i| (batch.key(i), batch.body(i), batch.info(i)));
        let filled = match Arc::get_mut(&mut rows.input) {
            // SAFETY: the batch and its values stay as they are until the call is over.
            Some(input) => unsafe { input.fill(values, self.width) },
            None => Err("somebody else has the input of a call".into()),
        };
        filled.map_err(|what| {
            StageError::new(
                what,
                "this is a fault of the stage before: please report it",
            )
        })?;
        rows.leases.extend((0..n).map(|i| batch.take_lease(i)));
        let filter = self.rows == weir_pipeline::Rows::Filter;
        rows.outcomes.reset(n, self.outputs.len(), filter);
        let input = rows.input.as_ptr();
        let kept = || (0..n).for_each(|i| set_apart(batch.body(i)));
        let task = Task::Rows(rows);
        let done = self
            .pool
            .lend(None, task, &kept, |stage, me, call| match stage.process {
                // SAFETY: as the header says: the batch lives at least as long as the call.
                Some(process) => unsafe { process(me, call, 0, input) },
                None => status::UNSUPPORTED,
            })?;
        if let Task::Rows(mut rows) = done {
            self.settle(&mut rows.outcomes, batch);
            self.keep(rows);
        }
        Ok(())
    }

    fn keeps_time(&self) -> bool {
        self.pool.keeps_time()
    }

    fn late(&self, after: Duration) -> StageError {
        StageError::new(
            format!(
                "{} did not answer within {after:?} [E0523]",
                self.pool.who.plugin
            ),
            "raise run.timeout of the stage if it is only slow; `isolate = true` ends a call that takes too long, with its process",
        )
    }

    fn output_bytes(&self, _: &Body, _: &SlideInfo) -> Option<(Class, usize)> {
        let bytes: usize = self
            .outputs
            .iter()
            .filter(|output| output.kind == Kind::Pixels && self.rows == weir_pipeline::Rows::Map)
            .map(|output| {
                let side = |at| output.shape.get(at).copied().unwrap_or(0) as u32;
                TileBuf::bytes(side(1), side(0))
            })
            .sum();
        (bytes > 0).then_some((Class::Fetch, bytes))
    }
}

impl PluginWork {
    /// What a call needs: of one that is over, or new.
    fn frame(&self) -> Box<Rows> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.pop().unwrap_or_else(|| {
            Box::new(Rows {
                input: Arc::new(HostBatch::unfilled()),
                outputs: self.outputs.clone(),
                leases: Vec::new(),
                made: Asked::default(),
                outcomes: Outcomes::default(),
            })
        })
    }

    /// Keeps it for the next call, unless the plugin retained its input.
    fn keep(&self, mut rows: Box<Rows>) {
        let Some(input) = Arc::get_mut(&mut rows.input) else {
            return;
        };
        // Tiles are others' memory.
        input.clear();
        rows.leases.clear();
        rows.made.clear();
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < FRAMES {
            frames.push(rows);
        }
    }

    /// Every row has one outcome on every output, or the plugin broke the contract.
    fn settle(&self, outcomes: &mut Outcomes, batch: &mut Batch) {
        for (row, port, outcome) in outcomes.take() {
            let body = match outcome {
                Outcome::Made(body) => body,
                Outcome::Passed => batch.body(row).clone(),
                Outcome::Skipped(reason) => Body::Skip(Skip::Dropped {
                    stage: self.name.clone(),
                    reason,
                }),
                Outcome::Failed(said) => {
                    let mut said = *said;
                    if !said.what.is_empty() {
                        said.what = format!("{}: {}", self.pool.who.plugin, said.what);
                    }
                    self.failure(batch, row, said)
                }
                Outcome::None => {
                    let what = format!(
                        "{} lost it [E0520]: it neither made nor failed its row of output `{}`",
                        self.pool.who.plugin, self.outputs[port].name
                    );
                    let help = FAULT.to_owned();
                    self.failure(
                        batch,
                        row,
                        Said {
                            what,
                            help,
                            ..Said::default()
                        },
                    )
                }
            };
            batch.set(row, port, body);
        }
    }

    fn failure(&self, batch: &Batch, row: usize, said: Said) -> Body {
        let tile = batch.key(row).tile;
        Body::Fail(Arc::new(Failure {
            stage: self.name.to_string(),
            slide: batch.info(row).id.clone(),
            tile: (tile != TileId::SLIDE).then(|| (tile.x(), tile.y())),
            what: match said.what.is_empty() {
                true => format!("{} failed without a word", self.pool.who.plugin),
                false => said.what,
            },
            help: said.help,
        }))
    }
}
