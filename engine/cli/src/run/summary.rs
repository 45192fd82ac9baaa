//! The last lines of a run: what failed, what was predicted, how long it took, where the files are.

use super::record::{self, Facts};
use crate::args::Format;
use crate::message::Manner;
use crate::shown;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use weir_record::{Failure, Prediction, State};
use weir_runtime::{Outcome, SlideRecord, exit};
use weir_stages::Placement;

/// Slides that are told one by one.
const TOLD: usize = 20;

/// Tells failed slides and tiles on standard error, each with its place.
pub fn failures(outcome: &Outcome, manner: &Manner) {
    for failure in &outcome.sink_failures {
        manner.error(failure, "");
    }
    // Told together, but not to a program, which asks of each.
    let mut alike = match manner.format {
        Format::Json => BTreeMap::new(),
        _ => alike(outcome),
    };
    for (id, slide) in &outcome.slides {
        if let Some(failure) = &slide.failed {
            let slides = match manner.format {
                Format::Json => Some(vec![id.as_str()]),
                // With the first of them.
                _ => alike.remove(&why(failure)),
            };
            if let Some(slides) = slides {
                let slides = of_slides(&slides);
                let what = format!("{}: {slides}: {}", failure.stage, failure.what);
                manner.error(&what, &failure.help);
            }
        }
        for failure in &slide.failures {
            manner.warning(&failure.to_string(), "");
        }
        let untold = slide
            .failed_tiles()
            .saturating_sub(slide.failures.len() as u64);
        if untold > 0 {
            manner.warning(
                &format!("slide {id}: {} more failed", shown::counted(untold, "tile")),
                "",
            );
        }
    }
    if outcome.interrupted {
        manner.warning(
            "interrupted",
            "run again to go on: slides that are done are not computed again",
        );
    }
}

/// What failed a slide: stage, words, help.
type Why<'a> = (&'a str, &'a str, &'a str);

fn why(failure: &Failure) -> Why<'_> {
    (&failure.stage, &failure.what, &failure.help)
}

/// Slides that failed with the very same words, as all of a run do where a library is missing.
fn alike(outcome: &Outcome) -> BTreeMap<Why<'_>, Vec<&str>> {
    let mut alike = BTreeMap::<Why, Vec<&str>>::new();
    for (id, slide) in &outcome.slides {
        if let Some(failure) = &slide.failed {
            alike.entry(why(failure)).or_default().push(id);
        }
    }
    alike
}

/// As "slide a", "slides a, b, c".
fn of_slides(slides: &[&str]) -> String {
    match slides {
        [one] => format!("slide {one}"),
        all if all.len() <= TOLD => format!("slides {}", all.join(", ")),
        all => format!(
            "slides {} and {} more",
            all[..TOLD].join(", "),
            shown::count((all.len() - TOLD) as u64)
        ),
    }
}

/// Tells once for each kernel that a device had no room for calls which the processor then did.
pub fn refusals(placements: &[Placement], manner: &Manner) {
    for placement in placements {
        if let Some(refused) = &placement.refused {
            manner.warning(
                &format!(
                    "{} had no room for {} of {}, and the processor did the work, with the same answers; the first was {}",
                    placement.device,
                    shown::counted(refused.calls, "call"),
                    placement.kernel,
                    refused.first
                ),
                "the run took longer than it need: end what else uses the device, or give the stage another device",
            );
        }
    }
}

/// Prints what was predicted, how long it took and where the files are.
pub fn summary(
    outcome: &Outcome,
    facts: &Facts,
    code: u8,
    manner: &Manner,
    out: &mut dyn Write,
) -> io::Result<()> {
    let totals = record::counts(outcome);
    let folder = &facts.plan.run.out;
    if manner.format == Format::Json {
        let slides: BTreeMap<&String, _> = outcome
            .slides
            .iter()
            .map(|(id, slide)| {
                let prediction = slide.prediction.as_deref();
                (
                    id,
                    json!({
                        "state": slide.state(),
                        "class": prediction.and_then(class),
                        "probabilities": prediction.map(|prediction| &prediction.probabilities),
                    }),
                )
            })
            .collect();
        let line = json!({
            "event": "summary", "exit_code": code, "counts": totals, "slides": slides,
            "seconds": outcome.took.as_secs_f64(), "out": folder,
        });
        return writeln!(out, "{line}");
    }
    for (id, slide) in outcome.slides.iter().take(TOLD) {
        writeln!(out, "{id}: {}", told(slide))?;
    }
    if outcome.slides.len() > TOLD {
        let rest = outcome.slides.len() - TOLD;
        writeln!(out, "and {} more", shown::counted(rest as u64, "slide"))?;
    }
    writeln!(out, "{}", counts_line(&totals, outcome))?;
    let seconds = outcome.took.as_secs_f64();
    let mut took = format!("took {}", shown::time(outcome.took));
    if totals.tiles > 0 && seconds > 0.0 && code != exit::INTERRUPTED {
        let rate = (totals.tiles as f64 / seconds).round() as u64;
        took.push_str(&format!(", {} tiles/s", shown::count(rate)));
    }
    let mut used: Vec<String> = facts
        .executors
        .all()
        .into_values()
        .map(|used| used.key)
        .collect();
    used.sort();
    used.dedup();
    if !used.is_empty() {
        took.push_str(&format!(", {}", used.join(", ")));
    }
    if let Some(peak) = record::resident_peak() {
        took.push_str(&format!(", {} of memory at most", shown::bytes(peak)));
    }
    writeln!(out, "{took}")?;
    writeln!(out, "{}: {}", folder.display(), files(folder).join(", "))?;
    // One slide's files are named; those of more lie in folders of the same kind.
    let mut folders = outcome
        .slides
        .keys()
        .filter_map(|id| weir_stages::folder::of(folder, id).ok());
    if let Some(slide) = folders.find(|slide| slide.is_dir()) {
        let names = [files(&slide), within(&slide)].concat();
        writeln!(out, "{}: {}", slide.display(), names.join(", "))?;
    }
    Ok(())
}

