//! Plugins in a process of their own: `isolate = true`.
//!
//! The same file runs in a child process ([`child`](crate::child)), and the host talks to it as if it were loaded here: what stands
//! in for the plugin is a table of functions (`stand_in`) like any plugin's, so the stages that call it are the same ones. Of a call
//! the stand-in says through a socket where what lies, waits for the answer or the child's end, and then does all that the plugin
//! did over again with the host's own functions (`replay`). These check what they are given, so the host believes a child no more
//! than it believes a plugin in its own process, and nothing that a child writes can do more than fail a call.
//!
//! Pixels of a run with an isolated plugin lie in an arena ([`weir_record::Arena`]), which its processes may only read: a tile goes
//! to them as its place there. Everything else is copied into memory of the same kind.
//!
//! | module | |
//! |---|---|
//! | `cradle` | starts a stage's processes, unless they never come up |
//! | `given_up` | slides whose tiles do not come back, or end the process |
//! | `process` | a process's start and end |
//! | `line` | the connection to it: one call at a time, and what both hold for it |
//! | `remote` | an instance in a process: what is asked of it, and what is said when it dies |
//! | `stand_in` | the table that is called in a stage's place |
//! | `reader` | what is asked in a slide reader's place |
//! | `replay` | what the plugin did, done here |
//! | `channel`, `wire`, `message`, `answer`, `found` | frames through the socket, and what stands in them |
//! | `memory` | what both processes see |
//!
//! What differs from a plugin in this process:
//! * A process has one call at a time. A map or filter whose calls may overlap, or that has an instance for each worker, has a process
//!   for each helper thread, and a source, reduce or sink one for each open slide, so that a call that kills its process takes no other
//!   with it; other maps and filters have one, and so has what works at the end of the run. A call that is left pending is waited for.
//! * What is made is copied once, and so is an input that is no pixels. A batch that a plugin keeps stays as it is.
//! * What a reduce, sink or source held of a slide is gone when its process dies: that slide fails, and where one process has all slides
//!   every open one; later slides go to the next process.
//! * Memory that is shared for inputs and outputs, and for a reader's regions, is leased from the run's budget, at once and whatever its
//!   share; a process gets at most half of `run.memory` (64 MiB to 4 GiB) for what it makes. One of a reader's keeps at most four
//!   times its largest region.
//! * A reader's processes share the cache that its manifest names: each is told an equal part by the cache's variable.
//! * What a plugin allocates itself is its process's: at most half of the machine's memory, and the first to be ended when that is
//!   short.
//! * Handles of a slide reader are read one at a time, each in a process of its own as far as there are processors.
//! * Memory of devices stays in this process.

pub(crate) mod answer;
pub(crate) mod channel;
pub(crate) mod cradle;
pub(crate) mod found;
pub(crate) mod given_up;
pub(crate) mod line;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod reader;
pub(crate) mod remote;
pub(crate) mod replay;
pub(crate) mod stand_in;

use crate::admit::Admitted;
use crate::isolate::channel::Lost;
use crate::isolate::line::{Ear, Line, START, Starting};
use crate::isolate::message::Hello;
use crate::isolate::process::remedy;
use crate::manifest::Manifest;
use crate::refusal::Refusal;
pub use process::Program;
use std::io::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use weir_runtime::Stop;

/// A plugin that runs in child processes. Nothing of it is loaded here.
#[derive(Clone, Debug)]
pub struct Isolated {
    admitted: Arc<Admitted>,
    program: Program,
    /// The first process, until a stage or reader takes it.
    first: Arc<Mutex<First>>,
}

#[derive(Debug)]
enum First {
    Starting(Starting),
    Runs(Box<Line>),
    Taken,
}

impl Isolated {
    /// A plugin for child processes of `program`. The first one is started and loads the plugin while the caller goes on:
    /// [`Isolated::loaded`] waits for it.
    ///
    /// # Errors
    /// When no process can be started (E0521).
    pub fn new(admitted: Arc<Admitted>, program: Program) -> Result<Isolated, Refusal> {
        // Any of them may become a reader's.
        let caches = admitted.manifest().readers.iter();
        let caches = caches.filter_map(|reader| reader.cache.as_ref()?.share(most_processes()));
        let program = program.with_variables(caches);
        let starting = begin(&admitted, &program);
        let starting = starting.map_err(|error| unstarted(&admitted, &error))?;
        Ok(Isolated {
            admitted,
            program,
            first: Arc::new(Mutex::new(First::Starting(starting))),
        })
    }

    /// Waits until the first process has loaded the plugin.
    ///
    /// # Errors
    /// What [`Loaded::new`](crate::Loaded::new) would say (E0503, E0509, E0510, E0513), and E0521 when the process died of it.
    pub fn loaded(&self) -> Result<(), Refusal> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = match std::mem::replace(&mut *first, First::Taken) {
            First::Taken => return Ok(()),
            First::Runs(line) => line,
            First::Starting(starting) => {
                let line = starting.line();
                Box::new(line.map_err(|error| unstarted(&self.admitted, &error))?)
            }
        };
        let stop = Stop::default();
        let ear = Ear {
            stop: &stop,
            log: &|_, _| (),
            until: Instant::now() + START,
        };
        match line.loaded(&ear) {
            Ok(Ok(())) => {
                *first = First::Runs(line);
                Ok(())
            }
            Ok(Err(refusal)) => Err(refusal),
            Err(lost) => {
                let (what, help) = match lost {
                    Lost::Closed => {
                        let death = line.process.death();
                        (death.clone(), remedy(&death))
                    }
                    Lost::Late => (format!("did not load it within {START:?}"), ""),
                    Lost::Garbage(what) => (format!("sent {what}"), ""),
                    Lost::System(error) => (format!("cannot be reached: {error}"), ""),
                };
                let what = format!("its process {what} while it was loaded");
                Err(Refusal::new("E0521", what, help).of(self.admitted.file().path()))
            }
        }
    }

    /// A process with the plugin, perhaps still loading it.
    pub(crate) fn line(&self) -> Result<Line, Error> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let first = std::mem::replace(&mut *first, First::Taken);
        match first {
            First::Runs(line) => Ok(*line),
            First::Starting(starting) => starting.line(),
            First::Taken => begin(&self.admitted, &self.program)?.line(),
        }
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.admitted.manifest()
    }

    /// SHA-256 of its file.
    pub fn sha256(&self) -> &str {
        self.admitted.file().sha256()
    }
}

/// A reader has no more processes than that.
pub(crate) fn most_processes() -> u64 {
    std::thread::available_parallelism().map_or(1, |most| most.get() as u64)
}

/// Starts a process that loads the plugin.
fn begin(admitted: &Admitted, program: &Program) -> Result<Starting, Error> {
    let file = admitted.file();
    let hello = Hello {
        plugin: admitted.manifest().name.clone(),
        path: file.path().to_string_lossy().into_owned(),
        sha256: file.sha256().to_owned(),
        beside: file.beside().map(|beside| beside.text().to_vec()),
    };
    Starting::begin(program, &hello, file.sealed().try_clone()?.into())
}

fn unstarted(admitted: &Admitted, error: &Error) -> Refusal {
    Refusal::new(
        "E0521",
        format!("its process cannot be started: {error}"),
        "is there memory, and may this user start processes?",
    )
    .of(admitted.file().path())
}
