//! A plugin's map or filter as the runtime's [`Work`].

use crate::batch::HostBatch;
use crate::call::{Place, Task, Told};
use crate::columns::Output;
use crate::instance::Pool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_abi::status;
use weir_pipeline::{Kind, Rows};
use weir_record::{Body, Class, Failure, Skip, SlideInfo, TileBuf, TileId};
use weir_runtime::stage::{Batch, StageError, Work};

/// A map or filter.
pub(crate) struct PluginWork {
    pub pool: Pool,
    pub rows: Rows,
    pub outputs: Arc<[Output]>,
    /// The stage's name in the pipeline file.
    pub name: Arc<str>,
}

impl Work for PluginWork {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let n = batch.len();
        let values = (0..n)
            .map(|i| (batch.key(i), batch.body(i).clone(), batch.info(i).clone()))
            .collect();
        let input = Arc::new(HostBatch::input(values).map_err(|what| {
            StageError::new(
                what,
                "this is a fault of the stage before: please report it",
            )
        })?);
        let task = Task::Rows {
            input: input.clone(),
            outputs: self.outputs.clone(),
            leases: Mutex::new((0..n).map(|i| batch.take_lease(i)).collect()),
        };
        let told = self
            .pool
            .call(task, |stage, me, call| match stage.process {
                // SAFETY: as the header says: the batch lives at least as long as the call.
                Some(process) => unsafe { process(me, call, 0, input.as_ptr()) },
                None => status::UNSUPPORTED,
            })?;
        self.settle(told, batch)
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
            .filter(|output| output.kind == Kind::Pixels && self.rows == Rows::Map)
            .map(|output| {
                let side = |at| output.shape.get(at).copied().unwrap_or(0) as u32;
                TileBuf::bytes(side(1), side(0))
            })
            .sum();
        (bytes > 0).then_some((Class::Fetch, bytes))
    }
}

impl PluginWork {
    /// Every row has one outcome on every output, or the plugin broke the contract.
    fn settle(&self, told: Vec<Told>, batch: &mut Batch) -> Result<(), StageError> {
        let breach = |what: String| {
            let plugin = &self.pool.who.plugin;
            StageError::new(
                format!("{plugin} broke the contract [E0520]: {what}"),
                FAULT,
            )
        };
        let twice = |row: u32| breach(format!("it gave row {row} two outcomes"));
        let ports = self.outputs.len();
        let mut outcomes: Vec<Option<Body>> = vec![None; batch.len() * ports];
        for told in told {
            match told {
                Told::Made {
                    port,
                    place: Place::Input(row),
                    body,
                } => {
                    let outcome = &mut outcomes[row as usize * ports + port];
                    match outcome {
                        None => *outcome = Some(body),
                        // A row that failed on one output has failed, whichever came first.
                        Some(Body::Fail(_)) => {}
                        Some(_) => return Err(twice(row)),
                    }
                }
                Told::Made { .. } => return Err(breach("it made a row of a slide".into())),
                Told::Skipped { row, reason } => {
                    if self.rows != Rows::Filter {
                        return Err(breach(format!("a map left out row {row}")));
                    }
                    let own = &mut outcomes[row as usize * ports..][..ports];
                    if own.iter().any(Option::is_some) {
                        return Err(twice(row));
                    }
                    own.fill(Some(self.dropped(reason)));
                }
                Told::Failed { row, said } => {
                    let what = match said.what.is_empty() {
                        true => format!("{} failed without a word", self.pool.who.plugin),
                        false => said.what,
                    };
                    let failure = self.failure(batch, row as usize, what, said.help);
                    outcomes[row as usize * ports..][..ports].fill(Some(failure));
                }
            }
        }
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let (row, port) = (at / ports, at % ports);
            let outcome = match (outcome, self.rows) {
                (Some(outcome), _) => outcome,
                (None, Rows::Filter) => self.dropped("".into()),
                (None, _) => {
                    let what = format!(
                        "{} lost it [E0520]: it neither made nor failed its row of output `{}`",
                        self.pool.who.plugin, self.outputs[port].name
                    );
                    self.failure(batch, row, what, FAULT.into())
                }
            };
            batch.set(row, port, outcome);
        }
        Ok(())
    }

    fn dropped(&self, reason: Arc<str>) -> Body {
        Body::Skip(Skip::Dropped {
            stage: self.name.clone(),
            reason,
        })
    }

    fn failure(&self, batch: &Batch, row: usize, what: String, help: String) -> Body {
        let tile = batch.key(row).tile;
        Body::Fail(Arc::new(Failure {
            stage: self.name.to_string(),
            slide: batch.info(row).id.clone(),
            tile: (tile != TileId::SLIDE).then(|| (tile.x(), tile.y())),
            what,
            help,
        }))
    }
}

const FAULT: &str = "this is a fault of the plugin: please report it to its author";
