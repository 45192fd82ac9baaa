//! An instance of a plugin's stage, or a reader, in a child process.

use crate::batch::slide_id;
use crate::call::{At, Call, FAULT, GONE};
use crate::columns::row_bytes;
use crate::isolate::answer::Answer;
use crate::isolate::channel::Lost;
use crate::isolate::cradle::Cradle;
use crate::isolate::given_up::Loss;
use crate::isolate::line::{Ear, Line, ends};
use crate::isolate::message::{
    LENT, LIES, Lies, Op, ROW, SLIDE, request, write_lies, write_row, write_slide,
};
use crate::isolate::process::remedy;
use crate::isolate::replay::replay;
use crate::log::Level;
use crate::who::Who;
use crate::wire::Writer;
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::column::{Batch, Column};
use weir_abi::desk::Said;
use weir_abi::row::{Row, Slide};
use weir_abi::status::Status;
use weir_record::{Arena, TileId};

/// How long an instance may take to be destroyed.
const DESTROY: Duration = Duration::from_secs(5);

/// Alignment of rows in an input's memory.
const ALIGN: usize = 16;

/// An instance in a process.
pub(crate) struct Remote {
    pub cradle: Arc<Cradle>,
    pub who: Arc<Who>,
    /// Its process has ended.
    gone: AtomicBool,
    /// How a call lost it.
    loss: OnceLock<Loss>,
    line: Mutex<Line>,
}

/// What is asked of a process.
pub(crate) struct Request<'a> {
    pub op: Op,
    /// From [`request`] on.
    pub body: Writer,
    /// Files that go with it.
    pub beside: &'a [BorrowedFd<'a>],
    /// How long the answer may take.
    pub timeout: Duration,
}

/// What a call came to: its status, what it gave, and the line, which is held until what was given is used.
pub(crate) type Spoken<'a> = (Status, Vec<u8>, Option<MutexGuard<'a, Line>>);

impl Remote {
    pub fn new(cradle: Arc<Cradle>, who: Arc<Who>, line: Line) -> Remote {
        Remote {
            cradle,
            who,
            gone: AtomicBool::new(false),
            loss: OnceLock::new(),
            line: Mutex::new(line),
        }
    }

    /// Whether its process has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Whether its process has ended, perhaps between two calls: a thread of the plugin's can do that, and a system that is short of
    /// memory. Of one that is at a call this call tells.
    pub fn has_ended(&self) -> bool {
        if self.is_gone() {
            return true;
        }
        let Ok(mut line) = self.line.try_lock() else {
            return false;
        };
        if !line.process.has_ended() {
            return false;
        }
        self.give_up();
        let (plugin, death) = (&self.who.plugin, line.process.death());
        let said = format!("{plugin}'s process {death} [E0521] between two calls");
        line.end(Duration::ZERO);
        self.who.line(Level::Warn, &said);
        true
    }

    /// Its process ends by itself, or is ended when this is dropped.
    pub fn give_up(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    pub fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends its process now, between two calls, and lets go of all that it keeps.
    pub fn end(&self) {
        self.give_up();
        self.line().end(Duration::ZERO);
    }

    /// How many inputs it holds on to; nobody knows of one that is at a call.
    pub fn keeps(&self) -> usize {
        match self.line.try_lock() {
            Ok(line) if !self.is_gone() => line.keeps(),
            _ => 0,
        }
    }

    /// The memory of tiles that the child may read as well.
    pub fn arena(&self) -> Option<&Arena> {
        self.who.slab.as_ref().and_then(|slab| slab.arena())
    }

    /// Makes a call and waits for the answer. `place` says what it is about, for when there is none. When the process is lost, the
    /// call knows why, and what comes back is the status to end it with.
    fn ask<'a>(
        &'a self,
        mut line: MutexGuard<'a, Line>,
        call: &At,
        request: Request,
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
        let log = |level, text: &str| call.log(level, text);
        let ear = Ear {
            stop: &self.who.stop,
            log: &log,
            until: Instant::now() + request.timeout,
        };
        let (op, timeout) = (request.op, request.timeout);
        match line.call(&ear, request.body, request.beside) {
            Ok(answer) => Ok((answer, line)),
            Err(lost) => Err(self.lost(&mut line, call, (op, timeout), lost, &place())),
        }
    }

