//! A call in the child process: what the plugin does in it is written down, and judged by the host.

use super::batch::{Lot, Slides, What};
use super::blocks::{Block, Blocks};
use crate::batch::live::Noted;
use crate::columns::row_bytes;
use crate::columns::{Output, Part, made};
use crate::isolate::answer::{Answer, Deed, Spot, Spots};
use crate::isolate::channel::{Forever, LINE, LONGEST, Lost, MEMORY, MORE, Receiver, Sender};
use crate::isolate::memory::{Mapping, PAGE};
use crate::isolate::message::Make;
use crate::log::{COUNTERS, NAME};
use crate::outcomes::Asked;
use crate::wire::{Reader, Writer};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;
use weir_abi::column::Batch;
use weir_abi::desk::Said;
use weir_abi::host::LOG_ERROR;
use weir_abi::row::Row;
use weir_abi::status::{self, Status};
use weir_pipeline::Kind;

/// The most rows of a column that end at a guard page each: every one is a mapping of its own.
const APART: usize = 1024;

/// Bytes of what may be told of a call in one answer. The rest of it are an error and a breach, whose words are cut short.
const TOLD: usize = LONGEST - (1 << 20);

/// What all calls have in common.
pub(super) struct World {
    pub sender: Mutex<Sender>,
    pub receiver: Mutex<Receiver>,
    /// A page whose first word is not 0 when the run is being stopped.
    pub flag: Mapping,
    /// As "plugin `stain` 0.3.1"; not set before its file was read.
    pub plugin: OnceLock<String>,
    /// What the instance is of; not set before one is made, nor of a reader.
    pub make: OnceLock<Make>,
    pub blocks: Arc<Blocks>,
    /// Calls that a plugin may name.
    pub open: Mutex<Vec<Arc<ChildCall>>>,
}

/// The world of this process, once there was a call.
static WORLD: OnceLock<Arc<World>> = OnceLock::new();

/// A call that a plugin names: by its number, so that one which is over is found out.
pub(super) enum At {
    Open(Arc<ChildCall>),
    /// It is over, or never was.
    Over(Arc<World>),
}

impl At {
    /// `None` when there was no call yet.
    pub fn find(of: *mut weir_abi::Call) -> Option<At> {
        At::numbered(of.addr() as u64)
    }

    /// The same by its number.
    pub fn numbered(number: u64) -> Option<At> {
        let world = WORLD.get()?;
        let open = world.open();
        let call = open.iter().find(|call| call.number == number);
        Some(match call {
            Some(call) => At::Open(call.clone()),
            None => At::Over(world.clone()),
        })
    }
}

impl At {
    /// The call whose function runs on this thread.
    pub fn here() -> Option<At> {
        let thread = std::thread::current().id();
        let open = WORLD.get()?.open();
        let call = open.iter().rfind(|call| call.thread == thread);
        call.map(|call| At::Open(call.clone()))
    }
}

impl World {
    /// The folder of the run's outputs.
    pub fn folder(&self) -> &str {
        self.make.get().map_or("", |make| &make.folder)
    }

    pub fn send(&self, kind: u32, body: Writer) -> Result<(), Lost> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send(kind, body, &[], &mut Forever)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<ChildCall>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No plugin may name a call any more: the next one comes.
    pub fn forget(&self) {
        self.open().clear();
    }

    /// A line for the log, at once: nobody knows what comes of the call.
    pub fn line(&self, level: i32, text: &str) {
        let mut line = Writer::default();
        line.i32(level);
        line.text(text);
        // Without a host there is no log.
        let _ = self.send(LINE, line);
    }

    /// The plugin broke a rule, of which no call tells.
    pub fn broken(&self, what: &str) {
        let plugin = self.plugin.get().map_or("the plugin", String::as_str);
        let line = format!("{plugin} broke the contract [E0520]: {what}");
        self.line(LOG_ERROR, &line);
    }

    /// Whether the run is being stopped.
    pub fn stopped(&self) -> bool {
        let Some(word) = self.flag.at(0, size_of::<AtomicU32>()) else {
            return false;
        };
        // SAFETY: the page lives as long as this, begins aligned, and all who use the word use it as an atomic.
        unsafe { &*word.cast::<AtomicU32>() }.load(Ordering::Relaxed) != 0
    }

