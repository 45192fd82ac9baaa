//! The connection to a child process: one call at a time.

use crate::call::GONE;
use crate::isolate::answer::Answer;
use crate::isolate::channel::{ANSWER, CALL, HELLO, INPUT, LINE, Lost, MEMORY, MORE};
use crate::isolate::memory::{Mapping, Memory, PAGE};
use crate::isolate::message::{Hello, OwnSlide};
use crate::isolate::process::{Process, Program, for_life, gone};
use crate::log::Level;
use crate::offer::HOST;
use crate::refusal::Refusal;
use crate::wire::{Reader, Writer};
use std::collections::HashMap;
use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use weir_abi::column::Batch;
use weir_abi::status;
use weir_record::{Budget, Lease};
use weir_runtime::Stop;

/// The least memory for inputs that are copied.
const INPUTS: usize = 1 << 20;

/// No child is given more memory for what it makes, nor more than half of the run's.
const MOST: usize = 4 << 30;

/// A child is given as much as this, however little the run has.
const LEAST: usize = 64 << 20;

/// Nor more pieces of it: a process has some 65,000 mappings at most, and these are the host's as well.
const PIECES: usize = 4096;

/// How long a process may take to be started and to load its plugin: its libraries may be large and their disk slow.
pub(crate) const START: Duration = Duration::from_secs(300);

/// A connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub process: Process,
    /// Its first word tells the child that the run is being stopped.
    flag: Memory,
    /// Where the plugin was read from, for refusals.
    path: PathBuf,
    /// Of the last call; 0: that it is to load the plugin.
    number: u64,
    loaded: bool,
    /// Where inputs are copied to that lie in no memory of both.
    input: Option<Input>,
    /// Inputs that the plugin holds on to, by the numbers of their calls.
    kept: HashMap<u64, Kept>,
    /// What the child was given for what it makes.
    pub made: Vec<Mapping>,
    bytes: usize,
    /// Whom its memory is missing; `None`: nobody counts it.
    pub budget: Option<Budget>,
    /// Bytes of copies that are kept with their inputs: of all processes of a stage.
    pub copies: Arc<AtomicUsize>,
    leases: Vec<Lease>,
    /// Of a source: the slide that it listed last.
    pub listed: Option<OwnSlide>,
}

#[derive(Debug)]
struct Input {
    memory: Memory,
    lease: Option<Lease>,
}

/// An input that a plugin holds on to.
#[derive(Debug)]
struct Kept {
    batch: *const Batch,
    /// On the copy of it, if there is one.
    lease: Option<Lease>,
    copies: Arc<AtomicUsize>,
}

// SAFETY: a batch of the host's, of which this holds a reference; batches may be let go of from any thread.
unsafe impl Send for Kept {}
// SAFETY: nothing is done with it but that.
unsafe impl Sync for Kept {}

impl Kept {
    fn bytes(&self) -> usize {
        self.lease.as_ref().map_or(0, Lease::bytes)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.copies.fetch_sub(self.bytes(), Ordering::SeqCst);
        if let Some(release) = HOST.batch_release {
            // SAFETY: the reference that was taken when it was kept.
            unsafe { release(self.batch) }
        }
    }
}

/// A process on its way.
#[derive(Debug)]
pub(crate) struct Starting(Receiver<Result<Line, Error>>);

impl Starting {
    /// Starts a process that loads a plugin, and does not wait for it. `sealed` holds the plugin's bytes.
    pub fn begin(program: &Program, hello: &Hello, sealed: OwnedFd) -> Result<Starting, Error> {
        let (program, path, hello) = (program.clone(), PathBuf::from(&hello.path), hello.write());
        let errand = move || {
            let mut line = Line {
                process: Process::start(&program)?,
                flag: Memory::to_child(PAGE)?,
                path,
                number: 0,
                loaded: false,
                input: None,
                kept: HashMap::new(),
                made: Vec::new(),
                bytes: 0,
                budget: None,
                copies: Arc::default(),
                leases: Vec::new(),
                listed: None,
            };
            let (watch, sender, _) = line.process.parts();
            let mut look = || ();
            let mut patience = Process::watched(watch, Instant::now() + START, &mut look);
            let beside = [sealed.as_fd(), line.flag.file.as_fd()];
            // A process that is gone already is found out by whoever asks it something.
            let _ = sender.send(HELLO, hello, &beside, &mut patience);
            Ok(line)
        };
        for_life(errand).map(Starting)
    }

    /// The connection, once the process runs.
    pub fn line(self) -> Result<Line, Error> {
        self.0.recv().map_err(|_| gone())?
    }
}

/// What a wait needs of whoever waits.
pub(crate) struct Ear<'a> {
    /// Whether the run is being stopped.
    pub stop: &'a Stop,
    /// What the plugin logs meanwhile.
    pub log: &'a dyn Fn(Level, &str),
    pub until: Instant,
}

impl Line {
    /// Waits until the plugin is loaded; nothing when it is. Why it cannot be, in its words.
    pub fn loaded(&mut self, ear: &Ear) -> Result<Result<(), Refusal>, Lost> {
        if self.loaded {
            return Ok(Ok(()));
        }
        let answer = self.answer(ear)?;
        if answer.status == status::OK {
            self.loaded = true;
            return Ok(Ok(()));
        }
        let mut given = Reader(&answer.given);
        let code = given.text()?;
        let code = weir_pipeline::codes::find(&code).map_or("E0509", |code| code.id);
        let refusal = Refusal::new(code, given.text()?, given.text()?);
        Ok(Err(refusal.of(self.path.clone())))
    }

