//! The bench in order: ceilings, cases, tables, files.

use crate::cards::CARDS;
use crate::case::Case;
use crate::ceilings::Processor;
use crate::compare::Verdict;
use crate::cost::Ceilings;
use crate::cost::cost;
use crate::device::{Card, UNKNOWN};
use crate::grid::{Axes, cases, ends_of_axes, full_card, whole_slide};
use crate::machine::Machine;
use crate::measure::Bench;
use crate::nvtx::Ranges;
use crate::record::{LeftOut, Measured, Record};
use crate::table::{amount, seconds};
use crate::work::Work;
use crate::{Fault, Options, compare, peers, plot, predict, record, table, trace};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use weir_kernels::{Cpu, Kernels};

/// What a bench came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is right.
    Right,
    /// So many cases are wrong, or their bits change, or are slower than they were.
    Wrong(usize),
}

/// Does what is asked and prints it to `out`; `progress` is told what goes on.
pub fn run(
    options: &Options,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, Fault> {
    if let Some(names) = &options.predict {
        predict::print(names, &options.filter, out)?;
        return Ok(Outcome::Right);
    }
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    // Files that cannot be read are said before, not after, a minute of measuring.
    let then = options.compare.as_deref().map(record::read).transpose()?;
    let others = options.peers.as_deref().map(record::read).transpose()?;
    let card = device(&options.device)?;
    let all = asked(options, card.is_some())?;
    let cpu = Cpu::new(threads)?;
    let other = Cpu::new(if threads == 1 { 2 } else { 1 })?;
    let mut machine = Machine::processor(threads, &options.command);
    let processor = Processor::new(threads, machine.cache)?;
    if let Some(card) = &card {
        machine = card.machine(machine);
    }
    let mut sink = Sink::new(options.json.as_deref())?;
    sink.write(&Record::Machine(Box::new(machine.clone())))?;
    let mut products_measured = true;
    let ceilings = if options.check {
        None
    } else {
        progress("measuring the machine's ceilings");
        let ceilings = match &card {
            None => processor.ceilings()?.0,
            Some(card) => {
                let (ceilings, why) = card.ceilings()?;
                products_measured = why.is_none();
                if let Some(why) = why {
                    progress(&format!("{why}: the card's known figure stands in for it"));
                }
                ceilings
            }
        };
        sink.write(&Record::Ceilings(ceilings))?;
        Some(ceilings)
    };
    let ranges = Ranges::find();
    if card.is_some() && !ranges.found() {
        progress("no library for NVTX ranges was found: profilers will not see the cases' names");
    }
    let bench = Bench {
        kernels: card
            .as_ref()
            .map_or(&cpu as &dyn Kernels, |card| &card.stream),
        // A device's number of multiprocessors cannot be changed; the emulator's tests do that.
        other: card.is_none().then_some(&other),
        card: card.as_ref(),
        beside: card.is_some().then_some(&cpu),
        processor: &processor,
        threads,
        ceilings,
        ranges: &ranges,
        cache: machine.cache,
        limit: (options.budget / 40.0).max(0.3),
        begun: Instant::now(),
    };
    let (chosen, mut left) = choose(options, &bench, all)?;
    let measured = cases_of(&bench, &chosen, options, &mut sink, &mut left, progress)?;
    for left in &left {
        sink.write(&Record::LeftOut(left.clone()))?;
    }
    let after = card.as_ref().and_then(Card::clocks);
    if let Some(clocks) = &after {
        sink.write(&Record::After {
            clocks: clocks.clone(),
        })?;
    }
    let mut wrong = measured.iter().filter(|found| found.failed()).count();
    if let Some(path) = &options.trace {
        trace::write(path, &measured)?;
    }
    if let (Some(path), Some(ceilings)) = (&options.plot, &ceilings) {
        plot::roofline(path, &measured, ceilings, &machine)?;
    }
    // Standard output is a program's when the lines go there.
    let mut nowhere = std::io::sink();
    let out: &mut dyn Write = if sink.standard { &mut nowhere } else { out };
    writeln!(
        out,
        "Kernels: {}\n`weir {}`",
        machine.line(),
        machine.command
    )?;
    if let Some(c) = &ceilings {
        writeln!(out, "{}", said(c, card.is_some(), products_measured))?;
    }
    if let Some(clocks) = after {
        writeln!(out, "Clocks after the last case: {clocks}")?;
    }
    writeln!(out)?;
    table::print(&measured, ceilings.is_some(), out)?;
    for left in &left {
        writeln!(out, "left out: {} cases, {}", left.cases, left.why)?;
    }
    if let Some(others) = others {
        writeln!(out, "\nBeside other libraries:\n")?;
        peers::table(&measured, &record::cases(others)).print(out)?;
    }
    if ceilings.is_some() && card.is_none() && then.is_none() && options.peers.is_none() {
        winners(&measured, &chosen, out)?;
    }
    if let Some(then) = then {
        progress("measuring a second time, for the noise");
        let again = cases_of(
            &bench,
            &chosen,
            options,
            &mut Sink::none(),
            &mut left,
            progress,
        )?;
        let compared = compare::compare(&record::cases(then), &measured, &again);
        writeln!(out, "\nAgainst the earlier run:\n")?;
        compare::table(&compared).print(out)?;
        let slower = |one: &&compare::Compared| one.verdict == Verdict::Slower;
        wrong += compared.iter().filter(slower).count();
    }
    verdict(&measured, wrong, options.check, out)?;
    Ok(if wrong == 0 {
        Outcome::Right
    } else {
        Outcome::Wrong(wrong)
    })
}

/// The ceilings in one line, and what of them was not measured.
fn said(c: &Ceilings, card: bool, products_measured: bool) -> String {
    let (read, copy) = (c.read / 1e9, c.copy / 1e9);
    if !card {
        return format!(
            "Ceilings measured: plain read {read:.1} GB/s, copy {copy:.1} GB/s (read and written), f32 product {:.1} GFLOP/s",
            c.product / 1e9
        );
    }
    let product = |rate: f64| match (products_measured, rate < UNKNOWN) {
        (true, _) => format!("{:.1} TFLOP/s", rate / 1e12),
        (false, true) => format!(
            "{:.1} TFLOP/s (the card's known figure, not measured)",
            rate / 1e12
        ),
        (false, false) => "not known".into(),
    };
    format!(
        "Ceilings measured: copy {copy:.1} GB/s (read and written); plain read {read:.1} GB/s (the copy's, not measured), f32 product {}, bf16 product {}",
        product(c.product),
        product(c.product_half)
    )
}

fn verdict(
    measured: &[Measured],
    wrong: usize,
    check: bool,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let refused = measured.iter().filter(|f| f.refused.is_some()).count();
    let errors = measured.iter().filter_map(|found| found.error);
    let worst = errors.fold(0.0, f64::max);
    let what = if check { "checked" } else { "measured" };
    writeln!(
        out,
        "\n{} cases {what}, {wrong} wrong or slower, {refused} refused; greatest error {worst:.1e}",
        measured.len() - refused
    )?;
    Ok(())
}

fn winners(measured: &[Measured], chosen: &[Case], out: &mut dyn Write) -> Result<(), Fault> {
    let Some(card) = CARDS.first() else {
        return Ok(());
    };
    let table = predict::winners(measured, chosen, card);
    if table.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nWhere the processor wins: measured here, against what the limits of {} allow ({}; with assumed efficiency, start-up time and bus: predict.rs, cards.rs; the kernels were measured on no card):\n",
        card.full, card.source
    )?;
    table.print(out)
}

