//! A stage without the engine: instances, rows, calls.

use super::rows::{self, Value};
use super::trials::No;
use super::values;
use crate::batch::HostBatch;
use crate::call::{CallError, Rows as Frame, Said, Task, Who};
use crate::columns::Output;
use crate::instance::{Pool, Runner};
use crate::load::Loaded;
use crate::manifest::{Dim, Stage};
use crate::outcomes::{Outcome, Outcomes};
use crate::parameters::Parameters;
use std::sync::Arc;
use std::time::Duration;
use weir_abi::{stage, status};
use weir_pipeline::{Rows, Values};

/// Sizes of what a manifest leaves open.
const SIDE: u64 = 64;
const WIDTH: u64 = 8;

/// A stage of a loaded plugin.
pub(super) struct Stand {
    pub about: &'static Stage,
    pub table: &'static stage::Stage,
    loaded: &'static Loaded,
    /// Parameters: the defaults and what was set.
    pub values: Values,
    pub seed: u64,
}

impl Stand {
    pub fn new(loaded: &'static Loaded, id: &str, seed: u64, set: &[String]) -> Result<Stand, No> {
        let stages = &loaded.manifest().stages;
        let about = stages.iter().find(|stage| stage.id == id);
        let (Some(about), Some(table)) = (about, loaded.stage(id)) else {
            return Err(No::Failed(format!("it has no stage `{id}`")));
        };
        let (values, missing) = values::defaults(about, set).map_err(No::Failed)?;
        if let Some(name) = missing.first() {
            return Err(No::Skipped(format!(
                "it needs parameters that only you know: give --set {id}.{name}=VALUE"
            )));
        }
        Ok(Stand {
            about,
            table,
            loaded,
            values,
            seed,
        })
    }

    /// An instance with these parameters.
    pub fn pool(&self, values: &Values) -> Result<Pool, CallError> {
        let manifest = self.loaded.manifest();
        let who = Arc::new(Who {
            stage: self.about.id.clone(),
            folder: std::env::temp_dir(),
            ..Who::plugin(&manifest.name, &manifest.version)
        });
        Pool::new(
            Runner::Here(self.table),
            who,
            Parameters::new(self.about, values),
            self.about.concurrency,
            self.is_work().then_some(1),
            Duration::from_secs(60),
        )
    }

    /// An instance with the parameters of the stand.
    pub fn ready(&self) -> Result<Pool, No> {
        self.pool(&self.values)
            .map_err(|error| No::Failed(format!("it cannot be created: {}", error.said.what)))
    }

    fn size(&self, dim: &Dim) -> u64 {
        match dim {
            Dim::Fixed(number) => *number as u64,
            Dim::Name(name) => match name.strip_prefix('$') {
                Some(param) => match self.values.integer(param) {
                    Ok(size) => size.max(0) as u64,
                    Err(_) => WIDTH,
                },
                None if name == "height" || name == "width" => SIDE,
                None => WIDTH,
            },
        }
    }

    fn shape(&self, dims: &[Dim]) -> Vec<u64> {
        dims.iter().map(|dim| self.size(dim)).collect()
    }

    /// `n` rows of an input.
    pub fn rows(&self, port: usize, n: usize) -> Vec<Value> {
        let input = &self.about.ins[port];
        rows::of(input.kind, &self.shape(&input.shape), n, self.seed)
    }

    pub fn outputs(&self) -> Arc<[Output]> {
        let outs = self.about.outs.iter();
        outs.map(|port| Output {
            name: port.name.clone(),
            kind: port.kind,
            shape: self.shape(&port.shape),
            classes: Vec::new(),
            format: format!("{}/1", self.about.id),
        })
        .collect()
    }

    /// Whether it is a map or a filter.
    pub fn is_work(&self) -> bool {
        matches!(self.about.rows, Rows::Map | Rows::Filter)
    }

    /// A call with these rows: of a map or a filter, what became of each row.
    pub fn process(
        &self,
        pool: &Pool,
        port: usize,
        values: Vec<Value>,
    ) -> Result<Outcomes, CallError> {
        let n = values.len();
        let rows = values.iter().map(|(key, body, info)| (*key, body, info));
        // SAFETY: the values live until the call is over.
        let input = unsafe { HostBatch::input(rows, 0) }.map(Arc::new);
        let input = input.map_err(|what| CallError {
            status: status::FAIL,
            said: Said {
                what,
                ..Said::default()
            },
        })?;
        let batch = input.as_ptr();
        let task = match self.is_work() {
            true => {
                let mut outcomes = Outcomes::default();
                let filter = self.about.rows == Rows::Filter;
                outcomes.reset(n, self.about.outs.len(), filter);
                Task::Rows(Box::new(Frame {
                    input,
                    outputs: self.outputs(),
                    leases: Vec::new(),
                    outcomes,
                }))
            }
            false => Task::Take(input),
        };
        let done = pool.call(task, |stage, me, call| match stage.process {
            // SAFETY: as the header says: the batch lives at least as long as the call.
            Some(process) => unsafe { process(me, call, port as u32, batch) },
            None => status::UNSUPPORTED,
        })?;
        Ok(match done {
            Task::Rows(rows) => rows.outcomes,
            _ => Outcomes::default(),
        })
    }

    /// What became of each row of a map or a filter, on each output, as text; an error where a row is lost.
    pub fn shown(&self, mut outcomes: Outcomes) -> Result<Vec<String>, String> {
        let shown = |(row, port, outcome): (usize, usize, Outcome)| match outcome {
            Outcome::Made(body) => Ok(format!("{body:?}")),
            Outcome::Passed => Ok("as it came".into()),
            Outcome::Skipped(reason) => Ok(format!("left out: {reason}")),
            Outcome::Failed(said) => Ok(format!("failed: {}", said.what)),
            Outcome::None => Err(format!(
                "row {row} is lost on output `{}`: neither made nor failed",
                self.about.outs[port].name
            )),
        };
        outcomes.take().map(shown).collect()
    }
}
