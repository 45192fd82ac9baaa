//! What the operators of one process share.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use weir_pipeline::Plan;
use weir_record::budget::Waker;
use weir_record::{Budget, Reservation, Slab, SlideId, SlideInfo};

use crate::abort::{Abort, Stop, message};
use crate::crew::Crew;
use crate::progress::Progress;
use crate::stage::{Ending, OpenSlides, Work};
use crate::trace::Trace;

/// Shared by all workers of a process.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) plan: Arc<Plan>,
    pub(crate) budget: Budget,
    pub(crate) slab: Slab,
    pub(crate) readers: Crew,
    pub(crate) helpers: Crew,
    pub(crate) abort: Abort,
    pub(crate) stop: Stop,
    pub(crate) progress: Arc<Progress>,
    pub(crate) open: Arc<OpenSlides>,
    pub(crate) places: Arc<Places>,
    /// Wake the sources when the end was asked for.
    pub(crate) bells: Arc<Mutex<Vec<Waker>>>,
    pub(crate) gathers: Arc<Gathers>,
    /// Stages that were left.
    pub(crate) endings: Arc<Mutex<Vec<Ending>>>,
    pub(crate) trace: Option<Trace>,
    /// Index of this process and their number.
    pub(crate) process: (usize, usize),
    /// Workers of this process.
    pub(crate) workers: usize,
}

impl House {
    /// The end was asked for: sources look up.
    pub(crate) fn ring(&self) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in bells.iter() {
            bell();
        }
    }

    /// Nothing more comes to a stage: it is left on a helper thread that has nothing else to do, since what the worker has now are the
    /// last rows, for which others wait; where there is none, when the run ends.
    pub(crate) fn leave(&self, work: Arc<dyn Work>) {
        enum Leaving {
            Has(Arc<dyn Work>),
            Begun(Ending),
            Over,
        }
        fn of(it: &Mutex<Leaving>) -> MutexGuard<'_, Leaving> {
            it.lock().unwrap_or_else(PoisonError::into_inner)
        }
        let it = Arc::new(Mutex::new(Leaving::Has(work)));
        let here = it.clone();
        let leave = move || {
            // Held meanwhile: who comes to end it waits until it was left.
            let mut it = of(&here);
            *it = match std::mem::replace(&mut *it, Leaving::Over) {
                Leaving::Has(work) => Leaving::Begun(work.leave()),
                begun => begun,
            };
        };
        self.helpers.submit(0, leave.clone());
        self.ends(Box::new(move || {
            leave();
            let begun = std::mem::replace(&mut *of(&it), Leaving::Over);
            if let Leaving::Begun(ending) = begun {
                ending();
            }
        }));
    }

    /// What is to be done when nothing flows any more.
    pub(crate) fn ends(&self, ending: Ending) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        endings.push(ending);
    }

    /// Nothing flows any more: ends the stages that were left, one after the other.
    pub(crate) fn end(&self) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *endings);
        drop(endings);
        for ending in all {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(ending)) {
                self.abort.fatal(message(&*panic));
            }
        }
    }

    /// Adds the counters' values to the trace, when there is one.
    pub(crate) fn count(&self) {
        let Some(trace) = self.trace.as_ref().filter(|trace| trace.due()) else {
            return;
        };
        let budget = vec![
            ("reserved", self.budget.reserved() as u64),
            ("leased", self.budget.leased() as u64),
            ("cached", self.budget.cached() as u64),
        ];
        trace.counter("budget, bytes", budget);
        for stage in &self.progress.stages {
            let waiting = stage.waiting.load(Ordering::Relaxed);
            trace.counter(&format!("{}, waiting", stage.name), vec![("rows", waiting)]);
        }
    }

    /// Tells the trace what a thread did, when there is one.
    pub(crate) fn traced(&self, node: usize, since: Instant, rows: u64) {
        if let Some(trace) = &self.trace {
            trace.span(&self.plan.nodes[node].name, since, rows);
        }
    }
}

/// How many more tiles make a batch full that a stage gathers: whoever reads the last of them tells the worker at once.
///
/// A hint: tiles that were read while it was said are counted by nobody, and those that a stage before leaves out are counted too.
#[derive(Default)]
pub(crate) struct Gathers(AtomicUsize);

impl Gathers {
    /// A stage waits for so many.
    pub(crate) fn needs(&self, tiles: usize) {
        self.0.store(tiles, Ordering::Relaxed);
    }

    /// One was read; whether it was the last of them.
    pub(crate) fn one_read(&self) -> bool {
        let less = |needs: usize| needs.checked_sub(1);
        let needed = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        needed == Ok(1)
    }
}

/// Places for open slides: at most `run.open-slides` at once, each with its reservation.
pub(crate) struct Places {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    taken: usize,
    slides: HashMap<SlideId, Place>,
    waiting: Vec<Waker>,
}

struct Place {
    sinks: usize,
    failed: bool,
    _reservation: Option<Reservation>,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Places {
            limit: limit.max(1),
            inner: Mutex::default(),
        }
    }

    /// A place for a slide that is about to be opened. `waker` is called when one comes free, if there is none.
    pub(crate) fn take(&self, waker: Waker) -> bool {
        let mut inner = self.lock();
        if inner.taken >= self.limit {
            inner.waiting.push(waker);
            return false;
        }
        inner.taken += 1;
        true
    }

    /// The slide is open: `sinks` sinks must be done with it before its place is free.
    pub(crate) fn settle(&self, slide: SlideId, sinks: usize, reservation: Option<Reservation>) {
        self.lock().slides.insert(
            slide,
            Place {
                sinks,
                failed: false,
                _reservation: reservation,
            },
        );
    }

    /// A sink is done with the slide, which failed as far as it knows or did not; when it was the last, whether the slide failed
    /// as far as any of them knows: what fails in one branch is not told in another.
    pub(crate) fn sink_done(&self, slide: SlideId, failed: bool) -> Option<bool> {
        let mut last = None;
        self.free(|inner| {
            if let Some(place) = inner.slides.get_mut(&slide) {
                place.sinks = place.sinks.saturating_sub(1);
                place.failed |= failed;
                last = (place.sinks == 0).then_some(place.failed);
            }
            if last.is_some() {
                inner.slides.remove(&slide);
                inner.taken -= 1;
            }
        });
        last
    }

    fn free(&self, change: impl FnOnce(&mut Inner)) {
        let woken = {
            let mut inner = self.lock();
            change(&mut inner);
            if inner.taken < self.limit {
                std::mem::take(&mut inner.waiting)
            } else {
                Vec::new()
            }
        };
        for waker in woken {
            waker();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stage knows of the slides that are open at an operator.
pub(crate) type Infos = HashMap<SlideId, Arc<SlideInfo>>;

#[cfg(test)]
impl House {
    /// Of a run of `plan` by this process alone, without a trace.
    pub(crate) fn of(plan: Plan) -> House {
        let (abort, budget) = (Abort::default(), Budget::new(plan.run.memory as usize));
        House {
            readers: Crew::new("reader", 1, abort.clone()),
            helpers: Crew::new("helper", 1, abort.clone()),
            open: Arc::default(),
            places: Arc::new(Places::new(1)),
            bells: Arc::default(),
            gathers: Arc::default(),
            endings: Arc::default(),
            trace: None,
            process: (0, 1),
            workers: 1,
            stop: Stop::default(),
            progress: Arc::new(Progress::of(&plan)),
            abort,
            slab: Slab::within(&budget),
            budget,
            plan: Arc::new(plan),
        }
    }
}
