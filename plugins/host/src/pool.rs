//! Calls into a stage's instances, from their beginning to their end.

use crate::batch::task::Task;
use crate::call::{Call, CallError};
use crate::inside::{self, inside};
use crate::instance::Instance;
use crate::kept::Kept;
use crate::patience::{self, Watched};
use crate::places::Taken;
use crate::shelf::Shelf;
use crate::who::Who;
use std::ffi::c_void;
use std::hint::cold_path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use weir_abi::desk::Said;
use weir_abi::stage::Stage;
use weir_abi::status::{self, Status};
use weir_runtime::stage::{Ending, Turn};

/// Which instance holds what a slide's calls left with it.
#[derive(Default)]
pub(crate) struct Holder {
    number: AtomicU64,
    /// The instance itself, where no other slide has it.
    own: Mutex<Option<Arc<Instance>>>,
}

impl Holder {
    /// Whether it is this instance. The first that is asked of becomes it.
    fn is_of(&self, instance: &Instance) -> bool {
        let number = instance.number;
        let known = self
            .number
            .compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
        known.map_or_else(|known| known == number, |_| true)
    }

    fn own(&self) -> MutexGuard<'_, Option<Arc<Instance>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stage of a pipeline in this process, to be called.
pub(crate) struct Pool {
    pub shelf: Shelf,
    /// Inputs that the plugin holds on to.
    kept: Kept,
}

/// What a call is given beside its place and task.
pub(crate) struct Lent<'a> {
    /// Which instance holds what it stands on: it fails when that one is there no more.
    pub holder: Option<&'a Holder>,
    /// Told when the plugin holds on to the input beyond the call: nobody can wait for its memory then.
    pub kept: &'a dyn Fn(),
    /// Told while it waits for an instance.
    pub turn: &'a Turn,
}

impl<'a> Lent<'a> {
    /// To what `holder` holds, or to whatever instance there is, for nothing that waits or is kept.
    fn to(holder: Option<&'a Holder>) -> Lent<'a> {
        const NOW: &Turn = &Turn::NOW;
        Lent {
            holder,
            kept: &|| (),
            turn: NOW,
        }
    }
}

impl Pool {
    /// As [`Shelf::new`]; `memory`: of the run, bytes.
    pub fn new(shelf: Shelf, memory: usize) -> Pool {
        let kept = Kept::within(memory);
        Pool { shelf, kept }
    }

    /// Begins to end it: what comes back waits for that.
    pub fn leave(mut self) -> Ending {
        let instances = self.shelf.clear();
        Box::new(move || {
            instances();
            // What it kept is told of once nothing of it is there.
            drop(self);
        })
    }

    /// Whose calls they are.
    pub fn who(&self) -> &Arc<Who> {
        &self.shelf.who
    }

    /// Looks after a call into a function, about the slide of that id, until what comes back is dropped; in a process of its own every
    /// call ends.
    pub fn watch(&self, function: &'static str, slide: Option<&str>) -> Option<Watched> {
        let here = !self.shelf.keeps_time();
        here.then(|| patience::watch(self.who(), function, slide))
    }

    /// A call: `enter` calls the plugin's function; what comes back is the task with what the plugin did.
    pub fn call(
        &self,
        task: Task,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        self.call_with(&Lent::to(None), task, enter)
    }

    /// A call that stands on what earlier calls left with their instance: it fails when that one is there no more.
    pub fn call_for(
        &self,
        holder: &Holder,
        task: Task,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        self.call_with(&Lent::to(Some(holder)), task, enter)
    }

    /// A call that is given all of that.
    pub fn call_with(
        &self,
        lent: &Lent,
        task: Task,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Task, CallError> {
        let mut taken = Taken::take();
        *taken.task() = task;
        self.lend_another(&mut None, &mut taken, enter, lent)?;
        Ok(std::mem::take(taken.task()))
    }

    /// A call in that place, with the task that is there. `near`: of a thread that calls again soon, the instance that all calls have,
    /// where they have the same. One with an input that the plugin leaves pending is waited for, with its instance free for others.
    #[inline(always)]
    pub fn lend<'a>(
        &self,
        near: &mut Option<Arc<Instance>>,
        taken: &mut Taken,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
        lent: impl FnOnce() -> Lent<'a>,
    ) -> Result<(), CallError> {
        let shelf = &self.shelf;
        // Stages whose calls have the same instance are in this process.
        let one = near.as_ref().filter(|one| !one.is_spoiled());
        // Most calls of a thread have the instance of the last one, and come back well.
        if let Some(one) = one.filter(|_| !self.kept.may_be_too_much()) {
            let mut call = Call::open(&shelf.who, taken);
            let said = call.inside_again(|call| enter(shelf.stage, one.me, call));
            if call.ends_well(said) {
                return Ok(());
            }
            cold_path();
            let one = one.clone();
            if said == status::PANIC {
                one.spoil();
            }
            return self.returned(call, said, one, near, &lent());
        }
        cold_path();
        self.lend_another(near, taken, enter, &lent())
    }

