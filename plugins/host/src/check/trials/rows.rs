//! Tests of what a stage makes of the rows that it is given.

use super::memory::Memory;
use super::written::unwritten;
use super::{No, Said, at_once, numbers, wordless};
use crate::check::gather::Gatherer;
use crate::check::rows::{self, Value};
use crate::check::stand::{Made, Stand, failure, outcomes, shown};
use crate::check::watch::{self, Shown};
use crate::manifest::{Concurrency, Dim};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};
use weir_abi::stage::DETERMINISTIC;
use weir_record::{Body, SlideId};
use weir_runtime::stage::StageError;

/// Rows of the largest batch that is tried.
const MOST: usize = 256;

fn failed(error: StageError) -> No {
    No::Failed(error.what)
}

/// `n` rows for each input.
pub(super) fn made_up(stand: &Stand, n: usize) -> Vec<Vec<Value>> {
    let ports = 0..stand.about.ins.len();
    ports.map(|port| stand.rows(port, n)).collect()
}

/// What it makes of rows, each with its output; of a reduce when the slides are complete. Fails when a row or a slide does.
pub(super) fn answers(
    stand: &Stand,
    made: &Made,
    rows: &[Vec<Value>],
) -> Result<Vec<(usize, Body)>, No> {
    if !stand.is_work() {
        let mut gatherer = Gatherer::new(stand, made)?;
        gatherer.slides(rows);
        gatherer.told.well()?;
        let versions = std::mem::take(&mut gatherer.told.versions).into_iter();
        return Ok(versions
            .map(|(output, _, _, body)| (output, body))
            .collect());
    }
    let outputs = stand.about.outs.len();
    let all = outcomes(&*made.work()?, &rows[0], outputs).map_err(failed)?;
    if let Some(failure) = failure(&all) {
        return Err(No::Failed(format!(
            "a made-up row failed: {}",
            failure.what
        )));
    }
    let all = all.into_iter().enumerate();
    Ok(all.map(|(at, body)| (at % outputs.max(1), body)).collect())
}

pub(super) fn empty_batch(stand: &Stand) -> Said {
    let made = stand.ready()?;
    watch::show(Shown::Empty);
    // To the host the batch has a row, which the plugin is not shown: only what it does is of interest.
    let rows = made_up(stand, 1);
    if stand.is_work() {
        let told = outcomes(&*made.work()?, &rows[0], stand.about.outs.len());
        told.map_err(failed)?;
    } else {
        answers(stand, &made, &rows)?;
    }
    watch::show(Shown::AsMade);
    Ok(String::new())
}

fn batch(stand: &Stand, n: usize) -> Said {
    answers(stand, &stand.ready()?, &made_up(stand, n))?;
    Ok(format!("{n} rows"))
}

pub(super) fn one_row(stand: &Stand) -> Said {
    batch(stand, 1)
}

pub(super) fn max_rows(stand: &Stand) -> Said {
    batch(stand, MOST)
}

