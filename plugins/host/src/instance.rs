//! Instances of a plugin's stage: made, shared as its manifest says, replaced after a panic, destroyed when nobody has them.

use crate::batch::HostBatch;
use crate::call::{Call, CallError, GONE, Said, Task, Who};
use crate::isolate::cradle::Cradle;
use crate::isolate::remote::Remote;
use crate::isolate::stand_in::STAGE;
use crate::kept::Kept;
use crate::log::Level;
use crate::manifest::Concurrency;
use crate::offer::HOST;
use crate::parameters::Parameters;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::stage::Stage;
use weir_abi::status::{self, Status};

/// How long ending a process may take.
const GRACE: Duration = Duration::from_secs(2);

/// How long a call waits for a process before a further one is started: as long as starting one may take.
const FURTHER: Duration = Duration::from_millis(20);

/// Where a stage's code runs.
pub(crate) enum Runner {
    /// In this process: the plugin's own table.
    Here(&'static Stage),
    /// In processes of its own: what stands in for the plugin, and what starts them.
    Child(Arc<Cradle>),
}

impl Runner {
    /// The functions that are called.
    fn table(&self) -> &'static Stage {
        match self {
            Runner::Here(stage) => stage,
            Runner::Child(_) => &STAGE,
        }
    }
}

/// A stage with its parameters.
pub(crate) struct Instance {
    stage: &'static Stage,
    me: *mut c_void,
    /// Of an isolated one: its process.
    remote: Option<Arc<Remote>>,
    /// Which of the stage's instances it is: the first is 1.
    number: u64,
    /// It panicked, or has a call that it does not end: it is used no more, and not destroyed either.
    spoiled: AtomicBool,
    /// What it was told lives as long as this, so it goes after `destroy`.
    _who: Arc<Who>,
}

// SAFETY: the header lets every function be called on any thread; `Pool` sees to how many at once.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    fn new(
        runner: &Runner,
        who: &Arc<Who>,
        parameters: &Parameters,
        number: u64,
    ) -> Result<Instance, CallError> {
        let (me, remote) = match runner {
            Runner::Here(stage) => (made(stage, who, parameters)?, None),
            Runner::Child(cradle) => {
                let remote = cradle.start(who, parameters)?;
                let me = Arc::into_raw(remote.clone()).cast_mut().cast();
                (me, Some(remote))
            }
        };
        Ok(Instance {
            stage: runner.table(),
            me,
            remote,
            number,
            spoiled: AtomicBool::new(false),
            _who: who.clone(),
        })
    }

    /// Whether it can be used no more.
    fn is_over(&self) -> bool {
        self.spoiled.load(Ordering::SeqCst)
            || self.remote.as_ref().is_some_and(|remote| remote.is_gone())
    }
}

/// An instance in this process.
fn made(stage: &Stage, who: &Arc<Who>, parameters: &Parameters) -> Result<*mut c_void, CallError> {
    let call = Call::setup(who.clone());
    let mut me = std::ptr::null_mut();
    let values = parameters.as_slice();
    let said = match stage.create {
        // SAFETY: as the header says: host, call and values live through the call.
        Some(create) => unsafe {
            create(
                &HOST,
                call.as_ptr(),
                values.as_ptr(),
                values.len() as u32,
                &mut me,
            )
        },
        None => status::UNSUPPORTED,
    };
    call.end(said)?;
    Ok(me)
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Of a process that is to end, nothing need be spared.
        let usable = self.remote.is_some() || !self.spoiled.load(Ordering::SeqCst);
        if let Some(destroy) = self.stage.destroy.filter(|_| usable) {
            // SAFETY: `create` made it, and every call into it holds a reference.
            unsafe { destroy(self.me) }
        }
    }
}

/// The instances of one stage of a pipeline in this process.
pub(crate) struct Pool {
    pub stage: &'static Stage,
    pub who: Arc<Who>,
    runner: Runner,
    parameters: Parameters,
    /// Of a stage whose calls may overlap, always the same one.
    overlapping: bool,
    /// Slides live on in it from call to call, so that no other can take its place while it works.
    stateful: bool,
    /// How long a call may take before its instance is given up.
    timeout: Duration,
    /// Inputs that the plugin holds on to.
    kept: Kept,
    shelf: Mutex<Shelf>,
    back: Condvar,
    /// Instances that were made.
    made: AtomicU64,
    /// Instances that came in the place of one that panicked, hung or died.
    replaced: AtomicU64,
}