    /// Has the process load the plugin, which may take `timeout`, and make the instance as it is asked: the status, and what it gave.
    pub fn begin(&self, call: &At, timeout: Duration, request: Request) -> (Status, Vec<u8>) {
        let mut line = self.line();
        let log = |level, text: &str| call.log(level, text);
        let ear = Ear {
            stop: &self.who.stop,
            log: &log,
            until: Instant::now() + timeout,
        };
        match line.loaded(&ear) {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                call.fail(Said {
                    what: format!("[{}] {}", refusal.code, refusal.what),
                    help: refusal.help,
                    ..Said::default()
                });
                return (GONE, Vec::new());
            }
            Err(lost) => {
                let place = "while it was loaded";
                let said = self.lost(&mut line, call, (request.op, timeout), lost, place);
                return (said, Vec::new());
            }
        }
        let place = || "while it was made".to_owned();
        match self.ask(line, call, request, &place) {
            Ok((answer, line)) => {
                let said = sound(call, answer.status);
                replay(call, &answer.deeds, &line.made);
                (said, answer.given)
            }
            Err(said) => (said, Vec::new()),
        }
    }

    /// Ends the process, says why, and what the call ends with.
    fn lost(
        &self,
        line: &mut Line,
        call: &At,
        (op, timeout): (Op, Duration),
        lost: Lost,
        place: &str,
    ) -> Status {
        self.give_up();
        // Not by the time that it took: telling how a process died may take some as well.
        let loss = match lost {
            Lost::Late => Loss::Late,
            _ => Loss::Died,
        };
        // It is lost once.
        let _ = self.loss.set(loss);
        let plugin = &self.who.plugin;
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
                self.cradle.patience(),
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
        line.end(Duration::ZERO);
        let next = self.cradle.died(op, loss);
        call.log(Level::Error, &format!("{what}{next}"));
        call.fail(Said {
            what,
            help: help.into(),
            ..Said::default()
        });
        GONE
    }

    /// A call without rows: its status, and what it gave.
    pub fn plain(
        &self,
        call: &At,
        op: Op,
        write: impl FnOnce(&mut Writer),
        place: &dyn Fn() -> String,
    ) -> Spoken<'_> {
        self.plain_on(self.line(), call, op, self.cradle.timeout, write, place)
    }

    pub fn plain_on<'a>(
        &'a self,
        line: MutexGuard<'a, Line>,
        call: &At,
        op: Op,
        timeout: Duration,
        write: impl FnOnce(&mut Writer),
        place: &dyn Fn() -> String,
    ) -> Spoken<'a> {
        let mut body = request(op);
        write(&mut body);
        let request = Request {
            op,
            body,
            beside: &[],
            timeout,
        };
        match self.ask(line, call, request, place) {
            Ok((answer, line)) => {
                let said = sound(call, answer.status);
                replay(call, &answer.deeds, &line.made);
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
        let of_tiles = call.makes_rows();
        let mut body = request(Op::Process);
        body.u32(port);
        body.u8(u8::from(of_tiles));
        body.list::<ROW, _>(rows, write_row);
        body.list::<SLIDE, _>(slides, |out, slide| {
            // SAFETY: the caller's: slides live as long as their batch.
            unsafe { write_slide(out, &**slide) }
        });
        // SAFETY: the caller's.
        let place = || unsafe { place(rows, slides) };
        let given_up = &self.cradle.given_up;
        let mut lost = rows
            .iter()
            .filter_map(|row| Some((row, given_up.why(row.key.slide)?)));
        if of_tiles && let Some((row, why)) = lost.next() {
            // SAFETY: the caller's.
            let slide = unsafe { of_slide(row, slides) };
            call.fail(self.cradle.asks_no_more(&self.who, &slide, why));
            return GONE;
        }
        let (op, timeout) = (Op::Process, self.cradle.timeout);
        let began = Instant::now();
        // SAFETY: the caller's.
        let asked = match unsafe { self.lend(&mut line, &mut body, columns, rows.len()) } {
            Ok(copied) => {
                let request = Request {
                    op,
                    body,
                    beside: &[],
                    timeout,
                };
                let answer = self.ask(line, call, request, &place);
                answer.map(|(answer, line)| (answer, line, copied))
            }
            Err(lost) => Err(self.lost(&mut line, call, (op, timeout), lost, &place())),
        };
        match asked {
            Ok((answer, mut line, copied)) => {
                given_up.back(rows.iter().map(|row| row.key.slide));
                if answer.kept {
                    // SAFETY: the caller's.
                    unsafe { line.keep(batch, copied) }
                }
                let said = sound(call, answer.status);
                replay(call, &answer.deeds, &line.made);
                said
            }
            Err(said) => {
                // Only a call with one row tells whose fault it was; a batch is tried again row by row.
                if of_tiles && let [row] = rows {
                    // SAFETY: the caller's.
                    let slide = unsafe { of_slide(row, slides) };
                    self.was_lost(call, (row.key.slide, &slide), Some(place()), began);
                }
                said
            }
        }
    }

    /// Notes that a call about something of a slide alone, which has a number here and a name, or about the slide as a whole, lost the
    /// process.
    pub fn was_lost(
        &self,
        call: &At,
        (number, slide): (u64, &str),
        place: Option<String>,
        began: Instant,
    ) {
        let given_up = &self.cradle.given_up;
        if let Some(&loss) = self.loss.get()
            && given_up.was_lost(number, loss, place, began)
        {
            let said = self.cradle.asks_no_more(&self.who, slide, loss);
            call.log(Level::Error, &said.what);
        }
    }

    /// Says where each row of the columns lies for the child: where it is, if that is memory of both, else a copy. Whether any was
    /// copied.
    ///
    /// # Safety
    /// Columns of a batch of the host's, of `n` rows.
    unsafe fn lend(
        &self,
        line: &mut Line,
        body: &mut Writer,
        columns: &[Column],
        n: usize,
    ) -> Result<bool, Lost> {
        let mut end = 0;
        let mut copies: Vec<(&[u8], usize)> = Vec::new();
        let arena = self.arena();
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
            let mut row = 0..n;
            let lies = |out: &mut Writer, &from: &*mut c_void| {
                let length = row.next().and_then(|row| lengths.get(row));
                let bytes = match fixed {
                    Some(bytes) => bytes,
                    None => length.map_or(0, |&n| n as usize) * column.dtype.bytes(),
                };
                let from: &[u8] = match bytes {
                    0 => &[],
                    // SAFETY: the row has that many bytes, which stay as they are while the call lasts.
                    _ => unsafe { std::slice::from_raw_parts(from.cast_const().cast(), bytes) },
                };
                match arena.and_then(|arena| arena.offset(from)) {
                    Some(at) => write_lies(out, Lies::Shown(at)),
                    None => {
                        write_lies(out, Lies::Copied(end as u64));
                        copies.push((from, end));
                        end += bytes.next_multiple_of(ALIGN);
                    }
                }
            };
            body.item::<LENT>(|body| {
                body.bytes(name);
                body.u8(column.dtype.code);
                body.u8(column.dtype.bits);
                body.list::<8, _>(shape, |out, &side| out.i64(side));
                body.list::<8, _>(lengths, |out, &length| out.u64(length));
                body.list::<LIES, _>(rows, lies);
            });
        }
        if copies.is_empty() {
            return Ok(false);
        }
        let room = line.room(end, Instant::now() + self.cradle.timeout)?;
        for (from, at) in copies {
            if let Some(to) = room.at(at as u64, from.len()) {
                // SAFETY: the memory has that many bytes there, and only the host writes it, and only here.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
            }
        }
        Ok(true)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.is_gone() {
            return;
        }
        let call = Call::setup(&self.who);
        let place = || "while its instance was destroyed".to_owned();
        let request = Request {
            op: Op::Destroy,
            body: request(Op::Destroy),
            beside: &[],
            timeout: DESTROY,
        };
        let asked = self.ask(self.line(), &call, request, &place);
        if let Ok((_, mut line)) = asked {
            line.end(Duration::from_secs(1));
        }
    }
}

/// A status as it may leave a stand-in: it leaves no call pending.
fn sound(call: &At, said: Status) -> Status {
    match ends(said) {
        true => said,
        false => call.breach(format!("it ended a call with {said}, which ends none")),
    }
}

/// The id of a row's slide.
///
/// # Safety
/// The slides live.
unsafe fn of_slide(row: &Row, slides: &[*const Slide]) -> String {
    let slide = slides.get(row.slide as usize);
    // SAFETY: the caller's.
    slide.map_or_else(String::new, |slide| unsafe { slide_id(&**slide) })
}

/// As "at slide `a`, tiles (0, 0) to (512, 256)".
///
/// # Safety
/// The slides live.
unsafe fn place(rows: &[Row], slides: &[*const Slide]) -> String {
    // SAFETY: the caller's.
    let name = |row: &Row| unsafe { of_slide(row, slides) };
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
