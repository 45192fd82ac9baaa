//! What was found, one JSON object a line. benches/peers/pool.py writes the same.

use crate::Fault;
use crate::case::Case;
use crate::cost::{Ceilings, Cost};
use crate::machine::Machine;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// On what.
    Machine(Box<Machine>),
    /// What it can do at best.
    Ceilings(Ceilings),
    /// A case.
    Case(Box<Measured>),
    /// Cases that were not run.
    LeftOut(LeftOut),
    /// What the card says of itself when all is done.
    After {
        /// As [`Machine::clocks`].
        clocks: String,
    },
}

/// Cases that were not run, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many.
    pub cases: usize,
    /// Why.
    pub why: String,
}

/// A case as it was measured, times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// The case's name.
    pub case: String,
    /// Who: `weir`, or a peer as `torch eager`.
    pub by: String,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Threads of the processor.
    pub threads: usize,
    /// As [`Case`].
    pub kernel: String,
    /// `forward`, `backward`, or `step` for both as one call.
    pub direction: String,
    /// As `model.toml` calls the normalisation.
    pub rule: String,
    /// Of the features.
    pub dtype: String,
    /// Number of bags.
    pub bags: usize,
    /// Rows of a bag.
    pub rows: usize,
    /// Rows of all bags.
    pub total: usize,
    /// Whether bags differ in length.
    pub ragged: bool,
    /// Whether a tenth of the rows is masked.
    pub masked: bool,
    /// Components.
    pub d: usize,
    /// Hidden units.
    pub l: usize,
    /// Whether the forward pass kept the hidden units.
    pub kept: bool,
    /// Number of samples.
    pub samples: usize,
    /// The least time.
    pub least: f64,
    /// A tenth of the samples lies under it.
    pub p10: f64,
    /// The middle time.
    pub median: f64,
    /// A tenth of the samples lies over it.
    pub p90: f64,
    /// Bytes that must be moved.
    pub bytes: f64,
    /// Operations that must be done.
    pub flops: f64,
    /// Bytes a second, 1e9.
    pub gb_s: f64,
    /// Operations a second, 1e12.
    pub tflop_s: f64,
    /// What bounds it: `read`, `copy`, `product`.
    pub ceiling: String,
    /// The floor.
    pub floor: f64,
    /// Median over floor.
    pub gap: f64,
    /// Least time over that of a plain read of the same features, in turns with it: a neighbour on the machine only adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_read: Option<f64>,
    /// Time of the processor for a case of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<f64>,
    /// Greatest error against f64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// In which output.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worst: String,
    /// Greatest error that is let through.
    pub bound: f64,
    /// Whether the bits stay; `None`: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<bool>,
    /// What is wrong with the results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
    /// Why the kernel was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Launches of a call, on a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<u64>,
    /// Registers, shared bytes and blocks a multiprocessor of the launches, on a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<String>,
    /// Device memory beside the inputs, bytes: results and scratch, which comes in blocks of 1 MiB and more; of a peer the most that
    /// its allocator gave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// When it began, seconds after the bench.
    pub begun: f64,
    /// How long it took, preparation and checks counted in.
    pub took: f64,
}

impl Measured {
    /// Of a case, nothing measured yet.
    pub fn of(case: &Case, device: &str, threads: usize) -> Measured {
        Measured {
            case: case.name(),
            by: "weir".into(),
            device: device.into(),
            threads,
            kernel: case.kernel.name().into(),
            direction: case.direction().into(),
            rule: case.rule_name().into(),
            dtype: case.dtype.name().into(),
            bags: case.bags,
            rows: case.rows,
            total: case.total(),
            ragged: case.ragged,
            masked: case.masked,
            d: case.d,
            l: case.l,
            kept: case.kept,
            bound: crate::oracle::bound(case),
            ..Measured::default()
        }
    }

    /// Sets the times and what follows from them.
    pub fn timed(
        &mut self,
        case: &Case,
        samples: &crate::clock::Samples,
        cost: &Cost,
        ceilings: &Ceilings,
    ) {
        self.samples = samples.count();
        self.least = samples.least();
        self.p10 = samples.quantile(0.1);
        self.median = samples.median();
        self.p90 = samples.quantile(0.9);
        self.bytes = cost.bytes();
        self.flops = cost.flops;
        self.gb_s = self.bytes / self.median / 1e9;
        self.tflop_s = self.flops / self.median / 1e12;
        self.ceiling = ceilings.bound(case, cost).into();
        self.floor = ceilings.floor(case, cost);
        self.gap = self.median / self.floor;
    }

    /// Whether the results are not what they must be.
    pub fn failed(&self) -> bool {
        self.wrong.is_some()
            || self.stable == Some(false)
            || self.error.is_some_and(|error| error > self.bound)
    }
}

/// The lines of a file; those that are no record of this kind are an error that names the line.
pub fn read(path: &Path) -> Result<Vec<Record>, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| Fault::file("read", path, error))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                Fault::usage(
                    format!("{}:{}: {error}", path.display(), number + 1),
                    "give a file that `weir bench kernels --json` or benches/peers/pool.py wrote",
                )
            })
        })
        .collect()
}

/// The cases among them.
pub fn cases(records: Vec<Record>) -> Vec<Measured> {
    records
        .into_iter()
        .filter_map(|record| match record {
            Record::Case(case) => Some(*case),
            _ => None,
        })
        .collect()
}
