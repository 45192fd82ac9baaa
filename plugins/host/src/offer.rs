//! What the host offers a plugin: the functions of `weir_host`.
//!
//! Each takes what the plugin hands over apart, checks it, and leaves the work to [`Call`] and [`HostBatch`]. Nothing unwinds into a
//! plugin: none of what is called here panics on what a plugin can pass.

use crate::batch::HostBatch;
use crate::call::{Call, Said, Task, Told};
use crate::log::Level;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::host::{Host, MetricsV1};
use weir_abi::status::{self, Error, Status};

/// The table that every plugin gets.
pub(crate) static HOST: Host = Host {
    struct_size: size_of::<Host>() as u32,
    abi_minor: weir_abi::MINOR,
    version: VERSION.as_ptr(),
    extension: Some(extension),
    log: Some(log),
    fail: Some(fail),
    cancelled: Some(cancelled),
    batch_new: Some(batch_new),
    batch_for: Some(batch_for),
    batch_edit: Some(batch_edit),
    batch_retain: Some(batch_retain),
    batch_release: Some(batch_release),
    emit: Some(emit),
    pass: Some(pass),
    table: Some(table),
    skip: Some(skip),
    fail_row: Some(fail_row),
    complete: Some(complete),
    wake: Some(wake),
    folder: Some(folder),
};

pub(crate) const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!("weir ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"weir",
    };

static METRICS: MetricsV1 = MetricsV1 {
    struct_size: size_of::<MetricsV1>() as u32,
    reserved: 0,
    count: Some(count),
};

/// The call that a plugin names; `None` for a null pointer, with which nothing can be done.
///
/// # Safety
/// It is null or a call that is not over.
unsafe fn call<'a>(of: *mut weir_abi::Call) -> Option<&'a Call> {
    // SAFETY: the caller's; a `Call` lives as long as it may be named.
    unsafe { of.cast::<Call>().cast_const().as_ref() }
}

/// # Safety
/// As [`Str::bytes`]; the text is copied.
pub(crate) unsafe fn text(of: Str) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { of.bytes() }).into_owned()
}

/// # Safety
/// Null, or an error whose strings are readable.
pub(crate) unsafe fn said(error: *const Error) -> Said {
    // SAFETY: the caller's.
    unsafe {
        error.as_ref().map_or_else(Said::default, |error| Said {
            what: text(error.message),
            param: text(error.param),
            help: text(error.help),
        })
    }
}

unsafe extern "C" fn extension(id: *const c_char) -> *const c_void {
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: a C string, the header says.
    match unsafe { CStr::from_ptr(id) }.to_bytes() {
        b"weir.metrics/1" => (&raw const METRICS).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn count(of: *mut weir_abi::Call, name: Str, by: u64) {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        if let Some(call) = call(of) {
            call.who.counters.add(&call.who.stage, &text(name), by);
        }
    }
}

unsafe extern "C" fn log(of: *mut weir_abi::Call, level: i32, line: Str) {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        if let Some(call) = call(of) {
            call.log(Level::of(level), &text(line));
        }
    }
}

unsafe extern "C" fn fail(of: *mut weir_abi::Call, error: *const Error) {
    // SAFETY: the header's rules for calls and errors.
    unsafe {
        if let Some(call) = call(of) {
            call.fail(said(error));
        }
    }
}

unsafe extern "C" fn cancelled(of: *mut weir_abi::Call) -> i32 {
    // SAFETY: the header's rules for calls.
    unsafe { call(of) }.map_or(0, |call| i32::from(call.who.stop.level() > 0))
}

