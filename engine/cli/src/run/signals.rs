//! Ctrl-C and friends: the first drains the run, the second aborts it, the third ends the process at once.

use crate::message::Manner;
use crate::run::children::Orders;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Read};
use std::time::Duration;
use weir_runtime::{Stop, exit};

/// How long an aborted run may take to end by itself; shorter than the runtime's own patience with its faults, since this is none.
const PATIENCE: Duration = Duration::from_millis(2500);

/// From now on SIGINT, SIGTERM and SIGHUP stop the run.
pub fn watch(stop: Stop, manner: Manner) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                requested(&stop, Some(&manner));
            }
        })?;
    Ok(())
}

/// The same for a process that another weir started: its orders come on standard input, a byte for each request. When that ends,
/// nobody waits for this process any more, and it aborts.
pub fn obey(stop: Stop) -> io::Result<()> {
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(move || {
            for order in io::stdin().lock().bytes() {
                match order {
                    Ok(Orders::STOP) => requested(&stop, None),
                    _ => break,
                }
            }
            while stop.level() < 2 {
                requested(&stop, None);
            }
        })?;
    Ok(())
}

fn requested(stop: &Stop, manner: Option<&Manner>) {
    let say = |text: &str| {
        if let Some(manner) = manner {
            manner.warning(text, "");
        }
    };
    match stop.request() {
        1 => say("stopping: what is being worked on is brought to an end; once more to abort"),
        2 => {
            say("aborting");
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                leave();
            });
        }
        _ => leave(),
    }
}

fn leave() {
    exit::leaves();
    std::process::exit(exit::INTERRUPTED.into());
}
