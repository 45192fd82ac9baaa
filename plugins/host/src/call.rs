//! A call into a plugin: what it was given, and what the plugin says until it returns or completes.
//!
//! A [`Call`] is the host's; the `weir_call *` of the header is its number, under which [`At`] finds it as long as it is open.

use crate::batch::HostBatch;
use crate::columns::Output;
use crate::log::{Level, Log};
use crate::outcomes::{Asked, Outcomes};
use crate::places::{Place, Taken, named};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
pub(crate) use weir_abi::desk::Said;
use weir_abi::status::{self, Status};
use weir_record::{Body, Lease, Slab};
use weir_runtime::Stop;
use weir_runtime::stage::StageError;

/// Whose call it is, for messages; and what all calls of a stage have in common.
pub(crate) struct Who {
    /// The stage's name in the pipeline file; empty while a plugin is loaded.
    pub(crate) stage: String,
    /// As "plugin `stain` 0.3.1".
    pub(crate) plugin: String,
    /// As `stain`.
    pub(crate) plugin_name: String,
    pub(crate) log: Log,
    pub(crate) counters: crate::log::Counters,
    pub(crate) stop: Stop,
    pub(crate) folder: PathBuf,
    pub(crate) slab: Option<Slab>,
}

impl Who {
    pub(crate) fn plugin(name: &str, version: &semver::Version) -> Who {
        Who {
            stage: String::new(),
            plugin: format!("plugin `{name}` {version}"),
            plugin_name: name.to_owned(),
            log: Log::default(),
            counters: Default::default(),
            stop: Stop::default(),
            folder: PathBuf::new(),
            slab: None,
        }
    }
}

/// The status of a call whose process ended; the call was told how. No function of a plugin returns it.
pub(crate) const GONE: Status = i32::MIN;

/// What a call may do beside saying that it failed, and what it did.
#[derive(Default)]
pub(crate) enum Task {
    /// Nothing: loading, creating, opening, reading.
    #[default]
    Setup,
    /// Takes rows in: of a reduce or a sink.
    Take(Arc<HostBatch>),
    /// Rows of an input to rows of outputs.
    Rows(Box<Rows>),
    /// Rows of slides that the stage itself names: a reduce.
    Slides(Slides),
}

/// Rows of an input, and what becomes of them.
pub(crate) struct Rows {
    pub input: Arc<HostBatch>,
    pub outputs: Arc<[Output]>,
    /// Leases on what is made of each row; empty where none were asked for.
    pub leases: Vec<Option<Lease>>,
    /// Of which rows a batch was made, on which output.
    pub made: Asked,
    pub outcomes: Outcomes,
}

/// Rows of a slide.
pub(crate) struct Slides {
    pub outputs: Arc<[Output]>,
    pub slides: Arc<std::sync::Mutex<crate::reduce::Known>>,
    /// What was made, in its order.
    pub made: Vec<OfSlide>,
    /// Of which tiles a row was made, on which output.
    pub rows: BTreeSet<(usize, u64)>,
}

impl Slides {
    /// A row of a tile on an output: once each, since every one takes memory that only the number of tiles bounds.
    pub fn made(&mut self, row: OfSlide) -> Result<(), String> {
        if !self.rows.insert((row.port, row.tile)) {
            return Err(TWO_ROWS.into());
        }
        self.made.push(row);
        Ok(())
    }
}

/// What a reduce is told that makes more of a tile than one row.
pub(crate) const TWO_ROWS: &str = "it gave a tile two rows on one output";

/// A row that a reduce made.
#[derive(Debug)]
pub(crate) struct OfSlide {
    pub port: usize,
    /// The tile's word.
    pub tile: u64,
    pub body: Body,
}

impl Task {
    /// What is left of it by a plugin that may read its input for ever.
    fn leak(self) {
        match self {
            Task::Take(input) => {
                input.keep();
                std::mem::forget(input);
            }
            Task::Rows(rows) => {
                rows.input.keep();
                std::mem::forget(rows.input);
            }
            Task::Setup | Task::Slides(_) => {}
        }
    }
}

/// A number that nothing else of this process has; from 1 on.
pub(crate) fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What is known of a call, in its place.
#[derive(Default)]
pub(crate) struct Desk {
    /// The call's; of the last one when none is open.
    number: u64,
    open: bool,
    /// Whose call it is, or was: a stage that is gone is not held on to, nor the run's memory with it.
    who: Weak<Who>,
    pub task: Task,
    completed: Option<Status>,
    error: Option<Said>,
    /// The first thing that was done against the rules.
    breach: Option<String>,
}

impl Desk {
    /// The number of the call that has the place, or had it last.
    #[cfg(test)]
    pub fn number(&self) -> u64 {
        self.number
    }

