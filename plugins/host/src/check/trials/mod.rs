//! The tests of `weir plugin check`.

mod create;
mod file;
mod memory;
mod numbers;
mod pending;
mod reader;
mod regions;
mod rows;
mod slides;
mod source;
mod written;

pub(super) use file::{admitted, who};

use super::glass::Glass;
use super::stand::Stand;
use std::path::Path;
use weir_pipeline::Rows;

/// Why a test did not pass.
pub(super) enum No {
    Failed(String),
    Skipped(String),
}

/// A figure, or nothing to say; or why not.
pub(super) type Said = Result<String, No>;

/// A test of the file.
pub(super) struct OfFile {
    pub name: &'static str,
    pub run: fn(&Path) -> Said,
}

/// A test of a stage.
pub(super) struct OfStage {
    pub name: &'static str,
    pub run: fn(&Stand) -> Said,
}

/// A test of a slide reader.
pub(super) struct OfReader {
    pub name: &'static str,
    pub run: fn(&Glass) -> Said,
}

const fn of_file(name: &'static str, run: fn(&Path) -> Said) -> OfFile {
    OfFile { name, run }
}

const fn of_stage(name: &'static str, run: fn(&Stand) -> Said) -> OfStage {
    OfStage { name, run }
}

const fn of_reader(name: &'static str, run: fn(&Glass) -> Said) -> OfReader {
    OfReader { name, run }
}

/// Tests of a file; the first says why one is refused.
pub(super) const OF_FILE: &[OfFile] = &[
    of_file("manifest-valid", file::manifest_valid),
    of_file("scan-time", file::scan_time),
    of_file("rtld-now", file::rtld_now),
    of_file("loads", file::loads),
    of_file("entry-twice", file::entry_twice),
    of_file("unknown-extension", file::unknown_extension),
];

/// Tests of every stage.
const OF_EVERY: &[OfStage] = &[
    of_stage("params-defaults", create::params_defaults),
    of_stage("params-edge", create::params_edge),
    of_stage("params-fuzz-in-range", create::params_fuzz),
    of_stage("create-destroy-100", create::create_destroy),
];

/// Tests of every stage, after those of its own: what they try is odd.
const OF_EVERY_LAST: &[OfStage] = &[of_stage("error-has-message", create::error_has_message)];

/// Tests of a stage that has inputs.
const OF_INPUTS: &[OfStage] = &[
    of_stage("one-row", rows::one_row),
    of_stage("empty-batch", rows::empty_batch),
    of_stage("max-rows", rows::max_rows),
    of_stage("input-untouched", rows::input_untouched),
    of_stage("output-matches-port-type", rows::output_matches),
    of_stage("output-written", written::output_written),
    of_stage("no-overrun", rows::no_overrun),
    of_stage("panic-contained", rows::panic_contained),
    of_stage("thread-hop", rows::thread_hop),
    of_stage("parallel-stress", rows::parallel_stress),
    of_stage("determinism", rows::determinism),
    of_stage("pending-completes-once", pending::completes_once),
    of_stage("cancel-while-pending", pending::cancel_while_pending),
    of_stage("batches-given-back", rows::given_back),
    of_stage("10k-batches-steady-memory", rows::steady_memory),
];

/// Tests of a stage that gathers a slide's rows.
const OF_SLIDES: &[OfStage] = &[
    of_stage("flush-order", slides::flush_order),
    of_stage("remove-undoes", slides::remove_undoes),
    of_stage("slides-apart", slides::slides_apart),
];

/// Tests of a source.
const OF_SOURCE: &[OfStage] = &[
    of_stage("slides-listed", source::listed),
    of_stage("steps-in-order", source::steps),
    of_stage("read-fills-all", source::read_fills),
    of_stage("reads-at-once", source::at_once_reads),
    of_stage("same-tiles-twice", source::same_twice),
    of_stage("open-close-50", source::open_close),
];

/// Tests of a slide reader.
pub(super) const OF_READER: &[OfReader] = &[
    of_reader("sniff-noise", reader::sniff_noise),
    of_reader("open-refuses", reader::open_refuses),
    of_reader("facts-coherent", reader::facts_coherent),
    of_reader("regions-agree", regions::regions_agree),
    of_reader("no-overrun", regions::no_overrun),
    of_reader("outside-white", regions::outside_white),
    of_reader("pictures", regions::pictures),
    of_reader("reads-at-once", regions::at_once_reads),
    of_reader("open-close-50", reader::open_close),
];

/// The tests of a stage that makes this of rows.
pub(super) fn of_rows(rows: Rows) -> impl Iterator<Item = &'static OfStage> {
    let [rows, slides]: [&[OfStage]; 2] = match rows {
        Rows::Source => [OF_SOURCE, &[]],
        Rows::Map | Rows::Filter => [OF_INPUTS, &[]],
        Rows::Reduce | Rows::Sink => [OF_INPUTS, OF_SLIDES],
    };
    [OF_EVERY, rows, slides, OF_EVERY_LAST]
        .into_iter()
        .flatten()
}

/// Whether the host had to say that something failed because the plugin did not say why.
pub(super) fn wordless(what: &str) -> bool {
    what.trim().is_empty() || what.contains("without a word")
}

/// Runs `what` on so many threads at once; the first that does not pass.
fn at_once(threads: usize, what: impl Fn(usize) -> Result<(), No> + Sync) -> Result<(), No> {
    std::thread::scope(|scope| {
        let what = &what;
        let running: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || what(number)))
            .collect();
        running.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| No::Failed("a call panicked".into()))?
        })
    })
}

/// Descriptors that this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