    /// Memory from the host.
    pub fn more(&self, bytes: usize) -> Result<Mapping, String> {
        let gone = || "the host is gone".to_owned();
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ask = Writer::default();
        ask.u64(bytes as u64);
        self.send(MORE, ask).map_err(|_| gone())?;
        let frame = receiver.recv(&mut Forever).map_err(|_| gone())?;
        if frame.kind != MEMORY {
            // It was for the thread that serves, which would wait for it for ever.
            super::over();
        }
        let given = Reader(&frame.body).u64().unwrap_or(0);
        match receiver.fd() {
            Some(memory) if frame.kind == MEMORY && given == bytes as u64 => {
                Mapping::new(memory, bytes, true)
                    .map_err(|error| format!("{bytes} bytes of memory: {error}"))
            }
            _ => Err(format!(
                "it asked for {bytes} bytes more, and the host gives a plugin no more"
            )),
        }
    }
}

/// What a call may do beside saying that it failed.
pub(super) enum Task {
    Setup,
    /// Takes rows in.
    Take(Arc<Lot>),
    /// Rows of an input to rows of outputs, and of which of them a batch was asked for: once each, as in the host's process.
    Rows(Arc<Lot>, Mutex<Asked>),
    /// Rows of a slide.
    Slide(Arc<Slides>),
}

impl Task {
    /// The rows that it was given.
    fn input(&self) -> Option<&Arc<Lot>> {
        match self {
            Task::Take(input) | Task::Rows(input, _) => Some(input),
            Task::Setup | Task::Slide(_) => None,
        }
    }
}

/// A call.
pub(super) struct ChildCall {
    /// No other call of this process has it.
    pub number: u64,
    pub world: Arc<World>,
    pub task: Task,
    /// That runs the plugin's function.
    thread: ThreadId,
    desk: Mutex<Desk>,
    over: Condvar,
}

#[derive(Default)]
struct Desk {
    closed: bool,
    completed: Option<Status>,
    /// The plugin left the call pending, and its completion is waited for.
    pending: bool,
    /// What was done, as the host is told it.
    deeds: Writer,
    /// What was counted, in the order of the first time: a sum a name, however often.
    counts: Vec<(String, u64)>,
    /// What went wrong, as it was said last.
    failed: Option<Said>,
    /// The first thing that was done against the rules.
    breach: Option<String>,
    /// What was emitted: the host reads it after the call.
    emitted: Vec<Arc<Lot>>,
}

impl Desk {
    /// Writes a deed down, unless that would be more than an answer holds.
    fn write(&mut self, deed: &Deed) -> Result<(), String> {
        let before = self.deeds.0.len();
        deed.write(&mut self.deeds);
        if self.deeds.0.len() > TOLD {
            self.deeds.0.truncate(before);
            return Err(TOO_MUCH.into());
        }
        Ok(())
    }

    /// Adds to a counter. The host keeps only so many of a stage, and no long names: one too many is enough for it to say so.
    fn count(&mut self, name: &str, by: u64) {
        let name = &name[..name.floor_char_boundary(NAME + 4)];
        let full = self.counts.len() > COUNTERS;
        match self.counts.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(by),
            None if full => {}
            None => self.counts.push((name.to_owned(), by)),
        }
    }
}

/// What a plugin is told that completes what is complete.
pub(super) const COMPLETED: &str = "it completed a call twice, or after it was over";

/// What a plugin is told that does too much for one answer.
const TOO_MUCH: &str = "it handed on more in one call than the 255 MiB that a plugin in a process of its own can hand over at once";

impl ChildCall {
    pub fn new(world: &Arc<World>, task: Task) -> Arc<ChildCall> {
        let call = Arc::new(ChildCall {
            number: crate::call::next_number(),
            world: world.clone(),
            task,
            thread: std::thread::current().id(),
            desk: Mutex::default(),
            over: Condvar::new(),
        });
        WORLD.get_or_init(|| world.clone());
        world.open().push(call.clone());
        call
    }

    /// As the plugin knows it.
    pub fn as_ptr(&self) -> *mut weir_abi::Call {
        std::ptr::without_provenance_mut(self.number as usize)
    }

