//! An instance of a plugin's stage in a child process, and the connection to it.

use crate::call::{At, Call, GONE, Said, Who};
use crate::isolate::channel::{ANSWER, CALL, HELLO, INPUT, LINE, Lost, MEMORY, MORE};
use crate::isolate::cradle::Cradle;
use crate::isolate::memory::{Mapping, Memory};
use crate::isolate::message::{Answer, Op, OwnSlide, row_bytes, write_row, write_slide};
use crate::isolate::process::{Process, remedy};
use crate::isolate::replay::replay;
use crate::isolate::wire::{Reader, Writer};
use crate::log::Level;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::column::{Batch, Column};
use weir_abi::row::{Row, Slide};
use weir_abi::status::{self, Status};
use weir_record::TileId;

/// How long an instance may take to be destroyed.
const DESTROY: Duration = Duration::from_secs(5);

/// The least memory for inputs.
const INPUTS: usize = 1 << 20;

/// No child is given more memory for what it makes.
const MOST: usize = 4 << 30;

/// Nor more pieces of it: a process has some 65,000 mappings at most, and these are the host's as well.
const PIECES: usize = 4096;

/// Alignment of rows in an input's memory.
const ALIGN: usize = 16;

/// An instance in a process.
pub(crate) struct Remote {
    pub cradle: Arc<Cradle>,
    pub who: Arc<Who>,
    /// Its process has ended.
    gone: AtomicBool,
    /// Its first word tells the child that the run is being stopped.
    flag: Memory,
    line: Mutex<Line>,
}

/// The connection to a process: one call at a time.
#[derive(Debug)]
pub(crate) struct Line {
    process: Process,
    input: Option<Memory>,
    /// What the child was given for what it makes.
    pub made: Vec<Mapping>,
    bytes: usize,
    /// Of a source: the slide that it listed last.
    pub listed: Option<OwnSlide>,
}

impl Remote {
    pub fn new(cradle: Arc<Cradle>, who: Arc<Who>, process: Process, flag: Memory) -> Remote {
        Remote {
            cradle,
            who,
            gone: AtomicBool::new(false),
            flag,
            line: Mutex::new(Line {
                process,
                input: None,
                made: Vec::new(),
                bytes: 0,
                listed: None,
            }),
        }
    }

    /// Whether its process has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Its process ends by itself, or is ended when this is dropped.
    pub fn give_up(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        if let Some(word) = self.flag.mapping.at(0, size_of::<AtomicU32>()) {
            // SAFETY: the page lives as long as this, begins aligned, and all who use the word use it as an atomic.
            unsafe { &*word.cast::<AtomicU32>() }.store(1, Ordering::Relaxed);
        }
    }

    /// Sends a frame and waits for the answer. `place` says what it is about, for when there is none. When the process is lost,
    /// the call knows why, and what comes back is the status to end it with.
    fn ask(
        &self,
        call: &At,
        timeout: Duration,
        kind: u32,
        body: Writer,
        place: &dyn Fn() -> String,
    ) -> Result<(Answer, MutexGuard<'_, Line>), Status> {
        self.ask_on(self.line(), call, timeout, kind, body, place)
    }