    #[cfg(test)]
    pub fn numbered(number: u64) -> Desk {
        Desk {
            number,
            ..Desk::default()
        }
    }

    pub fn who(&self) -> Option<Arc<Who>> {
        self.who.upgrade()
    }
}

/// A call that a plugin names: open, or over.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub number: u64,
    place: &'static Place,
}

/// What a plugin is told that uses a call which is over.
const OVER: &str = "it used a call that was over";

impl At {
    /// As the plugin knows it.
    pub fn as_ptr(&self) -> *mut weir_abi::Call {
        std::ptr::without_provenance_mut(self.number as usize)
    }

    /// Whether rows of an input are to become rows of outputs.
    pub fn makes_rows(&self) -> bool {
        matches!(self.place.desk().task, Task::Rows(_))
    }

    /// `None` where no call ever was.
    pub fn find(of: *mut weir_abi::Call) -> Option<At> {
        let number = of.addr() as u64;
        let place = named(number)?;
        Some(At { number, place })
    }

    /// The call's desk while it is open.
    pub fn desk(&self) -> Result<MutexGuard<'static, Desk>, String> {
        let desk = self.place.desk();
        match desk.open && desk.number == self.number {
            true => Ok(desk),
            false => Err(OVER.into()),
        }
    }

    /// The same, while the plugin may hand rows on.
    pub fn telling(&self) -> Result<MutexGuard<'static, Desk>, String> {
        let desk = self.desk()?;
        match desk.completed {
            None => Ok(desk),
            Some(_) => Err("it handed rows on after its call was over".into()),
        }
    }

    /// The plugin broke a rule: noted once, told in the log, and the call fails (E0520). Of a call that is over only the log is told,
    /// as long as it is known whose it was.
    pub fn breach(&self, what: impl Into<String>) -> Status {
        let what = what.into();
        let mut desk = self.place.desk();
        if desk.number != self.number {
            return status::USE;
        }
        let who = desk.who();
        if desk.open {
            desk.breach.get_or_insert_with(|| what.clone());
        }
        drop(desk);
        if let Some(who) = who {
            let line = format!("{} broke the contract [E0520]: {what}", who.plugin);
            who.log.line(Level::Error, &who.stage, &line);
        }
        status::USE
    }

    pub fn fail(&self, said: Said) {
        if let Ok(mut desk) = self.desk() {
            desk.error = Some(said);
        }
    }

    pub fn log(&self, level: Level, text: &str) {
        let who = {
            let desk = self.place.desk();
            desk.who().filter(|_| desk.number == self.number)
        };
        if let Some(who) = who {
            who.log.line(level, &who.stage, text);
        }
    }

    pub fn complete(&self, said: Status) {
        let first = match self.desk() {
            Ok(mut desk) if desk.completed.is_none() => {
                desk.completed = Some(said);
                true
            }
            _ => false,
        };
        match first {
            true => self.place.over.notify_all(),
            false => {
                self.breach("it completed a call twice, or after it was over");
            }
        }
    }
}

/// A call, as the host holds it; it is over when this is dropped.
pub(crate) struct Call {
    pub(crate) who: Arc<Who>,
    at: At,
    _taken: Taken,
    over: Cell<bool>,
    /// The task of a call that failed.
    failed: RefCell<Option<Task>>,
}

impl Call {
    pub(crate) fn new(who: Arc<Who>, task: Task) -> Call {
        let taken = Taken::take();
        let place = taken.place;
        let number = {
            let mut desk = place.desk();
            desk.number = taken.next(desk.number);
            desk.open = true;
            match &task {
                Task::Take(input) => input.belongs_to(desk.number),
                Task::Rows(rows) => rows.input.belongs_to(desk.number),
                Task::Setup | Task::Slides(_) => {}
            }
            if !std::ptr::eq(desk.who.as_ptr(), Arc::as_ptr(&who)) {
                desk.who = Arc::downgrade(&who);
            }
            desk.task = task;
            desk.completed = None;
            desk.error = None;
            desk.breach = None;
            desk.number
        };
        Call {
            who,
            at: At { number, place },
            _taken: taken,
            over: Cell::new(false),
            failed: RefCell::default(),
        }
    }

    /// What it was given, once it has failed.
    pub(crate) fn failed(&self) -> Option<Task> {
        self.failed.take()
    }

    /// As the host's functions know it.
    #[cfg(test)]
    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// A call that makes no rows.
    pub(crate) fn setup(who: Arc<Who>) -> Call {
        Call::new(who, Task::Setup)
    }

