//! `weir run`: from arguments to outputs and an exit code.

mod children;
pub mod lock;
mod progress;
mod record;
pub mod signals;
mod summary;
mod views;

use crate::args;
use crate::message::{Done, Manner, Refusal};
use crate::pipeline::{self, Loaded};
use crate::plugin;
use lock::{Lock, Shard};
use progress::{Display, Watch};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use weir_pipeline::{Diagnostic, Overrides, Plan};
use weir_runtime::stage::Shared;
use weir_runtime::{Cluster, Options, RunError, Stop, Tap, exit};
use weir_stages::done::Again;
use weir_stages::predictions_sink;
use weir_stages::{Executors, Placements};

/// Runs a pipeline.
pub fn run(arguments: &args::Run, manner: &Manner, out: &mut dyn Write) -> Done {
    let shard: Option<Shard> = match &arguments.shard {
        None => None,
        Some(text) => Some(text.parse().map_err(|what| Refusal::usage(what, ""))?),
    };
    let overrides = Overrides {
        out: arguments.out.clone(),
        workers: arguments.workers,
        device: arguments.device.clone(),
        executor: arguments.executor.clone(),
        ..pipeline::overrides(&arguments.file)?
    };
    let plugins = plugin::catalogue(arguments.locked)?;
    let Loaded { plan, checked } =
        pipeline::load_with(&arguments.file.file, &overrides, &plugins, manner)?;
    pipeline::slides(&plan)?;
    let stop = Stop::default();
    let cannot =
        |error: std::io::Error| Refusal::internal(format!("no thread to watch with: {error}"));
    if arguments.led {
        signals::obey(stop.clone()).map_err(cannot)?;
    } else {
        signals::watch(stop.clone(), *manner).map_err(cannot)?;
    }
    if let Some(n) = arguments.processes.filter(|n| *n > 1) {
        return children::run(n, &stop, manner);
    }
    let cluster = cluster(arguments)?;
    let process = cluster.as_ref().map_or(0, |cluster| cluster.process);
    let processes = cluster
        .as_ref()
        .map_or(1, |cluster| cluster.addresses.len());
    // The processes of a cluster are one run: the first holds the lock for all.
    let _lock = (process == 0)
        .then(|| Lock::take(&plan.run.out, shard))
        .transpose()?;

    let (loaded, types) = plugin::load(&plan, &checked, &plugins, &stop, manner)?;
    let counters = loaded.counters.clone();
    let started = SystemTime::now();
    let plan = Arc::new(plan);
    let progress = Arc::new(weir_runtime::counters(&plan));
    let shared = Shared::default();
    let Ok(_) = shared.get_or_try("", || {
        Ok::<_, std::convert::Infallible>(Again(arguments.again))
    });
    let openers = weir_plugin_host::openers(&loaded);
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(openers));
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(loaded));
    let in_names = predictions_sink::Shard(shard.map_or_else(String::new, |s| s.to_string()));
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(in_names));
    let display = if arguments.led {
        Display::led()
    } else {
        Display::new(manner, &plan.name)
    };
    let watch =
        Watch::start(progress.clone(), progress::scanning(&plan), display).map_err(cannot)?;
    let views = views::of(&plan);
    let salvaged = Arc::new(Mutex::new(None));
    let options = Options {
        stop: stop.clone(),
        progress: Some(progress.clone()),
        shared: shared.clone(),
        taps: views
            .iter()
            .map(|views| Arc::new(views.clone()) as Arc<dyn Tap>)
            .collect(),
        shard: shard.map(|shard| (shard.i, shard.n)),
        cluster,
        trace: arguments.trace.clone(),
        salvaged: salvaged.clone(),
    };
    let result = weir_runtime::run(plan.clone(), &types, options);
    drop(watch);
    let placements = shared.get::<Placements>();
    summary::refusals(&placements.all(), manner);
    if process != 0 {
        return match result {
            Ok(outcome) => Ok(outcome.exit_code()),
            Err(error) => Err(refusal(&error, &stop)),
        };
    }
    let executors = shared.get::<Executors>();
    let unsteady: Vec<Diagnostic> = executors
        .all()
        .iter()
        .filter(|(_, used)| !used.deterministic)
        .map(|(stage, used)| checked.not_deterministic(stage, &used.key, &used.device))
        .collect();
    pipeline::print(&unsteady, &checked.sources, manner);
    let facts = record::Facts {
        plan: &plan,
        executors: &executors,
        placements: &placements,
        progress: &progress,
        counters: &counters,
        started,
        shard,
        processes,
    };
    match result {
        Ok(outcome) => {
            let code = outcome.exit_code();
            if let Some(views) = &views {
                views::write(views, &plan, shard)?;
            }
            write_record(&plan, shard, &facts.record(&outcome, code, None))?;
            summary::failures(&outcome, manner);
            if !manner.quiet {
                summary::summary(&outcome, &facts, code, manner, out)?;
            }
            Ok(code)
        }
        Err(error) => {
            let refused = refusal(&error, &stop);
            let heard = salvaged
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let mut outcome = heard.unwrap_or_default();
            outcome.took = started.elapsed().unwrap_or(Duration::ZERO);
            if let Refusal::Error { exit, .. } = &refused {
                // What ended the run is told in any case.
                let _ = record::write(
                    &plan.run.out,
                    shard,
                    &facts.record(&outcome, *exit, Some(&error.to_string())),
                );
            }
            if let (RunError::Prepare { stage, error }, Refusal::Error { exit, .. }) =
                (&error, &refused)
                && (error.param.is_some() || plugin::of_plugin(&plan, stage))
            {
                let told = [plugin::not_ready(&checked, &plan, stage, error)];
                pipeline::print(&told, &checked.sources, manner);
                return Err(Refusal::Told(*exit));
            }
            Err(refused)
        }
    }
}

