//! A call into a plugin: what it was given, and what the plugin says until it returns or completes.
//!
//! A [`Call`] is the host's; the `weir_call *` of the header is its number, under which [`At`] finds it as long as it is open.

use crate::batch::task::Task;
use crate::inside::{inside, inside_again};
use crate::log::Level;
use crate::places::{AtDesk, Place, Taken, named};
use crate::who::Who;
use std::borrow::BorrowMut;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};
use weir_abi::desk::Said;
use weir_abi::status::{self, Status};
use weir_runtime::stage::StageError;

/// The status of a call whose process ended; the call was told how. No function of a plugin returns it.
pub(crate) const GONE: Status = i32::MIN;

/// A number that nothing else of this process has; from 1 on.
pub(crate) fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A call that a plugin names: open, or over.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub number: u64,
    place: &'static Place,
}

/// What a plugin is told that uses a call which is over.
#[cold]
fn over() -> String {
    "it used a call that was over".into()
}

/// What a plugin is told that hands rows on in a call which it completed.
#[cold]
fn late() -> String {
    "it handed rows on after its call was over".into()
}

impl At {
    /// As the plugin knows it.
    pub fn as_ptr(&self) -> *mut weir_abi::Call {
        std::ptr::without_provenance_mut(self.number as usize)
    }

    /// Whether it is open and may return before it is done.
    pub fn may_wait(&self) -> bool {
        self.desk().is_ok_and(|desk| desk.task.may_wait())
    }

    /// Whether rows of an input are to become rows of outputs.
    pub fn makes_rows(&self) -> bool {
        self.desk()
            .is_ok_and(|desk| matches!(desk.task, Task::Rows(_)))
    }

    /// `None` where no call ever was.
    #[inline]
    pub fn find(of: *mut weir_abi::Call) -> Option<At> {
        At::numbered(of.addr() as u64)
    }

    /// The same by its number.
    #[inline]
    pub fn numbered(number: u64) -> Option<At> {
        let place = named(number)?;
        Some(At { number, place })
    }

    /// The call's desk while it is open.
    #[inline(always)]
    pub fn at_desk(&self) -> Option<AtDesk<'static>> {
        self.place.desk(self.number)
    }

    /// The same, or what a plugin is told.
    #[inline]
    pub fn desk(&self) -> Result<AtDesk<'static>, String> {
        self.at_desk().ok_or_else(over)
    }

    /// The same, while the plugin may hand rows on.
    pub fn telling(&self) -> Result<AtDesk<'static>, String> {
        let desk = self.desk()?;
        match desk.completed {
            None => Ok(desk),
            Some(_) => Err(late()),
        }
    }

    /// Whose call it is; of one that is over, as long as that is known.
    pub fn who(&self) -> Option<Arc<Who>> {
        self.place.whose(self.number)
    }

    /// The same while it is open.
    pub fn open(&self) -> Option<Arc<Who>> {
        self.desk().ok()?;
        self.who()
    }

    /// The plugin broke a rule: noted once, told in the log, and the call fails (E0520). Of a call that is over only the log is told,
    /// as long as it is known whose it was.
    pub fn breach(&self, what: impl Into<String>) -> Status {
        let what = what.into();
        if let Ok(mut desk) = self.desk() {
            desk.breach.get_or_insert_with(|| what.as_str().into());
        }
        if let Some(who) = self.who() {
            let line = format!("{} broke the contract [E0520]: {what}", who.plugin);
            who.line(Level::Error, &line);
        }
        status::USE
    }

    pub fn fail(&self, said: Said) {
        if let Ok(mut desk) = self.desk() {
            desk.error = Some(Box::new(said));
        }
    }

    pub fn log(&self, level: Level, text: &str) {
        if let Some(who) = self.who() {
            who.line(level, text);
        }
    }

    pub fn complete(&self, said: Status) {
        let waiter = match self.desk() {
            Ok(mut desk) if desk.completed.is_none() => {
                desk.completed = Some(said);
                Some(desk.waiter.take())
            }
            _ => None,
        };
        match waiter {
            // It may not wait yet, or not at all.
            Some(waiter) => waiter.iter().for_each(Thread::unpark),
            None => {
                self.breach("it completed a call twice, or after it was over");
            }
        }
    }
}

/// A call, as the host holds it. It is over when its place is given back, or is the caller's again.
pub(crate) struct Call<'w, P: BorrowMut<Taken> = Taken> {
    who: &'w Arc<Who>,
    at: At,
    taken: P,
}

