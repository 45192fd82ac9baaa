//! Slide readers.

use super::source::bytes;
use super::{Instance, run};
use crate::abi;
use crate::abi::reader::{Facts as RawFacts, PARALLEL, Reader as Table, SPOILS};
use crate::abi::status::{self, Status};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::export::DeclaredReader;
use crate::guard::guard;
use crate::host::{Host, text};
use crate::reader::{Facts, Lent, Region};
use std::ffi::c_void;
use std::path::Path;
use std::sync::OnceLock;

/// An open slide, and what was found in it once that was asked.
struct Open<R> {
    reader: R,
    facts: OnceLock<Lent>,
}

/// The table of a reader.
pub const fn reader<R: DeclaredReader>() -> Table {
    let parallel = if R::PARALLEL { PARALLEL } else { 0 };
    let spoils = if R::SPOILS { SPOILS } else { 0 };
    Table {
        struct_size: size_of::<Table>() as u32,
        flags: parallel | spoils,
        id: R::ID.as_ptr(),
        sniff: Some(sniff::<R>),
        open: Some(open::<R>),
        info: Some(info::<R>),
        read_region: Some(read_region::<R>),
        picture: Some(picture::<R>),
        close: Some(close::<R>),
    }
}

// As in `stage`: every function is called as weir_plugin.h says, which is the SAFETY of each of its blocks.

unsafe extern "C" fn sniff<R: DeclaredReader>(path: abi::Str, head: *const u8, len: usize) -> i32 {
    // SAFETY: see above.
    let (path, head) = unsafe { (text(path), abi::Str { ptr: head, len }.bytes()) };
    // A sniff that panics knows nothing of the file.
    guard(|| i32::from(R::sniff(Path::new(path), head).min(100))).unwrap_or(0)
}

unsafe extern "C" fn open<R: DeclaredReader>(
    host: *const abi::host::Host,
    call: *mut abi::Call,
    path: abi::Str,
    handle: *mut *mut c_void,
) -> Status {
    // SAFETY: the host's table, which lives as long as the process.
    let Some(host) = (unsafe { Host::new(host) }) else {
        return status::FAIL;
    };
    let body = || {
        // SAFETY: see above.
        let (path, cx) = unsafe { (text(path), call_of(host, call)) };
        let reader = R::open(Path::new(path), &cx)?;
        let open = Open {
            reader,
            facts: OnceLock::new(),
        };
        // SAFETY: see above.
        unsafe { *handle = Instance::give(host, open) };
        Ok(status::OK)
    };
    // SAFETY: see above.
    unsafe { run(host, call, None, body) }
}

/// # Safety
/// `call` is open for as long as what is returned lives.
unsafe fn call_of<'c>(host: Host, call: *mut abi::Call) -> Call<'c> {
    // SAFETY: the caller's.
    unsafe { Call::new(host, call, &[], std::ptr::null()) }
}

/// A call on an open slide.
///
/// # Safety
/// `handle` is open, and so is `call`.
unsafe fn on<R: DeclaredReader>(
    handle: *mut c_void,
    call: *mut abi::Call,
    body: impl FnOnce(&'static Open<R>, &Call) -> Result<()>,
) -> Status {
    // SAFETY: the caller's; the lifetime is not kept beyond the handle's.
    let it = unsafe { Instance::<Open<R>>::of(handle) };
    // SAFETY: the caller's.
    let cx = unsafe { call_of(it.host, call) };
    // SAFETY: the caller's.
    unsafe {
        run(it.host, call, Some(&it.spoiled), || {
            body(&it.body, &cx).map(|()| status::OK)
        })
    }
}

unsafe extern "C" fn info<R: DeclaredReader>(
    handle: *mut c_void,
    call: *mut abi::Call,
    out: *mut *const RawFacts,
) -> Status {
    // SAFETY: see above.
    unsafe {
        on::<R>(handle, call, |open, cx| {
            if open.facts.get().is_none() {
                let facts: Facts = open.reader.facts(cx)?;
                let lent = Lent::new(facts)?;
                // Another thread may have been first: its facts stay.
                let _ = open.facts.set(lent);
            }
            let lent = open
                .facts
                .get()
                .ok_or_else(|| Error::new("the slide's facts are missing"))?;
            *out = &lent.facts;
            Ok(())
        })
    }
}

unsafe extern "C" fn read_region<R: DeclaredReader>(
    handle: *mut c_void,
    call: *mut abi::Call,
    level: u32,
    x: i64,
    y: i64,
    width: u32,
    height: u32,
    into: *mut u8,
    pitch: usize,
) -> Status {
    // SAFETY: see above.
    unsafe {
        on::<R>(handle, call, |open, cx| {
            let mut region = region(into, pitch, width, height)?;
            open.reader.read_region(level, x, y, &mut region, cx)
        })
    }
}

unsafe extern "C" fn picture<R: DeclaredReader>(
    handle: *mut c_void,
    call: *mut abi::Call,
    i: u32,
    into: *mut u8,
    pitch: usize,
) -> Status {
    // SAFETY: see above.
    unsafe {
        on::<R>(handle, call, |open, cx| {
            let size = open.facts.get().and_then(|lent| lent.picture(i));
            let (width, height) = size.ok_or_else(|| {
                Error::unsupported(format!("the slide has no picture number {i}"))
            })?;
            let mut region = region(into, pitch, width, height)?;
            open.reader.picture(i, &mut region, cx)
        })
    }
}

/// # Safety
/// `into` has so many rows, `pitch` bytes apart, that nobody else uses for `'a`.
unsafe fn region<'a>(into: *mut u8, pitch: usize, width: u32, height: u32) -> Result<Region<'a>> {
    let row = width as usize * 3;
    let len = match height {
        0 => Some(0),
        rows => pitch
            .checked_mul(rows as usize - 1)
            .and_then(|it| it.checked_add(row)),
    };
    let refused = || {
        Error::new(format!(
            "the host gave no memory for {width} x {height} px, rows {pitch} bytes apart"
        ))
    };
    let len = len
        .filter(|_| pitch >= row && (!into.is_null() || row == 0))
        .ok_or_else(refused)?;
    // SAFETY: the caller's.
    Region::new(unsafe { bytes(into, len) }, pitch, width, height).ok_or_else(refused)
}

unsafe extern "C" fn close<R: DeclaredReader>(handle: *mut c_void) {
    // SAFETY: see above; nothing is called any more.
    unsafe { Instance::<Open<R>>::take_back(handle) }
}
