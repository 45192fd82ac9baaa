//! Runs a plan.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use weir_pipeline::Plan;
use weir_record::{Budget, Slab};

use crate::abort::{self, Abort, Stop, message};
use crate::cluster::{self, Cluster, JoinError};
use crate::crew::Crew;
use crate::graph::{Tap, build};
use crate::house::{House, Places};
use crate::progress::Progress;
use crate::report::{Outcome, Report, exit};
use crate::stage::{OpenSlides, Prepare, Prepared, Shared, StageError, StageType};
use crate::trace::{self, DeviceSpans, Trace};
use crate::wiring::{self, Wires};

/// How long a worker sleeps at most before it looks whether the run is to end.
const PARK: Duration = Duration::from_millis(100);

/// What a run needs beside its plan.
#[derive(Clone, Default)]
pub struct Options {
    /// Stops the run from outside.
    pub stop: Stop,
    /// Counters to read while it runs; made when it is `None`.
    pub progress: Option<Arc<Progress>>,
    /// Values that stages share; what is put here before the run is there when stages are prepared.
    pub shared: Shared,
    /// Views on what reaches the sinks.
    pub taps: Vec<Arc<dyn Tap>>,
    /// Only the i-th of every n slides: (i, n) with i from 0.
    pub shard: Option<(u64, u64)>,
    /// This is one of several processes of the run. Every stage's code must then be the same in all of them; slide number n
    /// lives in process n mod P, and the report and sinks of place `First` are process 0's.
    pub cluster: Option<Cluster>,
    /// Write a trace for Perfetto here when the run ends; with several processes, process i writes `NAME.i.json`.
    pub trace: Option<PathBuf>,
    /// Filled when a fault ends the run: what process 0 had heard of the slides by then.
    pub salvaged: Arc<Mutex<Option<Outcome>>>,
}

/// Why a run could not be started, or did not end by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// A stage could not be prepared: a model that does not load, a table that is not there.
    Prepare {
        /// Name in the pipeline file.
        stage: String,
        /// Why.
        error: StageError,
    },
    /// A stage of the plan has no code.
    UnknownStage {
        /// Its type.
        name: String,
    },
    /// The processes did not come together: who is missing, or what differs.
    Join(JoinError),
    /// A fault of weir or of a stage: the first message.
    Internal(String),
}

