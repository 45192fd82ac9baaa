//! The host's functions as the plugin has them while its stage is tried.

use super::filled::{emitted, fill};
use super::twin::Twin;
use super::{Shown, completed, gained, gave_back, is_open, is_shown, seen, wrong};
use crate::offer::{HOST, VERSION};
use std::ffi::{c_char, c_void};
use weir_abi::column::Batch;
use weir_abi::host::Host;
use weir_abi::status::{self, Error, Status};
use weir_abi::{Call, Str};

/// The table that the plugin gets.
pub(in crate::check) static WATCHED: Host = Host {
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

/// The host's own function of this name; what comes back where it has none.
macro_rules! host {
    ($name:ident ($($argument:expr),*), $else:expr) => {
        match HOST.$name {
            // SAFETY: what the plugin passed, with a call that is open and a batch that it has.
            Some(function) => unsafe { function($($argument),*) },
            None => $else,
        }
    };
}

unsafe extern "C" fn extension(id: *const c_char) -> *const c_void {
    host!(extension(id), std::ptr::null())
}

unsafe extern "C" fn log(call: *mut Call, level: i32, text: Str) {
    if is_open(call, "log") {
        host!(log(call, level, text), ());
    }
}

unsafe extern "C" fn fail(call: *mut Call, error: *const Error) {
    if is_open(call, "fail") {
        host!(fail(call, error), ());
    }
}

unsafe extern "C" fn cancelled(call: *mut Call) -> i32 {
    match is_open(call, "cancelled") {
        true => host!(cancelled(call), 0),
        // A call that is gone has nothing to go on for.
        false => 1,
    }
}

/// A batch of the host's that the plugin may fill: itself, or what is shown in its place.
fn given(batch: *mut Batch, copy: bool) -> *mut Batch {
    if batch.is_null() {
        return batch;
    }
    if !is_shown(Shown::Fenced) {
        if !copy {
            // SAFETY: the host has just made it.
            unsafe { fill(batch) };
        }
        gained(batch);
        return batch;
    }
    // SAFETY: the host has just made it.
    match unsafe { Twin::fenced(batch, copy) } {
        Ok(twin) => {
            let shown = twin.as_ptr();
            gained(shown);
            seen().twins.insert(shown as usize, twin);
            shown.cast_mut()
        }
        Err(what) => {
            wrong(what);
            host!(batch_release(batch), ());
            std::ptr::null_mut()
        }
    }
}

/// That rows were made of a batch that was shown without any.
fn made_of_nothing(rows: u32) {
    if rows > 0 && is_shown(Shown::Empty) {
        wrong("it spoke of a row of a batch that has none");
    }
}

unsafe extern "C" fn batch_new(
    call: *mut Call,
    port: u32,
    n_rows: u32,
    source: *const u32,
) -> *mut Batch {
    made_of_nothing(n_rows);
    match is_open(call, "batch_new") {
        true => given(
            host!(batch_new(call, port, n_rows, source), std::ptr::null_mut()),
            false,
        ),
        false => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn batch_for(
    call: *mut Call,
    port: u32,
    slide: u64,
    n_rows: u32,
    tiles: *const u64,
) -> *mut Batch {
    match is_open(call, "batch_for") {
        true => given(
            host!(
                batch_for(call, port, slide, n_rows, tiles),
                std::ptr::null_mut()
            ),
            false,
        ),
        false => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn batch_edit(call: *mut Call, port: u32) -> *mut Batch {
    match is_open(call, "batch_edit") {
        true => given(host!(batch_edit(call, port), std::ptr::null_mut()), true),
        false => std::ptr::null_mut(),
    }
}

/// The host's batch behind one that the plugin names.
fn own(batch: *const Batch) -> *const Batch {
    let all = seen();
    all.twins
        .get(&(batch as usize))
        .map_or(batch, |twin| twin.of)
}

unsafe extern "C" fn batch_retain(batch: *const Batch) {
    if !batch.is_null() {
        host!(batch_retain(own(batch)), ());
        gained(batch);
    }
}

unsafe extern "C" fn batch_release(batch: *const Batch) {
    if batch.is_null() {
        return;
    }
    match gave_back(batch) {
        true => host!(batch_release(own(batch)), ()),
        false => wrong("it released a batch that it did not have"),
    }
}

unsafe extern "C" fn emit(call: *mut Call, port: u32, batch: *mut Batch) -> Status {
    if batch.is_null() {
        return match is_open(call, "emit") {
            true => host!(emit(call, port, batch), status::USE),
            false => status::USE,
        };
    }
    if !gave_back(batch) {
        wrong(
            "it emitted a batch that it did not have: its input, or one that it emitted or released before",
        );
        return status::USE;
    }
    let batch = {
        let all = seen();
        match all.twins.get(&(batch.cast_const() as usize)) {
            Some(twin) => {
                let whole = twin.is_whole().then_some(()).ok_or_else(|| twin.names());
                // SAFETY: a batch that the plugin made, to be handed on now.
                unsafe { twin.write_back() };
                let of = twin.of.cast_mut();
                drop(all);
                if let Err(columns) = whole {
                    wrong(format!("it wrote beside a row that it made ({columns})"));
                }
                of
            }
            None => {
                drop(all);
                // SAFETY: a batch that the plugin had, and hands on.
                unsafe { emitted(port, batch) };
                batch
            }
        }
    };
    if !is_open(call, "emit") {
        host!(batch_release(batch), ());
        return status::USE;
    }
    host!(emit(call, port, batch), status::USE)
}

unsafe extern "C" fn pass(call: *mut Call, port: u32, rows: *const u32, n_rows: u32) -> Status {
    made_of_nothing(n_rows);
    match is_open(call, "pass") {
        true => host!(pass(call, port, rows, n_rows), status::USE),
        false => status::USE,
    }
}

unsafe extern "C" fn table(
    call: *mut Call,
    port: u32,
    source: u32,
    bytes: *const c_void,
    len: usize,
) -> Status {
    match is_open(call, "table") {
        true => host!(table(call, port, source, bytes, len), status::USE),
        false => status::USE,
    }
}

unsafe extern "C" fn skip(call: *mut Call, row: u32, reason: Str) -> Status {
    made_of_nothing(1);
    match is_open(call, "skip") {
        true => host!(skip(call, row, reason), status::USE),
        false => status::USE,
    }
}

unsafe extern "C" fn fail_row(call: *mut Call, row: u32, error: *const Error) -> Status {
    made_of_nothing(1);
    match is_open(call, "fail_row") {
        true => host!(fail_row(call, row, error), status::USE),
        false => status::USE,
    }
}

unsafe extern "C" fn complete(call: *mut Call, said: Status) {
    if !call.is_null() && completed(call) {
        host!(complete(call, said), ());
    }
}

unsafe extern "C" fn wake(slide_key: *mut c_void) {
    host!(wake(slide_key), ());
}

unsafe extern "C" fn folder(call: *mut Call) -> Str {
    match is_open(call, "folder") {
        true => host!(folder(call), Str::EMPTY),
        false => Str::EMPTY,
    }
}
