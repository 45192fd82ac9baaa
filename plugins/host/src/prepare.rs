//! A plugin's stage made ready for a run.

use crate::call::FAULT;
use crate::columns::row_bytes;
use crate::columns::{self, Output};
use crate::held::Taken;
use crate::instance::Runner;
use crate::isolate::Isolated;
use crate::isolate::cradle::Cradle;
use crate::load::Loaded;
use crate::log::{Counters, Log};
use crate::manifest::Manifest;
use crate::parameters::Parameters;
use crate::pool::Pool;
use crate::reduce::{Known, PluginReduce};
use crate::shelf::{Callers, Shelf};
use crate::sink::PluginSink;
use crate::slides;
use crate::source::PluginSource;
use crate::who::Who;
use crate::work::PluginWork;
use crate::yields::Of;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use weir_pipeline::{Dim, Kind, Node, Plan, Rows, Schema};
use weir_runtime::Stop;
use weir_runtime::stage::{BatchShape, Prepare, Prepared, StageError, StageType};
use weir_slide::Openers;

/// The plugins of a run, for `Shared`.
#[derive(Clone, Default)]
pub struct Plugins {
    /// Those that were loaded.
    pub loaded: Vec<&'static Loaded>,
    /// Those that run in processes of their own.
    pub isolated: Vec<Isolated>,
    /// Where their lines go.
    pub log: Log,
    /// Their counters.
    pub counters: Counters,
    /// Tells them that the run is being stopped.
    pub stop: Stop,
}

/// The stage type of a plugin's schema. What it runs is found in the run's [`Plugins`].
pub fn stage_type(schema: &'static Schema) -> StageType {
    StageType { schema, prepare }
}