    /// Waits until the plugin completes a call that it left pending, but no longer than `timeout`: then `None`. `cancel` is called
    /// once when the run is being stopped.
    pub(crate) fn wait(&self, timeout: Duration, cancel: impl Fn()) -> Option<Status> {
        const GLANCE: Duration = Duration::from_millis(50);
        let until = Instant::now() + timeout;
        let mut cancelled = false;
        let mut desk = self.at.place.desk();
        loop {
            if let Some(said) = desk.completed {
                return Some(said);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if !cancelled && self.who.stop.level() > 0 {
                cancelled = true;
                drop(desk);
                cancel();
                desk = self.at.place.desk();
                continue;
            }
            let waited = self.at.place.over.wait_timeout(desk, left.min(GLANCE));
            (desk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a call that the plugin did not complete in time. It may go on for ever, so what it was given stays where it is.
    pub(crate) fn give_up(&self, timeout: Duration) -> CallError {
        let mut desk = self.at.place.desk();
        desk.open = false;
        self.over.set(true);
        let task = std::mem::take(&mut desk.task);
        drop(desk);
        task.leak();
        CallError {
            status: status::FAIL,
            said: Said {
                what: format!(
                    "{} left a call pending and did not complete it within {timeout:?} [E0523]",
                    self.who.plugin
                ),
                param: String::new(),
                help: "give the stage a longer `run.timeout`, if it needs it; else this is a fault of the plugin".into(),
            },
        }
    }

    /// Ends the call with what the plugin returned: its task with what it did, or what was wrong.
    pub(crate) fn end(&self, said: Status) -> Result<Task, CallError> {
        self.end_of(said, false)
    }

    /// The same of a call that the plugin left pending, with what it completed it with.
    pub(crate) fn end_completed(&self, said: Status) -> Result<Task, CallError> {
        self.end_of(said, true)
    }

    fn end_of(&self, said: Status, pending: bool) -> Result<Task, CallError> {
        let mut desk = self.at.place.desk();
        desk.open = false;
        self.over.set(true);
        let task = std::mem::take(&mut desk.task);
        let (mut breach, error) = (desk.breach.take(), desk.error.take());
        let completed = desk.completed.is_some();
        drop(desk);
        if completed && !pending && breach.is_none() {
            let what = "it completed a call and did not return WEIR_PENDING";
            self.log(Level::Error, what);
            breach = Some(what.into());
        }
        if let Some(breach) = breach {
            self.failed.replace(Some(task));
            return Err(CallError {
                status: status::USE,
                said: Said {
                    what: format!("{} broke the contract [E0520]: {breach}", self.who.plugin),
                    param: String::new(),
                    help: FAULT.into(),
                },
            });
        }
        match said {
            status::OK => Ok(task),
            said => {
                self.failed.replace(Some(task));
                Err(self.error(said, error))
            }
        }
    }

    /// Ends a call that failed.
    pub(crate) fn close(&self, said: Status) -> Said {
        match self.end(said) {
            Err(error) => error.said,
            Ok(_) => Said {
                what: format!("{} gave nothing", self.who.plugin),
                ..Said::default()
            },
        }
    }

    fn error(&self, said: Status, error: Option<Said>) -> CallError {
        let plugin = &self.who.plugin;
        let mut told = error.unwrap_or_default();
        let unsaid = told.what.is_empty();
        match said {
            status::PANIC => {
                let what = if unsaid { "no words" } else { &told.what };
                told.what = format!("{plugin} panicked [E0522]: {what}");
                if told.help.is_empty() {
                    told.help = FAULT.into();
                }
            }
            GONE if !unsaid => {}
            status::FAIL
            | status::RETRY
            | status::PARAM
            | status::MEMORY
            | status::CANCELLED
            | status::UNSUPPORTED
                if !unsaid => {}
            status::FAIL => told.what = format!("{plugin} failed without a word"),
            status::RETRY => told.what = format!("{plugin} could not, and asks to be tried again"),
            status::PARAM => told.what = format!("{plugin} refuses its parameters without a word"),
            status::MEMORY => told.what = format!("{plugin} ran out of memory"),
            status::CANCELLED => told.what = format!("{plugin} stopped, as it was asked to"),
            status::UNSUPPORTED => told.what = format!("{plugin} cannot do that"),
            other => {
                told.what = format!(
                    "{plugin} broke the contract [E0520]: it returned {other}, which is no status of that call"
                );
                told.help = FAULT.into();
            }
        }
        CallError {
            status: said,
            said: told,
        }
    }
}

impl Deref for Call {
    type Target = At;
    fn deref(&self) -> &At {
        &self.at
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Its `who` stays, so that a plugin that names it too late is still known.
        if !self.over.get() {
            self.at.place.desk().open = false;
        }
    }
}

/// What to do about a plugin that breaks the contract.
pub(crate) const FAULT: &str = "this is a fault of the plugin: please report it to its author";

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    pub status: Status,
    pub said: Said,
}

impl From<CallError> for StageError {
    fn from(error: CallError) -> StageError {
        StageError::new(error.said.what, error.said.help)
    }
}