    /// The same, with an instance that the thread does not have yet.
    #[inline(never)]
    fn lend_another(
        &self,
        near: &mut Option<Arc<Instance>>,
        taken: &mut Taken,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
        lent: &Lent,
    ) -> Result<(), CallError> {
        let shelf = &self.shelf;
        if taken.task().may_wait()
            && let Some(refusal) = shelf.refusal(&self.kept)
        {
            return Err(refusal);
        }
        let own = lent.holder.filter(|_| shelf.is_by_slide());
        let instance = match own {
            Some(holder) => self.own(holder)?,
            None => shelf.usable(lent.turn)?,
        };
        let alone = own.and_then(|_| shelf.alone());
        if lent.holder.is_some_and(|holder| !holder.is_of(&instance)) {
            self.back(instance, own);
            return Err(lost(&shelf.who));
        }
        let call = Call::open(&shelf.who, taken);
        let said = call.inside(|call| enter(shelf.stage, instance.me, call));
        if said == status::PANIC {
            instance.spoil();
        }
        drop(alone);
        self.returned(call, said, instance, near, lent)
    }

    /// Ends a call that returned, or waits for its end where the plugin left it pending.
    #[inline(never)]
    fn returned(
        &self,
        call: Call<&mut Taken>,
        said: Status,
        instance: Arc<Instance>,
        near: &mut Option<Arc<Instance>>,
        lent: &Lent,
    ) -> Result<(), CallError> {
        // Others may use it meanwhile.
        let pending = said == status::PENDING && call.may_wait();
        let waited = pending.then(|| instance.clone());
        let own = lent.holder.filter(|_| self.shelf.is_by_slide());
        *near = None;
        match self.shelf.is_overlapping() && !instance.is_over() && inside::is_usual() {
            true => *near = Some(instance),
            false => self.back(instance, own),
        }
        match waited {
            Some(instance) => self.awaited(call, &instance, lent.kept),
            None => self.ended(call, said, false, lent.kept),
        }
    }

    /// Ends a call's claim on an instance, which is a slide's own or not.
    fn back(&self, instance: Arc<Instance>, own: Option<&Holder>) {
        if own.is_none() {
            self.shelf.give_back(instance);
        }
    }

    /// Ends a call that the plugin left pending, when that completes it.
    #[cold]
    fn awaited(
        &self,
        call: Call<&mut Taken>,
        instance: &Instance,
        kept: &dyn Fn(),
    ) -> Result<(), CallError> {
        let timeout = self.shelf.timeout;
        let cancel = || {
            if let Some(cancel) = self.shelf.stage.cancel {
                // SAFETY: the instance lives, and `cancel` may be called from any thread.
                inside(&self.shelf.who, 0, || unsafe { cancel(instance.me) });
            }
        };
        let Some(said) = call.wait(timeout, cancel) else {
            cancel();
            // A thread of the plugin's may be at it for ever.
            instance.spoil();
            if let Some(input) = call.desk().ok().and_then(|desk| desk.task.input().cloned()) {
                kept();
                self.kept.note(&input, &self.shelf.who);
            }
            return Err(call.give_up(timeout));
        };
        if said == status::PANIC {
            instance.spoil();
        }
        self.ended(call, said, true, kept)
    }

    /// Ends a call, which the plugin left pending or not, and notes its input where the plugin holds on to it.
    fn ended(
        &self,
        mut call: Call<&mut Taken>,
        said: Status,
        pending: bool,
        kept: &dyn Fn(),
    ) -> Result<(), CallError> {
        let done = call.over(said, pending);
        let task = call.task();
        // One reference is this one.
        if let Some(input) = task.input()
            && Arc::strong_count(input) > 1
        {
            kept();
            self.kept.note(input, &self.shelf.who);
        }
        if let Task::Rows(rows) = task {
            // What was emitted is handed on, and what it keeps of that beside is its rows' memory twice.
            for draft in rows.drafts.iter().filter_map(Weak::upgrade) {
                draft.set_apart();
                self.kept.note(&draft, &self.shelf.who);
            }
        }
        done.map_err(|error| error.by(&self.shelf.who))
    }

    /// The instance that is the slide's alone.
    fn own(&self, holder: &Holder) -> Result<Arc<Instance>, CallError> {
        let mut own = holder.own();
        if let Some(one) = &*own {
            return match one.is_over() {
                true => Err(lost(&self.shelf.who)),
                false => Ok(one.clone()),
            };
        }
        let one = self.shelf.lone()?;
        *own = Some(one.clone());
        Ok(one)
    }

    /// A call about the end of a slide, which answers with nothing and cannot fail; nothing of the slide is asked after it.
    pub fn close(&self, holder: &Holder, enter: impl FnOnce(&Stage, *mut c_void)) {
        let enter = |one: &Instance| {
            if !one.is_over() {
                inside(&self.shelf.who, 0, || enter(self.shelf.stage, one.me));
            }
        };
        if self.shelf.is_by_slide() {
            let own = holder.own().clone();
            if let Some(one) = own {
                let _alone = self.shelf.alone();
                enter(&one);
            }
            self.left(holder);
        } else if let Ok(one) = self.shelf.take(&Turn::default()) {
            enter(&one);
            self.shelf.give_back(one);
        }
    }

    /// Takes back the instance that a slide had to itself, for the next one.
    pub fn left(&self, holder: &Holder) {
        if let Some(one) = holder.own().take() {
            self.shelf.leave(one);
        }
    }
}

/// Why a call fails whose slide's earlier calls went to an instance that is gone.
fn lost(who: &Who) -> CallError {
    CallError::of(
        status::FAIL,
        Said {
            what: format!(
                "{} lost what it held of the slide when it panicked, hung or died [E0521]",
                who.plugin
            ),
            help: "see the log for how; the slide can be run again".into(),
            ..Said::default()
        },
    )
}

impl Drop for Pool {
    fn drop(&mut self) {
        // What they hold they give back in destroy().
        self.shelf.clear()();
        self.kept.left(&self.shelf.who);
    }
}