impl<'w> Call<'w> {
    /// A call with a place of its own.
    pub(crate) fn new(who: &'w Arc<Who>, task: Task) -> Call<'w> {
        let mut taken = Taken::take();
        *taken.task() = task;
        Call::open(who, taken)
    }

    /// A call that makes no rows.
    pub(crate) fn setup(who: &'w Arc<Who>) -> Call<'w> {
        Call::new(who, Task::Setup)
    }

    /// Ends the call with what the plugin returned: its task with what it did, or what was wrong.
    pub(crate) fn end(mut self, said: Status) -> Result<Task, CallError> {
        self.over(said, false)?;
        Ok(std::mem::take(self.taken.task()))
    }

    /// Ends a call that failed.
    pub(crate) fn close(self, said: Status) -> Said {
        let who = self.who;
        match self.end(said) {
            Err(error) => *error.by(who).said,
            Ok(_) => Said {
                what: format!("{} gave nothing", who.plugin),
                ..Said::default()
            },
        }
    }
}

impl<'w, P: BorrowMut<Taken>> Call<'w, P> {
    /// A call in a place that has none, with the task that is there.
    #[inline(always)]
    pub(crate) fn open(who: &'w Arc<Who>, mut taken: P) -> Call<'w, P> {
        let (number, place) = taken.borrow_mut().open(who);
        let at = At { number, place };
        Call { who, at, taken }
    }

    /// As the host's functions know it.
    #[cfg(test)]
    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// Runs the plugin's function that the call is for, which is given it.
    #[inline]
    pub(crate) fn inside<T>(&self, code: impl FnOnce(*mut weir_abi::Call) -> T) -> T {
        inside(self.who, self.number, || code(self.as_ptr()))
    }

    /// The same where the last call of this thread was the stage's too.
    #[inline(always)]
    pub(crate) fn inside_again<T>(&self, code: impl FnOnce(*mut weir_abi::Call) -> T) -> T {
        inside_again(self.who, self.number, || code(self.as_ptr()))
    }

    /// Waits until the plugin completes a call that it left pending, but no longer than `timeout`: then `None`. `cancel` is called
    /// once when the run is being stopped.
    pub(crate) fn wait(&self, timeout: Duration, cancel: impl Fn()) -> Option<Status> {
        const GLANCE: Duration = Duration::from_millis(50);
        let until = Instant::now() + timeout;
        let mut cancelled = false;
        loop {
            if let Ok(mut desk) = self.desk() {
                if desk.completed.is_some() {
                    return desk.completed;
                }
                desk.waiter = Some(std::thread::current());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if !cancelled && self.who.stop.level() > 0 {
                cancelled = true;
                cancel();
                continue;
            }
            std::thread::park_timeout(left.min(GLANCE));
        }
    }

    /// Ends a call that the plugin did not complete in time. It may go on for ever, so what it was given stays where it is.
    pub(crate) fn give_up(mut self, timeout: Duration) -> CallError {
        std::mem::take(self.taken.borrow_mut().task()).leak();
        let plugin = &self.who.plugin;
        CallError::of(
            status::FAIL,
            Said {
                what: format!(
                    "{plugin} left a call pending and did not complete it within {timeout:?} [E0523]"
                ),
                param: String::new(),
                help: "give the stage a longer `run.timeout`, if it needs it; else this is a fault of the plugin".into(),
            },
        )
    }

    /// Ends the call with what the plugin returned, or with what it completed it with where it left it `pending`; says what was wrong.
    /// What it did is in its place.
    #[inline(always)]
    pub(crate) fn over(&mut self, said: Status, pending: bool) -> Result<(), CallError> {
        let desk = self.taken.borrow_mut().close();
        let completed = desk.end();
        match said == status::OK && desk.is_clean() && (pending || !completed) {
            true => Ok(()),
            false => self.wrong(said, completed && !pending),
        }
    }

    /// Ends the call where the plugin returned that all is well and it is, and the plugin holds on to nothing: most do.
    #[inline(always)]
    pub(crate) fn ends_well(&mut self, said: Status) -> bool {
        if said != status::OK {
            return false;
        }
        let desk = self.taken.borrow_mut().close();
        desk.is_clean() && desk.task.is_left()
    }

    /// What the call is given and does, once it is over.
    #[inline]
    pub(crate) fn task(&mut self) -> &mut Task {
        self.taken.borrow_mut().task()
    }

    /// What was wrong with a call that is over, if anything was.
    #[cold]
    fn wrong(&mut self, said: Status, completed: bool) -> Result<(), CallError> {
        let desk = self.taken.borrow_mut().close();
        let (mut breach, error) = (desk.breach.take(), desk.error.take());
        if completed && breach.is_none() {
            let what = "it completed a call and did not return WEIR_PENDING";
            self.log(Level::Error, what);
            breach = Some(what.into());
        }
        match breach {
            Some(breach) => {
                let what = format!("{} broke the contract [E0520]: {breach}", self.who.plugin);
                Err(CallError::of(
                    status::USE,
                    Said {
                        what,
                        param: String::new(),
                        help: FAULT.into(),
                    },
                ))
            }
            None if said == status::OK => Ok(()),
            None => Err(self.error(said, error.map(|error| *error))),
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
            GONE | status::PARAM if !unsaid => {}
            said if !unsaid && WORDS.contains(&said) => {}
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
        CallError::of(said, told)
    }
}

impl<P: BorrowMut<Taken>> Deref for Call<'_, P> {
    type Target = At;
    #[inline]
    fn deref(&self) -> &At {
        &self.at
    }
}

/// With these a plugin says what was wrong.
const WORDS: [Status; 5] = [
    status::FAIL,
    status::RETRY,
    status::MEMORY,
    status::CANCELLED,
    status::UNSUPPORTED,
];

/// What to do about a plugin that breaks the contract.
pub(crate) const FAULT: &str = "this is a fault of the plugin: please report it to its author";

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    pub status: Status,
    /// In a box: of most calls there is none, and every one hands the place for it on.
    pub said: Box<Said>,
}

impl CallError {
    pub fn of(status: Status, said: Said) -> CallError {
        let said = Box::new(said);
        CallError { status, said }
    }

    /// With the plugin's name before words of its own, for where nothing else names it: a parameter's stand under its line of the file,
    /// a reader's behind the reader.
    #[cold]
    pub fn by(mut self, who: &Who) -> CallError {
        if WORDS.contains(&self.status) && !self.said.what.starts_with(&who.plugin) {
            self.said.what = format!("{}: {}", who.plugin, self.said.what);
        }
        self
    }
}

impl From<CallError> for StageError {
    fn from(error: CallError) -> StageError {
        StageError::new(error.said.what, error.said.help)
    }
}