/// A fresh batch's address, with one reference for the plugin.
fn handed(batch: Result<HostBatch, String>, call: &Call) -> *mut Batch {
    match batch {
        Ok(batch) => HostBatch::into_ptr(Arc::new(batch.of_call(call.number))),
        Err(what) => {
            call.breach(what);
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// `list` is null or `n` numbers.
pub(crate) unsafe fn list<'a, T>(list: *const T, n: u32) -> Option<&'a [T]> {
    if n == 0 {
        return Some(&[]);
    }
    if list.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    Some(unsafe { std::slice::from_raw_parts(list, n as usize) })
}

unsafe extern "C" fn batch_new(
    of: *mut weir_abi::Call,
    port: u32,
    n_rows: u32,
    source: *const u32,
) -> *mut Batch {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, source) = unsafe { (call(of), list(source, n_rows)) };
    let (Some(call), Some(source)) = (call, source) else {
        return std::ptr::null_mut();
    };
    let Task::Rows {
        input,
        outputs,
        leases,
    } = &call.task
    else {
        call.breach("it called batch_new() in a call that has no input");
        return std::ptr::null_mut();
    };
    let Some(output) = outputs.get(port as usize) else {
        call.breach(format!("it has no output number {port}"));
        return std::ptr::null_mut();
    };
    handed(
        HostBatch::for_rows(output, port as usize, input, source, leases, &call.who),
        call,
    )
}

unsafe extern "C" fn batch_for(
    of: *mut weir_abi::Call,
    port: u32,
    slide: u64,
    n_rows: u32,
    tiles: *const u64,
) -> *mut Batch {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, tiles) = unsafe { (call(of), list(tiles, n_rows)) };
    let (Some(call), Some(tiles)) = (call, tiles) else {
        return std::ptr::null_mut();
    };
    let Task::Slides { outputs, slides } = &call.task else {
        call.breach("it called batch_for(), which is for a reduce");
        return std::ptr::null_mut();
    };
    let Some(output) = outputs.get(port as usize) else {
        call.breach(format!("it has no output number {port}"));
        return std::ptr::null_mut();
    };
    handed(
        HostBatch::for_tiles(output, port as usize, slide, tiles, slides, &call.who),
        call,
    )
}

unsafe extern "C" fn batch_edit(of: *mut weir_abi::Call, port: u32) -> *mut Batch {
    // SAFETY: the header's rules for calls.
    let Some(call) = (unsafe { call(of) }) else {
        return std::ptr::null_mut();
    };
    let Task::Rows {
        input,
        outputs,
        leases,
    } = &call.task
    else {
        call.breach("it called batch_edit() in a call that has no input");
        return std::ptr::null_mut();
    };
    let Some(output) = outputs.get(port as usize) else {
        call.breach(format!("it has no output number {port}"));
        return std::ptr::null_mut();
    };
    handed(
        HostBatch::edited(output, port as usize, input, leases, &call.who),
        call,
    )
}

unsafe extern "C" fn batch_retain(batch: *const Batch) {
    if !batch.is_null() {
        // SAFETY: every batch that a plugin knows is a `HostBatch` of which somebody holds a reference.
        unsafe { Arc::increment_strong_count(HostBatch::of(batch)) }
    }
}

unsafe extern "C" fn batch_release(batch: *const Batch) {
    if !batch.is_null() {
        // SAFETY: as above, and the reference that ends here is the caller's.
        unsafe { Arc::decrement_strong_count(HostBatch::of(batch)) }
    }
}

unsafe extern "C" fn emit(of: *mut weir_abi::Call, port: u32, batch: *mut Batch) -> Status {
    // SAFETY: the header's rules for calls.
    let call = unsafe { call(of) };
    if batch.is_null() {
        return call.map_or(status::USE, |call| call.breach("it emitted a null batch"));
    }
    // SAFETY: the caller gives up one reference, also when this fails.
    let batch = unsafe { Arc::from_raw(HostBatch::of(batch)) };
    let Some(call) = call else { return status::USE };
    if batch.call() != call.number {
        return call.breach("it emitted a batch that it made in another call");
    }
    match batch.emit(port as usize) {
        Ok(told) => call.tell(told),
        Err(what) => call.breach(what),
    }
}

unsafe extern "C" fn pass(
    of: *mut weir_abi::Call,
    port: u32,
    rows: *const u32,
    n_rows: u32,
) -> Status {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, rows) = unsafe { (call(of), list(rows, n_rows)) };
    let (Some(call), Some(rows)) = (call, rows) else {
        return status::USE;
    };
    let Task::Rows { input, outputs, .. } = &call.task else {
        return call.breach("it called pass() in a call that has no input");
    };
    let Some(output) = outputs.get(port as usize) else {
        return call.breach(format!("it has no output number {port}"));
    };
    match input.passed(output, port as usize, rows) {
        Ok(told) => call.tell(told),
        Err(what) => call.breach(what),
    }
}

unsafe extern "C" fn table(
    of: *mut weir_abi::Call,
    port: u32,
    source: u32,
    bytes: *const c_void,
    len: usize,
) -> Status {
    // SAFETY: the header's rules for calls.
    let Some(call) = (unsafe { call(of) }) else {
        return status::USE;
    };
    if bytes.is_null() && len > 0 {
        return call.breach("it gave a table of null");
    }
    let bytes = match len {
        0 => &[],
        // SAFETY: `len` bytes, the header says; they are copied.
        len => unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) },
    };
    match crate::columns::table(&call.task, port as usize, source, bytes) {
        Ok(told) => call.tell([told]),
        Err(what) => call.breach(what),
    }
}

/// How many rows the input of a call has; an error where it has no input.
fn row(call: &Call, row: u32) -> Result<u32, Status> {
    let Task::Rows { input, .. } = &call.task else {
        return Err(call.breach("it spoke of a row in a call that has no input"));
    };
    if row >= input.rows() {
        return Err(call.breach(format!(
            "it spoke of row {row} of a batch of {}",
            input.rows()
        )));
    }
    Ok(row)
}

unsafe extern "C" fn skip(of: *mut weir_abi::Call, at: u32, reason: Str) -> Status {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        let Some(call) = call(of) else {
            return status::USE;
        };
        match row(call, at) {
            Ok(row) => call.tell([Told::Skipped {
                row,
                reason: text(reason).into(),
            }]),
            Err(status) => status,
        }
    }
}

unsafe extern "C" fn fail_row(of: *mut weir_abi::Call, at: u32, error: *const Error) -> Status {
    // SAFETY: the header's rules for calls and errors.
    unsafe {
        let Some(call) = call(of) else {
            return status::USE;
        };
        match row(call, at) {
            Ok(row) => call.tell([Told::Failed {
                row,
                said: said(error),
            }]),
            Err(status) => status,
        }
    }
}

unsafe extern "C" fn complete(of: *mut weir_abi::Call, said: Status) {
    if of.is_null() {
        return;
    }
    let of = of.cast::<Call>().cast_const();
    // SAFETY: the call is not over before this; a reference of its own keeps it until nothing here needs it, since whoever waits
    // drops the other one as soon as it hears.
    let call = unsafe {
        Arc::increment_strong_count(of);
        Arc::from_raw(of)
    };
    call.complete(said);
}

unsafe extern "C" fn wake(slide_key: *mut c_void) {
    // A source of a plugin is asked again after a while in any case; it has no bell to ring.
    let _ = slide_key;
}

unsafe extern "C" fn folder(of: *mut weir_abi::Call) -> Str {
    // SAFETY: the header's rules for calls.
    match unsafe { call(of) } {
        Some(call) => match call.who.folder.to_str() {
            Some(folder) => Str::new(folder),
            None => Str::EMPTY,
        },
        None => Str::EMPTY,
    }
}