/// Where a stage's code is.
enum Code<'a> {
    Here(&'static weir_abi::stage::Stage),
    Child(&'a Isolated),
}

impl Plugins {
    /// The plugin that has the stage type, and where its code is.
    fn code(&self, id: &str) -> Result<(&Manifest, Code<'_>), StageError> {
        let here = self.loaded.iter().filter_map(|loaded| {
            let table = loaded.stage(id)?;
            Some((loaded.manifest(), loaded.sha256(), Code::Here(table)))
        });
        let child = self.isolated.iter().filter_map(|isolated| {
            let manifest = isolated.manifest();
            let has = manifest.stages.iter().any(|stage| stage.id == id);
            has.then(|| (manifest, isolated.sha256(), Code::Child(isolated)))
        });
        let mut found = here.chain(child);
        let (manifest, sha256, code) = found.next().ok_or_else(|| unknown(id))?;
        if let Some((other, its, _)) = found.next() {
            return Err(StageError::new(
                format!(
                    "two plugins have `{id}` [E0524]: {} {} (SHA-256 {sha256}) and {} {} (SHA-256 {its})",
                    manifest.name, manifest.version, other.name, other.version
                ),
                "run with one of the two",
            ));
        }
        Ok((manifest, code))
    }
}

fn unknown(id: &str) -> StageError {
    StageError::new(
        format!("no plugin that was loaded has `{id}`"),
        "this is a fault of weir: please report it",
    )
}

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let plugins = cx.shared.get::<Plugins>();
    let (node, schema) = (cx.node, cx.node.schema);
    let (manifest, code) = plugins.code(schema.name)?;
    let stages = &manifest.stages;
    let about = stages.iter().find(|stage| stage.id == schema.name);
    let about = about.ok_or_else(|| unknown(schema.name))?;
    let timeout = node.run.timeout.unwrap_or(BatchShape::default().timeout);
    let who = Arc::new(Who {
        stage: node.name.clone(),
        log: plugins.log.clone(),
        counters: plugins.counters.clone(),
        stop: plugins.stop.clone(),
        folder: std::path::absolute(cx.out()).unwrap_or_else(|_| cx.out()),
        slab: Some(cx.slab.clone()),
        timeout,
        ..Who::plugin(&manifest.name, &manifest.version)
    });
    let slides = slides::find(about, cx.values(), &cx.shared.get::<Openers>())?;
    let outputs: Arc<[Output]> = outputs(node, about);
    check_rows(&outputs)?;
    let callers = match schema.rows {
        Rows::Map | Rows::Filter => Callers::Threads(cx.run().helpers),
        Rows::Source => Callers::Source,
        Rows::Reduce | Rows::Sink => Callers::Slides,
    };
    let is_of_plugin = |node: &&Node| stages.iter().any(|stage| stage.id == node.schema.name);
    let shares =
        !manifest.readers.is_empty() || cx.plan.nodes.iter().filter(is_of_plugin).count() > 1;
    let ends_late = shares && matches!(code, Code::Here(_));
    let runner = match code {
        Code::Here(table) => Runner::Here(table),
        Code::Child(isolated) => Runner::Child(Arc::new(Cradle::new(
            isolated,
            schema.name,
            &outputs,
            &who.folder,
            timeout,
            cx.budget,
        ))),
    };
    let shelf = Shelf::new(
        runner,
        who.clone(),
        Parameters::new(about, cx.values(), &slides),
        about.concurrency,
        callers,
        timeout,
    );
    let shelf = shelf.map_err(|error| refused(*error.by(&who).said))?;
    let pool = Pool::new(shelf, cx.budget.cap());
    let name: Arc<str> = node.name.as_str().into();
    let fed = |port: usize| node.inputs.iter().any(|edge| edge.port == port);
    let taken = |port: usize| Taken {
        pixels: schema.ins[port].kind == Kind::Pixels,
        width: width(cx.plan, node, port),
        batch_only: schema.batch_only,
    };
    let ports = 0..schema.ins.len();
    Ok(match schema.rows {
        Rows::Map | Rows::Filter => Prepared::Work(Arc::new(PluginWork {
            pool,
            rows: schema.rows,
            outputs,
            width: width(cx.plan, node, 0),
            name,
            ends_late,
            seats: Default::default(),
        })),
        Rows::Reduce => {
            let pool = Arc::new(pool);
            let inputs: Vec<(bool, Taken)> = ports.map(|port| (fed(port), taken(port))).collect();
            let selects = selecting_stage(cx.plan, node);
            Prepared::Reduce(Arc::new(move || {
                Box::new(PluginReduce {
                    name: name.clone(),
                    outputs: outputs.clone(),
                    inputs: inputs.clone(),
                    selects: selects.clone(),
                    known: Arc::new(Mutex::new(Known::default())),
                    due: BTreeSet::new(),
                    pool: pool.clone(),
                })
            }))
        }
        Rows::Sink => {
            let pool = Arc::new(pool);
            let inputs: Vec<Taken> = ports.map(taken).collect();
            let unfinished = Arc::new(AtomicUsize::new(0));
            Prepared::Sink(Arc::new(move || {
                unfinished.fetch_add(1, Ordering::SeqCst);
                Box::new(PluginSink {
                    inputs: inputs.clone(),
                    slides: HashMap::new(),
                    unfinished: unfinished.clone(),
                    pool: pool.clone(),
                })
            }))
        }
        Rows::Source => {
            let of = source_of(cx)?;
            let default_mpp = cx.run().default_mpp;
            let source = PluginSource::new(Arc::new(pool), name, of, default_mpp)?;
            Prepared::Source(Arc::new(source))
        }
    })
}

/// A refusal of `create`, with the parameter that the plugin blames.
fn refused(said: weir_abi::desk::Said) -> StageError {
    let error = StageError::new(said.what, said.help);
    match said.param.is_empty() {
        true => error,
        false => error.of_param(said.param),
    }
}