    fn ask_on<'a>(
        &'a self,
        mut line: MutexGuard<'a, Line>,
        call: &At,
        timeout: Duration,
        kind: u32,
        body: Writer,
        place: &dyn Fn() -> String,
    ) -> Result<(Answer, MutexGuard<'a, Line>), Status> {
        if self.is_gone() {
            call.fail(Said {
                what: format!(
                    "{}'s process ended before [E0521], and what it held with it",
                    self.who.plugin
                ),
                ..Said::default()
            });
            return Err(GONE);
        }
        let until = Instant::now() + timeout;
        let asked = self.exchange(&mut line, call, until, kind, body);
        match asked {
            Ok(answer) => Ok((answer, line)),
            Err(lost) => Err(self.lost(&mut line, call, timeout, lost, &place())),
        }
    }

    fn exchange(
        &self,
        line: &mut Line,
        call: &At,
        until: Instant,
        kind: u32,
        body: Writer,
    ) -> Result<Answer, Lost> {
        let mut look = || {
            if self.who.stop.level() > 0 {
                self.stop();
            }
        };
        let (watch, sender, receiver) = line.process.parts();
        let mut patience = Process::watched(watch, until, &mut look);
        let sealed = self.cradle.sealed();
        let beside = [sealed.as_fd(), self.flag.file.as_fd()];
        let beside = if kind == HELLO { &beside[..] } else { &[] };
        sender.send(kind, body, beside, &mut patience)?;
        loop {
            let frame = receiver.recv(&mut patience)?;
            let mut body = Reader(&frame.body);
            match frame.kind {
                ANSWER => return Ok(Answer::read(&frame.body)?),
                LINE => {
                    let (level, text) = (body.i32()?, body.text()?);
                    call.log(Level::of(level), &text);
                }
                MORE => {
                    let given = give(body.u64()?, &mut line.made, &mut line.bytes);
                    let mut answer = Writer::default();
                    let fd: Option<&OwnedFd> = given.as_ref().map(|(_, file)| file);
                    answer.u64(given.as_ref().map_or(0, |(bytes, _)| *bytes as u64));
                    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
                    sender.send(MEMORY, answer, &fds, &mut patience)?;
                }
                _ => return Err(Lost::Garbage("a message that does not exist")),
            }
            if receiver.fd().is_some() {
                return Err(Lost::Garbage("a descriptor"));
            }
        }
    }

    /// Ends the process, says why, and what the call ends with.
    fn lost(
        &self,
        line: &mut Line,
        call: &At,
        timeout: Duration,
        lost: Lost,
        place: &str,
    ) -> Status {
        self.give_up();
        let plugin = &self.who.plugin;
        const FAULT: &str = "this is a fault of the plugin: please report it to its author";
        let (what, help) = match lost {
            Lost::Closed => {
                let death = line.process.death();
                (
                    format!("{plugin}'s process {death} [E0521] {place}"),
                    remedy(&death),
                )
            }
            Lost::Late => (
                format!("{plugin} did not answer within {timeout:?} [E0523] {place}"),
                "raise run.timeout of the stage if it is only slow",
            ),
            Lost::Garbage(garbage) => (
                format!("{plugin} broke the contract [E0520]: its process sent {garbage} {place}"),
                FAULT,
            ),
            Lost::System(error) => (
                format!("{plugin}'s process cannot be reached [E0521]: {error} {place}"),
                "",
            ),
        };
        line.process.end(Duration::ZERO);
        let next = self.cradle.died();
        call.log(Level::Error, &format!("{what}; {next}"));
        call.fail(Said {
            what,
            help: help.into(),
            ..Said::default()
        });
        GONE
    }

    /// Has the process load the plugin and make the instance: the status, and what it gave.
    pub fn greet(
        &self,
        call: &At,
        timeout: Duration,
        hello: Writer,
        place: &dyn Fn() -> String,
    ) -> (Status, Vec<u8>) {
        match self.ask(call, timeout, HELLO, hello, place) {
            Ok((answer, line)) => {
                let said = sound(call, answer.status);
                replay(call, answer.deeds, &line.made);
                (said, answer.given)
            }
            Err(said) => (said, Vec::new()),
        }
    }

    /// A call without rows: its status, and what it gave.
    pub fn plain(
        &self,
        call: &At,
        op: Op,
        write: impl FnOnce(&mut Writer),
        place: &dyn Fn() -> String,
    ) -> (Status, Vec<u8>, Option<MutexGuard<'_, Line>>) {
        let mut body = Writer::default();
        body.u8(op as u8);
        write(&mut body);
        match self.ask(call, self.cradle.timeout, CALL, body, place) {
            Ok((answer, line)) => {
                let said = sound(call, answer.status);
                replay(call, answer.deeds, &line.made);
                (said, answer.given, Some(line))
            }
            Err(said) => (said, Vec::new(), None),
        }
    }

    /// # Safety
    /// A batch of the host's.
    pub unsafe fn process(&self, call: &At, port: u32, batch: &Batch) -> Status {
        let mut line = self.line();
        // SAFETY: the caller's: lists are as long as they say.
        let (rows, columns, slides) = unsafe {
            (
                std::slice::from_raw_parts(batch.rows, batch.n_rows as usize),
                std::slice::from_raw_parts(batch.columns, batch.n_columns as usize),
                std::slice::from_raw_parts(batch.slides, batch.n_slides as usize),
            )
        };
        let mut body = Writer::default();
        body.u8(Op::Process as u8);
        body.u32(port);
        body.u8(u8::from(call.makes_rows()));
        body.list(rows, write_row);
        body.list(slides, |out, slide| {
            // SAFETY: the caller's: slides live as long as their batch.
            unsafe { write_slide(out, &**slide) }
        });
        // SAFETY: the caller's.
        let place = || unsafe { place(rows, slides) };
        // SAFETY: the caller's.
        let lent = unsafe { self.lend(&mut line, &mut body, columns, rows.len()) };
        if let Err(lost) = lent {
            return self.lost(&mut line, call, self.cradle.timeout, lost, &place());
        }
        let asked = self.ask_on(line, call, self.cradle.timeout, CALL, body, &place);
        match asked {
            Ok((answer, mut line)) => {
                if answer.kept {
                    // The plugin still reads it.
                    line.input = None;
                }
                let said = sound(call, answer.status);
                replay(call, answer.deeds, &line.made);
                said
            }
            Err(said) => said,
        }
    }

    /// Copies the columns to where the child can read them, and says where each row lies.
    ///
    /// # Safety
    /// Columns of a batch of the host's, of `n` rows.
    unsafe fn lend(
        &self,
        line: &mut Line,
        body: &mut Writer,
        columns: &[Column],
        n: usize,
    ) -> Result<(), Lost> {
        let mut at = 0;
        let mut copies: Vec<(*const u8, usize, usize)> = Vec::with_capacity(columns.len() * n);
        body.u32(columns.len() as u32);
        for column in columns {
            // SAFETY: the caller's: of the host's own making.
            let (name, shape, rows) = unsafe {
                (
                    column.name.bytes(),
                    std::slice::from_raw_parts(column.shape, column.ndim as usize),
                    std::slice::from_raw_parts(column.rows, n),
                )
            };
            let lengths = match column.lengths.is_null() {
                true => &[],
                // SAFETY: as above.
                false => unsafe { std::slice::from_raw_parts(column.lengths, n) },
            };
            let fixed = row_bytes(column.dtype, shape);
            body.bytes(name);
            body.u8(column.dtype.code);
            body.u8(column.dtype.bits);
            body.list(shape, |out, &side| out.i64(side));
            body.list(lengths, |out, &length| out.u64(length));
            body.u32(n as u32);
            for (row, &from) in rows.iter().enumerate() {
                let bytes = match fixed {
                    Some(bytes) => bytes,
                    None => lengths.get(row).map_or(0, |&n| n as usize) * column.dtype.bytes(),
                };
                body.u64(at as u64);
                copies.push((from.cast_const().cast(), at, bytes));
                at += bytes.next_multiple_of(ALIGN);
            }
        }
        let enough = |memory: &Memory| memory.mapping.len() >= at;
        if !line.input.as_ref().is_some_and(enough) {
            let len = at.next_power_of_two().max(INPUTS);
            let memory = Memory::to_child(len).map_err(Lost::System)?;
            let mut said = Writer::default();
            said.u64(len as u64);
            let until = Instant::now() + self.cradle.timeout;
            let mut look = || ();
            let (watch, sender, _) = line.process.parts();
            let mut patience = Process::watched(watch, until, &mut look);
            sender.send(INPUT, said, &[memory.file.as_fd()], &mut patience)?;
            line.input = Some(memory);
        }
        let Some(memory) = &line.input else {
            return Ok(());
        };
        for (from, at, bytes) in copies {
            if let Some(to) = memory.mapping.at(at as u64, bytes) {
                // SAFETY: the row has that many bytes, and so has the memory, which only the host writes.
                unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) }
            }
        }
        Ok(())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.is_gone() {
            return;
        }
        let call = Call::setup(self.who.clone());
        let mut body = Writer::default();
        body.u8(Op::Destroy as u8);
        let place = || "while its instance was destroyed".to_owned();
        if let Ok((_, mut line)) = self.ask(&call, DESTROY, CALL, body, &place) {
            line.process.end(Duration::from_secs(1));
        }
    }
}

