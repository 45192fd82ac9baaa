//! What starts an isolated stage's processes.

use crate::call::{Call, CallError, Said, Who};
use crate::columns::Output;
use crate::isolate::Isolated;
use crate::isolate::memory::{Memory, PAGE};
use crate::isolate::message::Hello;
use crate::isolate::process::Process;
use crate::isolate::remote::Remote;
use crate::parameters::Parameters;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use weir_abi::status;

/// How often a stage's processes may die in a run before they are not started again.
const RESTARTS: u32 = 100;

/// How long a plugin may take to load and to make its instance: a model may be large and its disk slow.
const START: Duration = Duration::from_secs(300);

/// A stage of a plugin that is isolated: starts its processes.
#[derive(Debug)]
pub(crate) struct Cradle {
    isolated: Isolated,
    hello: Hello,
    pub timeout: Duration,
    deaths: AtomicU32,
    /// Whether the plugin's stage has a function for the end of the run.
    finishes: AtomicBool,
    /// Of a source: ids of its slides, by their place in its list.
    slides: Mutex<HashMap<u64, String>>,
}

impl Cradle {
    /// For stage type `id`, whose calls may take `timeout`.
    pub fn new(
        isolated: &Isolated,
        id: &str,
        outputs: &[Output],
        folder: &Path,
        timeout: Duration,
    ) -> Cradle {
        let file = isolated.admitted.file();
        Cradle {
            hello: Hello {
                plugin: isolated.manifest().name.clone(),
                path: file.path().to_string_lossy().into_owned(),
                sha256: file.sha256().to_owned(),
                id: id.to_owned(),
                folder: folder.to_string_lossy().into_owned(),
                outputs: outputs.to_vec(),
            },
            isolated: isolated.clone(),
            timeout,
            deaths: AtomicU32::new(0),
            finishes: AtomicBool::new(false),
            slides: Mutex::default(),
        }
    }

    /// Whether the plugin's stage has a function for the end of the run; known once an instance was made.
    pub fn finishes(&self) -> bool {
        self.finishes.load(Ordering::SeqCst)
    }

    /// Ids of a source's slides, by their place in its list.
    pub fn slides(&self) -> MutexGuard<'_, HashMap<u64, String>> {
        self.slides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin's bytes, for a process.
    pub fn sealed(&self) -> &File {
        self.isolated.admitted.file().sealed()
    }

    /// Counts a death, and says what comes of it.
    pub fn died(&self) -> String {
        let deaths = self.deaths.fetch_add(1, Ordering::SeqCst) + 1;
        match deaths > RESTARTS {
            false => format!("it is started again ({deaths} of {RESTARTS})"),
            true => "it is not started again".into(),
        }
    }

    /// Starts a process and has it make an instance.
    pub fn start(
        self: &Arc<Cradle>,
        who: &Arc<Who>,
        parameters: &Parameters,
    ) -> Result<Arc<Remote>, CallError> {
        let call = Call::setup(who.clone());
        let failed = |what: String, help: &str| CallError {
            status: status::FAIL,
            said: Said {
                what: format!("{}'s process {what}", who.plugin),
                help: help.into(),
                ..Said::default()
            },
        };
        if self.deaths.load(Ordering::SeqCst) > RESTARTS {
            return Err(failed(
                format!(
                    "died more than {RESTARTS} times [E0521] and is not started again in this run"
                ),
                "see the log for how it died each time",
            ));
        }
        let unstarted = |error: String| {
            failed(
                format!("cannot be started: {error}"),
                "is there memory, and may this user start processes?",
            )
        };
        let process = Process::start(&self.isolated.program);
        let process = process.map_err(|error| unstarted(error.to_string()))?;
        let flag = Memory::to_child(PAGE).map_err(|error| unstarted(error.to_string()))?;
        let remote = Arc::new(Remote::new(self.clone(), who.clone(), process, flag));
        let hello = self.hello.write(parameters);
        let place = || "while it was made".to_owned();
        let (said, given) = remote.greet(&call, START, hello, &place);
        let finishes = given.first() == Some(&1);
        self.finishes.store(finishes, Ordering::SeqCst);
        if said != status::OK {
            // It has no instance, and ends by itself.
            remote.give_up();
        }
        call.end(said)?;
        Ok(remote)
    }
}
