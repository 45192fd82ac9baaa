//! Which call has which instance of a stage: shared as the manifest says, replaced after a panic, a death or a call that does not end.

use crate::call::{CallError, GONE};
use crate::instance::{Instance, Runner};
use crate::isolate::cradle::Cradle;
use crate::kept::Kept;
use crate::log::Level;
use crate::manifest::Concurrency;
use crate::parameters::Parameters;
use crate::who::Who;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::desk::Said;
use weir_abi::stage::Stage;
use weir_abi::status::{self, Status};
use weir_runtime::stage::{Ending, Turn};

/// How long ending a process may take.
const GRACE: Duration = Duration::from_secs(2);

/// How long a call waits for a process before a further one is started: as long as starting one may take.
const FURTHER: Duration = Duration::from_millis(20);

/// Who calls a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    /// So many threads, with whatever rows there are: a map or filter.
    Threads(usize),
    /// The run, for slides that a source gives: what is told of one and what is asked of it must go to the same instance, whichever
    /// thread it is.
    Source,
    /// Open slides: a reduce or a sink, of which the same is true.
    Slides,
}

/// The instances of one stage of a pipeline in this process.
pub(crate) struct Shelf {
    pub stage: &'static Stage,
    pub who: Arc<Who>,
    runner: Runner,
    parameters: Parameters,
    /// Of a stage whose calls may overlap, always the same one.
    overlapping: bool,
    /// Slides live on in it from call to call, so that no other can take its place while it works.
    stateful: bool,
    /// Every open slide has an instance of its own.
    by_slide: bool,
    /// Of such a stage in this process that takes one call at a time over all its instances: had by that call.
    alone: Option<Mutex<()>>,
    /// How long a call may take before its instance is given up.
    pub timeout: Duration,
    all: Mutex<Instances>,
    back: Condvar,
    /// Who has it makes an instance.
    making: Mutex<()>,
    /// Instances that were made.
    made: AtomicU64,
    /// Instances that came in the place of one that panicked, hung or died.
    replaced: AtomicU64,
}

struct Instances {
    free: Vec<Arc<Instance>>,
    /// Those that a slide has to itself: held here as well, so that whoever forgets a slide destroys none while others work.
    lone: Vec<Arc<Instance>>,
    /// Those that a call has, and since when, as seen by who waited first: a call that nobody waits for need not know the time.
    out: Vec<(Arc<Instance>, Option<Instant>)>,
    /// Calls that wait for one.
    waiting: usize,
    /// Those whose call did not come back in time: slides that they opened may be read yet, so they are kept. And those of this process
    /// that found no place: none is destroyed while others work.
    given_up: Vec<Arc<Instance>>,
    /// How many more may be made when none is free.
    spare: usize,
    /// Why the last one could not be made.
    refused: Option<Box<Said>>,
}

