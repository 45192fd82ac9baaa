//! The views of a run: attached to its dataflow, read when it is over.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::{Scope, Stream};
use weir_runtime::{Edge, Tap};

use crate::register::register;
use crate::rollup::Rollup;
use crate::slide::{Owner, SlideEntry};
use crate::tables::{self, Tables};

/// The classifier's probabilities, `[C]`, of a pooled vector; `None` when it has no answer for it.
pub type Classify = Arc<dyn Fn(&[f32]) -> Option<Vec<f32>> + Send + Sync>;

/// How a run's answers are to be read.
#[derive(Clone, Default)]
pub struct Answers {
    /// Names of the classes, in the classifier's order; those of the predictions, sorted, when it is empty.
    pub classes: Vec<String>,
    /// The class that a worklist puts first.
    pub positive: Option<String>,
    /// Classifies the merged pool of a patient; without it patients are rolled up by mean.
    pub classify: Option<Classify>,
}

/// A worklist of slides and a roll-up by patient. Give it to a run as a tap, and take its tables when the run is over.
#[derive(Clone, Default)]
pub struct Views {
    held: Arc<Mutex<Held>>,
}

/// What worker 0 of process 0 holds.
#[derive(Default)]
struct Held {
    here: bool,
    slides: BTreeMap<SlideEntry, isize>,
    patients: BTreeMap<(Owner, Rollup), isize>,
}

impl Views {
    /// Of slides and patients as far as they are known; `None` in other processes than the first.
    pub fn tables(&self, answers: &Answers) -> Option<Tables> {
        let held = self.lock();
        held.here
            .then(|| tables::write(held.slides.keys(), held.patients.keys(), answers))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the changes of a collection to worker 0 of process 0.
    fn hold<'s, T: timely::ExchangeData + Ord>(
        &self,
        name: &str,
        changes: Stream<'s, u64, Vec<(T, u64, isize)>>,
        place: impl Fn(&mut Held) -> &mut BTreeMap<T, isize> + 'static,
    ) {
        let views = self.clone();
        let first = Exchange::new(|_: &(T, u64, isize)| 0);
        changes.sink(first, name, move |(input, _)| {
            input.for_each(|_, changes| {
                let mut held = views.lock();
                let held = place(&mut held);
                for (what, _, change) in changes.drain(..) {
                    match held.entry(what) {
                        Entry::Vacant(slot) => {
                            slot.insert(change);
                        }
                        Entry::Occupied(mut slot) => {
                            *slot.get_mut() += change;
                            if *slot.get() == 0 {
                                slot.remove();
                            }
                        }
                    }
                }
            });
        });
    }
}

/// A worklist shows no sums, which are the largest part of an entry.
fn without_sums(mut entry: SlideEntry) -> SlideEntry {
    if let Some(answer) = &mut entry.answer {
        answer.exact = None;
    }
    entry
}

impl Tap for Views {
    fn attach<'s>(&self, scope: Scope<'s, u64>, rows: Edge<'s>) {
        if scope.index() == 0 {
            self.lock().here = true;
        }
        let slides = register(scope, rows).as_collection();
        let shown = slides.clone().map(without_sums);
        self.hold("worklist", shown.inner, |held| &mut held.slides);
        let patients = slides
            .explode(|entry| Some((entry.owner(), Rollup::of(&entry))))
            .count_total();
        self.hold("patients", patients.inner, |held| &mut held.patients);
    }
}
