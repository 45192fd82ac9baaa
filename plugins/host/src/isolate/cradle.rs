//! What starts the processes of an isolated stage or reader.

use crate::call::{Call, CallError};
use crate::columns::Output;
use crate::isolate::Isolated;
use crate::isolate::late::{Late, MOST};
use crate::isolate::line::START;
use crate::isolate::message::{Make, Op, request};
use crate::isolate::remote::Remote;
use crate::parameters::Parameters;
use crate::reader::SLOW;
use crate::who::Who;
use crate::wire::{Reader, Writer};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use weir_abi::desk::Said;
use weir_abi::status;
use weir_record::{Arena, Budget};

/// So many deaths of a stage's or reader's processes in a row, and no further one is started: at their work without one that answers
/// between, or before they were ready for it. However large a run is, one that works now and then goes on.
const RESTARTS: u32 = 100;

/// How long making an instance may take where a call may not take longer: it may read a model.
const MAKE: Duration = Duration::from_secs(60);

/// How long a call into a reader may take where nobody says it.
const READER: Duration = Duration::from_secs(60);

/// What comes of the death of a process that a slide had to itself.
const LOST: &str = "; what it held of its slide is lost, and the next slide gets a fresh process";

/// How far a process came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It loads the plugin and makes what it is for.
    Begins,
    Works,
    /// It is asked for nothing more.
    Ends,
}

/// A stage or reader of a plugin that is isolated: starts its processes.
#[derive(Debug)]
pub(crate) struct Cradle {
    isolated: Isolated,
    make: Make,
    /// How long a call may take.
    pub timeout: Duration,
    /// Of the run: memory that its processes and the host share is missing for others. Of a reader it is the slide's.
    budget: Option<Budget>,
    patience: &'static str,
    /// Bytes of copies of inputs that its processes keep.
    copies: Arc<AtomicUsize>,
    /// Deaths at work since a process last answered.
    deaths: AtomicU32,
    /// Deaths since a process was last made ready.
    unready: AtomicU32,
    /// Whether each open slide has a process to itself; not known before the first one is there.
    by_slide: OnceLock<bool>,
    /// Slides whose tiles do not come back.
    pub late: Late,
    /// Whether the plugin's stage has a function for the end of the run.
    finishes: AtomicBool,
    /// Of a source: ids of its slides, by their place in its list.
    slides: Mutex<HashMap<u64, String>>,
}

impl Cradle {
    /// For stage type `id`, whose calls may take `timeout`.
    pub fn new(
        isolated: &Isolated,
        id: &str,
        outputs: &[Output],
        folder: &Path,
        timeout: Duration,
        budget: &Budget,
    ) -> Cradle {
        Cradle {
            make: Make {
                id: id.to_owned(),
                folder: folder.to_string_lossy().into_owned(),
                outputs: outputs.to_vec(),
            },
            budget: Some(budget.clone()),
            timeout,
            patience: "raise run.timeout of the stage if it is only slow",
            by_slide: OnceLock::new(),
            ..Cradle::of_reader(isolated, id)
        }
    }

    /// For reader `id`. Readers are made before a run has a budget, and before a stage says how long they may take.
    pub fn of_reader(isolated: &Isolated, id: &str) -> Cradle {
        Cradle {
            isolated: isolated.clone(),
            make: Make {
                id: id.to_owned(),
                folder: String::new(),
                outputs: Vec::new(),
            },
            timeout: READER,
            budget: None,
            patience: SLOW,
            copies: Arc::default(),
            deaths: AtomicU32::new(0),
            unready: AtomicU32::new(0),
            by_slide: false.into(),
            late: Late::default(),
            finishes: AtomicBool::new(false),
            slides: Mutex::default(),
        }
    }

    /// Whether the plugin's stage has a function for the end of the run; known once an instance was made.
    pub fn finishes(&self) -> bool {
        self.finishes.load(Ordering::SeqCst)
    }

    /// Ids of a source's slides, by their place in its list.
    pub fn slides(&self) -> MutexGuard<'_, HashMap<u64, String>> {
        self.slides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of copies of inputs that its processes keep.
    pub fn copies(&self) -> usize {
        self.copies.load(Ordering::SeqCst)
    }

    /// Says whether each open slide has a process to itself, when the first one is there.
    pub fn set_by_slide(&self, by_slide: bool) {
        // Nobody says it twice.
        let _ = self.by_slide.set(by_slide);
    }

