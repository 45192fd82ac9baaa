//! `weir plugin check`: whether a plugin keeps the rules, test by test, each in a process of its own.
//!
//! A test that crashes, hangs or is killed has failed, with how it ended; the others run all the same. What is random comes from a
//! seed that is printed, so that a failure can be had again.
//!
//! | module | |
//! |---|---|
//! | `trials` | the tests |
//! | `stand` | a stage without the engine: instances, rows, calls |
//! | `rows` | made-up rows of every kind |
//! | `values` | parameters: defaults, what was set, random ones in range |

mod rows;
mod stand;
mod trials;
mod values;

use crate::admit::{Admitted, Ask, Policy};
use crate::describe::Described;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is to be checked, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The plugin's file.
    pub file: PathBuf,
    /// For what is random.
    pub seed: u64,
    /// How long a test may take.
    pub timeout: Duration,
    /// Only tests whose `STAGE: NAME` contains one of these; all when there is none.
    pub only: Vec<String>,
    /// Parameters as `STAGE.NAME=VALUE`, for stages that need some.
    pub set: Vec<String>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The rule is kept.
    Passed,
    /// It is broken.
    Failed,
    /// The test says nothing of this stage: why.
    Skipped,
}

/// What a test said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The stage or reader; empty for the file as a whole.
    pub stage: String,
    /// The test, as `input-untouched`.
    pub test: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed or was skipped; a figure where the test has one.
    pub what: String,
    /// Milliseconds.
    pub ms: u64,
}

/// The tests of a plugin, in order: (stage, test). What they will say is not known yet.
pub fn plan(order: &Order) -> Result<Vec<(String, &'static str)>, Refusal> {
    let described = Described::read(&order.file)?;
    let mut all: Vec<(String, &'static str)> = trials::OF_FILE
        .iter()
        .map(|trial| (String::new(), trial.name))
        .collect();
    for stage in &described.manifest().stages {
        let own = trials::OF_STAGE.iter();
        all.extend(own.map(|trial| (stage.id.clone(), trial.name)));
    }
    let wanted = |(stage, test): &(String, &str)| {
        let name = format!("{stage}: {test}");
        order.only.is_empty() || order.only.iter().any(|only| name.contains(only))
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// Runs one test in a child. `program` and `arguments` start what calls [`child`] with the two names that stand behind them.
pub fn run(order: &Order, (stage, test): &(String, &'static str), mut program: Command) -> Finding {
    let start = Instant::now();
    let finding = |verdict, what: String| Finding {
        stage: stage.clone(),
        test: (*test).to_owned(),
        verdict,
        what,
        ms: start.elapsed().as_millis() as u64,
    };
    program.arg("--seed").arg(order.seed.to_string());
    for set in &order.set {
        program.arg("--set").arg(set);
    }
    program.arg(&order.file).arg(stage).arg(test);
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match program.spawn() {
        Ok(child) => child,
        Err(error) => {
            return finding(
                Verdict::Failed,
                format!("no process could be started: {error}"),
            );
        }
    };
    // Read on threads of their own: a child that says more than a pipe holds would wait for ever.
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < order.timeout => {
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => {
                // It may have ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let (out, err) = (out(), err());
    let Some(status) = ended else {
        let what = format!("no end within {:?} [E0523]", order.timeout);
        return finding(Verdict::Failed, what);
    };
    match serde_json::from_str::<Finding>(out.lines().last().unwrap_or_default()) {
        Ok(said) if status.success() => Finding {
            ms: start.elapsed().as_millis() as u64,
            ..said
        },
        _ => {
            let last = err.lines().last().unwrap_or_default();
            let what = format!("the process {} [E0521] {last}", how(status));
            finding(Verdict::Failed, what.trim_end().to_owned())
        }
    }
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> impl FnOnce() -> String {
    let reading = pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was said up to an error is all there is.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    move || match reading.map(std::thread::JoinHandle::join) {
        Some(Ok(text)) => text,
        _ => String::new(),
    }
}

/// How a process ended, in words.
fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = match signal {
                libc::SIGABRT => " (aborted)",
                libc::SIGSEGV => " (segmentation fault)",
                libc::SIGBUS => " (bus error)",
                libc::SIGILL => " (illegal instruction)",
                libc::SIGFPE => " (arithmetic fault)",
                libc::SIGKILL => " (killed)",
                _ => "",
            };
            format!("was killed by signal {signal}{name}")
        }
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".into(),
    }
}

/// The child's side: runs the test and says what it found, as one line of JSON.
pub fn child(file: &Path, stage: &str, test: &str, seed: u64, set: &[String]) -> Finding {
    let start = Instant::now();
    let said = trial(file, stage, test, seed, set);
    let (verdict, what) = match said {
        Ok(figure) => (Verdict::Passed, figure),
        Err(trials::No::Failed(what)) => (Verdict::Failed, what),
        Err(trials::No::Skipped(what)) => (Verdict::Skipped, what),
    };
    Finding {
        stage: stage.to_owned(),
        test: test.to_owned(),
        verdict,
        what,
        ms: start.elapsed().as_millis() as u64,
    }
}

fn trial(
    file: &Path,
    stage: &str,
    test: &str,
    seed: u64,
    set: &[String],
) -> Result<String, trials::No> {
    let refused = |refusal: Refusal| trials::No::Failed(refusal.to_string());
    if let Some(trial) = trials::OF_FILE.iter().find(|trial| trial.name == test) {
        return (trial.run)(file);
    }
    let described = Described::read(file).map_err(refused)?;
    let ask = Ask {
        name: described.manifest().name.clone(),
        ..Ask::default()
    };
    let admitted = Admitted::new(described, &ask, Policy::Any).map_err(refused)?;
    let loaded = crate::load::Loaded::new(&admitted).map_err(refused)?;
    let trial = trials::OF_STAGE
        .iter()
        .find(|trial| trial.name == test)
        .ok_or_else(|| trials::No::Failed(format!("there is no test `{test}`")))?;
    let stand = stand::Stand::new(loaded, stage, seed, set)?;
    (trial.run)(&stand)
}