/// Which instance holds what a slide's calls left with it.
#[derive(Debug, Default)]
pub(crate) struct Holder(AtomicU64);

impl Holder {
    /// Whether it is this instance. The first that is asked of becomes it.
    fn is_of(&self, instance: &Instance) -> bool {
        let number = instance.number;
        let known = self
            .0
            .compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
        known.map_or_else(|known| known == number, |_| true)
    }
}

struct Shelf {
    free: Vec<Arc<Instance>>,
    /// Those that a call has, and since when.
    out: Vec<(Arc<Instance>, Instant)>,
    /// Those whose call did not come back in time. Slides that they opened may be read yet, so they are kept.
    given_up: Vec<Arc<Instance>>,
    /// How many more may be made when none is free.
    spare: usize,
    /// Why the last one could not be made.
    refused: Option<Said>,
}

impl Pool {
    /// Makes the instances. `threads`: how many threads call, of which each has one where the manifest says so; `None` for a stage
    /// to which what is told of a slide and what is asked of it must go to the same instance, whichever thread it is. An isolated
    /// stage whose calls may overlap has one for each as well: a call that kills its process takes no other with it. `memory`: of the
    /// run, bytes.
    pub fn new(
        runner: Runner,
        who: Arc<Who>,
        parameters: Parameters,
        concurrency: Concurrency,
        threads: Option<usize>,
        timeout: Duration,
        memory: usize,
    ) -> Result<Pool, CallError> {
        let isolated = matches!(runner, Runner::Child(_));
        let stateful = threads.is_none();
        let threads = threads.unwrap_or(1);
        let count = match concurrency {
            Concurrency::PerWorker => threads.max(1),
            Concurrency::Parallel if isolated => threads.max(1),
            Concurrency::Serial | Concurrency::Parallel => 1,
        };
        // Processes are started when they are needed; the first at once, so that what it says against its parameters is heard.
        let at_once = if isolated { 1 } else { count };
        let free = (1..=at_once as u64)
            .map(|number| Instance::new(&runner, &who, &parameters, number).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Pool {
            stage: runner.table(),
            who,
            runner,
            parameters,
            overlapping: concurrency == Concurrency::Parallel && !isolated,
            stateful,
            // The process of a call that takes too long is ended, and its instance comes back: that may take a moment.
            timeout: if isolated { timeout + GRACE } else { timeout },
            kept: Kept::within(memory),
            shelf: Mutex::new(Shelf {
                free,
                out: Vec::new(),
                given_up: Vec::new(),
                spare: count - at_once,
                refused: None,
            }),
            back: Condvar::new(),
            made: AtomicU64::new(at_once as u64),
            replaced: AtomicU64::new(0),
        })
    }

