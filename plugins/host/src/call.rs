//! A call into a plugin: what it was given, and what the plugin says until it returns or completes.
//!
//! The address of a [`Call`] is the `weir_call *` of the header. It stays valid until whoever made it drops it, which is after the
//! plugin returned and, where it said WEIR_PENDING, after it completed.

use crate::batch::HostBatch;
use crate::log::{Level, Log};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use weir_abi::status::{self, Status};
use weir_record::{Body, Lease, Slab};
use weir_runtime::Stop;
use weir_runtime::stage::StageError;

/// Whose call it is, for messages; and what all calls of a stage have in common.
pub struct Who {
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

/// What a plugin said of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub what: String,
    pub param: String,
    pub help: String,
}

/// Which row a row that was emitted is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Made of this row of the input.
    Input(u32),
    /// This tile (its word) of the slide that the call speaks of.
    Tile { slide: u64, tile: u64 },
}

/// What a plugin handed on, in its order.
#[derive(Debug)]
pub(crate) enum Told {
    Made {
        port: usize,
        place: Place,
        body: Body,
    },
    Skipped {
        row: u32,
        reason: Arc<str>,
    },
    Failed {
        row: u32,
        said: Said,
    },
}

/// What a call may do beside saying that it failed.
pub(crate) enum Task {
    /// Nothing: loading, creating, opening, reading.
    Setup,
    /// Rows of an input to rows of outputs.
    Rows {
        input: Arc<HostBatch>,
        outputs: Arc<[crate::columns::Output]>,
        /// Leases on what is made of each row; empty where none were asked for.
        leases: Mutex<Vec<Option<Lease>>>,
    },
    /// Rows of slides that the stage itself names: a reduce.
    Slides {
        outputs: Arc<[crate::columns::Output]>,
        slides: Arc<Mutex<crate::reduce::Known>>,
    },
}

/// A number that nothing else of this process has; from 1 on.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A call.
pub struct Call {
    /// No other call of this process has it.
    pub(crate) number: u64,
    pub(crate) who: Arc<Who>,
    pub(crate) task: Task,
    desk: Mutex<Desk>,
    over: Condvar,
}

#[derive(Default)]
struct Desk {
    closed: bool,
    completed: Option<Status>,
    error: Option<Said>,
    /// The first thing that was done against the rules.
    breach: Option<String>,
    told: Vec<Told>,
}

impl Call {
    pub(crate) fn new(who: Arc<Who>, task: Task) -> Arc<Call> {
        Arc::new(Call {
            number: next_number(),
            who,
            task,
            desk: Mutex::default(),
            over: Condvar::new(),
        })
    }

    /// A call that makes no rows.
    pub(crate) fn setup(who: Arc<Who>) -> Arc<Call> {
        Call::new(who, Task::Setup)
    }

    /// As the plugin knows it.
    pub(crate) fn as_ptr(self: &Arc<Call>) -> *mut weir_abi::Call {
        Arc::as_ptr(self).cast_mut().cast()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin broke a rule: noted once, told in the log, and the call fails (E0520).
    pub(crate) fn breach(&self, what: impl Into<String>) -> Status {
        let what = what.into();
        self.log(Level::Error, &what);
        self.desk().breach.get_or_insert(what);
        status::USE
    }

    pub(crate) fn fail(&self, said: Said) {
        self.desk().error = Some(said);
    }

    pub(crate) fn log(&self, level: Level, text: &str) {
        self.who.log.line(level, &self.who.stage, text);
    }

    /// Notes what the plugin hands on; an error when the call is over.
    pub(crate) fn tell(&self, told: impl IntoIterator<Item = Told>) -> Status {
        let mut desk = self.desk();
        if desk.closed || desk.completed.is_some() {
            drop(desk);
            return self.breach("it handed rows on after its call was over");
        }
        desk.told.extend(told);
        status::OK
    }

    pub(crate) fn complete(&self, said: Status) {
        let mut desk = self.desk();
        if desk.closed || desk.completed.is_some() {
            drop(desk);
            self.breach("it completed a call twice");
            return;
        }
        desk.completed = Some(said);
        drop(desk);
        self.over.notify_all();
    }

    /// Whether the plugin completed it.
    pub(crate) fn is_completed(&self) -> bool {
        self.desk().completed.is_some()
    }

    /// Waits until the plugin completes a call that it left pending; `cancel` is called once when the run is being stopped.
    pub(crate) fn wait(&self, cancel: impl Fn()) -> Status {
        let mut cancelled = false;
        let mut desk = self.desk();
        loop {
            if let Some(said) = desk.completed {
                return said;
            }
            if !cancelled && self.who.stop.level() > 0 {
                cancelled = true;
                drop(desk);
                cancel();
                desk = self.desk();
                continue;
            }
            let (back, _) = self
                .over
                .wait_timeout(desk, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner);
            desk = back;
        }
    }

    /// Ends the call with what the plugin returned: what it handed on, or what was wrong.
    pub(crate) fn end(&self, said: Status) -> Result<Vec<Told>, CallError> {
        let mut desk = self.desk();
        desk.closed = true;
        if let Some(breach) = desk.breach.take() {
            return Err(CallError {
                status: status::USE,
                said: Said {
                    what: format!("{} broke the contract [E0520]: {breach}", self.who.plugin),
                    param: String::new(),
                    help: "this is a fault of the plugin: please report it to its author".into(),
                },
            });
        }
        if said == status::OK {
            return Ok(std::mem::take(&mut desk.told));
        }
        let error = desk.error.take();
        drop(desk);
        Err(self.error(said, error))
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
                    told.help =
                        "this is a fault of the plugin: please report it to its author".into();
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
                told.help = "this is a fault of the plugin: please report it to its author".into();
            }
        }
        CallError {
            status: said,
            said: told,
        }
    }
}

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
