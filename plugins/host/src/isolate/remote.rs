//! What stands in for a plugin that runs in a child process: a table of functions like a plugin's own.

use crate::call::{Call, CallError, GONE, Said, Who};
use crate::columns::Output;
use crate::isolate::Isolated;
use crate::isolate::channel::{
    ANSWER, CALL, HELLO, INPUT, LINE, Lost, MEMORY, MORE,
};
use crate::isolate::memory::{Mapping, Memory, PAGE};
use crate::isolate::message::{
    Answer, Hello, Op, OwnSlide, read_slide, row_bytes, write_row, write_slide,
};
use crate::isolate::process::{Process, remedy};
use crate::isolate::replay::replay;
use crate::isolate::wire::{Reader, Writer};
use crate::log::Level;
use crate::parameters::Parameters;
use std::collections::HashMap;
use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::column::{Batch, Column};
use weir_abi::row::{Row, Slide};
use weir_abi::stage::{Stage, Step};
use weir_abi::status::{self, Status};
use weir_record::TileId;

/// How often a stage's processes may die in a run before they are not started again.
const RESTARTS: u32 = 100;

/// How long a plugin may take to load and to make its instance: a model may be large and its disk slow.
const START: Duration = Duration::from_secs(300);

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

/// A stage of a plugin that is isolated: starts its processes.
#[derive(Debug)]
pub(crate) struct Cradle {
    isolated: Isolated,
    hello: Hello,
    timeout: Duration,
    deaths: AtomicU32,
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
        folder: &std::path::Path,
        timeout: Duration,
    ) -> Cradle {
        let file = isolated.admitted.file();
        Cradle {
            hello: Hello {
                plugin: isolated.manifest().name.clone(),
                path: file.path().to_string_lossy().into_owned(),
                sha256: file.sha256().to_owned(),
                id: id.to_owned(),
                folder: folder.to_string_lossy().into_owned(),
                outputs: outputs.to_vec(),
            },
            isolated: isolated.clone(),
            timeout,
            deaths: AtomicU32::new(0),
            finishes: AtomicBool::new(false),
            slides: Mutex::default(),
        }
    }

    /// Whether the plugin's stage has a function for the end of the run; known once an instance was made.
    pub fn finishes(&self) -> bool {
        self.finishes.load(Ordering::SeqCst)
    }

    fn slides(&self) -> MutexGuard<'_, HashMap<u64, String>> {
        self.slides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process and has it make an instance.
    pub fn start(
        self: &Arc<Cradle>,
        who: &Arc<Who>,
        parameters: &Parameters,
    ) -> Result<Arc<Remote>, CallError> {
        let call = Call::setup(who.clone());
        let failed = |what: String, help: &str| CallError {
            status: status::FAIL,
            said: Said {
                what: format!("{}'s process {what}", who.plugin),
                help: help.into(),
                ..Said::default()
            },
        };
        if self.deaths.load(Ordering::SeqCst) > RESTARTS {
            return Err(failed(
                format!("died more than {RESTARTS} times [E0521] and is not started again in this run"),
                "see the log for how it died each time",
            ));
        }
        let unstarted = |error: String| {
            failed(
                format!("cannot be started: {error}"),
                "is there memory, and may this user start processes?",
            )
        };
        let process = Process::start(&self.isolated.program);
        let process = process.map_err(|error| unstarted(error.to_string()))?;
        let flag = Memory::to_child(PAGE).map_err(|error| unstarted(error.to_string()))?;
        let remote = Arc::new(Remote {
            cradle: self.clone(),
            who: who.clone(),
            gone: AtomicBool::new(false),
            flag,
            line: Mutex::new(Line {
                process,
                input: None,
                made: Vec::new(),
                bytes: 0,
                listed: None,
            }),
        });
        let hello = self.hello.write(parameters);
        let place = || "while it was made".to_owned();
        let said = match remote.ask(&call, START, HELLO, hello, &place) {
            Ok((answer, line)) => {
                let said = answer.status;
                let finishes = answer.given.first() == Some(&1);
                self.finishes.store(finishes, Ordering::SeqCst);
                replay(&call, answer.deeds, &line.made);
                said
            }
            Err(said) => said,
        };
        if said != status::OK {
            // It has no instance, and ends by itself.
            remote.gone.store(true, Ordering::SeqCst);
        }
        call.end(said)?;
        Ok(remote)
    }
}