/// The cluster that `--hosts` and `--process` name.
fn cluster(arguments: &args::Run) -> Result<Option<Cluster>, Refusal> {
    let (Some(hosts), Some(process)) = (&arguments.hosts, arguments.process) else {
        return Ok(None);
    };
    let addresses = weir_runtime::cluster::hosts(hosts)
        .map_err(|error| Refusal::usage(error.what, error.help))?;
    if process >= addresses.len() {
        return Err(Refusal::usage(
            format!(
                "--process {process}, but {} lists {} addresses, counted from 0",
                hosts.display(),
                addresses.len()
            ),
            "give each process its own line",
        ));
    }
    Ok(Some(Cluster {
        process,
        addresses,
        join_timeout: Duration::from_secs(arguments.join_timeout),
    }))
}

fn write_record(
    plan: &Plan,
    shard: Option<Shard>,
    record: &serde_json::Value,
) -> Result<(), Refusal> {
    let cannot = |out: &Path, error: std::io::Error| {
        Refusal::failed(
            format!(
                "the record of the run cannot be written to {}: {error}",
                out.display()
            ),
            "make room, and run again: slides that are done are not computed again",
        )
    };
    record::write(&plan.run.out, shard, record)
        .map(|_| ())
        .map_err(|error| cannot(&plan.run.out, error))
}

/// What ended the run before its end.
fn refusal(error: &RunError, stop: &Stop) -> Refusal {
    if stop.level() > 1 {
        return Refusal::Error {
            exit: exit::INTERRUPTED,
            what: "aborted: slides that were open have no result".into(),
            help: "run again to go on: slides that are done are not computed again".into(),
        };
    }
    Refusal::Error {
        exit: match error {
            // A mistake in the file, as every other of a parameter.
            RunError::Prepare { error, .. } if error.param.is_some() => exit::USAGE,
            _ => error.exit_code(),
        },
        what: error.to_string(),
        help: match error {
            RunError::Internal(_) => {
                "this is a fault of weir or of a stage: please report it".into()
            }
            _ => String::new(),
        },
    }
}
