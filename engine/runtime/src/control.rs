//! The word between the processes of a run: a stop, an abort and the end reach all of them, by way of process 0.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::abort::{Abort, Stop};
use crate::cluster::{Member, Message, receive, send};
use crate::report::Outcome;

/// How long a word may take to be sent: a process that hangs must not hold up the others' end.
const SENDING: Duration = Duration::from_secs(1);

/// This process's lines to the others, for the length of a run. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Control(Arc<Inner>);

struct Inner {
    process: usize,
    /// By process: at process 0 all the others, elsewhere process 0 alone.
    lines: Vec<Option<TcpStream>>,
    abort: Abort,
    stop: Stop,
    /// One message at a time.
    speaking: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// At process 0: who is through.
    done: usize,
    sink_failures: Vec<String>,
    memory_peak: u64,
    /// Elsewhere: what process 0 said of the end.
    end: Option<(u8, bool, bool)>,
    /// The others may go now.
    closing: bool,
    /// A fatal message that came from another process.
    foreign: Option<String>,
    told_level: u8,
}

impl Control {
    /// Listens to the others.
    pub(crate) fn new(member: Member, process: usize, abort: Abort, stop: Stop) -> Self {
        let names: Vec<String> = (0..member.lines.len())
            .map(|other| format!("process {other} ({})", member.address(other)))
            .collect();
        let control = Control(Arc::new(Inner {
            process,
            lines: member.lines,
            abort: abort.clone(),
            stop,
            speaking: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }));
        for (other, line) in control.0.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let set = line
                .set_read_timeout(None)
                .and_then(|()| line.set_write_timeout(Some(SENDING)))
                .and_then(|()| line.try_clone());
            let (ear, name) = (control.clone(), names[other].clone());
            let started = set.and_then(|line| {
                std::thread::Builder::new()
                    .name("weir-control".into())
                    .spawn(move || ear.listen(other, &line, &name))
            });
            if let Err(error) = started {
                abort.fatal(format!("no word can be had of {}: {error}", names[other]));
            }
        }
        let mouth = control.clone();
        abort.on_fatal(move |message| {
            let known = mouth.lock().foreign.as_deref() == Some(message);
            let message = if known {
                message.to_owned()
            } else {
                format!("process {process}: {message}")
            };
            mouth.tell_all(&Message::Fatal { message });
            mouth.0.changed.notify_all();
        });
        control
    }

    fn listen(&self, other: usize, line: &TcpStream, name: &str) {
        loop {
            match receive(line) {
                Ok(Message::Stop { level }) => {
                    self.0.stop.raise(level);
                    self.0.abort.wake_workers();
                }
                Ok(Message::Fatal { message }) => {
                    self.lock().foreign = Some(message.clone());
                    self.0.abort.fatal(message);
                }
                Ok(Message::Done {
                    sink_failures,
                    memory_peak,
                }) => {
                    let mut state = self.lock();
                    state.done += 1;
                    state.memory_peak = state.memory_peak.max(memory_peak);
                    let theirs = sink_failures
                        .into_iter()
                        .map(|what| format!("process {other}: {what}"));
                    state.sink_failures.extend(theirs);
                    self.0.changed.notify_all();
                }
                Ok(Message::Final {
                    code,
                    interrupted,
                    stopped,
                }) => {
                    let mut state = self.lock();
                    state.end = Some((code, interrupted, stopped));
                    state.closing = true;
                    self.0.changed.notify_all();
                }
                Ok(_) => {}
                Err(error) => {
                    if !self.lock().closing {
                        let message = format!("{name} was lost: {error}");
                        self.lock().foreign = Some(message.clone());
                        self.0.abort.fatal(message);
                    }
                    return;
                }
            }
        }
    }

    /// Tells the others that the end was asked for `level` times; once a level.
    pub(crate) fn tell_stop(&self, level: u8) {
        {
            let mut state = self.lock();
            if state.told_level >= level {
                return;
            }
            state.told_level = level;
        }
        self.tell_all(&Message::Stop { level });
    }

    /// Everything of this process is done: process 0 waits for all, says how the run ended, and every process says the same.
    pub(crate) fn end(&self, outcome: &mut Outcome) {
        if self.0.process == 0 {
            let others = self.0.lines.iter().flatten().count();
            self.wait(|state| state.done == others);
            if self.0.abort.is_set() {
                return;
            }
            let mut state = self.lock();
            outcome.sink_failures.append(&mut state.sink_failures);
            outcome.memory_peak = outcome.memory_peak.max(state.memory_peak);
            state.closing = true;
            drop(state);
            self.tell_all(&Message::Final {
                code: outcome.exit_code(),
                interrupted: outcome.interrupted,
                stopped: outcome.stopped,
            });
            return;
        }
        self.tell_all(&Message::Done {
            sink_failures: outcome.sink_failures.clone(),
            memory_peak: outcome.memory_peak,
        });
        self.wait(|state| state.end.is_some());
        if let Some((code, interrupted, stopped)) = self.lock().end {
            outcome.code = Some(code);
            outcome.interrupted = interrupted;
            outcome.stopped = stopped;
        }
    }

    /// Hangs up: the listening threads end.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        for line in self.0.lines.iter().flatten() {
            // It may be gone already.
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !until(&state) && !self.0.abort.is_set() {
            state = self
                .0
                .changed
                .wait_timeout(state, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn tell_all(&self, message: &Message) {
        let _one = self
            .0
            .speaking
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for line in self.0.lines.iter().flatten() {
            // Whoever is gone is found missing by the thread that listens to it.
            let _ = send(line, message);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