fn outputs(node: &Node, about: &crate::manifest::Stage) -> Arc<[Output]> {
    let named = node.values.texts("classes").ok();
    node.schema
        .outs
        .iter()
        .zip(&node.shapes)
        .map(|(port, shape)| Output {
            name: port.name.to_owned(),
            kind: port.kind,
            shape: shape.clone(),
            classes: match (port.kind, named) {
                (Kind::Predictions, Some(names)) => names.to_vec(),
                (Kind::Predictions, None) => {
                    let count = shape.first().copied().unwrap_or(0);
                    // More are refused below.
                    let count = count.min(CLASSES);
                    (0..count).map(|class| class.to_string()).collect()
                }
                _ => Vec::new(),
            },
            format: format!("{}/1", about.id),
        })
        .collect()
}

/// No row of an output has more bytes. What a plugin asks for is made at once: a size that cannot be must not end the process, nor
/// come round to a small one.
const ROW: usize = 1 << 30;

/// Nor a prediction more classes, of which each has a name.
const CLASSES: u64 = 1 << 16;

fn check_rows(outputs: &[Output]) -> Result<(), StageError> {
    for output in outputs {
        let first = output.shape.first().copied().unwrap_or(0);
        if output.kind == Kind::Predictions && first > CLASSES {
            return Err(StageError::new(
                format!(
                    "output `{}` has {first} classes, and no prediction has more than {CLASSES}",
                    output.name
                ),
                "give fewer; where the manifest gives them, this is a fault of the plugin",
            ));
        }
        if output.shape.contains(&0) {
            return Err(StageError::new(
                format!(
                    "nobody says how large rows of output `{}` are: {:?}",
                    output.name, output.shape
                ),
                "name the sizes by the stage's parameters; where it has none for them, this is a fault of the plugin",
            ));
        }
        // Tables are as long as each is.
        for (_, dtype, shape) in columns::made(output).unwrap_or_default() {
            if row_bytes(dtype, &shape).is_none_or(|bytes| bytes > ROW) {
                return Err(StageError::new(
                    format!(
                        "output `{}` has rows of {shape:?} numbers, and no row has more than {ROW} bytes",
                        output.name
                    ),
                    "give smaller sizes; where the manifest gives them, this is a fault of the plugin",
                ));
            }
        }
    }
    Ok(())
}

/// As the plan agreed on it, the numbers of a bag's vector or a prediction's classes at an input.
fn width(plan: &Plan, node: &Node, port: usize) -> usize {
    let edge = node.inputs.iter().find(|edge| edge.port == port);
    let shape = edge.and_then(|edge| plan.nodes.get(edge.node)?.shapes.get(edge.output));
    match node.schema.ins.get(port).map(|port| port.kind) {
        Some(Kind::Bag | Kind::Predictions) => shape
            .and_then(|shape| shape.first())
            .map_or(0, |&n| n as usize),
        _ => 0,
    }
}

/// The nearest reduce that a stage's rows come from: what it counted is what a prediction stands on.
fn selecting_stage(plan: &Plan, node: &Node) -> Option<String> {
    let mut at = node;
    loop {
        at = &plan.nodes[at.inputs.first()?.node];
        if at.schema.rows == Rows::Reduce {
            return Some(at.name.clone());
        }
    }
}

/// What a source sends, as the plan says of its output.
fn source_of(cx: &Prepare) -> Result<Of, StageError> {
    let port = &cx.node.schema.outs[0];
    let shape = cx.node.shapes.first().map_or(&[][..], Vec::as_slice);
    let side = |at: usize| u32::try_from(shape.get(at).copied().unwrap_or(0)).unwrap_or(0);
    match port.kind {
        Kind::Pixels => Ok(Of::Pixels {
            mpp: match port.mpp {
                Some(Dim::Fixed(mpp)) => mpp,
                Some(Dim::Param(name)) => cx.values().float(name)?,
                _ => 0.0,
            },
            height: side(0),
            width: side(1),
        }),
        Kind::Features => Ok(Of::Features { width: side(0) }),
        other => Err(StageError::new(
            format!("a source sends pixels or features, not {}", other.name()),
            FAULT,
        )),
    }
}