impl Shelf {
    /// Makes the instances. Of threads that call each has one where the manifest says so; an isolated stage whose calls may overlap
    /// has one for each as well: a call that kills its process takes no other with it. Of a reduce or sink, and of what is isolated and
    /// no map or filter, each open slide has one, made when it is needed: what panics or dies takes no other slide with it. What works
    /// over all slides, at the end of the run, has one for all.
    pub fn new(
        runner: Runner,
        who: Arc<Who>,
        parameters: Parameters,
        concurrency: Concurrency,
        callers: Callers,
        timeout: Duration,
    ) -> Result<Shelf, CallError> {
        let isolated = matches!(runner, Runner::Child(_));
        let threads = match callers {
            Callers::Threads(threads) => threads,
            Callers::Source | Callers::Slides => 1,
        };
        let count = match concurrency {
            Concurrency::PerWorker => threads.max(1),
            Concurrency::Parallel if isolated => threads.max(1),
            Concurrency::Serial | Concurrency::Parallel => 1,
        };
        // Processes are started when they are needed, and so are the instances of slides made; the first at once, so that what it says
        // against its parameters is heard.
        let at_once = if isolated { 1 } else { count };
        let free = (1..=at_once as u64)
            .map(|number| Instance::new(&runner, &who, &parameters, number).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let by_slide = match (&runner, callers) {
            (_, Callers::Threads(_)) | (Runner::Here(_), Callers::Source) => false,
            (Runner::Here(stage), Callers::Slides) => stage.finish.is_none(),
            // Known since the first one was made.
            (Runner::Child(cradle), Callers::Source | Callers::Slides) => !cradle.finishes(),
        };
        if let Runner::Child(cradle) = &runner {
            cradle.set_by_slide(by_slide);
        }
        let alone = by_slide && !isolated && concurrency == Concurrency::Serial;
        Ok(Shelf {
            stage: runner.table(),
            who,
            runner,
            parameters,
            overlapping: concurrency == Concurrency::Parallel && !isolated && !by_slide,
            stateful: !matches!(callers, Callers::Threads(_)),
            by_slide,
            alone: alone.then(Mutex::default),
            // The process of a call that takes too long is ended, and its instance comes back: that may take a moment.
            timeout: if isolated { timeout + GRACE } else { timeout },
            all: Mutex::new(Instances {
                free,
                lone: Vec::new(),
                out: Vec::new(),
                waiting: 0,
                given_up: Vec::new(),
                spare: count - at_once,
                refused: None,
            }),
            back: Condvar::new(),
            making: Mutex::new(()),
            made: AtomicU64::new(at_once as u64),
            replaced: AtomicU64::new(0),
        })
    }

    /// An instance more; why it could not be made is kept for who asks next. The header promises that one is made at a time.
    fn fresh(&self) -> Option<Arc<Instance>> {
        self.another(&self.making())
    }

    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn another(&self, _alone: &MutexGuard<()>) -> Option<Arc<Instance>> {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        match Instance::new(&self.runner, &self.who, &self.parameters, number) {
            Ok(fresh) => Some(Arc::new(fresh)),
            Err(error) => {
                self.all().refused = Some(error.said);
                None
            }
        }
    }

    /// Whether every call ends when its time is over.
    pub fn keeps_time(&self) -> bool {
        matches!(self.runner, Runner::Child(_))
    }

    /// Whether the stage has a function for the end of the run.
    pub fn finishes(&self) -> bool {
        match &self.runner {
            Runner::Here(stage) => stage.finish.is_some(),
            Runner::Child(cradle) => cradle.finishes(),
        }
    }

    /// Whether every open slide has an instance of its own.
    pub fn is_by_slide(&self) -> bool {
        self.by_slide
    }

    /// An instance that nobody has, for as long as a slide is open.
    pub fn lone(&self) -> Result<Arc<Instance>, CallError> {
        let one = match self.unused() {
            Some(one) => one,
            None => self.fresh().ok_or_else(|| {
                self.refused(match self.keeps_time() {
                    true => GONE,
                    false => status::FAIL,
                })
            })?,
        };
        self.all().lone.push(one.clone());
        Ok(one)
    }

    /// One that a slide left.
    fn unused(&self) -> Option<Arc<Instance>> {
        loop {
            // The lock is let go before one of them is: that may be the plugin's code.
            let one = self.all().free.pop()?;
            if !one.has_ended() {
                return Some(one);
            }
        }
    }

    /// Takes one back when its slide is closed, for the next.
    pub fn leave(&self, one: Arc<Instance>) {
        let mut all = self.all();
        let known = all.lone.iter().position(|lone| Arc::ptr_eq(lone, &one));
        if let Some(known) = known {
            all.lone.swap_remove(known);
        }
        if !one.is_over() {
            all.free.push(one);
        }
    }

    /// The turn of a call into an instance that a slide has to itself; `None` where calls of other slides may be under way as well.
    pub fn alone(&self) -> Option<MutexGuard<'_, ()>> {
        let alone = self.alone.as_ref()?;
        Some(alone.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many instances came in the place of one that panicked, hung or died.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::SeqCst)
    }

    /// Lets go of all, so that they are destroyed: no slide is open any more. What comes back waits for that.
    pub fn clear(&mut self) -> Ending {
        let all = self.all.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut left = std::mem::take(&mut all.free);
        left.append(&mut all.lone);
        left.extend(all.out.drain(..).map(|(one, _)| one));
        // Those whose calls came back after all.
        left.append(&mut all.given_up);
        self.runner.destroy(left)
    }

    fn all(&self) -> MutexGuard<'_, Instances> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance, for one call; waits until one is free, and tells `turn` when it does and when it no longer does. A call that does
    /// not come back has its instance for ever, and a new one takes that one's place; where that cannot be made, this fails.
    pub fn take(&self, turn: &Turn) -> Result<Arc<Instance>, CallError> {
        let mut all = self.all();
        if self.overlapping
            && let Some(one) = all.free.last()
        {
            return Ok(one.clone());
        }
        match all.out() {
            Some(one) => Ok(one),
            None => {
                drop(all);
                turn.waits();
                let one = self.awaited();
                turn.begins();
                one
            }
        }
    }

