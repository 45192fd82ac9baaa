//! What a run says of itself: gathered at process 0 from the rows that reach the sinks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_pipeline::{OnError, Plan, Rows};
use weir_record::{Body, End, Event, Failure, Prediction, Row, SlideId, SlideInfo, State, Tally};

use crate::abort::Stop;
use crate::host::{Logic, Outputs};
use crate::stage::StageError;

/// Exit codes of a run (DESIGN 5).
pub mod exit {
    /// All done.
    pub const DONE: u8 = 0;
    /// Failed, or stopped at the first failed slide.
    pub const FAILED: u8 = 1;
    /// Usage or file mistakes.
    pub const USAGE: u8 = 2;
    /// Finished, with failed tiles or slides.
    pub const PARTLY: u8 = 3;
    /// A fault of weir itself.
    pub const INTERNAL: u8 = 70;
    /// Stopped by a person.
    pub const INTERRUPTED: u8 = 130;

    use std::sync::atomic::{AtomicBool, Ordering};

    static AT_WORK: AtomicBool = AtomicBool::new(false);

    /// The program begins its work: until it [`leaves`], nobody ends the process but what ought not to, as a plugin that calls `exit()`.
    pub fn begins() {
        AT_WORK.store(true, Ordering::SeqCst);
    }

    /// The program is about to end the process itself.
    pub fn leaves() {
        AT_WORK.store(false, Ordering::SeqCst);
    }

    /// Whether it is at its work. Programs that never said that they begin are not.
    pub fn at_work() -> bool {
        AT_WORK.load(Ordering::SeqCst)
    }
}

/// What a run came to. Of several processes only process 0's has slides; the exit code is the same in all.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By id.
    pub slides: BTreeMap<String, SlideRecord>,
    /// A person stopped it.
    pub interrupted: bool,
    /// `on-error = "stop"` stopped it.
    pub stopped: bool,
    /// What sinks could not do.
    pub sink_failures: Vec<String>,
    /// The greatest sum of leases and reservations, bytes.
    pub memory_peak: u64,
    /// From start to end.
    pub took: Duration,
    /// The exit code that process 0 told the others, which have no slides of their own to judge by.
    pub(crate) code: Option<u8>,
}

/// What a run says of one slide.
#[derive(Clone, Debug, Default)]
pub struct SlideRecord {
    /// What is known of it.
    pub info: Option<Arc<SlideInfo>>,
    /// Its prediction, when a stage made one.
    pub prediction: Option<Arc<Prediction>>,
    revision: u32,
    /// Why it failed as a whole.
    pub failed: Option<Failure>,
    /// Failed tiles, the first few of each stage.
    pub failures: Vec<Failure>,
    /// How each domain ended and what was counted, by stage and port.
    pub ledgers: BTreeMap<(String, String), (End, Tally)>,
    /// Milliseconds by part: open, read, total.
    pub took: BTreeMap<String, u64>,
    /// Where an earlier run left its prediction, when nothing was computed.
    pub skipped: Option<String>,
}

impl SlideRecord {
    /// Tiles that filters left out, by who and why as "blur: blurred": what the stages after them saw of it, the most that one did.
    pub fn dropped_tiles(&self) -> BTreeMap<&str, u64> {
        let mut dropped = BTreeMap::new();
        for (_, tally) in self.ledgers.values() {
            for (why, &n) in tally.skip.iter().filter(|(why, _)| why.contains(": ")) {
                let most = dropped.entry(why.as_str()).or_insert(0);
                *most = n.max(*most);
            }
        }
        dropped
    }

    /// Failed tiles, as the stage that saw most of them counted; of a slide that an earlier run did, as that run counted.
    pub fn failed_tiles(&self) -> u64 {
        let coverage = self.prediction.as_ref().map(|known| &known.bag.coverage);
        let before = coverage.map(|coverage| coverage.source.fail.max(coverage.selected.fail));
        self.ledgers
            .values()
            .map(|(_, tally)| tally.fail)
            .chain(before)
            .max()
            .unwrap_or(0)
    }

    /// `final`, `failed`, `interrupted`, ...; without a prediction, how its domains ended.
    pub fn state(&self) -> State {
        if self.failed.is_some() {
            return State::Failed;
        }
        if let Some(prediction) = &self.prediction {
            return prediction.state;
        }
        match self.ledgers.values().map(|(end, _)| *end).max() {
            Some(End::Complete) => State::Final,
            Some(End::Incomplete) => State::Incomplete,
            Some(End::Aborted) => State::Interrupted,
            None if self.skipped.is_some() => State::Final,
            None => State::Interrupted,
        }
    }
}

