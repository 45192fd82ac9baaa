//! A stage without the engine: made as a run makes it, called as a run calls it.

use super::rows::{self, Value};
use super::trials::No;
use super::{values, watch};
use crate::load::Loaded;
use crate::manifest::{Dim, Stage};
use crate::prepare::{Plugins, stage_type};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use weir_abi::stage;
use weir_pipeline::{Edge, Node, Plan, Rows, RunSettings, Schema, StageRun, Values};
use weir_record::{Body, Budget, Failure, Skip, Slab};
use weir_runtime::Stop;
use weir_runtime::stage::{Batch, Prepare, Prepared, Shared, StageError, Work};

/// Sizes of what a manifest leaves open.
const SIDE: u64 = 64;
const WIDTH: u64 = 8;

/// How long a call may take.
const TIME: Duration = Duration::from_secs(60);

/// A stage of a loaded plugin.
pub(super) struct Stand {
    pub about: &'static Stage,
    /// The plugin's own table.
    pub table: stage::Stage,
    schema: &'static Schema,
    loaded: &'static Loaded,
    /// Parameters: the defaults and what was set.
    pub values: Values,
    pub seed: u64,
    /// How long the test may take.
    pub timeout: Duration,
    /// Where it may write.
    pub folder: PathBuf,
}

/// What is given to a stage that is tried.
pub(super) struct Given<'a> {
    pub seed: u64,
    /// How long the test may take.
    pub timeout: Duration,
    /// As `STAGE.NAME=VALUE`.
    pub set: &'a [String],
    /// A slide, for what reads some.
    pub slide: Option<&'a Path>,
    /// Where paths that were set begin.
    pub from: &'a Path,
    /// Where paths that the manifest says begin, and where files may be made.
    pub folder: &'a Path,
}

/// A stage, made.
pub(super) struct Made {
    pub prepared: Prepared,
    /// Asks for the end of the run.
    pub stop: Stop,
}

impl Stand {
    pub fn new(
        loaded: Loaded,
        schemas: &'static [Schema],
        id: &str,
        given: &Given,
    ) -> Result<Stand, No> {
        let missing = || No::Failed(format!("it has no stage `{id}`"));
        let table = *loaded.stage(id).ok_or_else(missing)?;
        let loaded = loaded.with_stage(id, watch::stage(&table));
        let stages = &loaded.manifest().stages;
        let about = stages.iter().find(|stage| stage.id == id);
        let schema = schemas.iter().find(|schema| schema.name == id);
        let (about, schema) = about.zip(schema).ok_or_else(missing)?;
        let (values, missing) = values::of(about, given).map_err(No::Failed)?;
        if let Some(name) = missing.first() {
            let slide = match values::asks_for_slide(about, name) {
                true => ", or --slide FILE",
                false => "",
            };
            return Err(No::Skipped(format!(
                "it needs parameters that only you know: give --set {id}.{name}=VALUE{slide}"
            )));
        }
        Ok(Stand {
            about,
            table,
            schema,
            loaded,
            values,
            seed: given.seed,
            timeout: given.timeout,
            folder: given.folder.to_owned(),
        })
    }

    /// The stage with these parameters, for so many threads.
    pub fn with(&self, values: &Values, threads: usize) -> Result<Made, StageError> {
        let node = |inputs| Node {
            name: self.about.id.clone(),
            schema: self.schema,
            values: values.clone(),
            inputs,
            run: StageRun {
                timeout: Some(TIME),
                ..StageRun::default()
            },
            shapes: self
                .about
                .outs
                .iter()
                .map(|port| self.shape(&port.shape))
                .collect(),
        };
        // Something feeds every input: what it is does not matter here.
        let fed = (0..self.about.ins.len()).map(|port| Edge {
            port,
            node: 0,
            output: 0,
        });
        let plan = Plan {
            name: "check".into(),
            file: PathBuf::new(),
            run: RunSettings {
                out: self.folder.clone(),
                helpers: threads,
                ..RunSettings::default()
            },
            models: BTreeMap::new(),
            plugins: Vec::new(),
            nodes: vec![node(Vec::new())],
            hash: String::new(),
        };
        let plugins = Plugins {
            loaded: vec![self.loaded],
            ..Plugins::default()
        };
        let stop = plugins.stop.clone();
        let shared = Shared::default();
        let budget = Budget::new(1 << 30);
        shared.get_or_try("", || Ok::<_, StageError>(plugins))?;
        let node = node(fed.collect());
        let prepare = Prepare {
            plan: &plan,
            node: &node,
            shared: &shared,
            budget: &budget,
            slab: &Slab::within(&budget),
        };
        let prepared = (stage_type(self.schema).prepare)(&prepare)?;
        Ok(Made { prepared, stop })
    }

    /// The stage with the parameters of the stand.
    pub fn ready(&self) -> Result<Made, No> {
        self.with(&self.values, 1)
            .map_err(|error| No::Failed(format!("it cannot be created: {}", error.what)))
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

    /// A port's shape, with what it leaves open.
    pub fn shape(&self, dims: &[Dim]) -> Vec<u64> {
        dims.iter().map(|dim| self.size(dim)).collect()
    }

    /// `n` rows of an input.
    pub fn rows(&self, port: usize, n: usize) -> Vec<Value> {
        let input = &self.about.ins[port];
        rows::of(input.kind, &self.shape(&input.shape), n, self.seed)
    }

    /// Whether it is a map or a filter.
    pub fn is_work(&self) -> bool {
        matches!(self.about.rows, Rows::Map | Rows::Filter)
    }

    /// Whether it gathers what it is given until a slide ends.
    pub fn is_of_slides(&self) -> bool {
        matches!(self.about.rows, Rows::Reduce | Rows::Sink)
    }
}

impl Made {
    /// The map or filter that it is.
    pub fn work(&self) -> Result<Arc<dyn Work>, No> {
        match &self.prepared {
            Prepared::Work(work) => Ok(work.clone()),
            _ => Err(No::Skipped("it is neither a map nor a filter".into())),
        }
    }
}

/// What became of each row of a batch, on each output in turn.
pub(super) fn outcomes(
    work: &dyn Work,
    rows: &[Value],
    outputs: usize,
) -> Result<Vec<Body>, StageError> {
    let rows: Vec<_> = rows
        .iter()
        .map(|(key, body, info)| (*key, body.clone(), info.clone(), None))
        .collect();
    let n = rows.len();
    let mut batch = Batch::new(rows, outputs);
    work.run(&mut batch)?;
    let all = (0..n).flat_map(|row| (0..outputs).map(move |port| (row, port)));
    // A row without an outcome is one that nobody spoke of: the runtime would fail it.
    Ok(all
        .map(|(row, port)| batch.outcome(row, port).cloned().unwrap_or(Body::Gone))
        .collect())
}

/// The first row that failed.
pub(super) fn failure(outcomes: &[Body]) -> Option<&Failure> {
    outcomes.iter().find_map(|body| match body {
        Body::Fail(failure) => Some(failure.as_ref()),
        _ => None,
    })
}

/// An outcome as text; the same text for the same bits.
pub(super) fn shown(body: &Body) -> String {
    match body {
        Body::Pixels(tile) => {
            let (width, height) = (tile.width(), tile.height());
            format!("{width} x {height} px, {}", rows::digest(tile.pixels()))
        }
        Body::Feature(feature) => {
            let bits: Vec<u32> = feature.iter().map(|number| number.to_bits()).collect();
            format!("{bits:x?}")
        }
        Body::Skip(Skip::Dropped { reason, .. }) => format!("left out: {reason}"),
        other => format!("{other:?}"),
    }
}
