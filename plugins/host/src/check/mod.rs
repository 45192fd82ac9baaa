//! `weir plugin check`: whether a plugin keeps the rules, test by test, each in a process of its own.
//!
//! A test that crashes, hangs or is killed has failed, with how it ended; the others run all the same. What is random comes from a
//! seed that is printed, so that a failure can be had again.
//!
//! | module | |
//! |---|---|
//! | `trials` | the tests |
//! | `causes` | failures that speak for tests to come |
//! | `stand` | a stage without the engine: made and called as a run does it |
//! | `gather` | the same for what gathers a slide's rows |
//! | `glass` | a slide reader without the engine |
//! | `watch` | stands between stage and host, and sees what is done against the rules |
//! | `fence` | memory whose end is the end of what anybody may touch |
//! | `rows` | made-up rows of every kind |
//! | `settings` | what was set, held against the manifest |
//! | `values` | parameters: defaults, what was set, random ones in range |

mod causes;
mod fence;
mod gather;
mod glass;
mod rows;
mod settings;
mod stand;
mod trials;
mod values;
mod watch;

pub use causes::Causes;

use crate::describe::Described;
use crate::ended::told;
use crate::load::{self, Loaded};
use crate::refusal::Refusal;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, set_parent_process_death_signal, waitid,
};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long what a test's process said may take to arrive once the process has ended: something that it started, in a group of its
/// own, may hold the pipes for as long as it likes.
const LAST_WORDS: Duration = Duration::from_secs(3);

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
    /// Parameters as `STAGE.NAME=VALUE`, for stages that need some; a reader's slide as `READER.path=FILE`.
    pub set: Vec<String>,
    /// A slide for readers and sources.
    pub slide: Option<PathBuf>,
}