impl Outcome {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        if let Some(code) = self.code {
            return code;
        }
        let failed = self
            .slides
            .values()
            .any(|slide| slide.state() == State::Failed || slide.failed_tiles() > 0);
        if self.interrupted {
            exit::INTERRUPTED
        } else if self.stopped || !self.sink_failures.is_empty() {
            exit::FAILED
        } else if failed {
            exit::PARTLY
        } else {
            exit::DONE
        }
    }
}

/// Gathers the report of a process.
#[derive(Clone, Default)]
pub(crate) struct Report(Arc<Mutex<Outcome>>);

impl Report {
    pub(crate) fn sink_failed(&self, stage: &str, error: &StageError) {
        self.lock().sink_failures.push(format!("{stage}: {error}"));
    }

    /// A slide failed at a sink whose part here tells nobody else.
    pub(crate) fn slide_failed(&self, failure: Failure, stopped: bool) {
        let mut outcome = self.lock();
        outcome.stopped |= stopped;
        let slide = outcome.slides.entry(failure.slide.clone()).or_default();
        slide.failed.get_or_insert(failure);
    }

    pub(crate) fn take(&self) -> Outcome {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operator that gathers, at worker 0 of process 0.
pub(crate) struct ReportLogic {
    report: Report,
    ids: BTreeMap<SlideId, String>,
    stop: Option<Stop>,
    plan: Arc<Plan>,
}

impl ReportLogic {
    pub(crate) fn new(report: Report, plan: Arc<Plan>, stop: Stop) -> Self {
        ReportLogic {
            report,
            ids: BTreeMap::new(),
            stop: (plan.run.on_error == OnError::Stop).then_some(stop),
            plan,
        }
    }

    /// Which of several reasons for which a slide failed is said, whatever is heard first: the first stage's of the plan, a sink's
    /// after all others'.
    fn place(&self, failure: &Failure) -> (bool, usize) {
        let nodes = &self.plan.nodes;
        let at = nodes.iter().position(|node| node.name == failure.stage);
        let sink = at.is_some_and(|at| nodes[at].schema.rows == Rows::Sink);
        (sink, at.unwrap_or(0))
    }

    fn take(&mut self, row: Row) {
        if let Body::Opened(info) = &row.body {
            self.ids.entry(row.slide).or_insert_with(|| info.id.clone());
        }
        let Some(id) = self.ids.get(&row.slide) else {
            return;
        };
        let mut outcome = self.report.lock();
        let slide = outcome.slides.entry(id.clone()).or_default();
        let mut failed = false;
        match row.body {
            Body::Opened(info) => slide.info = Some(info),
            Body::Prediction(prediction)
                if slide.prediction.is_none() || row.rev >= slide.revision =>
            {
                slide.revision = row.rev;
                slide.prediction = Some(prediction);
            }
            Body::Event(event) => match Arc::unwrap_or_clone(event) {
                Event::SlideFailed(failure) => {
                    failed = true;
                    let first = slide.failed.as_ref();
                    if first.is_none_or(|first| self.place(&failure) < self.place(first)) {
                        slide.failed = Some(failure);
                    }
                }
                // Fan-out brings the same news to several sinks.
                Event::TileFailed(failure) if !slide.failures.contains(&failure) => {
                    slide.failures.push(failure)
                }
                Event::LedgerEnded {
                    stage,
                    port,
                    end,
                    tally,
                } => {
                    slide.ledgers.insert((stage, port), (end, tally));
                }
                Event::Took { part, ms } => {
                    let longest = slide.took.entry(part).or_default();
                    *longest = ms.max(*longest);
                }
                Event::Skipped { path, prediction } => {
                    slide.skipped = Some(path);
                    slide.prediction = Some(prediction);
                }
                _ => {}
            },
            _ => {}
        }
        if failed && let Some(stop) = self.stop.take() {
            outcome.stopped = true;
            stop.request();
        }
    }
}

impl Logic for ReportLogic {
    fn leave(self: Box<Self>) -> Option<Box<dyn Logic>> {
        Some(self)
    }

    fn rows(&mut self, _: usize, rows: &mut Vec<Row>, _: &mut Outputs) {
        for row in rows.drain(..) {
            self.take(row);
        }
    }

    fn turn(&mut self, inputs_done: bool, _: &mut Outputs) -> bool {
        inputs_done
    }
}
