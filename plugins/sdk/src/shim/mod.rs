//! The functions that the host calls: each guarded, each turning pointers into types and results into statuses.

pub(crate) mod reader;
pub(crate) mod source;
pub(crate) mod stage;

use crate::abi;
use crate::abi::status::{self, Status};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::guard::guard;
use crate::host::Host;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a plugin hands to the host as `self`, a slide or a handle.
pub(crate) struct Instance<T> {
    pub(crate) host: Host,
    /// A panic went through it: it is used no more.
    spoiled: AtomicBool,
    pub(crate) body: T,
}

impl<T> Instance<T> {
    /// Onto the heap, as a pointer for the host.
    pub(crate) fn give(host: Host, body: T) -> *mut c_void {
        Box::into_raw(Box::new(Instance {
            host,
            spoiled: AtomicBool::new(false),
            body,
        }))
        .cast()
    }

    /// # Safety
    /// `pointer` came from `give` of the same type and was not taken back.
    pub(crate) unsafe fn of<'a>(pointer: *mut c_void) -> &'a Instance<T> {
        // SAFETY: the caller's.
        unsafe { &*pointer.cast::<Instance<T>>() }
    }

    /// Takes it back and drops it. A panic of its drop is printed by whoever prints panics, for no call is there to take it.
    ///
    /// # Safety
    /// As `of`, and nobody uses it any more.
    pub(crate) unsafe fn take_back(pointer: *mut c_void) {
        if pointer.is_null() {
            return;
        }
        // SAFETY: the caller's.
        let it = unsafe { Box::from_raw(pointer.cast::<Instance<T>>()) };
        if let Err(panic) = guard(move || drop(it)) {
            eprintln!("{panic}");
        }
    }
}

/// Runs `body` as a call of the host's: guarded, its error handed over.
///
/// # Safety
/// `call` is an open call of `host` for as long as the function runs.
pub(crate) unsafe fn run(
    host: Host,
    call: *mut abi::Call,
    spoiled: Option<&AtomicBool>,
    body: impl FnOnce() -> Result<Status>,
) -> Status {
    if spoiled.is_some_and(|it| it.load(Ordering::Relaxed)) {
        let error = Error::of(status::PANIC, "it panicked before and is used no more");
        // SAFETY: the caller's.
        unsafe { host.fail(call, &error) };
        return status::PANIC;
    }
    let error = match guard(body) {
        Ok(Ok(status)) => return status,
        Ok(Err(error)) => error,
        Err(panic) => {
            if let Some(spoiled) = spoiled {
                spoiled.store(true, Ordering::Relaxed);
            }
            Error::of(status::PANIC, panic)
        }
    };
    // SAFETY: the caller's.
    unsafe { host.fail(call, &error) };
    error.status()
}

/// The same for a call with an input batch, which the plugin may keep open.
///
/// # Safety
/// As `run`; `input` lives until the call ends.
pub(crate) unsafe fn run_with_batch(
    host: Host,
    call: *mut abi::Call,
    outs: &'static [&'static str],
    input: *const abi::column::Batch,
    spoiled: &AtomicBool,
    body: impl FnOnce(&Call<'_>) -> Result<()>,
) -> Status {
    if spoiled.load(Ordering::Relaxed) {
        // SAFETY: the caller's.
        return unsafe { run(host, call, Some(spoiled), || Ok(status::OK)) };
    }
    // SAFETY: the caller's.
    let cx = unsafe { Call::new(host, call, outs, input) };
    let result = guard(|| body(&cx));
    if result.is_err() {
        spoiled.store(true, Ordering::Relaxed);
    }
    if cx.is_detached() {
        // Whoever holds it ends it, or did already: the call may be gone.
        return status::PENDING;
    }
    let error = match result {
        Ok(Ok(())) => return status::OK,
        Ok(Err(error)) => error,
        Err(panic) => Error::of(status::PANIC, panic),
    };
    // SAFETY: the caller's.
    unsafe { host.fail(call, &error) };
    error.status()
}