fn class(prediction: &Prediction) -> Option<&String> {
    prediction.classes.get(prediction.class? as usize)
}

fn told(slide: &SlideRecord) -> String {
    let tiles = slide.info.as_ref().map_or(0, |info| info.tiles);
    let mut text = match (slide.state(), slide.prediction.as_deref()) {
        (State::Final | State::Incomplete | State::Provisional, Some(prediction)) => {
            let probability = prediction
                .class
                .and_then(|class| prediction.probabilities.get(class as usize));
            match (class(prediction), probability) {
                (Some(class), Some(probability)) => format!(
                    "{class} ({probability:.3}), from {} of {}",
                    prediction.bag.n,
                    shown::counted(tiles, "tile")
                ),
                _ => format!("no class, from {}", shown::counted(tiles, "tile")),
            }
        }
        (State::Final | State::Incomplete | State::Provisional, None) => {
            format!("done, {}", shown::counted(tiles, "tile"))
        }
        (State::Failed, _) => "failed".into(),
        (State::Interrupted, _) => "interrupted".into(),
        (State::NoTissue, _) => "no tissue".into(),
    };
    if slide.failed_tiles() > 0 {
        text.push_str(&format!(", {} failed", slide.failed_tiles()));
    }
    for (why, n) in slide.dropped_tiles() {
        text.push_str(&format!(", {} left out ({why})", shown::count(n)));
    }
    if slide.skipped.is_some() {
        text.push_str("; done by an earlier run");
    }
    text
}

fn counts_line(totals: &record::Totals, outcome: &Outcome) -> String {
    let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
    for slide in outcome.slides.values() {
        if let Some(class) = slide.prediction.as_deref().and_then(class) {
            *classes.entry(class).or_default() += 1;
        }
    }
    let mut parts: Vec<String> = classes
        .iter()
        .map(|(class, n)| format!("{n} {class}"))
        .collect();
    let mut some = |n: u64, what: &str| {
        if n > 0 {
            parts.push(format!("{} {what}", shown::count(n)));
        }
    };
    some(totals.no_tissue, "without tissue");
    some(totals.failed, "failed");
    some(totals.unfinished, "not finished");
    some(totals.skipped, "done before");
    let mut line = shown::counted(totals.slides, "slide");
    if !parts.is_empty() {
        line.push_str(&format!(" ({})", parts.join(", ")));
    }
    line.push_str(&format!(", {}", shown::counted(totals.tiles, "tile")));
    if totals.tiles_failed > 0 {
        line.push_str(&format!(" ({} failed)", shown::count(totals.tiles_failed)));
    }
    if totals.tiles_left_out > 0 {
        line.push_str(&format!(
            " ({} left out)",
            shown::count(totals.tiles_left_out)
        ));
    }
    line
}

/// Names of the files in a folder, sorted; not the hidden ones.
fn files(folder: &Path) -> Vec<String> {
    let mut names = named(folder, Path::is_file);
    names.retain(|name| !name.starts_with('.') && !name.ends_with(".part"));
    names
}

/// Folders, told from files by the slash: `tiles/` of image-sink.
fn within(folder: &Path) -> Vec<String> {
    let mut names = named(folder, Path::is_dir);
    names.iter_mut().for_each(|name| name.push('/'));
    names
}

fn named(folder: &Path, kind: fn(&Path) -> bool) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .filter(|entry| kind(&entry.path()))
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}