    /// The desk, while rows may be handed on.
    fn telling(&self) -> Result<MutexGuard<'_, Desk>, String> {
        let desk = self.desk();
        match desk.closed || desk.completed.is_some() {
            true => Err("it handed rows on after its call was over".into()),
            false => Ok(desk),
        }
    }

    /// That rows may be handed on.
    pub fn may_tell(&self) -> Result<(), String> {
        self.telling().map(drop)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin broke a rule.
    pub fn breach(&self, what: impl Into<String>) -> Status {
        let what = what.into();
        let mut desk = self.desk();
        if desk.closed || desk.breach.is_some() {
            drop(desk);
            self.world.broken(&what);
        } else {
            desk.breach = Some(what);
        }
        status::USE
    }

    /// What went wrong.
    pub fn fail(&self, said: Said) {
        self.desk().failed = Some(said);
    }

    /// What went wrong, if the plugin said so.
    pub fn failed(&self) -> Option<Said> {
        self.desk().failed.take()
    }

    /// Adds to a counter.
    pub fn count(&self, name: &str, by: u64) {
        let mut desk = self.desk();
        if !desk.closed {
            desk.count(name, by);
        }
    }

    /// The plugin holds on to its input, of which it has no reference yet; false where that is none of this call's, or the call is over.
    pub fn lend(&self, batch: *const Batch) -> bool {
        let desk = self.desk();
        let input = self.task.input().filter(|_| !desk.closed);
        let lent = input.filter(|input| input.as_ptr() == batch);
        lent.map(Lot::retain).is_some()
    }

    /// Writes down what the plugin hands on.
    pub fn tell(&self, deed: &Deed, emitted: Option<Arc<Lot>>) -> Result<(), String> {
        let mut desk = self.telling()?;
        desk.write(deed)?;
        desk.emitted.extend(emitted);
        Ok(())
    }

    pub fn complete(&self, said: Status) {
        let mut desk = self.desk();
        if desk.closed || desk.completed.is_some() {
            drop(desk);
            self.breach(COMPLETED);
            return;
        }
        desk.completed = Some(said);
        drop(desk);
        self.over.notify_all();
    }

    /// Waits until the plugin completes a call that it left pending; `cancel` is called once when the run is being stopped.
    pub fn wait(&self, cancel: impl Fn()) -> Status {
        let mut cancelled = false;
        let mut desk = self.desk();
        desk.pending = true;
        loop {
            if let Some(said) = desk.completed {
                return said;
            }
            if !cancelled && self.world.stopped() {
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

    /// Ends the call.
    pub fn end(&self, said: Status, given: Writer) -> Answer {
        let mut desk = self.desk();
        desk.closed = true;
        let mut deeds = std::mem::take(&mut desk.deeds);
        for (name, by) in std::mem::take(&mut desk.counts) {
            Deed::Count { name, by }.write(&mut deeds);
        }
        let (failed, breach) = (desk.failed.take(), desk.breach.take());
        let completed = desk.completed.filter(|_| !desk.pending);
        let lasts = [
            failed.map(Deed::Fail),
            breach.map(Deed::Breach),
            completed.map(Deed::Complete),
        ];
        for last in lasts {
            last.iter().for_each(|deed| deed.write(&mut deeds));
        }
        Answer {
            status: said,
            deeds: deeds.0,
            given: given.0,
            ..Answer::default()
        }
    }

    /// Rows of output `port` for the plugin to fill.
    pub fn fresh(
        &self,
        port: u32,
        what: What,
        rows: Vec<Row>,
        slides: Arc<Slides>,
    ) -> Result<Arc<Lot>, String> {
        {
            // A thread that comes too late must not ask the host for memory while that waits for something else.
            let desk = self.desk();
            if desk.closed || desk.completed.is_some() {
                return Err("it used a call that was over".into());
            }
        }
        let output = self.output(port)?;
        let n = rows.len();
        let (mut parts, mut spots, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for (name, dtype, shape) in made(output)? {
            let bytes = row_bytes(dtype, &shape).ok_or("a row has no size")?;
            // Small rows lie side by side, and many do; large ones each end at a page that nobody may touch.
            let apart = bytes >= PAGE && n <= APART;
            let (each, count) = match apart {
                true => (bytes, n),
                false => (
                    bytes.checked_mul(n).ok_or("rows without end")?,
                    usize::from(n > 0),
                ),
            };
            let taken: Vec<Block> = self
                .world
                .blocks
                .take(each, count, |bytes| self.world.more(bytes))?;
            if output.kind != Kind::Pixels {
                // As in the host's process: what a plugin does not write is 0, and nothing of an earlier call.
                for block in &taken {
                    // SAFETY: a block of at least `each` bytes, which nobody else has yet.
                    unsafe { std::ptr::write_bytes(block.place(0).0.cast::<u8>(), 0, each) }
                }
            }
            let (pointers, places): (Vec<_>, Vec<Spot>) = (0..n)
                .map(|row| match apart {
                    true => taken[row].place(0),
                    false => taken[0].place(row * bytes),
                })
                .unzip();
            parts.push(Part::new(name, dtype, shape, pointers).writable());
            spots.push(places);
            blocks.extend(taken);
        }
        Ok(Lot::made(
            port,
            what,
            rows,
            slides,
            parts,
            Spots::write(&spots),
            blocks,
        )
        .placed())
    }

    pub fn output(&self, port: u32) -> Result<&Output, String> {
        let make = self.world.make.get();
        make.and_then(|make| make.outputs.get(port as usize))
            .ok_or_else(|| format!("it has no output number {port}"))
    }
}