/// `None`: the processor.
fn device(name: &str) -> Result<Option<Card>, Fault> {
    let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
    match (name, number) {
        ("cpu", _) => Ok(None),
        (_, Some(number)) => Ok(Some(Card::open(number)?)),
        _ => Err(Fault::usage(
            format!("no device is called `{name}`"),
            "give cpu, cuda:0 or the number of another card",
        )),
    }
}

/// The cases on which the project's figures are stated.
fn stated(card: bool) -> Vec<Case> {
    if card {
        full_card()
    } else {
        whole_slide().to_vec()
    }
}

/// The cases of the grid that the filter lets through.
fn asked(options: &Options, card: bool) -> Result<Vec<Case>, Fault> {
    let mut all: Vec<Case> = Vec::new();
    if options.check {
        all.extend(cases(&Axes::small()));
    } else {
        let axes = if card {
            Axes::device()
        } else {
            Axes::processor()
        };
        let mut first = stated(card);
        if !card {
            first.extend(ends_of_axes());
        }
        let rest = cases(&axes);
        let rest = rest.into_iter().filter(|case| !first.contains(case));
        all.extend(first.iter().copied().chain(rest));
    }
    // A device keeps no hidden units; it makes them again in any case.
    all.retain(|case| !(card && case.kept && !case.step) && case.matches(&options.filter));
    if all.is_empty() {
        return Err(Fault::usage(
            format!("no case has all of `{}` in its name", options.filter),
            "a name is like `pool.forward squared-average f32 64x1024 ragged d1024 masked`",
        ));
    }
    Ok(all)
}

