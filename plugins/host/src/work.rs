//! A plugin's map or filter as the runtime's [`Work`].

use crate::batch::HostBatch;
use crate::batch::live::Noted;
use crate::batch::task::Rows;
use crate::call::FAULT;
use crate::columns::Output;
use crate::kept::set_apart;
use crate::outcomes::{Asked, Outcome, Outcomes};
use crate::pool::{Lent, Pool};
use crate::seats::{Near, Seats};
use std::hint::cold_path;
use std::sync::Arc;
use std::time::Duration;
use weir_abi::desk::Said;
use weir_abi::status;
use weir_pipeline::Kind;
use weir_record::{Body, Class, Failure, Skip, SlideInfo, TileBuf, TileId};
use weir_runtime::stage::{Batch, Ending, StageError, Work};

/// A map or filter.
pub(crate) struct PluginWork {
    /// What threads have of it between their calls: goes before the pool, whose end is the instances'.
    pub seats: Seats,
    pub pool: Pool,
    pub rows: weir_pipeline::Rows,
    pub outputs: Arc<[Output]>,
    /// Numbers of a row of the input, where the values may have none.
    pub width: usize,
    /// The stage's name in the pipeline file.
    pub name: Arc<str>,
    /// Something else of the plugin may run in the process of its instances until nothing flows any more: `destroy` comes after that.
    pub ends_late: bool,
}

impl Work for PluginWork {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let seat = self.seats.own();
        let mut near = seat.take();
        let rows = near.rows(|| self.unused());
        // SAFETY: the batch and its values stay as they are until the call is over.
        if !unsafe { rows.alone().is_some_and(|input| input.refill(batch)) } {
            cold_path();
            // SAFETY: as above.
            unsafe { rows.fill(batch, self.width) }?;
        }
        if batch.has_leases() {
            cold_path();
            rows.leases = batch.take_leases();
        }
        rows.outcomes.reset(batch.len());
        let input = rows.input.as_ptr();
        let kept = || batch.bodies().iter().for_each(set_apart);
        let lent = || Lent {
            holder: None,
            kept: &kept,
            turn: batch.turn(),
        };
        let Near { taken, instance } = &mut *near;
        self.pool.lend(
            instance,
            taken,
            |stage, me, call| match stage.process {
                // SAFETY: as the header says: the batch lives at least as long as the call.
                Some(process) => unsafe { process(me, call, 0, input) },
                None => status::UNSUPPORTED,
            },
            lent,
        )?;
        let rows = near.rows(|| self.unused());
        match rows.outcomes.all_passed() {
            true => batch.pass_all(),
            false => {
                cold_path();
                self.settle(&mut rows.outcomes, batch);
            }
        }
        if !rows.free() {
            cold_path();
            near.taken.forget();
        }
        seat.put(near);
        Ok(())
    }

    fn leave(self: Arc<Self>) -> Ending {
        if self.ends_late {
            return Box::new(move || drop(self));
        }
        match Arc::into_inner(self) {
            Some(PluginWork { seats, pool, .. }) => {
                drop(seats);
                pool.leave()
            }
            // Another worker has it yet, and the last one ends it.
            None => Box::new(|| ()),
        }
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
            fitting: 0,
            leases: Vec::new(),
            made: Asked::default(),
            drafts: Vec::new(),
            outcomes: Outcomes::on(self.outputs.len(), self.rows == weir_pipeline::Rows::Filter),
        })
    }

    /// Every row has one outcome on every output, or the plugin broke the contract.
    #[inline(never)]
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
