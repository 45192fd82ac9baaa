//! A plugin's map or filter as the runtime's [`Work`].

use crate::batch::HostBatch;
use crate::batch::live::Noted;
use crate::batch::task::{Rows, Task};
use crate::call::FAULT;
use crate::columns::Output;
use crate::instance::Instance;
use crate::kept::set_apart;
use crate::outcomes::{Asked, Outcome, Outcomes};
use crate::pool::{Lent, Pool};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use thread_local::ThreadLocal;
use weir_abi::desk::Said;
use weir_abi::status;
use weir_pipeline::Kind;
use weir_record::{Body, Class, Failure, Skip, SlideInfo, TileBuf, TileId};
use weir_runtime::stage::{Batch, StageError, Work};

/// A map or filter.
pub(crate) struct PluginWork {
    /// What threads have of it between their calls: goes before the pool, whose end is the instances'.
    pub seats: ThreadLocal<Seat>,
    pub pool: Pool,
    pub rows: weir_pipeline::Rows,
    pub outputs: Arc<[Output]>,
    /// Numbers of a row of the input, where the values may have none.
    pub width: usize,
    /// The stage's name in the pipeline file.
    pub name: Arc<str>,
}

/// What a thread's last call needed: its next one takes it.
#[derive(Default)]
pub(crate) struct Seat {
    /// With its memory.
    rows: Cell<Option<Box<Rows>>>,
    /// The instance that all calls have, where they have the same.
    instance: Cell<Option<Arc<Instance>>>,
}

impl Work for PluginWork {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let n = batch.len();
        let seat = self.seats.get_or_default();
        let mut rows = seat.rows.take().unwrap_or_else(|| self.unused());
        let filled = match Arc::get_mut(&mut rows.input) {
            // SAFETY: the batch and its values stay as they are until the call is over.
            Some(input) => unsafe { input.fill(batch.rows(), self.width) },
            None => Err("somebody else has the input of a call".into()),
        };
        filled.map_err(|what| {
            StageError::new(
                what,
                "this is a fault of the stage before: please report it",
            )
        })?;
        rows.leases = batch.take_leases();
        let filter = self.rows == weir_pipeline::Rows::Filter;
        rows.outcomes.reset(n, self.outputs.len(), filter);
        let input = rows.input.as_ptr();
        let kept = || batch.bodies().iter().for_each(set_apart);
        let lent = Lent {
            holder: None,
            kept: &kept,
            turn: batch.turn(),
            near: &seat.instance,
        };
        let task = Task::Rows(rows);
        let done = self
            .pool
            .lend(lent, task, |stage, me, call| match stage.process {
                // SAFETY: as the header says: the batch lives at least as long as the call.
                Some(process) => unsafe { process(me, call, 0, input) },
                None => status::UNSUPPORTED,
            })?;
        if let Task::Rows(mut rows) = done {
            self.settle(&mut rows.outcomes, batch);
            // An input that the plugin holds on to is its own now; one that it had a hold on keeps the tiles' memory.
            let free = !rows.input.has_kept()
                || Arc::get_mut(&mut rows.input)
                    .map(HostBatch::clear)
                    .is_some();
            if free {
                rows.leases = Vec::new();
                rows.made.clear();
                rows.drafts.clear();
                seat.rows.set(Some(rows));
            }
        }
        Ok(())
    }

    fn keeps_time(&self) -> bool {
        self.pool.shelf.keeps_time()
    }

    fn late(&self, after: Duration) -> StageError {
        StageError::new(
            format!(
                "{} did not answer within {after:?} [E0523]",
                self.pool.who().plugin
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
    /// What a call needs.
    #[cold]
    fn unused(&self) -> Box<Rows> {
        Box::new(Rows {
            input: HostBatch::unfilled().placed(),
            outputs: self.outputs.clone(),
            leases: Vec::new(),
            made: Asked::default(),
            drafts: Vec::new(),
            outcomes: Outcomes::default(),
        })
    }

    /// Every row has one outcome on every output, or the plugin broke the contract.
    fn settle(&self, outcomes: &mut Outcomes, batch: &mut Batch) {
        if outcomes.all_passed() {
            batch.pass_all();
            return;
        }
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
                        said.what = format!("{}: {}", self.pool.who().plugin, said.what);
                    }
                    self.failure(batch, row, said)
                }
                Outcome::None => {
                    let what = format!(
                        "{} lost it [E0520]: it neither made nor failed its row of output `{}`",
                        self.pool.who().plugin,
                        self.outputs[port].name
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
                true => format!("{} failed without a word", self.pool.who().plugin),
                false => said.what,
            },
            help: said.help,
        }))
    }
}
