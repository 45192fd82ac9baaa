//! What starts the processes of an isolated stage or reader.

use crate::call::{Call, CallError};
use crate::columns::Output;
use crate::isolate::Isolated;
use crate::isolate::given_up::{GivenUp, Loss};
use crate::isolate::line::START;
use crate::isolate::message::{Make, Op, request};
use crate::isolate::remote::{Remote, Request};
use crate::parameters::Parameters;
use crate::reader::SLOW;
use crate::who::Who;
use crate::wire::{Reader, Writer};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use weir_abi::desk::Said;
use weir_abi::status;
use weir_record::{Arena, Budget};

/// A stage's or reader's processes in a row that were lost before they were ready for work: after more of them than a slide may lose no
/// further one is started. What is lost at work has an end of its own: it costs a slide, or is counted for each slide (`given_up`).
#[derive(Debug, Default)]
struct Unready {
    late: usize,
    died: usize,
}

impl Unready {
    fn count(&mut self, loss: Loss) -> &mut usize {
        match loss {
            Loss::Late => &mut self.late,
            Loss::Died => &mut self.died,
        }
    }

    /// How those were lost of which there are too many.
    fn over(&mut self) -> Option<Loss> {
        let mut both = [Loss::Late, Loss::Died].into_iter();
        both.find(|loss| *self.count(*loss) > loss.most())
    }
}

/// How long making an instance may take where a call may not take longer: it may read a model.
const MAKE: Duration = Duration::from_secs(60);

/// How long a call into a reader may take where nobody says it.
const READER: Duration = Duration::from_secs(60);

/// What comes of the death of a process that a slide had to itself.
const LOST: &str = "; what it held of its slide is lost, and the next slide gets another process";

/// What comes of a death at work; `by_slide`: each open slide has a process to itself.
fn comes(at: Op, by_slide: bool) -> &'static str {
    match at {
        // The run ends.
        Op::Slide | Op::Finish | Op::Destroy => "",
        _ if !by_slide => "; it is started again",
        // It is not open yet, or all is done of it.
        Op::Open | Op::Close | Op::CloseSlide => "; the next slide gets another process",
        _ => LOST,
    }
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
    /// Since a process was last made ready.
    unready: Mutex<Unready>,
    /// Whether each open slide has a process to itself; not known before the first one is there.
    by_slide: OnceLock<bool>,
    /// Slides of which nothing more is asked.
    pub given_up: GivenUp,
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
            unready: Mutex::default(),
            by_slide: false.into(),
            given_up: GivenUp::default(),
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

    /// Notes a death at that call, and says what comes of it, to be put behind how it was.
    pub fn died(&self, at: Op, loss: Loss) -> String {
        match (at, self.by_slide.get()) {
            (Op::Make | Op::Reader, Some(&by_slide)) => self.was_unready(by_slide, loss),
            // The run does not begin.
            (Op::Make | Op::Reader, None) => String::new(),
            (_, by_slide) => comes(at, by_slide == Some(&true)).to_owned(),
        }
    }

    fn was_unready(&self, by_slide: bool, loss: Loss) -> String {
        let mut unready = self.unready();
        let count = unready.count(loss);
        *count += 1;
        let (lost, most) = (*count, loss.most());
        match (unready.over(), by_slide) {
            (Some(_), _) => "; it is not started again".to_owned(),
            (_, true) => format!("; the next slide gets another ({lost} of {most})"),
            _ => format!("; it is started again ({lost} of {most})"),
        }
    }

    fn unready(&self) -> MutexGuard<'_, Unready> {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes of the end of one that kept too much, which says nothing of those after it; `lone`: a slide had it to itself.
    pub fn was_ended(&self, lone: bool) -> &'static str {
        match lone {
            true => LOST,
            false => "; it is started again",
        }
    }

    /// What is said of a slide of which nothing more is asked.
    pub fn asks_no_more(&self, who: &Who, slide: &str, why: Loss) -> Said {
        let (plugin, most) = (&who.plugin, why.most());
        let (what, help) = match why {
            Loss::Late => (
                format!(
                    "{plugin} did not answer {most} times in a row about slide `{slide}` [E0523]"
                ),
                format!("see the log for where; {}", self.patience),
            ),
            Loss::Died => (
                format!(
                    "{plugin}'s process was lost {most} times in a row at slide `{slide}` [E0521]"
                ),
                "see the log for where, and how it was lost each time".to_owned(),
            ),
        };
        Said {
            what: format!("{what}, and is asked for no more of it"),
            help,
            ..Said::default()
        }
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
        let beside: Vec<BorrowedFd> = arena.into_iter().flat_map(Arena::files).collect();
        let (remote, given) = self.begin(who, Op::Make, body, &beside)?;
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
        let (remote, given) = self.begin(who, Op::Reader, body, &[])?;
        Ok((remote, Reader(&given).u32().unwrap_or(0)))
    }

    /// What to do about a call that takes too long.
    pub fn patience(&self) -> &'static str {
        self.patience
    }

    fn begin(
        self: &Arc<Cradle>,
        who: &Arc<Who>,
        op: Op,
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
        let over = self.unready().over();
        if let Some(loss) = over {
            let most = loss.most();
            let (how, help) = match loss {
                Loss::Died => ("died", "see the log for how it died each time"),
                Loss::Late => ("did not answer", "see the log for where"),
            };
            return Err(failed(
                format!(
                    "{how} more than {most} times in a row before it was ready [E0521] and is not started again in this run"
                ),
                help,
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
        let request = Request {
            op,
            body,
            beside,
            timeout: self.timeout.max(MAKE),
        };
        let (said, given) = remote.begin(&call, START, request);
        match said {
            status::OK => *self.unready() = Unready::default(),
            // It has no instance, and ends by itself.
            _ => remote.give_up(),
        }
        call.end(said)?;
        Ok((remote, given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_further_process_is_started_after_four_that_did_not_answer_or_more_than_a_hundred_that_died()
     {
        for (loss, last) in [(Loss::Late, 4), (Loss::Died, 101)] {
            let mut unready = Unready::default();
            for _ in 1..last {
                *unready.count(loss) += 1;
                assert_eq!(unready.over(), None);
            }
            *unready.count(loss) += 1;
            assert_eq!(unready.over(), Some(loss));
        }
    }

    #[test]
    fn that_a_slide_is_lost_is_said_of_calls_about_an_open_one_that_has_a_process_to_itself() {
        for at in [Op::Process, Op::Remove, Op::Complete, Op::Next, Op::Read] {
            assert_eq!(comes(at, true), LOST);
            assert_eq!(comes(at, false), "; it is started again");
        }
        for at in [Op::Open, Op::Close, Op::CloseSlide] {
            assert_eq!(comes(at, true), "; the next slide gets another process");
        }
        for at in [Op::Slide, Op::Finish, Op::Destroy] {
            assert_eq!((comes(at, true), comes(at, false)), ("", ""));
        }
    }
}
