//! Tests of calls that a stage leaves pending.

use super::{No, Said};
use crate::check::stand::{Made, Stand, outcomes};
use crate::check::watch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a pending call may take.
const SOON: Duration = Duration::from_secs(10);

/// How long a cancelled one may take.
const CANCELLED: Duration = Duration::from_secs(5);

/// How long what a thread does after its call may take to be seen.
const LATER: Duration = Duration::from_millis(300);

/// Makes calls on a thread of its own until there were enough, or none is wanted any more.
struct Calls {
    over: Arc<AtomicBool>,
    enough: Arc<AtomicBool>,
}

impl Calls {
    fn new(stand: &Stand, made: &Made, calls: usize) -> Result<Calls, No> {
        let (over, enough) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (ended, stopped) = (over.clone(), enough.clone());
        let (work, rows) = (made.work()?, stand.rows(0, 4));
        let outputs = stand.about.outs.len();
        // It may wait for ever, and ends with the process then.
        std::thread::spawn(move || {
            for _ in 0..calls {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                // How a call fails is other tests' affair.
                let _ = outcomes(&*work, &rows, outputs);
            }
            drop(work);
            ended.store(true, Ordering::SeqCst);
        });
        Ok(Calls { over, enough })
    }

    fn are_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

fn only_works(stand: &Stand) -> Result<(), No> {
    match stand.is_work() {
        true => Ok(()),
        false => Err(No::Skipped(
            "of maps and filters alone calls may overlap, so they alone are tried".into(),
        )),
    }
}

fn none_pending() -> No {
    No::Skipped("it leaves no call pending".into())
}

pub(super) fn completes_once(stand: &Stand) -> Said {
    only_works(stand)?;
    let made = stand.ready()?;
    let calls = Calls::new(stand, &made, 20)?;
    if !watch::waited(SOON, || calls.are_over()) {
        // Its instance is in use for ever.
        std::mem::forget(made);
        return Err(No::Failed(match watch::pending() {
            0 => format!("20 calls did not end within {SOON:?}"),
            n => format!(
                "{n} of its calls was left pending and not completed within {SOON:?}: every WEIR_PENDING needs its complete() [E0523]"
            ),
        }));
    }
    std::thread::sleep(LATER);
    match watch::left_pending() {
        0 => Err(none_pending()),
        n => Ok(format!("{n} calls")),
    }
}

pub(super) fn cancel_while_pending(stand: &Stand) -> Said {
    only_works(stand)?;
    // With nothing pending there is nothing to do.
    let idle = stand.ready()?;
    let has_cancel = watch::cancel_all();
    drop(idle);
    let made = stand.ready()?;
    let calls = Calls::new(stand, &made, 50)?;
    watch::waited(SOON, || watch::pending() > 0 || calls.are_over());
    if calls.are_over() {
        return match watch::left_pending() {
            0 => Err(none_pending()),
            n => Ok(format!(
                "{n} calls, completed before anybody could cancel them"
            )),
        };
    }
    calls.enough.store(true, Ordering::SeqCst);
    made.stop.request();
    if !watch::waited(CANCELLED, || calls.are_over()) {
        std::mem::forget(made);
        let why = match has_cancel {
            true => "cancel() is to complete all pending calls soon",
            false => "it has no cancel(), which is to complete all pending calls soon",
        };
        return Err(No::Failed(format!(
            "a call that was pending when the run was to stop was not completed within {CANCELLED:?}: {why}"
        )));
    }
    Ok(String::new())
}
