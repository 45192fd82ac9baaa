//! Stands between the host and the stage that is tried: sees every call and every batch, and what is done against the rules.
//!
//! The plugin gets a table of host functions that notes what it asks for and hands it on to the host's own ([`offered`]); the host gets
//! a table of the stage's functions that does the same the other way round ([`asked`]). A call that is over and a batch that the plugin
//! does not have are noted and go no further. One stage is tried at a time, so all of this is the process's.

mod asked;
mod filled;
mod offered;
mod twin;

pub(super) use asked::{cancel_all, entered, stage};
use filled::Filled;
pub(super) use filled::{Left, fill_with, left_unwritten};
use offered::WATCHED;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use twin::Twin;
use weir_abi::Call;
use weir_abi::column::Batch;
use weir_abi::status::{PENDING, Status};

/// How batches are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Shown {
    /// As the host made them.
    AsMade,
    /// Each row at the end of what may be touched.
    Fenced,
    /// Inputs without their rows.
    Empty,
}

static SHOWN: AtomicU8 = AtomicU8::new(Shown::AsMade as u8);

/// From now on batches are shown so.
pub(super) fn show(how: Shown) {
    SHOWN.store(how as u8, Ordering::SeqCst);
}

fn is_shown(how: Shown) -> bool {
    SHOWN.load(Ordering::SeqCst) == how as u8
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The plugin's function runs.
    Work,
    /// It was completed, and the function runs on.
    Completed,
    /// The function returned WEIR_PENDING.
    Pending,
}

/// What was seen so far.
struct Seen {
    calls: BTreeMap<usize, At>,
    pending: u64,
    wrongs: Vec<String>,
    /// References that the plugin has, by batch.
    held: BTreeMap<usize, u64>,
    /// Batches that are shown in the place of the host's. They stay: the plugin may keep one as long as it likes.
    twins: BTreeMap<usize, Box<Twin>>,
    instances: Vec<usize>,
    filled: Option<Filled>,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen {
    calls: BTreeMap::new(),
    pending: 0,
    wrongs: Vec::new(),
    held: BTreeMap::new(),
    twins: BTreeMap::new(),
    instances: Vec::new(),
    filled: None,
});

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For another test in this process: nothing was seen yet.
pub(super) fn afresh() {
    show(Shown::AsMade);
    let mut all = seen();
    // What the plugin was shown stays where it was: it may have kept it.
    for (_, twin) in std::mem::take(&mut all.twins) {
        Box::leak(twin);
    }
    all.calls.clear();
    all.pending = 0;
    all.wrongs.clear();
    all.held.clear();
    all.instances.clear();
    all.filled = None;
}

/// Notes what was done against the rules.
fn wrong(what: impl Into<String>) {
    let what = what.into();
    let mut seen = seen();
    // A stage that does it at every call need not be told of for each.
    if !seen.wrongs.contains(&what) {
        seen.wrongs.push(what);
    }
}

/// What was done against the rules so far.
pub(super) fn wrongs() -> Vec<String> {
    seen().wrongs.clone()
}

/// How many calls were left pending so far.
pub(super) fn left_pending() -> u64 {
    seen().pending
}

/// How many calls are pending now.
pub(super) fn pending() -> usize {
    let seen = seen();
    let at = seen.calls.values();
    at.filter(|&&at| at == At::Pending).count()
}

/// References to batches that the plugin has.
pub(super) fn held() -> u64 {
    seen().held.values().sum()
}

/// Waits until `is` holds; whether it does by then.
pub(super) fn waited(most: Duration, is: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is() {
        if start.elapsed() > most {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// A function of the plugin's, with its call open meanwhile.
fn inside(call: *mut Call, body: impl FnOnce() -> Status) -> Status {
    seen().calls.insert(call as usize, At::Work);
    let said = body();
    let mut all = seen();
    let at = all.calls.remove(&(call as usize));
    if said == PENDING {
        all.pending += 1;
        if at == Some(At::Work) {
            all.calls.insert(call as usize, At::Pending);
        }
    } else if at == Some(At::Completed) {
        drop(all);
        wrong("it completed a call and did not return WEIR_PENDING");
    }
    said
}

/// Whether a call may be spoken of by `function`; noted where it may not.
fn is_open(call: *mut Call, function: &str) -> bool {
    let at = seen().calls.get(&(call as usize)).copied();
    match at {
        // The host has an answer to no call at all.
        None if call.is_null() => true,
        None => {
            wrong(format!("it called {function}() after its call was over"));
            false
        }
        Some(At::Completed) => {
            wrong(format!(
                "it called {function}() after it completed the call"
            ));
            false
        }
        Some(At::Work | At::Pending) => true,
    }
}

/// The call is completed; whether the host may be told.
fn completed(call: *mut Call) -> bool {
    let mut all = seen();
    match all.calls.get_mut(&(call as usize)) {
        Some(at @ At::Work) => *at = At::Completed,
        Some(At::Pending) => {
            all.calls.remove(&(call as usize));
        }
        Some(At::Completed) | None => {
            drop(all);
            wrong("it completed a call that was over: complete() ends one that is pending, once");
            return false;
        }
    }
    true
}

/// The plugin has one more reference to a batch.
fn gained(batch: *const Batch) {
    *seen().held.entry(batch as usize).or_default() += 1;
}

/// It gives one back; whether it had one.
fn gave_back(batch: *const Batch) -> bool {
    let mut all = seen();
    let Some(count) = all.held.get_mut(&(batch as usize)) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        all.held.remove(&(batch as usize));
    }
    true
}

fn gained_instance(me: *mut std::ffi::c_void) {
    seen().instances.push(me as usize);
}

fn lost_instance(me: *mut std::ffi::c_void) {
    let mut all = seen();
    if let Some(at) = all.instances.iter().position(|&known| known == me as usize) {
        all.instances.swap_remove(at);
    }
}
