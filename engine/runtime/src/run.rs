//! Runs a plan.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::{CommunicationConfig, Config, WorkerConfig};
use weir_pipeline::Plan;
use weir_record::{Budget, Slab};

use crate::abort::{Abort, Stop, message};
use crate::crew::Crew;
use crate::graph::{Tap, build};
use crate::house::{House, Places};
use crate::progress::Progress;
use crate::report::{Outcome, Report, exit};
use crate::stage::{OpenSlides, Prepare, Prepared, Shared, StageError, StageType};

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
    /// A fault of weir or of a stage: the first message.
    Internal(String),
}

impl RunError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Prepare { .. } | RunError::UnknownStage { .. } => exit::FAILED,
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
    let abort = Abort::default();
    let budget = Budget::new(plan.run.memory as usize);
    let slab = Slab::new(plan.run.memory as usize);
    let progress = options
        .progress
        .unwrap_or_else(|| Arc::new(counters(&plan)));
    let house = House {
        readers: Crew::new("reader", plan.run.readers, abort.clone()),
        helpers: Crew::new("helper", plan.run.helpers, abort.clone()),
        open: options.shared.get::<OpenSlides>(),
        places: Arc::new(Places::new(plan.run.open_slides)),
        process: (0, 1),
        workers: plan.run.workers.max(1),
        stop: options.stop.clone(),
        progress,
        abort: abort.clone(),
        budget: budget.clone(),
        slab: slab.clone(),
        plan: plan.clone(),
    };
    let prepared = Arc::new(prepare(&house, types, &options.shared)?);
    let report = Report::default();
    let (i, n) = options.shard.unwrap_or((0, 1));
    let keep: Arc<dyn Fn(u64) -> bool + Send + Sync> =
        Arc::new(move |number| number % n.max(1) == i);

    let config = Config {
        communication: if house.workers > 1 {
            CommunicationConfig::Process(house.workers)
        } else {
            CommunicationConfig::Thread
        },
        worker: WorkerConfig::default(),
    };
    let (in_worker, workers_abort) = (house.clone(), abort.clone());
    let (reported, taps) = (report.clone(), options.taps.clone());
    let guards = timely::execute(config, move |worker| {
        let house = &in_worker;
        workers_abort.enlist();
        let steps = catch_unwind(AssertUnwindSafe(|| {
            worker.dataflow::<u64, _, _>(|scope| {
                build(scope, house, &prepared, &reported, &taps, &keep)
            });
            while !workers_abort.is_set() {
                if !worker.step_or_park(Some(PARK)) {
                    break;
                }
                if house.stop.level() > 1 {
                    workers_abort.fatal("stopped twice: the run was cut off".into());
                }
            }
        }));
        if let Err(panic) = steps {
            workers_abort.fatal(message(&*panic));
        }
        if workers_abort.is_set() {
            for dataflow in worker.installed_dataflows() {
                // A panic may have left an operator half way: what its drop does no longer matters.
                let _ = catch_unwind(AssertUnwindSafe(|| worker.drop_dataflow(dataflow)));
            }
        }
    })
    .map_err(RunError::Internal)?;
    for joined in guards.join() {
        if let Err(what) = joined {
            abort.fatal(what);
        }
    }
    if let Some(what) = abort.first() {
        return Err(RunError::Internal(what));
    }
    let mut outcome = report.take();
    outcome.interrupted = options.stop.level() > 0 && !outcome.stopped;
    outcome.memory_peak = budget.peak() as u64;
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// Counters for the stages of a plan, to be shared with who shows them.
pub fn counters(plan: &Plan) -> Progress {
    Progress::new(plan.nodes.iter().map(|node| node.name.clone()))
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
            (stage.prepare)(&cx).map_err(|error| RunError::Prepare {
                stage: node.name.clone(),
                error,
            })
        })
        .collect()
}
