//! `weir train`: progress, Ctrl-C and exit codes around weir-learn.

use crate::args::{self, Format};
use crate::message::{Done, Manner, Refusal};
use crate::plugin;
use crate::run::signals;
use crate::shown;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use weir_learn::{At, Ended, Options, Progress, Recipe, TrainError};
use weir_model::Choice;
use weir_runtime::{Stop, exit};

/// How often a JSON line is written.
const LINE: Duration = Duration::from_secs(10);
/// Steps of a full bar.
const STEPS: u64 = 1000;

/// Trains both models of a recipe.
pub fn train(arguments: &args::Train, manner: &Manner, out: &mut dyn Write) -> Done {
    let stop = Stop::default();
    signals::watch(stop.clone(), *manner)
        .map_err(|error| Refusal::internal(format!("no thread to watch signals: {error}")))?;
    let device = arguments.device.parse();
    let recipe = Recipe::load(&arguments.recipe).map_err(refused)?;
    let plugins = plugin::readers(&recipe, &stop, manner)?;
    let options = Options {
        recipe: arguments.recipe.clone(),
        data: arguments.data.clone(),
        out: arguments.out.clone(),
        resume: arguments.resume,
        choice: Choice::default(),
        device: device.map_err(|what: String| Refusal::usage(what, ""))?,
        openers: weir_plugin_host::openers(&plugins),
        plugins: plugins
            .loaded
            .iter()
            .map(|loaded| (loaded.manifest(), loaded.sha256()))
            .chain(
                plugins
                    .isolated
                    .iter()
                    .map(|isolated| (isolated.manifest(), isolated.sha256())),
            )
            .map(|(manifest, sha256)| (manifest.name.clone(), sha256.to_owned()))
            .collect(),
    };
    let since = Instant::now();
    let mut teller = Teller::new(stop, manner);
    let ended = weir_learn::train(&options, &mut teller);
    teller.finish();
    match ended {
        Ok(Ended::Whole(trained)) => {
            if !manner.quiet {
                writeln!(out, "{}", trained.record.trim_end())?;
                writeln!(out, "took {}", shown::time(since.elapsed()))?;
                writeln!(
                    out,
                    "models: {} and {}; everything else: {}",
                    trained.scorer.display(),
                    trained.bag.display(),
                    arguments.out.display()
                )?;
            }
            Ok(exit::DONE)
        }
        Ok(Ended::Early) => Err(Refusal::Error {
            exit: exit::INTERRUPTED,
            what: "interrupted; every epoch that ended is on disk".into(),
            help: "give the same command with --resume to go on".into(),
        }),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: TrainError) -> Refusal {
    match error {
        TrainError::Recipe { .. } | TrainError::Data { .. } | TrainError::Manifest(_) => {
            Refusal::usage(error, "")
        }
        error => Refusal::failed(error, ""),
    }
}

struct Teller {
    stop: Stop,
    quiet: bool,
    bar: Option<ProgressBar>,
    written: Instant,
}

impl Teller {
    fn new(stop: Stop, manner: &Manner) -> Self {
        let terminal = manner.format == Format::Human && io::stderr().is_terminal();
        let bar = (!manner.quiet && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            // The template is a constant; were it wrong, the plain bar would do.
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:20}] {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Teller {
            stop,
            quiet: manner.quiet,
            bar,
            written: Instant::now(),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Teller {
    fn at(&mut self, at: &At) {
        if let Some(bar) = &self.bar {
            let done = (at.epoch.saturating_sub(1)) as f64 + at.part;
            bar.set_position((done / at.epochs.max(1) as f64 * STEPS as f64) as u64);
            bar.set_prefix(at.phase.to_owned());
            let left = at.left.map_or(String::new(), |left| {
                format!(", {} left", shown::time(left))
            });
            bar.set_message(format!(
                "epoch {}/{}, loss {:.4}{left}",
                at.epoch, at.epochs, at.loss
            ));
        } else if !self.quiet && self.written.elapsed() > LINE {
            self.written = Instant::now();
            let line = serde_json::json!({
                "event": "progress", "phase": at.phase, "epoch": at.epoch, "epochs": at.epochs,
                "part": at.part, "loss": at.loss, "seconds_left": at.left.map(|left| left.as_secs()),
            });
            let _ = writeln!(io::stderr().lock(), "{line}");
        }
    }

    fn note(&mut self, line: &str) {
        if self.quiet {
            return;
        }
        let write = || {
            let _ = writeln!(io::stderr().lock(), "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn go_on(&mut self) -> bool {
        self.stop.level() == 0
    }
}
