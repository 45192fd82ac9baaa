//! `weir plugin check`: whether a plugin keeps the rules; each test runs in a process of its own, which is this program again.

use crate::args::Format;
use crate::message::{Done, Manner, Refusal};
use serde_json::json;
use std::io::Write;
use std::process::Command;
use std::time::Duration;
use weir_plugin_host::check::{self, Causes, Finding, Order, Verdict};
use weir_plugin_host::{Described, PluginFile};
use weir_runtime::exit;

/// What `weir plugin check` was told.
#[derive(Clone, Debug, clap::Args)]
pub struct Check {
    /// The plugin's file, or its name where it lies in a folder that is searched.
    #[arg(value_name = "FILE_OR_NAME")]
    pub file: std::path::PathBuf,
    /// Only tests whose name, as "stain.normalise: one-row", contains TEXT. May be repeated.
    #[arg(long = "only", value_name = "TEXT")]
    pub only: Vec<String>,
    /// A parameter that a stage needs, as stain.normalise.reference=a.png; a reader's slide as openslide.path=a.svs. May be repeated.
    #[arg(long = "set", value_name = "STAGE.NAME=VALUE")]
    pub set: Vec<String>,
    /// A slide for readers and sources: without one, tests that need it are skipped.
    #[arg(long, value_name = "FILE")]
    pub slide: Option<std::path::PathBuf>,
    /// Seed of what is random; a new one each time, which is printed, when none is given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run the tests in weir's own process, one after the other, for a debugger: without time-outs, and a crash is the end of all.
    #[arg(long)]
    pub in_process: bool,
    /// Seconds that a test may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// One test, in the child: what `check` says of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    errand: String,
}

/// Runs the tests.
pub fn check(arguments: &Check, manner: &Manner, out: &mut dyn Write) -> Done {
    let catalogue = super::catalogue(false)?;
    catalogue.rules().unnamed(false).map_err(super::refused)?;
    let order = Order {
        file: catalogue.file(&arguments.file).map_err(super::refused)?,
        seed: arguments.seed.unwrap_or_else(seed),
        timeout: Duration::from_secs(arguments.timeout),
        only: arguments.only.clone(),
        set: arguments.set.clone(),
        slide: arguments.slide.clone(),
    };
    let tests = check::plan(&order).map_err(super::refused)?;
    if tests.is_empty() {
        return Err(Refusal::usage(
            "no test has that name",
            "run it without --only to see all names",
        ));
    }
    let cannot = |error: std::io::Error| {
        Refusal::internal(format!("no way to start this program again: {error}"))
    };
    let program = std::env::current_exe().map_err(cannot)?;
    let mut findings = Vec::with_capacity(tests.len());
    let mut causes = Causes::default();
    for test in &tests {
        let run = || {
            if arguments.in_process {
                return check::here(&order, test);
            }
            let mut child = Command::new(&program);
            child.args(["plugin", "trial"]);
            check::run(&order, test, child)
        };
        let finding = causes.skipped(test).unwrap_or_else(run);
        causes.note(&finding);
        if manner.format == Format::Json {
            writeln!(out, "{}", json!(finding))?;
        } else {
            line(&finding, out)?;
        }
        findings.push(finding);
    }
    let count = |verdict| findings.iter().filter(|one| one.verdict == verdict).count();
    let (passed, failed, skipped) = (
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::Skipped),
    );
    if manner.format == Format::Json {
        let described = Described::read(&order.file).ok();
        let about = described.as_ref().map(Described::manifest);
        // Of a file that is refused the hash is known where it could be read.
        let read = PluginFile::read(&order.file).ok();
        let sum = json!({
            "plugin": about.map(|it| &it.name),
            "version": about.map(|it| &it.version),
            "sha256": read.as_ref().map(PluginFile::sha256),
            "passed": passed,
            "failed": failed,
            "skipped": skipped,
            "seed": order.seed,
        });
        writeln!(out, "{sum}")?;
    } else {
        writeln!(
            out,
            "\n{passed} passed, {failed} failed, {skipped} skipped; seed {}",
            order.seed
        )?;
    }
    Ok(if failed > 0 { exit::FAILED } else { 0 })
}

fn line(finding: &Finding, out: &mut dyn Write) -> std::io::Result<()> {
    let verdict = match finding.verdict {
        Verdict::Passed => "ok     ",
        Verdict::Failed => "FAILED ",
        Verdict::Skipped => "skipped",
    };
    let name = match finding.stage.as_str() {
        "" => finding.test.clone(),
        stage => format!("{stage}: {}", finding.test),
    };
    writeln!(
        out,
        "{}",
        format!(
            "{verdict} {:>6} ms  {name:<48} {}",
            finding.ms, finding.what
        )
        .trim_end()
    )?;
    match &finding.again {
        Some(again) => writeln!(out, "{:19}to debug it: {again}", ""),
        None => Ok(()),
    }
}

/// A seed that is another one at each start.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_nanos() as u64 & 0xffff_ffff)
}

/// One test, in the child: says what it found as the last line.
pub fn trial(arguments: &Trial, out: &mut dyn Write) -> Done {
    writeln!(out, "{}", check::child(&arguments.errand))?;
    Ok(0)
}