/// A memory for what a child makes; `None` where it has had enough.
fn give(bytes: u64, made: &mut Vec<Mapping>, all: &mut usize) -> Option<(usize, OwnedFd)> {
    let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes > 0)?;
    if made.len() >= PIECES {
        return None;
    }
    let sum = all.checked_add(bytes).filter(|&sum| sum <= MOST)?;
    let Memory { mapping, file } = Memory::to_host(bytes).ok()?;
    *all = sum;
    made.push(mapping);
    Some((bytes, file))
}

/// A status as it may leave a stand-in: it leaves no call pending.
fn sound(call: &At, said: Status) -> Status {
    if said == status::PENDING || said == GONE {
        return call.breach(format!("it ended a call with {said}, which ends none"));
    }
    said
}

/// As "at slide `a`, tiles (0, 0) to (512, 256)".
///
/// # Safety
/// The slides live.
unsafe fn place(rows: &[Row], slides: &[*const Slide]) -> String {
    let name = |row: &Row| {
        let slide = slides.get(row.slide as usize);
        // SAFETY: the caller's.
        slide.map_or_else(String::new, |slide| unsafe { id(&**slide) })
    };
    let tile = |row: &Row| match row.key.tile == TileId::SLIDE.word() {
        true => "the slide as a whole".to_owned(),
        false => format!("({}, {})", row.x, row.y),
    };
    match rows {
        [] => "without a row".into(),
        [one] if one.key.tile == TileId::SLIDE.word() => format!("at slide `{}`", name(one)),
        [one] => format!("at slide `{}`, tile {}", name(one), tile(one)),
        [first, .., last] if first.slide == last.slide => format!(
            "at slide `{}`, tiles {} to {}",
            name(first),
            tile(first),
            tile(last)
        ),
        [first, .., last] => format!(
            "at {} tiles, {} of slide `{}` to {} of slide `{}`",
            rows.len(),
            tile(first),
            name(first),
            tile(last),
            name(last)
        ),
    }
}

/// # Safety
/// The slide's id is readable.
pub(crate) unsafe fn id(slide: &Slide) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { slide.id.bytes() }).into_owned()
}