impl RunError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Prepare { .. } | RunError::UnknownStage { .. } | RunError::Join(_) => {
                exit::FAILED
            }
            RunError::Internal(_) => exit::INTERNAL,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Prepare { stage, error } => {
                write!(f, "stage `{stage}` cannot start: {error}")
            }
            RunError::UnknownStage { name } => {
                write!(f, "no code for the stage type `{name}` in this build")
            }
            RunError::Join(error) => write!(f, "{error}"),
            RunError::Internal(what) => write!(f, "internal fault: {what}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs `plan` with the stage types `types`; returns when everything is written.
///
/// Predictions depend on the plan, the models and the pixels alone: not on workers, helpers, readers, the budget or the
/// order in which anything arrives.
pub fn run(plan: Arc<Plan>, types: &[StageType], options: Options) -> Result<Outcome, RunError> {
    let start = Instant::now();
    abort::catch_panics();
    let abort = Abort::default();
    let workers = plan.run.workers.max(1);
    let cluster = options
        .cluster
        .as_ref()
        .filter(|cluster| cluster.addresses.len() > 1);
    let process = cluster.map_or((0, 1), |cluster| (cluster.process, cluster.addresses.len()));
    let mut member = cluster
        .map(|cluster| cluster::join(cluster, &plan.hash, workers).map_err(RunError::Join))
        .transpose()?;
    // What plugins have for themselves is never given back, so it is no reservation: it is not there to be had.
    let of_plugins = plan.of_plugins();
    let budget = Budget::new(plan.run.memory.saturating_sub(of_plugins) as usize);
    let house = House {
        readers: Crew::new("reader", plan.run.readers, abort.clone()),
        helpers: Crew::new("helper", plan.run.helpers, abort.clone()),
        open: options.shared.get::<OpenSlides>(),
        places: Arc::new(Places::new(plan.run.open_slides)),
        bells: Arc::default(),
        gathers: Arc::default(),
        endings: Arc::default(),
        trace: options.trace.as_ref().map(|_| Trace::new(process.0)),
        process,
        workers,
        stop: options.stop.clone(),
        progress: options
            .progress
            .clone()
            .unwrap_or_else(|| Arc::new(counters(&plan))),
        abort: abort.clone(),
        // A plugin's process reads tiles where they lie.
        slab: match plan.plugins.iter().any(|plugin| plugin.isolate) {
            true => Slab::shared_within(&budget, plan.run.readers),
            false => Slab::within(&budget),
        },
        budget,
        plan: plan.clone(),
    };
    if let Some(trace) = &house.trace {
        options.shared.get::<DeviceSpans>().follow(trace);
    }
    let prepared = prepare(&house, types, &options.shared);
    if let Some(member) = &mut member {
        let slides = prepared
            .as_ref()
            .map(|prepared| digest_of_slides(prepared))
            .map_err(RunError::to_string);
        let met = member.ready(slides);
        // A fault of this process's own is told by its own name.
        if prepared.is_ok() {
            met.map_err(RunError::Join)?;
        }
    }
    let prepared = prepared?;
    // What is no Work ends when nothing flows any more, whoever has it beside.
    let is_kept = |stage: &&Prepared| !matches!(stage, Prepared::Work(_));
    let kept: Vec<Prepared> = prepared.iter().filter(is_kept).cloned().collect();
    let wires = match member {
        None => wiring::alone(workers).map_err(RunError::Internal)?,
        Some(member) => wiring::between(member, process.0, workers, &abort, &house.stop)
            .map_err(RunError::Join)?,
    };
    let control = wires.control.clone();
    let report = Report::default();
    let joined = work(&house, prepared, &report, &options, wires)?;
    for what in joined {
        abort.fatal(what);
    }
    house.ends(Box::new(move || drop(kept)));
    house.end();
    let mut outcome = report.take();
    outcome.interrupted = house.stop.level() > 0 && !outcome.stopped;
    outcome.memory_peak = house.budget.peak() as u64 + of_plugins;
    if let Some(control) = &control {
        if !abort.is_set() {
            control.end(&mut outcome);
        }
        control.close();
    }
    abort.over();
    if let Err(what) = write_trace(&house, options.trace.as_deref()) {
        outcome.sink_failures.push(what);
    }
    outcome.took = start.elapsed();
    if let Some(what) = abort.first() {
        *options
            .salvaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        return Err(RunError::Internal(what));
    }
    Ok(outcome)
}

/// Runs the workers to their end; returns what those that panicked said.
fn work(
    house: &House,
    prepared: Vec<Prepared>,
    report: &Report,
    options: &Options,
    wires: Wires,
) -> Result<Vec<String>, RunError> {
    let (i, n) = options.shard.unwrap_or((0, 1));
    let keep: Arc<dyn Fn(u64) -> bool + Send + Sync> =
        Arc::new(move |number| number % n.max(1) == i);
    let (in_worker, control) = (house.clone(), wires.control);
    // A set for each worker: of a Work nobody else has any more, so that it can be left when the operators are done with it.
    let prepared = Mutex::new(vec![prepared; house.workers]);
    let (reported, taps) = (report.clone(), options.taps.clone());
    let guards = timely::execute::execute_from(
        wires.builders,
        wires.others,
        // What a worker waits for takes far longer than a spin before parking would save.
        WorkerConfig::default().idle_spin(Duration::ZERO),
        move |worker| {
            let house = &in_worker;
            let abort = &house.abort;
            abort.enlist();
            let index = worker.index() % house.workers;
            if let Some(trace) = &house.trace {
                trace.follow(worker, index);
            }
            let steps = catch_unwind(AssertUnwindSafe(|| {
                let set = prepared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop();
                let Some(own) = set else {
                    return abort.fatal("a worker has no stages".into());
                };
                worker.dataflow::<u64, _, _>(|scope| {
                    build(scope, house, &own, &reported, &taps, &keep)
                });
                drop(own);
                let mut asked = 0;
                while !abort.is_set() {
                    if !worker.step_or_park(Some(PARK)) {
                        break;
                    }
                    let level = house.stop.level();
                    if level > asked && index == 0 {
                        if let Some(control) = &control {
                            control.tell_stop(level);
                        }
                        house.ring();
                        asked = level;
                    }
                    if level > 1 {
                        abort.fatal("stopped twice: the run was cut off".into());
                    }
                    if index == 0 {
                        house.count();
                    }
                }
            }));
            if let Err(panic) = steps {
                let what = message(&*panic);
                if abort::is_of_a_connection(&what) {
                    abort.secondary(what);
                } else {
                    abort.fatal(what);
                }
            }
            if abort.is_set() {
                for dataflow in worker.installed_dataflows() {
                    // A panic may have left an operator half way: what its drop does no longer matters.
                    let _ = catch_unwind(AssertUnwindSafe(|| worker.drop_dataflow(dataflow)));
                }
            }
        },
    )
    .map_err(RunError::Internal)?;
    Ok(join_workers(guards, house.abort.clone(), wires.sockets))
}

/// Waits for the workers and the threads of the connections. On a thread of its own, whose panics are caught: after an abort
/// timely's guards panic when they are dropped.
fn join_workers(
    guards: WorkerGuards<()>,
    abort: Abort,
    sockets: Vec<std::net::TcpStream>,
) -> Vec<String> {
    let joining = std::thread::Builder::new()
        .name("weir-join".into())
        .spawn(move || {
            if !sockets.is_empty() {
                // The threads of the connections end with the peers'; after an abort these may never come.
                while !guards.guards().iter().all(|worker| worker.is_finished()) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                if abort.is_set() {
                    for socket in &sockets {
                        // It may be closed already.
                        let _ = socket.shutdown(std::net::Shutdown::Both);
                    }
                }
            }
            let joined = guards.join();
            joined.into_iter().filter_map(Result::err).collect()
        });
    match joining.map(std::thread::JoinHandle::join) {
        Ok(Ok(failed)) => failed,
        Ok(Err(panic)) => vec![message(&*panic)],
        Err(error) => vec![format!("no thread could be started: {error}")],
    }
}

fn write_trace(house: &House, file: Option<&Path>) -> Result<(), String> {
    let (Some(trace), Some(file)) = (&house.trace, file) else {
        return Ok(());
    };
    let file = trace::file_of(file, house.process.0, house.process.1);
    trace
        .write(&file)
        .map_err(|error| format!("the trace {} cannot be written: {error}", file.display()))
}

/// A digest of the list of slides: every process numbers them alike.
fn digest_of_slides(prepared: &[Prepared]) -> u64 {
    let mut digest = 0;
    for stage in prepared {
        if let Prepared::Source(source) = stage {
            for slide in source.slides() {
                digest = weir_record::id::mix(digest ^ slide.key.0);
            }
        }
    }
    digest
}

/// Counters for the stages of a plan, to be shared with who shows them.
pub fn counters(plan: &Plan) -> Progress {
    Progress::of(plan)
}

fn prepare(house: &House, types: &[StageType], shared: &Shared) -> Result<Vec<Prepared>, RunError> {
    house
        .plan
        .nodes
        .iter()
        .map(|node| {
            let name = node.schema.name;
            let stage = types
                .iter()
                .find(|stage| stage.schema.name == name)
                .ok_or_else(|| RunError::UnknownStage {
                    name: name.to_owned(),
                })?;
            let cx = Prepare {
                plan: &house.plan,
                node,
                shared,
                budget: &house.budget,
                slab: &house.slab,
            };
            let refused = |error| RunError::Prepare {
                stage: node.name.clone(),
                error,
            };
            let prepared = (stage.prepare)(&cx).map_err(refused)?;
            // Of a version there is one outcome, and one end of a slide: of several streams there would be several.
            if matches!(prepared, Prepared::Work(_)) && node.inputs.len() > 1 {
                let what = format!("it takes one stream, and is given {}", node.inputs.len());
                return Err(refused(StageError::new(
                    what,
                    "give each a stage of its own",
                )));
            }
            Ok(prepared)
        })
        .collect()
}
