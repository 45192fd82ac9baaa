//! A call into a plugin, as the host keeps it.

use super::about::About;
use super::done::{Line, OutRow};
use super::memory::{HostBatch, Origin, Spec};
use super::slides::{SlideBox, Slides};
use crate::abi;
use crate::abi::status::{self, Status};
use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicIsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What all calls of an instance have in common.
#[derive(Default)]
pub(super) struct Shared {
    pub slides: Slides,
    /// Batches that somebody holds.
    pub live: Arc<AtomicIsize>,
    /// Every call there was: a plugin that uses one too late must find it closed, not freed. Each call holds this in turn, so
    /// neither is ever freed: a test's few kilobytes.
    pub calls: Mutex<Vec<Arc<CallBox>>>,
    /// What a reduce or a sink was given and holds: input port, slide, tile.
    pub given: Mutex<BTreeSet<(u32, u64, u64)>>,
    pub log: Mutex<Vec<Line>>,
    pub counters: Mutex<BTreeMap<String, u64>>,
    pub cancelled: AtomicBool,
    pub folder: String,
    /// What was broken outside of any call that is still looked at.
    pub faults: Mutex<Vec<String>>,
}

/// Locks; what a panic left behind is still worth telling.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call.
pub(super) struct CallBox {
    pub shared: Arc<Shared>,
    pub about: Option<Arc<About>>,
    /// Columns of each output port.
    pub outs: Vec<Vec<Spec>>,
    /// The input, or null.
    pub input: *const abi::column::Batch,
    /// The slide whose turn it is: of a reduce.
    pub turn: Option<Arc<SlideBox>>,
    pub state: Mutex<State>,
    pub ended: Condvar,
}

// SAFETY: the input is a batch whose reference the harness holds until the call is ended; after that it is not looked at.
unsafe impl Send for CallBox {}
// SAFETY: as above.
unsafe impl Sync for CallBox {}

/// What became of a call so far.
#[derive(Default)]
pub(super) struct State {
    pub closed: bool,
    /// What the function returned, once it did.
    pub returned: Option<Status>,
    pub completed: Option<Status>,
    pub error: Option<Error>,
    pub out: Vec<OutRow>,
    /// Input rows of which a batch was made, by port.
    pub made: BTreeSet<(u32, u32)>,
    pub skipped: Vec<(usize, String)>,
    pub failed: Vec<(usize, Error)>,
    pub faults: Vec<String>,
}

impl CallBox {
    /// A call without input.
    pub fn plain(shared: &Arc<Shared>) -> CallBox {
        CallBox {
            shared: shared.clone(),
            about: None,
            outs: Vec::new(),
            input: std::ptr::null(),
            turn: None,
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Registers it, so that it stays.
    pub fn open(self) -> Arc<CallBox> {
        let call = Arc::new(self);
        lock(&call.shared.calls).push(call.clone());
        call
    }

    pub fn raw(self: &Arc<Self>) -> *mut abi::Call {
        Arc::as_ptr(self).cast_mut().cast()
    }

    /// # Safety
    /// `raw` is what `raw` gave of a call of a harness that lives.
    pub unsafe fn of<'a>(raw: *mut abi::Call) -> &'a CallBox {
        // SAFETY: the caller's.
        unsafe { &*raw.cast::<CallBox>().cast_const() }
    }

    /// The input, while the call is open.
    pub fn input(&self) -> Option<&HostBatch> {
        // SAFETY: the harness holds a reference until it has closed the call.
        (!self.input.is_null()).then(|| unsafe { HostBatch::of(self.input) })
    }

    /// Closes it with what the function returned, after waiting for `complete` where it is pending.
    pub fn close(&self, returned: Status, patience: Duration) -> Status {
        let mut state = lock(&self.state);
        state.returned = Some(returned);
        if returned != status::PENDING {
            if state.completed.is_some() {
                state.faults.push(format!(
                    "it completed the call, and then returned {returned} instead of WEIR_PENDING"
                ));
            }
            state.closed = true;
            return returned;
        }
        let (mut state, late) = self
            .ended
            .wait_timeout_while(state, patience, |state| state.completed.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            state.faults.push(format!(
                "it kept the call and did not complete it within {} s",
                patience.as_secs()
            ));
        }
        state.closed = true;
        state.completed.unwrap_or(status::FAIL)
    }

    /// What was broken of the contract by a map's or filter's call that succeeded.
    pub fn check_rows(&self, state: &mut State) {
        let (Some(about), Some(input)) = (&self.about, self.input()) else {
            return;
        };
        let (is_map, ports) = (about.rows == "map", &about.outs);
        for row in 0..input.rows.len() {
            let failed = state.failed.iter().filter(|(it, _)| *it == row).count();
            let skipped = state.skipped.iter().filter(|(it, _)| *it == row).count();
            for (port, about) in ports.iter().enumerate() {
                let came = |out: &&OutRow| {
                    out.port == port as u32 && out.origin == Origin::Input(row as u32)
                };
                let out = state.out.iter().filter(came).count();
                let fault = match (out, skipped, failed) {
                    (1, 0, 0) | (0, 0, 1) => continue,
                    (0, 1, 0) | (0, 0, 0) if !is_map => continue,
                    (0, 0, 0) => format!(
                        "row {row} was lost: it neither came out on `{}` nor failed",
                        about.name
                    ),
                    (0, _, 0) if is_map => format!("row {row} was skipped by a map"),
                    _ => format!(
                        "row {row} has several outcomes on `{}`: {out} came out, {skipped} skipped, {failed} failed",
                        about.name
                    ),
                };
                state.faults.push(fault);
            }
        }
    }
}