    /// An instance more; why it could not be made is kept for who asks next.
    fn fresh(&self) -> Option<Arc<Instance>> {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        match Instance::new(&self.runner, &self.who, &self.parameters, number) {
            Ok(fresh) => Some(Arc::new(fresh)),
            Err(error) => {
                self.shelf().refused = Some(error.said);
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

    /// How many instances came in the place of one that panicked, hung or died.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::SeqCst)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance, for one call; waits until one is free. A call that does not come back has its instance for ever, and a new one
    /// takes that one's place.
    fn take(&self) -> Arc<Instance> {
        let mut shelf = self.shelf();
        if self.overlapping
            && let Some(one) = shelf.free.last()
        {
            return one.clone();
        }
        let since = Instant::now();
        loop {
            if let Some(one) = shelf.free.pop() {
                shelf.out.push((one.clone(), Instant::now()));
                return one;
            }
            let soon = match shelf.spare > 0 && !shelf.out.is_empty() {
                true => FURTHER.saturating_sub(since.elapsed()),
                false => Duration::ZERO,
            };
            if shelf.spare > 0 && soon.is_zero() {
                shelf.spare -= 1;
                drop(shelf);
                let fresh = self.fresh();
                shelf = self.shelf();
                if let Some(one) = fresh {
                    shelf.out.push((one.clone(), Instant::now()));
                    return one;
                }
            }
            let oldest = shelf.out.iter().map(|(_, since)| *since).min();
            let left = oldest.map_or(self.timeout, |since| {
                (since + self.timeout).saturating_duration_since(Instant::now())
            });
            if left.is_zero() && self.stateful && !self.keeps_time() {
                // It may be slow and well; if it hangs, nothing can be done about it in this process.
                for (_, since) in &mut shelf.out {
                    *since = Instant::now();
                }
                let line = format!(
                    "{} has been at one call for {:?} [E0523], and others wait for it: `isolate = true` would end it",
                    self.who.plugin, self.timeout
                );
                self.who.log.line(Level::Warn, &self.who.stage, &line);
                continue;
            }
            if left.is_zero() {
                drop(shelf);
                let fresh = self.fresh();
                shelf = self.shelf();
                let late = shelf
                    .out
                    .iter()
                    .position(|(_, since)| Some(*since) == oldest);
                match (late, fresh) {
                    (Some(late), Some(fresh)) => {
                        let (given_up, _) = shelf.out.swap_remove(late);
                        shelf.given_up.push(given_up);
                        self.replaced.fetch_add(1, Ordering::SeqCst);
                        shelf.free.push(fresh);
                    }
                    // No other can be made: the late one may still come back.
                    (Some(late), None) => shelf.out[late].1 = Instant::now(),
                    // It came back meanwhile.
                    (None, _) => {}
                }
                continue;
            }
            let (back, _) = self
                .back
                .wait_timeout(
                    shelf,
                    match soon.is_zero() {
                        true => left.max(Duration::from_millis(10)),
                        false => soon,
                    },
                )
                .unwrap_or_else(PoisonError::into_inner);
            shelf = back;
        }
    }

    /// Ends a call's claim on `one`. In the place of one that panicked or died comes a new one; where that cannot be made, the old
    /// one stays and fails every call.
    fn give_back(&self, one: Arc<Instance>) {
        if self.overlapping && !one.is_over() {
            return;
        }
        // One that finds no place is destroyed when the shelf is free again: that is the plugin's code.
        let mut fresh = one.is_over().then(|| self.fresh()).flatten();
        let made = fresh.is_some();
        let mut shelf = self.shelf();
        if self.overlapping {
            let mut places = shelf.free.iter_mut();
            if let Some(place) = places.find(|at| Arc::ptr_eq(at, &one))
                && let Some(fresh) = fresh.take()
            {
                *place = fresh;
                self.replaced.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
        let known = shelf.out.iter().position(|(out, _)| Arc::ptr_eq(out, &one));
        // One that was given up already has its successor.
        if let Some(known) = known {
            shelf.out.swap_remove(known);
            shelf.free.push(fresh.take().unwrap_or(one));
            self.replaced.fetch_add(made.into(), Ordering::SeqCst);
            self.back.notify_one();
        }
    }

    /// Why the stage gets no rows: its plugin keeps too many. Processes that do are ended, and others come in their places; one that is
    /// at a call meanwhile keeps what it has until the next.
    fn refusal(&self) -> Option<Said> {
        let Runner::Child(cradle) = &self.runner else {
            return self.kept.refusal(&self.who, 0);
        };
        let said = self.kept.refusal(&self.who, cradle.copies())?;
        let free = std::mem::take(&mut self.shelf().free);
        for one in free {
            let keeper = one.remote.as_ref();
            let Some(keeper) = keeper.filter(|remote| remote.line().keeps()) else {
                self.shelf().free.push(one);
                self.back.notify_one();
                continue;
            };
            keeper.give_up();
            let line = format!("{}; {}", said.what, cradle.died());
            self.who.log.line(Level::Error, &self.who.stage, &line);
            let (fresh, old) = match self.fresh() {
                Some(fresh) => (fresh, Some(one)),
                None => (one, None),
            };
            self.replaced
                .fetch_add(old.is_some().into(), Ordering::SeqCst);
            self.shelf().free.push(fresh);
            self.back.notify_one();
        }
        None
    }

    /// An instance that can be used. Else the call that is told why, to be ended with what comes back.
    fn usable(&self, call: &Call) -> Result<Arc<Instance>, Status> {
        let one = self.take();
        if !one.is_over() {
            return Ok(one);
        }
        // It ended between two calls, or could not be made anew before.
        self.give_back(one);
        let one = self.take();
        if !one.is_over() {
            return Ok(one);
        }
        let isolated = one.remote.is_some();
        self.give_back(one);
        let refused = self.shelf().refused.clone();
        call.fail(refused.unwrap_or_else(|| Said {
            what: "it panicked before, and could not be made anew".into(),
            ..Said::default()
        }));
        Err(if isolated { GONE } else { status::PANIC })
    }

    /// A call: `enter` calls the plugin's function; what comes back is the task with what the plugin did. A call that it leaves pending
    /// is waited for, with its instance free for others.
    pub fn call(
        &self,
        task: Task,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        self.call_of(None, task, &|| (), enter)
    }

    /// A call that stands on what earlier calls left with their instance: it fails when that one is there no more.
    pub fn call_for(
        &self,
        holder: &Holder,
        task: Task,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        self.call_of(Some(holder), task, &|| (), enter)
    }

    /// A call with an input, which may stand on what earlier ones left. `kept` is told when the plugin holds on to that beyond the call:
    /// nobody can wait for its memory then.
    pub fn lend(
        &self,
        holder: Option<&Holder>,
        task: Task,
        kept: &dyn Fn(),
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        self.call_of(holder, task, kept, enter)
    }

    fn call_of(
        &self,
        holder: Option<&Holder>,
        task: Task,
        kept: &dyn Fn(),
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        // Only process() may return before it is done.
        let may_wait = matches!(task, Task::Rows(_) | Task::Take(_));
        let call = Call::new(self.who.clone(), task);
        if may_wait && let Some(said) = self.refusal() {
            call.fail(said);
            return call.end(status::FAIL);
        }
        let instance = match self.usable(&call) {
            Ok(instance) => instance,
            Err(said) => return call.end(said),
        };
        if let Some(holder) = holder
            && !holder.is_of(&instance)
        {
            self.give_back(instance);
            call.fail(Said {
                what: format!(
                    "{} lost what it held of the slide when it panicked, hung or died [E0521]",
                    self.who.plugin
                ),
                help: "see the log for how; the slide can be run again".into(),
                ..Said::default()
            });
            return call.end(status::FAIL);
        }
        let mut said = enter(self.stage, instance.me, call.as_ptr());
        if said == status::PANIC {
            instance.spoiled.store(true, Ordering::SeqCst);
        }
        if said != status::PENDING || !may_wait {
            self.give_back(instance);
            return self.ended(&call, said, false, kept);
        }
        // Others may use it meanwhile.
        self.give_back(instance.clone());
        let cancel = || {
            if let Some(cancel) = self.stage.cancel {
                // SAFETY: the instance lives, and `cancel` may be called from any thread.
                unsafe { cancel(instance.me) }
            }
        };
        match call.wait(self.timeout, cancel) {
            Some(completed) => said = completed,
            None => {
                cancel();
                // A thread of the plugin's may be at it for ever.
                instance.spoiled.store(true, Ordering::SeqCst);
                if let Some(input) = input(&call) {
                    kept();
                    self.kept.note(&input, &self.who);
                }
                return Err(call.give_up(self.timeout));
            }
        }
        if said == status::PANIC {
            instance.spoiled.store(true, Ordering::SeqCst);
        }
        self.ended(&call, said, true, kept)
    }

    /// Ends a call, which the plugin left pending or not, and notes its input where the plugin holds on to it.
    fn ended(
        &self,
        call: &Call,
        said: Status,
        pending: bool,
        kept: &dyn Fn(),
    ) -> Result<Task, CallError> {
        let done = match pending {
            true => call.end_completed(said),
            false => call.end(said),
        };
        let failed = call.failed();
        let input = match done.as_ref().ok().or(failed.as_ref()) {
            Some(Task::Rows(rows)) => Some(&rows.input),
            Some(Task::Take(input)) => Some(input),
            _ => None,
        };
        // One reference is this one.
        if let Some(input) = input.filter(|input| Arc::strong_count(input) > 1) {
            kept();
            self.kept.note(input, &self.who);
        }
        done
    }

    /// A call that answers with nothing and cannot fail.
    pub fn tell(&self, enter: impl FnOnce(&Stage, *mut c_void)) {
        let instance = self.take();
        if !instance.is_over() {
            enter(self.stage, instance.me);
        }
        self.give_back(instance);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let shelf = self.shelf.get_mut().unwrap_or_else(PoisonError::into_inner);
        // What they hold they give back in destroy().
        shelf.free.clear();
        shelf.out.clear();
        self.kept.left(&self.who);
    }
}

/// The input of a call that is open.
fn input(call: &Call) -> Option<Arc<HostBatch>> {
    match &call.desk().ok()?.task {
        Task::Rows(rows) => Some(rows.input.clone()),
        Task::Take(input) => Some(input.clone()),
        Task::Setup | Task::Slides(_) => None,
    }
}