    /// Counts a death, and says what comes of it, to be put behind how it was.
    pub fn died(&self, life: Life) -> String {
        let by_slide = self.by_slide.get().copied();
        let count = match (life, by_slide) {
            // The run is over, or does not begin.
            (Life::Ends, _) | (Life::Begins, None) => return String::new(),
            // That costs the slide, whatever becomes of the others, so there is no more of it than there are slides.
            (Life::Works, Some(true)) => return LOST.to_owned(),
            (Life::Works, _) => &self.deaths,
            (Life::Begins, _) => &self.unready,
        };
        let died = count.fetch_add(1, Ordering::SeqCst) + 1;
        match (died > RESTARTS, by_slide) {
            (true, _) => "; it is not started again".to_owned(),
            (_, Some(true)) => format!("; the next slide gets another ({died} of {RESTARTS})"),
            _ => format!("; it is started again ({died} of {RESTARTS})"),
        }
    }

    /// The same of one that was ended for what it keeps, which says nothing of those after it; `lone`: a slide had it to itself.
    pub fn was_ended(&self, lone: bool) -> &'static str {
        match lone {
            true => LOST,
            false => "; it is started again",
        }
    }

    /// Why nothing more of a slide is asked of its processes.
    pub fn asks_no_more(&self, who: &Who, slide: &str) -> Said {
        Said {
            what: format!(
                "{} did not answer {MOST} times in a row about slide `{slide}` [E0523], and is asked for no more of it",
                who.plugin
            ),
            help: format!("see the log for where; {}", self.patience),
            ..Said::default()
        }
    }

    /// A process has answered at its work.
    pub fn answered(&self) {
        if self.deaths.load(Ordering::Relaxed) != 0 {
            self.deaths.store(0, Ordering::SeqCst);
        }
    }

    /// Whether no further process is started.
    fn is_over(&self) -> bool {
        let many = |deaths: &AtomicU32| deaths.load(Ordering::SeqCst) > RESTARTS;
        many(&self.deaths) || many(&self.unready)
    }

    /// Has a process make an instance of the stage.
    pub fn start(
        self: &Arc<Cradle>,
        who: &Arc<Who>,
        parameters: &Parameters,
    ) -> Result<Arc<Remote>, CallError> {
        let arena = who.slab.as_ref().and_then(|slab| slab.arena());
        let mut body = request(Op::Make);
        let size = arena.map_or(0, |arena| arena.size() as u64);
        self.make.write(&mut body, parameters, size);
        let beside: Vec<BorrowedFd> = arena.into_iter().map(Arena::file).collect();
        let (remote, given) = self.begin(who, body, &beside)?;
        let finishes = given.first() == Some(&1);
        self.finishes.store(finishes, Ordering::SeqCst);
        Ok(remote)
    }

    /// Has a process get the reader ready: with its flags.
    pub fn start_reader(
        self: &Arc<Cradle>,
        who: &Arc<Who>,
    ) -> Result<(Arc<Remote>, u32), CallError> {
        let mut body = request(Op::Reader);
        body.text(&self.make.id);
        let (remote, given) = self.begin(who, body, &[])?;
        Ok((remote, Reader(&given).u32().unwrap_or(0)))
    }

    /// What to do about a call that takes too long.
    pub fn patience(&self) -> &'static str {
        self.patience
    }

    fn begin(
        self: &Arc<Cradle>,
        who: &Arc<Who>,
        body: Writer,
        beside: &[BorrowedFd],
    ) -> Result<(Arc<Remote>, Vec<u8>), CallError> {
        let call = Call::setup(who);
        let failed = |what: String, help: &str| {
            let said = Said {
                what: format!("{}'s process {what}", who.plugin),
                help: help.into(),
                ..Said::default()
            };
            CallError::of(status::FAIL, said)
        };
        if self.is_over() {
            return Err(failed(
                format!(
                    "died more than {RESTARTS} times in a row [E0521] and is not started again in this run"
                ),
                "see the log for how it died each time",
            ));
        }
        let line = self.isolated.line();
        let mut line = line.map_err(|error| {
            failed(
                format!("cannot be started: {error}"),
                "is there memory, and may this user start processes?",
            )
        })?;
        line.budget = self.budget.clone();
        line.copies = self.copies.clone();
        let remote = Arc::new(Remote::new(self.clone(), who.clone(), line));
        let (said, given) = remote.begin(&call, START, self.timeout.max(MAKE), body, beside);
        match said {
            status::OK => self.unready.store(0, Ordering::SeqCst),
            // It has no instance, and ends by itself.
            _ => remote.give_up(),
        }
        call.end(said)?;
        Ok((remote, given))
    }
}