/// Those of them that memory and time allow.
fn choose(
    options: &Options,
    bench: &Bench<'_>,
    mut all: Vec<Case>,
) -> Result<(Vec<Case>, Vec<LeftOut>), Fault> {
    let mut memory = memory();
    if let Some(card) = bench.card {
        memory = memory.min(card.gpu().memory()?.0 / 8);
    }
    let mut left = Vec::new();
    let mut drop = |all: &mut Vec<Case>, why: String, stays: &dyn Fn(&Case) -> bool| {
        let before = all.len();
        all.retain(stays);
        if all.len() < before {
            left.push(LeftOut {
                cases: before - all.len(),
                why,
            });
        }
    };
    drop(
        &mut all,
        format!("of more than {} each", amount(memory as f64)),
        &|case| Work::size(case) <= memory,
    );
    if let Some(ceilings) = bench.ceilings {
        // Preparation, the runs for the bits and the least number of samples.
        let takes = |case: &Case| 10.0 * ceilings.floor(case, &cost(case));
        let longest = options.budget / 4.0;
        // The cases on which figures are stated are run however slow the machine is.
        let stated = stated(bench.card.is_some());
        drop(
            &mut all,
            format!(
                "of which one alone takes more than a quarter of the {} (--budget)",
                seconds(options.budget)
            ),
            &|case| takes(case) <= longest || stated.contains(case),
        );
    }
    Ok((all, left))
}

/// Bytes that one set of inputs and outputs may take: an eighth of what is free.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|line| {
        let rest = line.strip_prefix("MemAvailable:")?;
        rest.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    free.map_or(1 << 30, |kilobytes| kilobytes * 1024 / 8)
}

fn cases_of(
    bench: &Bench<'_>,
    chosen: &[Case],
    options: &Options,
    sink: &mut Sink,
    left: &mut Vec<LeftOut>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Measured>, Fault> {
    let begun = Instant::now();
    let mut measured = Vec::new();
    for (number, case) in chosen.iter().enumerate() {
        if !options.check && begun.elapsed().as_secs_f64() > options.budget {
            left.push(LeftOut {
                cases: chosen.len() - number,
                why: format!(
                    "farthest from the middle of the grid, for which the {} did not last (--budget, --filter)",
                    seconds(options.budget)
                ),
            });
            break;
        }
        progress(&format!("{}/{} {}", number + 1, chosen.len(), case.name()));
        let found = bench.measure(case)?;
        sink.write(&Record::Case(Box::new(found.clone())))?;
        measured.push(found);
    }
    Ok(measured)
}

/// Where the JSON lines go.
struct Sink {
    to: Option<Box<dyn Write>>,
    standard: bool,
}

impl Sink {
    fn none() -> Sink {
        Sink {
            to: None,
            standard: false,
        }
    }

    fn new(path: Option<&Path>) -> Result<Sink, Fault> {
        let standard = path == Some(Path::new("-"));
        let to: Option<Box<dyn Write>> = match path {
            None => None,
            Some(_) if standard => Some(Box::new(std::io::stdout())),
            Some(path) => {
                let file = File::create(path).map_err(|error| Fault::file("write", path, error))?;
                Some(Box::new(file))
            }
        };
        Ok(Sink { to, standard })
    }

    fn write(&mut self, record: &Record) -> Result<(), Fault> {
        if let Some(to) = &mut self.to {
            let line = serde_json::to_string(record)
                .map_err(|error| Fault::internal(format!("a record has no JSON: {error}")))?;
            writeln!(to, "{line}")?;
        }
        Ok(())
    }
}
