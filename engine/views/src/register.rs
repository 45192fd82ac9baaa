//! Rows of slides to entries of a collection: whatever the order of the rows, the last entry is the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use weir_record::{Body, End, Event, Prediction, Row, SlideId, SlideInfo};
use weir_runtime::Edge;

use crate::slide::{Answer, Number, SlideEntry, Standing};

/// Changes of the collection of slides: entry, time, +1 or -1.
pub(crate) type Changes = Vec<(SlideEntry, u64, isize)>;

/// What is known of a slide.
#[derive(Default)]
struct Known {
    info: Option<Arc<SlideInfo>>,
    /// Of an earlier run: nothing of this run replaces it.
    skipped: bool,
    answer: Option<Answer>,
    failed_tiles: u64,
    reason: Option<String>,
    /// How the sinks' ports ended.
    ends: BTreeMap<(String, String), (End, u64)>,
    /// The entry that is in the collection.
    sent: Option<SlideEntry>,
    touched: bool,
}

impl Known {
    fn take(&mut self, row: Row) {
        self.touched = true;
        match row.body {
            Body::Opened(info) => self.info = Some(info),
            Body::Prediction(prediction) if !self.skipped => self.answer(row.rev, &prediction),
            Body::Event(event) => match &*event {
                Event::SlideFailed(failure)
                    // Several stages may say why; one of them is kept, the same in any order.
                    if self
                        .reason
                        .as_ref()
                        .is_none_or(|known| failure.what < *known)
                    => {
                        self.reason = Some(failure.what.clone());
                    }
                Event::LedgerEnded {
                    stage,
                    port,
                    end,
                    tally,
                } => {
                    let port = (stage.clone(), port.clone());
                    self.ends.insert(port, (*end, tally.fail));
                }
                Event::Skipped { prediction, .. } if !self.skipped => {
                    self.answer = None;
                    self.answer(0, prediction);
                    self.skipped = true;
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// The greatest revision holds; of one revision (two classifiers of one slide) the greater answer, so that the order in
    /// which they come does not matter.
    fn answer(&mut self, revision: u32, prediction: &Prediction) {
        let answer = Answer {
            revision,
            classes: prediction.classes.clone(),
            class: prediction.class,
            probabilities: prediction
                .probabilities
                .iter()
                .map(|p| Number(*p))
                .collect(),
            members: prediction.bag.n,
            flags: prediction
                .bag
                .flags
                .names()
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            exact: prediction.bag.exact.clone(),
            standing: prediction.state.into(),
        };
        if self.answer.as_ref().is_none_or(|held| answer > *held) {
            let coverage = &prediction.bag.coverage;
            self.failed_tiles = coverage.source.fail.max(coverage.selected.fail);
            self.answer = Some(answer);
        }
    }

    fn entry(&self) -> Option<SlideEntry> {
        let info = self.info.as_ref()?;
        let worst = self.ends.values().map(|(end, _)| *end).max();
        let standing = match (&self.reason, &self.answer, worst) {
            (Some(_), ..) => Standing::Failed,
            (None, Some(answer), _) => answer.standing,
            (None, None, Some(End::Complete)) => Standing::Final,
            (None, None, Some(End::Incomplete)) => Standing::Incomplete,
            (None, None, _) => Standing::Interrupted,
        };
        let in_sinks = self.ends.values().map(|(_, fail)| *fail).max().unwrap_or(0);
        Some(SlideEntry {
            slide: info.id.clone(),
            patient: info.patient.clone(),
            label: info.label.clone(),
            standing,
            answer: self.answer.clone(),
            tiles: info.tiles,
            failed: self.failed_tiles.max(in_sinks),
            reason: self.reason.clone().unwrap_or_default(),
        })
    }
}

/// The slides of a worker.
#[derive(Default)]
pub(crate) struct Register {
    slides: HashMap<SlideId, Known>,
}

impl Register {
    pub(crate) fn take(&mut self, row: Row) {
        self.slides.entry(row.slide).or_default().take(row);
    }

    /// What changed since it was asked last: the old entry out, the new one in.
    pub(crate) fn changes(&mut self, time: u64, changes: &mut Changes) {
        for known in self.slides.values_mut().filter(|known| known.touched) {
            known.touched = false;
            let entry = known.entry();
            if entry == known.sent {
                continue;
            }
            changes.extend(known.sent.take().map(|old| (old, time, -1)));
            changes.extend(entry.clone().map(|new| (new, time, 1)));
            known.sent = entry;
        }
    }
}

/// The operator. Rows stay with the worker: all of a slide come to one. Its times are its own, one an activation that
/// brings something, so that views follow while the run goes on: rows all arrive at the run's one epoch.
pub(crate) fn register<'s>(scope: Scope<'s, u64>, rows: Edge<'s>) -> Stream<'s, u64, Changes> {
    let mut builder = OperatorBuilder::new("slides of views".to_owned(), scope);
    let mut input = builder.new_input(rows, Pipeline);
    let (output, stream) = builder.new_output_connection::<Changes, _>([]);
    let mut output = OutputBuilder::<u64, CapacityContainerBuilder<Changes>>::from(output);
    builder.build(move |mut capabilities| {
        let mut held = capabilities.pop();
        let mut register = Register::default();
        move |frontiers| {
            let mut came = false;
            input.for_each(|_, rows| {
                came = true;
                rows.drain(..).for_each(|row| register.take(row));
            });
            if let Some(capability) = held.as_mut().filter(|_| came) {
                let mut changes = Vec::new();
                register.changes(*capability.time(), &mut changes);
                if !changes.is_empty() {
                    let mut active = output.activate();
                    active.session(&*capability).give_container(&mut changes);
                }
                let next = *capability.time() + 1;
                capability.downgrade(&next);
            }
            if frontiers.iter().all(|frontier| frontier.is_empty()) {
                held = None;
            }
        }
    });
    stream
}