    fn awaited(&self) -> Result<Arc<Instance>, CallError> {
        let begun = Instant::now();
        let mut all = self.all();
        all.waiting += 1;
        loop {
            if let Some(one) = all.out() {
                all.waiting -= 1;
                return Ok(one);
            }
            let soon = match all.spare > 0 && !all.out.is_empty() {
                true => FURTHER.saturating_sub(begun.elapsed()),
                false => Duration::ZERO,
            };
            if all.spare > 0 && soon.is_zero() {
                all.spare -= 1;
                drop(all);
                let fresh = self.fresh();
                all = self.all();
                all.free.extend(fresh);
                continue;
            }
            let now = Instant::now();
            let since = all.out.iter_mut().map(|(_, at)| *at.get_or_insert(now));
            let oldest = since.min();
            let left = oldest.map_or(self.timeout, |since| {
                (since + self.timeout).saturating_duration_since(now)
            });
            if left.is_zero() && self.stateful && !self.keeps_time() {
                // It may be slow and well; if it hangs, nothing can be done in this process, and its watch tells of it.
                for (_, at) in &mut all.out {
                    *at = Some(now);
                }
                continue;
            }
            if left.is_zero() {
                drop(all);
                let fresh = self.fresh();
                all = self.all();
                let late = all.out.iter().position(|(_, since)| *since == oldest);
                match (late, fresh) {
                    (Some(late), Some(fresh)) => {
                        let (given_up, _) = all.out.swap_remove(late);
                        all.given_up.push(given_up);
                        self.replaced.fetch_add(1, Ordering::SeqCst);
                        all.free.push(fresh);
                    }
                    // The late one may still come back, for others.
                    (Some(late), None) => {
                        all.out[late].1 = Some(Instant::now());
                        all.waiting -= 1;
                        return Err(self.none_left(all.refused.clone()));
                    }
                    // It came back meanwhile.
                    (None, fresh) => all = self.without_place(all, fresh),
                }
                continue;
            }
            let wait = match soon.is_zero() {
                true => left.max(Duration::from_millis(10)),
                false => soon,
            };
            let back = self.back.wait_timeout(all, wait);
            (all, _) = back.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Why a call has no instance: the one that there is does not come back.
    fn none_left(&self, why: Option<Box<Said>>) -> CallError {
        let why = why.map_or_else(Said::default, |said| *said);
        let (plugin, timeout) = (&self.who.plugin, self.timeout);
        CallError::of(
            status::FAIL,
            Said {
                what: format!(
                    "{plugin} has been at another call for {timeout:?} [E0523], and could not be made anew: {}",
                    why.what
                ),
                ..why
            },
        )
    }

    /// Ends a call's claim on `one`. In the place of one that panicked or died comes a new one; where that cannot be made, the old
    /// one stays and fails every call.
    pub fn give_back(&self, one: Arc<Instance>) {
        // Held until there is one in its place: others who had it as well make none then.
        let alone = one.is_over().then(|| self.making());
        let mut all = self.all();
        let mut fresh = None;
        if let Some(alone) = &alone
            && self.place(&all, &one).is_some()
        {
            drop(all);
            fresh = self.another(alone);
            all = self.all();
        }
        match (self.place(&all, &one), fresh) {
            // All calls have the same one, which they leave where it is.
            (Some(at), Some(fresh)) if self.overlapping => {
                all.free[at] = fresh;
                self.replaced.fetch_add(1, Ordering::SeqCst);
            }
            (Some(_), None) if self.overlapping => {}
            (Some(at), fresh) => {
                let (known, _) = all.out.swap_remove(at);
                self.replaced
                    .fetch_add(fresh.is_some().into(), Ordering::SeqCst);
                self.free(&mut all, fresh.unwrap_or(known));
            }
            // One that was given up already has its successor.
            (None, fresh) => drop(self.without_place(all, fresh)),
        }
    }

    /// Where an instance is that a call has.
    fn place(&self, all: &Instances, one: &Arc<Instance>) -> Option<usize> {
        let is = |it: &Arc<Instance>| Arc::ptr_eq(it, one);
        match self.overlapping {
            true => all.free.iter().position(is),
            false => all.out.iter().position(|(out, _)| is(out)),
        }
    }

    /// One that was made for a place that has another now. In this process none is destroyed while others work.
    fn without_place<'a>(
        &'a self,
        mut all: MutexGuard<'a, Instances>,
        one: Option<Arc<Instance>>,
    ) -> MutexGuard<'a, Instances> {
        match &self.runner {
            Runner::Here(_) => {
                all.given_up.extend(one);
                all
            }
            Runner::Child(_) => {
                drop(all);
                drop(one);
                self.all()
            }
        }
    }