/// An instance in a process.
pub(crate) struct Remote {
    cradle: Arc<Cradle>,
    who: Arc<Who>,
    /// Its process has ended.
    gone: AtomicBool,
    /// Its first word tells the child that the run is being stopped.
    flag: Memory,
    line: Mutex<Line>,
}

/// The connection to a process: one call at a time.
#[derive(Debug)]
struct Line {
    process: Process,
    input: Option<Memory>,
    /// What the child was given for what it makes.
    made: Vec<Mapping>,
    bytes: usize,
    /// Of a source: the slide that it listed last.
    listed: Option<OwnSlide>,
}

impl Remote {
    /// Whether its process has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
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
        call: &Arc<Call>,
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
        call: &Arc<Call>,
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
        call: &Call,
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
        let sealed = self.cradle.isolated.admitted.file().sealed();
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
        call: &Call,
        timeout: Duration,
        lost: Lost,
        place: &str,
    ) -> Status {
        self.gone.store(true, Ordering::SeqCst);
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
        let deaths = self.cradle.deaths.fetch_add(1, Ordering::SeqCst) + 1;
        let next = match deaths > RESTARTS {
            false => format!("it is started again ({deaths} of {RESTARTS})"),
            true => "it is not started again".into(),
        };
        call.log(Level::Error, &format!("{what}; {next}"));
        call.fail(Said {
            what,
            help: help.into(),
            ..Said::default()
        });
        GONE
    }

    /// A call without rows: its status, and what it gave.
    fn plain(
        &self,
        call: &Arc<Call>,
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
    unsafe fn process(&self, call: &Arc<Call>, port: u32, batch: &Batch) -> Status {
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
        body.u8(u8::from(matches!(
            call.task,
            crate::call::Task::Rows { .. }
        )));
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
fn sound(call: &Call, said: Status) -> Status {
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
unsafe fn id(slide: &Slide) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { slide.id.bytes() }).into_owned()
}

// ------------------------------------------------------------------------------------------------------- the table

/// The table that stands in for every isolated plugin's; an instance is a [`Remote`], an open slide an [`Opened`].
pub(crate) static STAGE: Stage = Stage {
    struct_size: size_of::<Stage>() as u32,
    flags: 0,
    id: c"".as_ptr(),
    create: None,
    destroy: Some(destroy),
    resolve: None,
    cancel: None,
    process: Some(process),
    remove: Some(remove),
    complete_slide: Some(complete_slide),
    close_slide: Some(close_slide),
    finish: Some(finish),
    slide: Some(slide),
    open: Some(open),
    next: Some(next),
    read: Some(read),
    close: Some(close),
};

/// An open slide of a source.
struct Opened {
    remote: Arc<Remote>,
    /// Its number in the process.
    number: u64,
    id: String,
    /// The texts that `open` handed over.
    _about: Option<OwnSlide>,
}

/// # Safety
/// `me` came from `Arc::into_raw`, and its reference has not ended.
unsafe fn remote<'a>(me: *mut c_void) -> &'a Remote {
    // SAFETY: the caller's.
    unsafe { &*me.cast::<Remote>() }
}

/// # Safety
/// A call of the host's that is open.
unsafe fn call(of: *mut weir_abi::Call) -> Arc<Call> {
    let of = of.cast::<Call>().cast_const();
    // SAFETY: the caller's: whoever calls a stand-in holds its call.
    unsafe {
        Arc::increment_strong_count(of);
        Arc::from_raw(of)
    }
}

unsafe extern "C" fn destroy(me: *mut c_void) {
    // SAFETY: the reference that the instance had.
    drop(unsafe { Arc::from_raw(me.cast::<Remote>().cast_const()) });
}

unsafe extern "C" fn process(
    me: *mut c_void,
    of: *mut weir_abi::Call,
    port: u32,
    batch: *const Batch,
) -> Status {
    // SAFETY: the host calls its own table with its own batch.
    unsafe { remote(me).process(&call(of), port, &*batch) }
}

unsafe extern "C" fn remove(
    me: *mut c_void,
    of: *mut weir_abi::Call,
    port: u32,
    rows: *const Row,
    n_rows: u32,
) -> Status {
    // SAFETY: as above; the list is as long as it says.
    let (me, call, rows) = unsafe {
        (
            remote(me),
            call(of),
            std::slice::from_raw_parts(rows, n_rows as usize),
        )
    };
    let write = |out: &mut Writer| {
        out.u32(port);
        out.list(rows, write_row);
    };
    let place = || "while tiles were taken back".to_owned();
    me.plain(&call, Op::Remove, write, &place).0
}

unsafe extern "C" fn complete_slide(
    me: *mut c_void,
    of: *mut weir_abi::Call,
    about: *const Slide,
    rev: u32,
    end: u32,
) -> Status {
    // SAFETY: as above; the slide lives through the call.
    let (me, call, about) = unsafe { (remote(me), call(of), &*about) };
    let write = |out: &mut Writer| {
        // SAFETY: its texts live as long as it does.
        unsafe { write_slide(out, about) }
        out.u32(rev);
        out.u32(end);
    };
    // SAFETY: as above.
    let place = || format!("when slide `{}` was complete", unsafe { id(about) });
    me.plain(&call, Op::Complete, write, &place).0
}

unsafe extern "C" fn close_slide(me: *mut c_void, number: u64) {
    // SAFETY: the host calls its own table.
    let me = unsafe { remote(me) };
    if me.is_gone() {
        return;
    }
    let call = Call::setup(me.who.clone());
    let place = || "while a slide was closed".to_owned();
    me.plain(&call, Op::CloseSlide, |out| out.u64(number), &place);
}

unsafe extern "C" fn finish(me: *mut c_void, of: *mut weir_abi::Call) -> Status {
    // SAFETY: as above.
    let (me, call) = unsafe { (remote(me), call(of)) };
    let place = || "at the end of the run".to_owned();
    me.plain(&call, Op::Finish, |_| (), &place).0
}

/// Hands a slide's description on; its texts live as long as what comes back.
fn described(call: &Call, from: &mut Reader, out: &mut Slide) -> Option<OwnSlide> {
    match read_slide(from) {
        Ok(own) => {
            *out = own.slide;
            Some(own)
        }
        Err(garbage) => {
            call.breach(format!("its process sent {}", garbage.0));
            None
        }
    }
}

unsafe extern "C" fn slide(
    me: *mut c_void,
    of: *mut weir_abi::Call,
    i: u64,
    out: *mut Slide,
) -> Status {
    // SAFETY: as above; `out` is a place for a slide.
    let (me, call, out) = unsafe { (remote(me), call(of), &mut *out) };
    let place = || format!("while it was asked for slide number {i}");
    let (said, given, line) = me.plain(&call, Op::Slide, |out| out.u64(i), &place);
    if said == status::OK
        && let Some(mut line) = line
    {
        // Slides are asked for one by one.
        line.listed = described(&call, &mut Reader(&given), out);
        // SAFETY: the texts were just read and live.
        me.cradle.slides().insert(i, unsafe { id(out) });
    }
    said
}

unsafe extern "C" fn open(
    me: *mut c_void,
    of: *mut weir_abi::Call,
    i: u64,
    _: *mut c_void,
    out: *mut Slide,
    handle: *mut *mut c_void,
) -> Status {
    let me = me.cast::<Remote>().cast_const();
    // SAFETY: as above; the handle has a reference of its own.
    let (me, call, out) = unsafe {
        Arc::increment_strong_count(me);
        (Arc::from_raw(me), call(of), &mut *out)
    };
    let place = || format!("while slide number {i} was opened");
    let (said, given, _) = me.plain(&call, Op::Open, |out| out.u64(i), &place);
    if said == status::OK {
        let mut given = Reader(&given);
        let number = given.u64().unwrap_or(0);
        let about = described(&call, &mut given, out);
        let id = me.cradle.slides().get(&i).cloned().unwrap_or_default();
        let opened = Opened {
            remote: me,
            number,
            id,
            _about: about,
        };
        // SAFETY: a place for a pointer, the caller's.
        unsafe { *handle = Box::into_raw(Box::new(opened)).cast() };
    }
    said
}

/// # Safety
/// `handle` came from [`open`] and was not closed.
unsafe fn opened<'a>(handle: *mut c_void) -> &'a Opened {
    // SAFETY: the caller's.
    unsafe { &*handle.cast::<Opened>() }
}

unsafe extern "C" fn next(
    handle: *mut c_void,
    of: *mut weir_abi::Call,
    out: *mut Step,
) -> Status {
    // SAFETY: the host calls its own table with what it was given.
    let (slide, call, out) = unsafe { (opened(handle), call(of), &mut *out) };
    let place = || format!("at slide `{}`", slide.id);
    let write = |out: &mut Writer| out.u64(slide.number);
    let (said, given, _) = slide.remote.plain(&call, Op::Next, write, &place);
    let mut given = Reader(&given);
    let mut read = || {
        Ok::<_, crate::isolate::wire::Garbage>(Step {
            kind: given.u32()?,
            x: given.i64()?,
            y: given.i64()?,
            width: given.u32()?,
            height: given.u32()?,
            ..*out
        })
    };
    if said == status::OK {
        match read() {
            Ok(step) => *out = step,
            Err(garbage) => return call.breach(format!("its process sent {}", garbage.0)),
        }
    }
    said
}

unsafe extern "C" fn read(
    handle: *mut c_void,
    of: *mut weir_abi::Call,
    row: *const Row,
    into: *mut c_void,
    len: usize,
) -> Status {
    // SAFETY: as above.
    let (slide, call, row) = unsafe { (opened(handle), call(of), &*row) };
    let place = || format!("at slide `{}`, tile ({}, {})", slide.id, row.x, row.y);
    let write = |out: &mut Writer| {
        out.u64(slide.number);
        write_row(out, row);
        out.u64(len as u64);
    };
    let (said, given, line) = slide.remote.plain(&call, Op::Read, write, &place);
    if said != status::OK {
        return said;
    }
    let mut given = Reader(&given);
    let from = match (given.u32(), given.u64(), &line) {
        (Ok(memory), Ok(at), Some(line)) => line
            .made
            .get(memory as usize)
            .and_then(|memory| memory.at(at, len)),
        _ => None,
    };
    match from {
        Some(from) => {
            // SAFETY: both have `len` bytes, and the line is held until they are copied.
            unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), into.cast::<u8>(), len) };
            said
        }
        None => call.breach("its process named memory that is no tile"),
    }
}

unsafe extern "C" fn close(handle: *mut c_void) {
    // SAFETY: `open` made it, and nobody uses it any more.
    let slide = unsafe { Box::from_raw(handle.cast::<Opened>()) };
    if slide.remote.is_gone() {
        return;
    }
    let call = Call::setup(slide.remote.who.clone());
    let place = || format!("while slide `{}` was closed", slide.id);
    let write = |out: &mut Writer| out.u64(slide.number);
    slide.remote.plain(&call, Op::Close, write, &place);
}
