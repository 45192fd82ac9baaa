//! # weir-bench-kernels: how far the kernels are from the limit of the machine
//!
//! `weir bench kernels` runs every kernel over a grid of shapes, measures in the same process what the machine can do at
//! best (a plain read, a copy, a product of matrices), and says of each case how near it came, whether it is right against
//! f64, and whether its bits stay the same. Without a GPU it works on the processor, and `--predict` says what a card's limits
//! allow.
//!
//! | module | idea |
//! |---|---|
//! | [`case`] | one kernel on one shape, and its name |
//! | [`grid`] | the shapes |
//! | [`cost`] | the least bytes and operations of a case, and the floor that follows |
//! | [`data`], [`shapes`], [`work`] | random inputs, poisoned outputs, the call |
//! | [`oracle`], [`oracle_head`] | the same in f64 |
//! | [`bits`] | the same bits twice, with other threads, alone and in a batch |
//! | [`ceilings`], [`clock`] | what the machine can do; medians and spread |
//! | [`device`], [`cublas`] | a CUDA device: arrays there, its own clock, its ceilings |
//! | [`measure`] | one case measured |
//! | [`record`] | what was found, as JSON lines |
//! | [`table`], [`plot`], [`trace`] | for a person: a table, a roofline, a timeline |
//! | [`compare`], [`peers`] | against an earlier run; beside other libraries |
//! | [`cards`], [`predict`] | limits of named cards; floors without one |
//! | [`mod@bench`] | all of it in order |

pub mod bench;
pub mod bits;
pub mod cards;
pub mod case;
pub mod ceilings;
pub mod clock;
pub mod compare;
pub mod cost;
pub mod cublas;
pub mod data;
pub mod device;
pub mod grid;
pub mod machine;
pub mod measure;
pub mod nvtx;
pub mod oracle;
pub mod oracle_head;
pub mod peers;
pub mod plot;
pub mod predict;
pub mod record;
pub mod shapes;
pub mod table;
pub mod trace;
pub mod work;

use std::fmt;
use std::path::{Path, PathBuf};
use weir_kernels::KernelError;

/// What is asked of a bench.
#[derive(Clone, Debug)]
pub struct Options {
    /// Words that a case's name must hold; a word with a leading `-` must not be in it.
    pub filter: String,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Threads of the processor; 0: one a core.
    pub threads: usize,
    /// For how long, seconds.
    pub budget: f64,
    /// Only whether results are right and their bits stay, over small shapes.
    pub check: bool,
    /// Floors of the named cards (all when none is named) instead of a measurement.
    pub predict: Option<Vec<String>>,
    /// JSON lines to this file, to standard output for `-`.
    pub json: Option<PathBuf>,
    /// Against this earlier file.
    pub compare: Option<PathBuf>,
    /// Beside what other libraries took: the file that benches/peers/pool.py writes.
    pub peers: Option<PathBuf>,
    /// A timeline for Perfetto.
    pub trace: Option<PathBuf>,
    /// A roofline, .png or .svg.
    pub plot: Option<PathBuf>,
    /// The command, as it stands in what is written.
    pub command: String,
}

impl Options {
    /// Seconds that a bench takes unless told otherwise, and with `--quick`.
    pub const BUDGETS: [f64; 2] = [90.0, 15.0];
}

impl Default for Options {
    fn default() -> Options {
        Options {
            filter: String::new(),
            device: "cpu".into(),
            threads: 0,
            budget: Options::BUDGETS[0],
            check: false,
            predict: None,
            json: None,
            compare: None,
            peers: None,
            trace: None,
            plot: None,
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }
}

/// Why a bench could not be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What is wrong, where, why.
    pub what: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// Whether the question was wrong, not the machine.
    pub usage: bool,
}

impl Fault {
    /// The caller asked for what cannot be.
    pub fn usage(what: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            what: what.into(),
            help: help.into(),
            usage: true,
        }
    }

    /// The machine could not.
    pub fn failed(what: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            usage: false,
            ..Fault::usage(what, help)
        }
    }

    pub(crate) fn internal(what: impl Into<String>) -> Fault {
        Fault::failed(what, "this is a fault of the bench: report it")
    }

    pub(crate) fn file(doing: &str, path: &Path, error: impl fmt::Display) -> Fault {
        Fault::failed(
            format!("could not {doing} {}: {error}", path.display()),
            "give a file in a folder that exists and may be written",
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Fault {
        Fault::failed(error.to_string(), "")
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        Fault::failed(format!("could not write what was found: {error}"), "")
    }
}