    /// A call, from its [`request`](crate::isolate::message::request) on, to its answer.
    pub fn call(
        &mut self,
        ear: &Ear,
        mut request: Writer,
        beside: &[BorrowedFd],
    ) -> Result<Answer, Lost> {
        self.number += 1;
        let number = self.number.to_le_bytes();
        request.0[..number.len()].copy_from_slice(&number);
        let mut look = || heed(ear.stop, &self.flag);
        let (watch, sender, _) = self.process.parts();
        let mut patience = Process::watched(watch, ear.until, &mut look);
        sender.send(CALL, request, beside, &mut patience)?;
        self.answer(ear)
    }

    /// The answer to what was asked last. One to anything else is none: a plugin that writes to the socket, or answers late, must
    /// not be taken at its word for rows that it never saw.
    fn answer(&mut self, ear: &Ear) -> Result<Answer, Lost> {
        let mut look = || heed(ear.stop, &self.flag);
        let (watch, sender, receiver) = self.process.parts();
        let mut patience = Process::watched(watch, ear.until, &mut look);
        loop {
            let frame = receiver.recv(&mut patience)?;
            if frame.kind == ANSWER {
                let answer = Answer::read(frame.body)?;
                if answer.number != self.number {
                    return Err(Lost::Garbage("an answer to another call"));
                }
                for number in &answer.released {
                    self.kept.remove(number);
                }
                return Ok(answer);
            }
            let mut body = Reader(&frame.body);
            match frame.kind {
                LINE => {
                    let (level, text) = (body.i32()?, body.text()?);
                    (ear.log)(Level::of(level), &text);
                }
                MORE => {
                    let wanted = body.u64()?;
                    let given = give(wanted, &mut self.made, &mut self.bytes, &self.budget);
                    let mut answer = Writer::default();
                    answer.u64(given.as_ref().map_or(0, |_| wanted));
                    let file = given.map(|(file, lease)| {
                        self.leases.extend(lease);
                        file
                    });
                    let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
                    sender.send(MEMORY, answer, &fds, &mut patience)?;
                }
                _ => return Err(Lost::Garbage("a message that does not exist")),
            }
            if receiver.fd().is_some() {
                return Err(Lost::Garbage("a descriptor"));
            }
        }
    }

    /// Memory for `len` bytes of inputs, which the child can read.
    pub fn room(&mut self, len: usize, until: Instant) -> Result<&Mapping, Lost> {
        let enough = |input: &Input| input.memory.mapping.len() >= len;
        if !self.input.as_ref().is_some_and(enough) {
            self.input = None;
            let len = len.next_power_of_two().max(INPUTS);
            let memory = Memory::to_child(len).map_err(Lost::System)?;
            let mut said = Writer::default();
            said.u64(len as u64);
            let mut look = || ();
            let (watch, sender, _) = self.process.parts();
            let mut patience = Process::watched(watch, until, &mut look);
            sender.send(INPUT, said, &[memory.file.as_fd()], &mut patience)?;
            let lease = self.budget.as_ref().map(|all| all.lease_at_once(len));
            self.input = Some(Input { memory, lease });
        }
        let made = self.input.as_ref().map(|input| &input.memory.mapping);
        made.ok_or(Lost::Garbage("no memory"))
    }

    /// Keeps the input of the last call as it is until the plugin lets go of it; `copied`: something of it was copied.
    ///
    /// # Safety
    /// A batch of the host's.
    pub unsafe fn keep(&mut self, batch: *const Batch, copied: bool) {
        if let Some(retain) = HOST.batch_retain {
            // SAFETY: the caller's.
            unsafe { retain(batch) }
        }
        let copy = self.input.take_if(|_| copied);
        let kept = Kept {
            batch,
            lease: copy.and_then(|copy| copy.lease),
            copies: self.copies.clone(),
        };
        if let Some(lease) = &kept.lease {
            lease.set_apart();
        }
        self.copies.fetch_add(kept.bytes(), Ordering::SeqCst);
        self.kept.insert(self.number, kept);
    }

    /// How many inputs the plugin holds on to.
    pub fn keeps(&self) -> usize {
        self.kept.len()
    }

    /// Ends the process.
    pub fn end(&mut self, grace: Duration) {
        self.process.end(grace);
        self.kept.clear();
        self.leases.clear();
    }
}

/// Tells the child when the run is being stopped.
fn heed(stop: &Stop, flag: &Memory) {
    if stop.level() > 0
        && let Some(word) = flag.mapping.at(0, size_of::<AtomicU32>())
    {
        // SAFETY: the page lives as long as the line, begins aligned, and all who use the word use it as an atomic.
        unsafe { &*word.cast::<AtomicU32>() }.store(1, Ordering::Relaxed);
    }
}

/// A memory for what a child makes; `None` where it has had enough.
fn give(
    bytes: u64,
    made: &mut Vec<Mapping>,
    all: &mut usize,
    budget: &Option<Budget>,
) -> Option<(OwnedFd, Option<Lease>)> {
    let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes > 0)?;
    if made.len() >= PIECES {
        return None;
    }
    let most = budget
        .as_ref()
        .map_or(MOST, |budget| (budget.cap() / 2).clamp(LEAST, MOST));
    let sum = all.checked_add(bytes).filter(|&sum| sum <= most)?;
    let Memory { mapping, file } = Memory::to_host(bytes).ok()?;
    *all = sum;
    made.push(mapping);
    Some((file, budget.as_ref().map(|all| all.lease_at_once(bytes))))
}

/// Whether a status may end a call.
pub(crate) fn ends(said: status::Status) -> bool {
    said != status::PENDING && said != GONE
}