    /// To be had again.
    fn free(&self, all: &mut Instances, one: Arc<Instance>) {
        all.free.push(one);
        if all.waiting > 0 {
            self.back.notify_one();
        }
    }

    /// Why the stage gets no rows: its plugin keeps too many. Of processes the one that keeps most is ended, and the next, until it is
    /// not too much any more; one that is at a call meanwhile keeps what it has until the next.
    #[inline]
    pub fn refusal(&self, kept: &Kept) -> Option<CallError> {
        match kept.may_be_too_much() || self.keeps_time() {
            true => self.refusal_now(kept),
            false => None,
        }
    }

    fn refusal_now(&self, kept: &Kept) -> Option<CallError> {
        match &self.runner {
            Runner::Here(_) => kept
                .refusal(&self.who, 0)
                .map(|said| CallError::of(status::FAIL, said)),
            Runner::Child(cradle) => {
                while let Some(said) = kept.refusal(&self.who, cradle.copies()) {
                    if !self.end_keeper(cradle, &said) {
                        break;
                    }
                }
                None
            }
        }
    }

    /// Ends the process that keeps most inputs; whether there was one. The slide fails that has it to itself; else another takes its
    /// place.
    fn end_keeper(&self, cradle: &Cradle, said: &Said) -> bool {
        let keeps = |one: &Arc<Instance>| one.remote.as_ref().map_or(0, |remote| remote.keeps());
        let mut all = self.all();
        let instances = all.free.iter().chain(&all.lone);
        let most = instances
            .map(|one| (keeps(one), one))
            .max_by_key(|(n, _)| *n);
        let Some(one) = most.filter(|(n, _)| *n > 0).map(|(_, one)| one.clone()) else {
            return false;
        };
        let free = all.free.iter().position(|free| Arc::ptr_eq(free, &one));
        let free = free.map(|at| all.free.swap_remove(at));
        drop(all);
        if let Some(remote) = &one.remote {
            remote.end();
        }
        let line = format!("{}{}", said.what, cradle.was_ended(free.is_none()));
        self.who.line(Level::Error, &line);
        if let Some(free) = free {
            let fresh = self.fresh();
            self.replaced
                .fetch_add(fresh.is_some().into(), Ordering::SeqCst);
            // `one` lives on until the shelf is free again.
            self.free(&mut self.all(), fresh.unwrap_or(free));
        }
        true
    }

    /// Whether all calls have the same instance.
    #[inline]
    pub fn is_overlapping(&self) -> bool {
        self.overlapping
    }

    /// An instance that can be used, or why there is none.
    pub fn usable(&self, turn: &Turn) -> Result<Arc<Instance>, CallError> {
        let one = self.take(turn)?;
        match one.is_over() {
            false => Ok(one),
            true => self.anew(one, turn),
        }
    }

    /// One in the place of one that ended between two calls, or could not be made anew before.
    #[cold]
    fn anew(&self, over: Arc<Instance>, turn: &Turn) -> Result<Arc<Instance>, CallError> {
        self.give_back(over);
        let one = self.take(turn)?;
        if !one.is_over() {
            return Ok(one);
        }
        let isolated = one.remote.is_some();
        self.give_back(one);
        if isolated {
            return Err(self.refused(GONE));
        }
        let mut error = self.refused(status::PANIC);
        let why = match error.said.what.as_str() {
            "" => String::new(),
            why => format!(": {why}"),
        };
        let plugin = &self.who.plugin;
        error.said.what =
            format!("{plugin} panicked before [E0522], and could not be made anew{why}");
        Err(error)
    }

    /// Why the last instance could not be made.
    fn refused(&self, status: Status) -> CallError {
        let why = self.all().refused.clone();
        CallError::of(status, why.map_or_else(Said::default, |said| *said))
    }
}

impl Instances {
    /// One that is free, for a call.
    fn out(&mut self) -> Option<Arc<Instance>> {
        let one = self.free.pop()?;
        self.out
            .push((one.clone(), (self.waiting > 0).then(Instant::now)));
        Some(one)
    }
}