/// A digest of everything that a plugin was shown.
fn digest(rows: &[Vec<Value>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (key, body, info) in rows.iter().flatten() {
        hash.update(format!("{key:?}{info:?}"));
        match body {
            Body::Pixels(tile) => hash.update(tile.pixels()),
            other => hash.update(format!("{other:?}")),
        }
    }
    hash.finalize().into()
}

pub(super) fn input_untouched(stand: &Stand) -> Said {
    let rows = made_up(stand, 16);
    let before = digest(&rows);
    answers(stand, &stand.ready()?, &rows)?;
    match digest(&rows) == before {
        true => Ok(String::new()),
        false => Err(No::Failed(
            "it wrote to its input: batch_edit() and batch_new() give memory to write to".into(),
        )),
    }
}

pub(super) fn output_matches(stand: &Stand) -> Said {
    let mut made = 0;
    for (port, body) in answers(stand, &stand.ready()?, &made_up(stand, 24))? {
        let output = &stand.about.outs[port];
        match body {
            Body::Skip(_) | Body::Gone => {}
            body => {
                numbers::fits(output.kind, &stand.shape(&output.shape), &body).map_err(|what| {
                    No::Failed(format!("on output `{}` it made {what}", output.name))
                })?;
                made += 1;
            }
        }
    }
    match made {
        0 => Err(No::Skipped("it made nothing of made-up rows".into())),
        n => Ok(format!("{n} rows")),
    }
}

/// Rows and what is made of them lie between pages that nobody may touch; what is touched beside them ends this process, or is seen
/// afterwards. What is made must be what is made anywhere else.
pub(super) fn no_overrun(stand: &Stand) -> Said {
    let rows = made_up(stand, 9);
    watch::show(Shown::Fenced);
    let fenced = answers(stand, &stand.ready()?, &rows);
    watch::show(Shown::AsMade);
    if let Some(wrong) = watch::wrongs().into_iter().next() {
        // Without fences it would spoil memory of this process.
        return Err(No::Failed(wrong));
    }
    let fenced = fenced?;
    let plain = answers(stand, &stand.ready()?, &rows)?;
    if stand.table.flags & DETERMINISTIC != 0 && stand.is_work() {
        let text = |all: &[(usize, Body)]| -> Vec<String> {
            all.iter().map(|(_, body)| shown(body)).collect()
        };
        if text(&plain) != text(&fenced) {
            return Err(other_bits(
                stand,
                "it made other bits of rows that lie elsewhere: it read what is no row",
            ));
        }
    }
    Ok(String::new())
}

/// Why it made other bits: by what it left unwritten, or else for this reason.
fn other_bits(stand: &Stand, else_by: &str) -> No {
    match unwritten(stand) {
        Err(No::Failed(what)) => No::Failed(what),
        _ => No::Failed(else_by.into()),
    }
}

/// Odd rows of each input, with the input's number.
fn odd(stand: &Stand) -> Vec<(&'static str, Vec<Vec<Value>>)> {
    let mut all = Vec::new();
    for (port, input) in stand.about.ins.iter().enumerate() {
        let open: Vec<bool> = input
            .shape
            .iter()
            .map(|dim| matches!(dim, Dim::Name(name) if !name.starts_with('$')))
            .collect();
        // A stage says a name for both of its ports: what is made would have another shape than the output that was agreed on.
        let open = match stand.about.outs.is_empty() {
            true => open,
            false => vec![false; open.len()],
        };
        for (what, odd) in rows::odd(input.kind, &stand.shape(&input.shape), &open) {
            let mut rows = made_up(stand, 2);
            rows[port] = odd;
            all.push((what, rows));
        }
    }
    all
}

/// Whatever a panic is caught with, the process lives and the next call is answered.
pub(super) fn panic_contained(stand: &Stand) -> Said {
    let made = stand.ready()?;
    let ordinary = made_up(stand, 4);
    let (mut tried, mut panics) = (0, 0);
    for (what, rows) in odd(stand) {
        if let Err(No::Failed(said)) = answers(stand, &made, &rows) {
            panics += usize::from(said.contains("[E0522]"));
        }
        if let Err(No::Failed(said)) = answers(stand, &made, &ordinary) {
            return Err(No::Failed(format!(
                "after {what} an ordinary call fails: {said}"
            )));
        }
        tried += 1;
    }
    match (tried, panics) {
        (0, _) => Err(No::Skipped("nothing odd can be made up for it".into())),
        (tried, 0) => Ok(format!("{tried} odd batches, no panic")),
        (tried, panics) => Ok(format!("{panics} of {tried} odd batches made it panic")),
    }
}

/// How many odd batches fail; an error where one does so without a reason.
pub(super) fn failures(stand: &Stand) -> Result<usize, No> {
    let made = stand.ready()?;
    let mut failures = 0;
    for (what, rows) in odd(stand) {
        if let Err(No::Failed(said)) = answers(stand, &made, &rows) {
            if wordless(said.trim_start_matches("a made-up row failed: ")) {
                return Err(No::Failed(format!(
                    "with {what} it fails and does not say why"
                )));
            }
            failures += 1;
        }
    }
    Ok(failures)
}

pub(super) fn thread_hop(stand: &Stand) -> Said {
    let made = stand.ready()?;
    let rows = made_up(stand, 4);
    at_once(1, |_| answers(stand, &made, &rows).map(drop))?;
    let destroyed = std::thread::scope(|scope| scope.spawn(|| drop(made)).join());
    destroyed.map_err(|_| No::Failed("destroying it panicked".into()))?;
    Ok(String::new())
}

pub(super) fn parallel_stress(stand: &Stand) -> Said {
    const THREADS: usize = 4;
    const APART: &str = "calls at once gave another answer than one alone";
    if stand.about.concurrency == Concurrency::Serial {
        return Err(No::Skipped(
            "its manifest says that one call runs at a time".into(),
        ));
    }
    if !stand.is_work() {
        return Err(No::Skipped("only maps and filters are called so".into()));
    }
    let made = stand.with(&stand.values, THREADS).map_err(failed)?;
    let (work, outputs) = (made.work()?, stand.about.outs.len());
    let rows = stand.rows(0, 8);
    let run = || -> Result<Vec<String>, No> {
        let all = outcomes(&*work, &rows, outputs).map_err(failed)?;
        Ok(all.iter().map(shown).collect())
    };
    let wanted = run()?;
    at_once(THREADS, |_| {
        for _ in 0..50 {
            if run()? != wanted {
                return Err(No::Failed(APART.into()));
            }
        }
        Ok(())
    })
    .map_err(|no| match no {
        No::Failed(what) if what == APART => other_bits(stand, APART),
        no => no,
    })?;
    Ok(format!("{THREADS} threads, 50 calls each"))
}

pub(super) fn determinism(stand: &Stand) -> Said {
    if stand.table.flags & DETERMINISTIC == 0 {
        return Err(No::Skipped(
            "it does not say that it is deterministic".into(),
        ));
    }
    if !stand.is_work() {
        return Err(No::Skipped("only maps and filters are asked".into()));
    }
    let (n, outputs) = (24, stand.about.outs.len());
    let rows = stand.rows(0, n);
    let run = |made: &Made, rows: &[Value]| -> Result<Vec<String>, No> {
        let all = outcomes(&*made.work()?, rows, outputs).map_err(failed)?;
        Ok(all.iter().map(shown).collect())
    };
    let whole = run(&stand.ready()?, &rows)?;
    // Another instance, backwards, in batches of another size.
    let made = stand.ready()?;
    for (at, part) in rows.chunks(5).enumerate().rev() {
        let own = run(&made, part)?;
        if own != whole[at * 5 * outputs..][..own.len()] {
            return Err(other_bits(
                stand,
                "the same rows in another batch, or another order, gave other bits",
            ));
        }
    }
    Ok(format!("{n} rows"))
}

pub(super) fn given_back(stand: &Stand) -> Said {
    let made = stand.ready()?;
    let rows = made_up(stand, 4);
    for _ in 0..20 {
        answers(stand, &made, &rows)?;
    }
    drop(made);
    // What a thread of the plugin's still works on is given back soon.
    watch::waited(Duration::from_secs(2), || watch::held() == 0);
    match watch::held() {
        0 => Ok(String::new()),
        n => Err(No::Failed(format!(
            "after it was destroyed it still has {n} batches of 20 calls: every batch_retain(), batch_new() and batch_edit() \
needs its batch_release() or emit()"
        ))),
    }
}

/// Rows of other slides than those before.
fn of_slides(rows: &[Vec<Value>], from: u64) -> Vec<Vec<Value>> {
    let mut rows = rows.to_vec();
    for (key, ..) in rows.iter_mut().flatten() {
        key.slide = SlideId::new(0, from + key.slide.number());
    }
    rows
}

pub(super) fn steady_memory(stand: &Stand) -> Said {
    let most = match stand.about.outs.is_empty() {
        // A sink may write a file a slide.
        true => 1000,
        false => 10_000,
    };
    let made = stand.ready()?;
    let rows = made_up(stand, 4);
    let mut gatherer = match stand.is_work() {
        true => None,
        false => Some(Gatherer::new(stand, &made)?),
    };
    // A stage that computes much would take minutes: it has as long as half of what the test may take.
    let until = Instant::now() + stand.timeout / 2;
    let (mut warm, mut since, mut done) = (Memory::default(), 0, 0);
    while done < most && Instant::now() < until {
        match &mut gatherer {
            None => drop(answers(stand, &made, &rows)?),
            Some(gatherer) => {
                gatherer.slides(&of_slides(&rows, done * 2));
                gatherer.told.well()?;
                gatherer.told.versions.clear();
            }
        }
        done += 1;
        if done == most / 20 {
            (warm, since) = (Memory::now(), done);
        }
    }
    let what = if stand.is_of_slides() {
        "slides"
    } else {
        "batches"
    };
    // What is kept is kept, however few there were.
    let said = match since {
        0 => String::new(),
        since => warm.steady(done - since)?,
    };
    if done < most / 2 {
        return Err(No::Skipped(format!(
            "{done} {what} took half of its time, of {most}: --timeout gives it more"
        )));
    }
    let all = if done < most {
        format!("{done} of {most}")
    } else {
        done.to_string()
    };
    Ok(format!("{all} {what}, {said}"))
}
