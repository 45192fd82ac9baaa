//! The table of functions that stands in for an isolated plugin's.

use crate::batch::slide_id;
use crate::call::{At, Call};
use crate::isolate::message::{Op, OwnSlide, ROW, read_slide, write_row, write_slide};
use crate::isolate::remote::Remote;
use crate::wire::{Garbage, Reader, Writer};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use weir_abi::column::Batch;
use weir_abi::row::{Row, Slide};
use weir_abi::stage::{Stage, Step};
use weir_abi::status::{self, Status};

/// The table that stands in for every isolated plugin's; an instance is a [`Remote`], an open slide an [`Opened`].
pub(crate) static STAGE: Stage = Stage {
    destroy: Some(destroy),
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
    ..Stage::EMPTY
};

/// An open slide of a source.
struct Opened {
    remote: Arc<Remote>,
    /// Its number in the process.
    number: u64,
    id: String,
    /// A function of it did, so its state may be anything: it is not closed.
    panicked: AtomicBool,
    /// The texts that `open` handed over.
    _about: Option<OwnSlide>,
}

impl Opened {
    /// Notes a status that its functions return.
    fn heard(&self, said: Status) {
        if said == status::PANIC {
            self.panicked.store(true, Ordering::SeqCst);
        }
    }
}

/// # Safety
/// `me` came from `Arc::into_raw`, and its reference has not ended.
unsafe fn remote<'a>(me: *mut c_void) -> &'a Remote {
    // SAFETY: the caller's.
    unsafe { &*me.cast::<Remote>() }
}

/// A call of the host's that is open.
fn call(of: *mut weir_abi::Call) -> At {
    match At::find(of) {
        Some(call) => call,
        None => unreachable!("whoever calls a stand-in holds its call"),
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
        out.list::<ROW, _>(rows, write_row);
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
    let place = || format!("when slide `{}` was complete", unsafe { slide_id(about) });
    me.plain(&call, Op::Complete, write, &place).0
}

unsafe extern "C" fn close_slide(me: *mut c_void, number: u64) {
    // SAFETY: the host calls its own table.
    let me = unsafe { remote(me) };
    if me.is_gone() {
        return;
    }
    let call = Call::setup(&me.who);
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
fn described(call: &At, from: &mut Reader, out: &mut Slide) -> Option<OwnSlide> {
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
        me.cradle.slides().insert(i, unsafe { slide_id(out) });
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
            panicked: AtomicBool::new(false),
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

unsafe extern "C" fn next(handle: *mut c_void, of: *mut weir_abi::Call, out: *mut Step) -> Status {
    // SAFETY: the host calls its own table with what it was given.
    let (slide, call, out) = unsafe { (opened(handle), call(of), &mut *out) };
    let place = || format!("at slide `{}`", slide.id);
    let write = |out: &mut Writer| out.u64(slide.number);
    let (said, given, _) = slide.remote.plain(&call, Op::Next, write, &place);
    slide.heard(said);
    let mut given = Reader(&given);
    let mut read = || {
        Ok::<_, Garbage>(Step {
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
    slide.heard(said);
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
    if slide.remote.is_gone() || slide.panicked.load(Ordering::SeqCst) {
        return;
    }
    let call = Call::setup(&slide.remote.who);
    let place = || format!("while slide `{}` was closed", slide.id);
    let write = |out: &mut Writer| out.u64(slide.number);
    slide.remote.plain(&call, Op::Close, write, &place);
}
