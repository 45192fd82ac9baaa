//! How a process ended, in words: of a plugin's own process, and of a test of `weir plugin check`.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// As "was killed by signal 6 (Aborted)".
pub(crate) fn told(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match name(signal) {
            "" => format!("was killed by signal {signal}"),
            name => format!("was killed by signal {signal} ({name})"),
        },
        (None, Some(code)) => format!("ended with exit status {code}"),
        (None, None) => "ended".into(),
    }
}

fn name(signal: i32) -> &'static str {
    match Signal::from_named_raw(signal) {
        Some(Signal::ILL) => "Illegal instruction",
        Some(Signal::TRAP) => "Trap",
        Some(Signal::ABORT) => "Aborted",
        Some(Signal::BUS) => "Bus error",
        Some(Signal::FPE) => "Floating point exception",
        Some(Signal::KILL) => "Killed",
        Some(Signal::SEGV) => "Segmentation fault",
        Some(Signal::PIPE) => "Broken pipe",
        Some(Signal::ALARM) => "Alarm clock",
        Some(Signal::TERM) => "Terminated",
        Some(Signal::SYS) => "Bad system call",
        _ => "",
    }
}
