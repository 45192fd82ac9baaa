//! `weir test`: runs the `[[test]]` tables of a pipeline.
//!
//! A test runs the whole pipeline, from the real source to the sinks, in a folder of its own that is thrown away.

mod feed;
mod tiled;

use crate::args;
use crate::message::{Done, Manner, Refusal};
use crate::pipeline;
use crate::plugin;
use crate::shown;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use weir_pipeline::{Checked, Diagnostic, Expect, Plan, Rows, TestCase};
use weir_plugin_host::Plugins;
use weir_runtime::stage::{Shared, StageType};
use weir_runtime::{Options, Outcome, Progress, Stop, exit};

/// Runs the tests of a file, or the one that is named; exit code 1 when one fails.
pub fn test(file: &args::File, only: Option<&str>, manner: &Manner, out: &mut dyn Write) -> Done {
    let overrides = pipeline::overrides(file)?;
    let catalogue = plugin::catalogue(false)?;
    let loaded = pipeline::load_with(&file.file, &overrides, &catalogue, manner)?;
    let checked = loaded.checked;
    let cases: Vec<&TestCase> = checked
        .tests
        .iter()
        .filter(|case| only.is_none_or(|only| case.name == only))
        .collect();
    if cases.is_empty() {
        let names: Vec<&str> = checked
            .tests
            .iter()
            .map(|case| case.name.as_str())
            .collect();
        return Err(match only {
            Some(only) if !names.is_empty() => Refusal::usage(
                format!("{} has no test `{only}`", file.file.display()),
                format!("its tests are {}", names.join(", ")),
            ),
            _ => Refusal::usage(
                format!("{} has no [[test]] table", file.file.display()),
                "add one, as\n[[test]]\nname = \"white is background\"\nfeed = { colour = [255, 255, 255] }\nexpect = { prediction = \"normal\" }",
            ),
        });
    }
    let stop = Stop::default();
    let (plugins, types) = plugin::load(&loaded.plan, &checked, &catalogue, &stop, manner)?;
    let mut failed = 0;
    for case in &cases {
        let since = Instant::now();
        let wrong = run(case, loaded.plan.clone(), &checked, &plugins, &types)?;
        let took = shown::time(since.elapsed());
        if wrong.is_empty() {
            writeln!(out, "ok      {} ({took})", case.name)?;
        } else {
            failed += 1;
            writeln!(out, "FAILED  {} ({took})", case.name)?;
            pipeline::print(&wrong, &checked.sources, manner);
        }
    }
    writeln!(
        out,
        "{}, {failed} failed",
        shown::counted(cases.len() as u64, "test")
    )?;
    Ok(if failed > 0 { exit::FAILED } else { exit::DONE })
}

/// Runs one test; returns what is not as expected.
fn run(
    case: &TestCase,
    mut plan: Plan,
    checked: &Checked,
    plugins: &Plugins,
    types: &[StageType],
) -> Result<Vec<Diagnostic>, Refusal> {
    let folder = tempfile::tempdir()
        .map_err(|error| Refusal::failed(format!("no temporary folder: {error}"), "see TMPDIR"))?;
    plan.run.out = folder.path().join("out");
    let refused = |what: String| vec![case.failed(case.span, "it cannot run", "a run", &what)];
    let Some(source) = plan.nodes.iter_mut().find(|node| node.name == case.stage) else {
        return Ok(refused(format!("no source `{}`", case.stage)));
    };
    if let Err(what) = feed::set(source, &case.feed, folder.path()) {
        return Ok(refused(what));
    }
    let plan = Arc::new(plan);
    let progress = Arc::new(weir_runtime::counters(&plan));
    let shared = Shared::default();
    let openers = weir_plugin_host::openers(plugins);
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(openers));
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(plugins.clone()));
    let options = Options {
        progress: Some(progress.clone()),
        shared,
        ..Options::default()
    };
    match weir_runtime::run(plan.clone(), types, options) {
        Ok(outcome) => Ok(judge(case, &plan, &outcome, &progress)),
        Err(weir_runtime::RunError::Prepare { stage, error }) => {
            Ok(vec![plugin::not_ready(checked, &plan, &stage, &error)])
        }
        Err(error) => Ok(refused(error.to_string())),
    }
}

fn judge(case: &TestCase, plan: &Plan, outcome: &Outcome, progress: &Progress) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    for expect in &case.expect {
        let Some(made) = made(expect, plan, outcome, progress) else {
            continue;
        };
        for (outcome, (wanted, span)) in &expect.counts {
            let got = made
                .iter()
                .find(|(name, _)| name == outcome)
                .map_or(0, |(_, count)| *count);
            if got != *wanted {
                let what = format!("`{outcome}` of stage `{}`", expect.stage);
                wrong.push(case.failed(*span, &what, &wanted.to_string(), &got.to_string()));
            }
        }
    }
    if let Some((wanted, span)) = &case.prediction {
        for (id, slide) in &outcome.slides {
            let prediction = slide.prediction.as_deref();
            let class = prediction.and_then(|p| p.classes.get(p.class? as usize));
            if class != Some(wanted) {
                let got = match (&slide.failed, class) {
                    (Some(failure), _) => format!("the slide failed: {}", failure.what),
                    (None, Some(class)) => format!("`{class}`"),
                    (None, None) => "no class".to_owned(),
                };
                let what = format!("the prediction of slide `{id}`");
                wrong.push(case.failed(*span, &what, &format!("`{wanted}`"), &got));
            }
        }
    }
    for failure in &outcome.sink_failures {
        wrong.push(case.failed(case.span, "a sink", "its files", failure));
    }
    wrong
}

/// The outcomes that a stage made; of a sink, those that reached it.
fn made(
    expect: &Expect,
    plan: &Plan,
    outcome: &Outcome,
    progress: &Progress,
) -> Option<[(&'static str, u64); 4]> {
    let index = plan
        .nodes
        .iter()
        .position(|node| node.name == expect.stage)?;
    let mut counts = [0; 4];
    if plan.nodes[index].schema.rows == Rows::Sink {
        for slide in outcome.slides.values() {
            for ((stage, _), (_, tally)) in &slide.ledgers {
                if *stage == expect.stage {
                    let skipped = tally.skip.values().sum::<u64>();
                    for (count, n) in
                        counts
                            .iter_mut()
                            .zip([tally.value, skipped, tally.fail, tally.gone])
                    {
                        *count += n;
                    }
                }
            }
        }
    } else {
        let made = &progress.stages.get(index)?.made;
        for (count, n) in counts
            .iter_mut()
            .zip([&made.value, &made.skip, &made.fail, &made.gone])
        {
            *count = n.load(Ordering::Relaxed);
        }
    }
    let [value, skip, fail, gone] = counts;
    Some([
        ("values", value),
        ("skipped", skip),
        ("failed", fail),
        ("gone", gone),
    ])
}
