//! `--processes N`: this process starts N of itself, joined by a list of addresses, and speaks for them.
//!
//! Children stand in process groups of their own, so that Ctrl-C at a terminal reaches this process alone; what they are to do
//! goes to their standard input, whose end tells them that this process is gone. What they say comes on their standard error: JSON
//! lines of progress are added up, everything else is passed on once, however many of them say it.

use super::progress::{Counts, Display};
use crate::message::{Done, Manner, Refusal};
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use weir_runtime::{Stop, exit};

/// How long the others may take to end by themselves when one ended with a fault.
const GRACE: Duration = Duration::from_secs(4);
/// How often this process looks at its children.
const LOOK: Duration = Duration::from_millis(50);

/// What a child reads on standard input.
pub struct Orders;

impl Orders {
    /// One request to stop.
    pub const STOP: u8 = b's';
}

/// Starts `n` processes with this process's arguments and waits for them; the exit code is the worst one.
pub fn run(n: usize, stop: &Stop, manner: &Manner) -> Done {
    let addresses = weir_runtime::cluster::local_addresses(n).map_err(|error| {
        Refusal::failed(
            format!("no {n} free ports on this machine: {error}"),
            "end what holds them, or use fewer processes",
        )
    })?;
    let hosts = hosts_file(&addresses)?;
    let arguments = without_processes(std::env::args_os().skip(1));
    let program = std::env::current_exe().map_err(|error| {
        Refusal::failed(format!("the program's own file is not known: {error}"), "")
    })?;
    let (heard, lines) = mpsc::channel();
    let mut children = Vec::new();
    for index in 0..n {
        let started = Command::new(&program)
            .args(&arguments)
            .arg("--hosts")
            .arg(hosts.path())
            .args(["--process", &index.to_string(), "--led"])
            .stdin(Stdio::piped())
            .stdout(if index == 0 {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            // Those that stand already see the end of their orders and leave.
            Err(error) => {
                return Err(Refusal::failed(
                    format!("process {index} of {n} cannot be started: {error}"),
                    "use fewer processes",
                ));
            }
        };
        let orders = child.stdin.take();
        if let Some(said) = child.stderr.take() {
            let heard = heard.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(said).lines().map_while(Result::ok) {
                    if heard.send((index, line)).is_err() {
                        return;
                    }
                }
            });
        }
        children.push(Running {
            child,
            orders,
            code: None,
        });
    }
    drop(heard);
    let display = Arc::new(Mutex::new(Display::new(manner, &format!("{n} processes"))));
    let speaker = std::thread::spawn({
        let display = display.clone();
        move || speak(&lines, n, &display)
    });
    let worst = wait(&mut children, stop);
    // Ends when every child has closed its standard error.
    let _ = speaker.join();
    display
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .finish();
    Ok(worst)
}

struct Running {
    child: Child,
    orders: Option<ChildStdin>,
    code: Option<u8>,
}

impl Running {
    fn order_stop(&mut self) {
        if let Some(orders) = &mut self.orders {
            // A child that is gone needs no orders.
            let _ = orders.write_all(&[Orders::STOP]);
        }
    }
}

/// Waits for all; hands requests to stop on; when one ends with a fault, the others are stopped and, after a while, killed.
fn wait(children: &mut [Running], stop: &Stop) -> u8 {
    let mut handed_on = 0;
    let mut fault: Option<Instant> = None;
    loop {
        let asked = stop.level();
        for _ in handed_on..asked {
            for child in children.iter_mut() {
                child.order_stop();
            }
        }
        handed_on = asked;
        let mut all_ended = true;
        for child in children.iter_mut().filter(|child| child.code.is_none()) {
            match child.child.try_wait() {
                Ok(None) => all_ended = false,
                // Ended by a signal: by the system for want of memory, or by somebody.
                Ok(Some(status)) => {
                    let code = status.code().and_then(|code| u8::try_from(code).ok());
                    child.code = Some(code.unwrap_or(exit::INTERNAL));
                }
                Err(_) => child.code = Some(exit::INTERNAL),
            }
            if child
                .code
                .is_some_and(|code| matches!(code, exit::FAILED | exit::USAGE | exit::INTERNAL))
            {
                fault.get_or_insert_with(Instant::now);
            }
        }
        if all_ended {
            break;
        }
        if let Some(since) = fault {
            for child in children.iter_mut().filter(|child| child.code.is_none()) {
                if since.elapsed() > GRACE {
                    // One that ends in this moment cannot be killed, and need not be.
                    let _ = child.child.kill();
                } else if since.elapsed() > GRACE / 4 {
                    child.orders = None;
                }
            }
        }
        std::thread::sleep(LOOK);
    }
    children
        .iter()
        .filter_map(|child| child.code)
        .max_by_key(|code| severity(*code))
        .unwrap_or(exit::INTERNAL)
}

/// Which exit code stands for several.
fn severity(code: u8) -> u8 {
    match code {
        exit::DONE => 0,
        exit::PARTLY => 1,
        exit::INTERRUPTED => 2,
        exit::FAILED => 3,
        exit::USAGE => 4,
        _ => 5,
    }
}

/// Passes on what the children say.
fn speak(lines: &mpsc::Receiver<(usize, String)>, n: usize, display: &Mutex<Display>) {
    let mut counts = vec![Counts::default(); n];
    let mut said = HashSet::new();
    for (index, line) in lines {
        let mut display = display.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(news) = Counts::parse(&line) {
            counts[index] = news;
            display.show(&Counts::sum(&counts));
        } else if said.insert(line.clone()) {
            display.line(&line);
        }
    }
}

/// A file with one address a line; gone when this process is.
fn hosts_file(addresses: &[String]) -> Result<tempfile::NamedTempFile, Refusal> {
    let write = || {
        let mut file = tempfile::NamedTempFile::new()?;
        for address in addresses {
            writeln!(file, "{address}")?;
        }
        file.flush()?;
        Ok::<_, std::io::Error>(file)
    };
    write().map_err(|error| {
        Refusal::failed(
            format!("the list of processes cannot be written: {error}"),
            "see TMPDIR",
        )
    })
}

/// The arguments without `--processes N`.
fn without_processes(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if argument == "--processes" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"--processes=") {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_not_told_to_start_processes() {
        let kept = |line: &str| {
            let arguments = without_processes(line.split(' ').map(OsString::from));
            arguments.join(std::ffi::OsStr::new(" "))
        };
        assert_eq!(kept("run a --processes 2 -q"), "run a -q");
        assert_eq!(kept("run --processes=2 a x=1"), "run a x=1");
        assert_eq!(kept("run a --process 2"), "run a --process 2");
    }

    #[test]
    fn the_worst_exit_code_stands_for_all() {
        let worst = |codes: &[u8]| codes.iter().copied().max_by_key(|code| severity(*code));
        assert_eq!(worst(&[0, 3, 0]), Some(exit::PARTLY));
        assert_eq!(worst(&[3, 130]), Some(exit::INTERRUPTED));
        assert_eq!(worst(&[130, 70, 1]), Some(exit::INTERNAL));
        assert_eq!(worst(&[0, 0]), Some(exit::DONE));
    }
}