impl Order {
    /// The command that runs this test alone, in the process of `weir` itself, under a debugger.
    fn under_debugger(&self, (stage, test): &(String, &'static str)) -> String {
        let mut all: Vec<String> = ["gdb", "--args", "weir", "plugin", "check"]
            .map(str::to_owned)
            .into();
        all.push(self.file.display().to_string());
        all.push("--in-process".into());
        let name = match stage.as_str() {
            "" => (*test).to_owned(),
            stage => format!("{stage}: {test}"),
        };
        all.extend(["--only".into(), name]);
        all.extend(["--seed".into(), self.seed.to_string()]);
        for set in &self.set {
            all.extend(["--set".into(), set.clone()]);
        }
        if let Some(slide) = &self.slide {
            all.extend(["--slide".into(), slide.display().to_string()]);
        }
        let all: Vec<String> = all.iter().map(|word| quoted(word)).collect();
        all.join(" ")
    }

    /// What the process of a test is told; `from` is the working directory.
    fn errand(
        &self,
        (stage, test): &(String, &'static str),
        from: PathBuf,
        folder: &Folder,
    ) -> Errand {
        Errand {
            file: from.join(&self.file),
            stage: stage.clone(),
            test: (*test).to_owned(),
            seed: self.seed,
            timeout: self.timeout,
            set: self.set.clone(),
            slide: self.slide.as_ref().map(|slide| from.join(slide)),
            from,
            folder: folder.0.clone(),
        }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_./=:,+@%".contains(one);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// One test, as its process is told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Errand {
    file: PathBuf,
    stage: String,
    test: String,
    seed: u64,
    /// How long it may take.
    timeout: Duration,
    set: Vec<String>,
    slide: Option<PathBuf>,
    /// Where the user stands: what was set is meant from there.
    from: PathBuf,
    /// Where it runs and may write: empty at first, and taken away by its parent.
    folder: PathBuf,
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
    /// Of a test whose process died, or did not end: the command that runs it under a debugger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<String>,
}

impl Finding {
    /// Whether the test did not end in its time.
    fn is_without_end(&self) -> bool {
        self.verdict == Verdict::Failed && self.what.contains("[E0523]")
    }
}

/// The tests of a plugin, in order: (stage or reader, test). What they will say is not known yet.
///
/// Of a file that is refused the one test that says why.
///
/// # Errors
/// When there is no such file, and when what was set is of no stage or parameter of the plugin, or no value that the parameter can have.
pub fn plan(order: &Order) -> Result<Vec<(String, &'static str)>, Refusal> {
    let described = match Described::read(&order.file) {
        Ok(described) => described,
        Err(refusal) if !order.file.is_file() => return Err(refusal),
        Err(_) => return Ok(vec![(String::new(), trials::OF_FILE[0].name)]),
    };
    let from = std::env::current_dir().unwrap_or_default();
    settings::check(&order.set, &described, &from)?;
    let mut all: Vec<(String, &'static str)> = trials::OF_FILE
        .iter()
        .map(|trial| (String::new(), trial.name))
        .collect();
    for stage in &described.manifest().stages {
        let own = trials::of_rows(stage.rows);
        all.extend(own.map(|trial| (stage.id.clone(), trial.name)));
    }
    for reader in &described.manifest().readers {
        let own = trials::OF_READER.iter();
        all.extend(own.map(|trial| (reader.id.clone(), trial.name)));
    }
    let wanted = |(stage, test): &(String, &str)| {
        let name = format!("{stage}: {test}");
        order.only.is_empty() || order.only.iter().any(|only| name.contains(only))
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// A folder for one test; it is taken away when this is dropped, however the test ended.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Folder> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-plugin-check-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Nobody else's: a folder that is there is an error.
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be taken away is in a folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs one test in a child. `program` starts what hands its last argument to [`child`] and prints what that says.
pub fn run(order: &Order, (stage, test): &(String, &'static str), mut program: Command) -> Finding {
    let start = Instant::now();
    let finding = |verdict, what: String| Finding {
        stage: stage.clone(),
        test: (*test).to_owned(),
        verdict,
        what,
        ms: start.elapsed().as_millis() as u64,
        again: None,
    };
    let died = |what: String| Finding {
        again: Some(order.under_debugger(&(stage.clone(), *test))),
        ..finding(Verdict::Failed, what)
    };
    let unmade = |what: String| {
        finding(
            Verdict::Failed,
            format!("no process could be started: {what}"),
        )
    };
    let folder = match Folder::new() {
        Ok(folder) => folder,
        Err(error) => return unmade(error.to_string()),
    };
    let from = match std::env::current_dir() {
        Ok(from) => from,
        Err(error) => return unmade(format!("the working directory: {error}")),
    };
    // It runs in a folder of its own, where a path as it stands here would be another one.
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        let path = Path::new(&value);
        if path.is_relative() && path.components().count() > 1 && path.exists() {
            program.env(name, from.join(path));
        }
    }
    let errand = order.errand(&(stage.clone(), *test), from, &folder);
    match serde_json::to_string(&errand) {
        Ok(errand) => program.arg(errand),
        Err(error) => return unmade(error.to_string()),
    };
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, which ends with it: whatever the plugin starts.
        .process_group(0);
    let mut child = match program.spawn() {
        Ok(child) => child,
        Err(error) => return unmade(error.to_string()),
    };
    // Read on threads of their own: a child that says more than a pipe holds would wait for ever.
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let ended = end(&mut child, start + order.timeout);
    let until = Instant::now() + LAST_WORDS;
    let (out, err) = (out(until), err(until));
    let Some(status) = ended else {
        let what = format!("no end within {:?} [E0523]", order.timeout);
        return died(what);
    };
    match serde_json::from_str::<Finding>(out.lines().last().unwrap_or_default()) {
        Ok(said) if status.success() => Finding {
            ms: start.elapsed().as_millis() as u64,
            ..said
        },
        _ => {
            let last = err.lines().last().unwrap_or_default();
            let hint = match *test {
                "no-overrun" => ": rows and regions end where nobody may read or write",
                _ => "",
            };
            let what = format!("the process {} [E0521]{hint} {last}", told(status));
            died(what.trim_end().to_owned())
        }
    }
}

/// Whether a variable is one of weir's, such as where a library lies.
fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"WEIR_")
}

/// How the process ended by itself until `until`; all that it started is ended with it.
fn end(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    let pid = Pid::from_raw(child.id() as i32)?;
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let by_itself = loop {
        match waitid(WaitId::Pid(pid), look) {
            Ok(Some(_)) => break true,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => break false,
        }
    };
    // Before it is reaped, so that the number is still its own.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait().ok();
    status.filter(|_| by_itself)
}

/// Reads a pipe on a thread of its own; what came of it until an instant.
fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> impl FnOnce(Instant) -> String {
    let (said, heard) = channel();
    if let Some(mut pipe) = pipe {
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // What was said up to an error is all there is.
            while let Ok(len @ 1..) = pipe.read(&mut piece) {
                if said.send(piece[..len].to_vec()).is_err() {
                    // Nobody waits any longer.
                    return;
                }
            }
        });
    }
    move |until| {
        let mut bytes = Vec::new();
        while let Ok(piece) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            bytes.extend(piece);
            // Something that was left behind may go on talking.
            if Instant::now() >= until {
                break;
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The child's side: runs the test that `errand` speaks of. What is found, as one line of JSON, to be printed last.
pub fn child(errand: &str) -> String {
    let start = Instant::now();
    // In a group of its own it gets no Ctrl-C. Where the system cannot, it outlives its parent until the test is over.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let finding = match serde_json::from_str::<Errand>(errand) {
        Ok(errand) => carried_out(errand, start),
        Err(error) => Finding {
            stage: String::new(),
            test: String::new(),
            verdict: Verdict::Failed,
            what: format!("this program is started by `weir plugin check`: {error}"),
            ms: 0,
            again: None,
        },
    };
    // A struct of texts and numbers has nothing that JSON could not say.
    serde_json::to_string(&finding).unwrap_or_default()
}

/// Runs one test in this process, for a debugger: it has no time-out, and what kills the test kills this process. Not for several
/// threads at once, since the test has the working directory.
pub fn here(order: &Order, test: &(String, &'static str)) -> Finding {
    let start = Instant::now();
    watch::afresh();
    let place = std::env::current_dir().and_then(|from| Ok((from, Folder::new()?)));
    match place {
        Ok((from, folder)) => {
            let found = carried_out(order.errand(test, from.clone(), &folder), start);
            // Should it be gone, the next test says so.
            let _ = std::env::set_current_dir(from);
            found
        }
        Err(error) => Finding {
            stage: test.0.clone(),
            test: test.1.to_owned(),
            verdict: Verdict::Failed,
            what: format!("no folder for it: {error}"),
            ms: 0,
            again: None,
        },
    }
}

fn carried_out(errand: Errand, start: Instant) -> Finding {
    let (verdict, what) = match trial(&errand) {
        Ok(figure) => (Verdict::Passed, figure),
        Err(trials::No::Failed(what)) => (Verdict::Failed, what),
        Err(trials::No::Skipped(what)) => (Verdict::Skipped, what),
    };
    Finding {
        stage: errand.stage,
        test: errand.test,
        verdict,
        what,
        ms: start.elapsed().as_millis() as u64,
        again: None,
    }
}

fn trial(errand: &Errand) -> trials::Said {
    // Whatever the plugin writes by a name alone is written there, and not over what the user has.
    std::env::set_current_dir(&errand.folder)
        .map_err(|error| trials::No::Failed(format!("{}: {error}", errand.folder.display())))?;
    let Errand {
        file, stage, test, ..
    } = errand;
    if let Some(trial) = trials::OF_FILE.iter().find(|trial| trial.name == test)
        && stage.is_empty()
    {
        return (trial.run)(file);
    }
    let refused = |refusal: Refusal| trials::No::Failed(refusal.to_string());
    let unknown = || trials::No::Failed(format!("there is no test `{stage}: {test}`"));
    let schemas = Described::read(file).map_err(refused)?.schemas();
    let admitted = trials::admitted(file).map_err(refused)?;
    let given = stand::Given {
        seed: errand.seed,
        timeout: errand.timeout,
        set: &errand.set,
        slide: errand.slide.as_deref(),
        from: &errand.from,
        folder: &errand.folder,
    };
    if let Some(trial) = trials::OF_READER.iter().find(|trial| trial.name == test)
        && admitted
            .manifest()
            .readers
            .iter()
            .any(|reader| reader.id == *stage)
    {
        let loaded = Loaded::new(&admitted).map_err(refused)?;
        return (trial.run)(&glass::Glass::new(loaded, stage, &given)?);
    }
    let mut stages = admitted.manifest().stages.iter();
    let about = stages
        .find(|about| about.id == *stage)
        .ok_or_else(unknown)?;
    let trial = trials::of_rows(about.rows)
        .find(|trial| trial.name == test)
        .ok_or_else(unknown)?;
    let loaded = Loaded::entered(&admitted, |entry| {
        load::enter(trials::who(&admitted), |call, out| {
            watch::entered(entry, call, out)
        })
    })
    .map_err(refused)?;
    let stand = stand::Stand::new(loaded, schemas, stage, &given)?;
    let said = (trial.run)(&stand);
    // Whatever a test looked for, a rule that was broken meanwhile is a rule that was broken.
    match watch::wrongs().into_iter().next() {
        Some(wrong) => Err(trials::No::Failed(wrong)),
        None => said,
    }
}
