//! An instance of a plugin's stage, here or in a process of its own: made with its parameters, destroyed when nobody has it.

use crate::call::{Call, CallError};
use crate::inside::inside;
use crate::isolate::cradle::Cradle;
use crate::isolate::remote::Remote;
use crate::isolate::stand_in::STAGE;
use crate::log::Level;
use crate::offer::HOST;
use crate::parameters::Parameters;
use crate::patience::watch;
use crate::who::Who;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use weir_abi::stage::Stage;
use weir_abi::status;

/// Where a stage's code runs.
pub(crate) enum Runner {
    /// In this process: the plugin's own table.
    Here(&'static Stage),
    /// In processes of its own: what stands in for the plugin, and what starts them.
    Child(Arc<Cradle>),
}

impl Runner {
    /// The functions that are called.
    pub fn table(&self) -> &'static Stage {
        match self {
            Runner::Here(stage) => stage,
            Runner::Child(_) => &STAGE,
        }
    }
}

/// A stage with its parameters.
pub(crate) struct Instance {
    stage: &'static Stage,
    pub me: *mut c_void,
    /// Of an isolated one: its process.
    pub remote: Option<Arc<Remote>>,
    /// Which of the stage's instances it is: the first is 1.
    pub number: u64,
    /// It panicked, or has a call that it does not end: it is used no more, and not destroyed either.
    pub spoiled: AtomicBool,
    /// What it was told lives as long as this, so it goes after `destroy`.
    who: Arc<Who>,
}

// SAFETY: the header lets every function be called on any thread; `Shelf` sees to how many at once.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    pub fn new(
        runner: &Runner,
        who: &Arc<Who>,
        parameters: &Parameters,
        number: u64,
    ) -> Result<Instance, CallError> {
        let (me, remote) = match runner {
            Runner::Here(stage) => (made(stage, who, parameters)?, None),
            Runner::Child(cradle) => {
                let remote = cradle.start(who, parameters)?;
                let me = Arc::into_raw(remote.clone()).cast_mut().cast();
                (me, Some(remote))
            }
        };
        Ok(Instance {
            stage: runner.table(),
            me,
            remote,
            number,
            spoiled: AtomicBool::new(false),
            who: who.clone(),
        })
    }

    /// Whether it can be used no more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.spoiled.load(Ordering::SeqCst)
            || self.remote.as_ref().is_some_and(|remote| remote.is_gone())
    }
}

/// An instance in this process.
fn made(stage: &Stage, who: &Arc<Who>, parameters: &Parameters) -> Result<*mut c_void, CallError> {
    let call = Call::setup(who);
    let mut me = std::ptr::null_mut();
    let values = parameters.as_slice();
    let said = match stage.create {
        Some(create) => call.inside(|call| {
            let _watched = watch(who, "create", None);
            let n = values.len() as u32;
            // SAFETY: as the header says: host, call and values live through the call.
            unsafe { create(&HOST, call, values.as_ptr(), n, &mut me) }
        }),
        None => status::UNSUPPORTED,
    };
    call.end(said).map_err(|error| error.by(who))?;
    Ok(me)
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Of a process that is to end, nothing need be spared.
        let usable = self.remote.is_some() || !self.spoiled.load(Ordering::SeqCst);
        let Some(destroy) = self.stage.destroy.filter(|_| usable) else {
            return;
        };
        let last = Last {
            destroy,
            me: self.me,
            who: self.who.clone(),
        };
        match self.remote {
            // That ends by itself.
            Some(_) => last.run(),
            None => last.run_in_time(),
        }
    }
}

/// The last call into an instance.
struct Last {
    destroy: unsafe extern "C" fn(*mut c_void),
    me: *mut c_void,
    who: Arc<Who>,
}

// SAFETY: the header lets `destroy` be called on any thread, and nobody else has the instance any more.
unsafe impl Send for Last {}

impl Last {
    fn run(self) {
        // SAFETY: `create` made it, every call into it held a reference, and those are gone.
        inside(&self.who, 0, || unsafe { (self.destroy)(self.me) });
    }

    /// On a thread of its own, since the run must end: where it does not come back in time, that thread is left to it, with all that it
    /// may use (the plugin is never unloaded), and the user is told.
    fn run_in_time(self) {
        let who = self.who.clone();
        let (done, is_done) = mpsc::channel();
        let (give, given) = mpsc::channel::<Last>();
        let thread = std::thread::Builder::new()
            .name("weir-destroy".into())
            .spawn(move || {
                if let Ok(last) = given.recv() {
                    last.run();
                }
                // Nobody waits any more where it was late.
                let _ = done.send(());
            });
        if thread.is_err() {
            return self.run();
        }
        if let Err(mpsc::SendError(last)) = give.send(self) {
            last.run();
        }
        match is_done.recv_timeout(who.timeout) {
            Err(RecvTimeoutError::Timeout) => {
                let line = format!(
                    "{} has been in `destroy` for {:?} [E0523], and is left in it: what it had still to do may be undone; `isolate = true` would end it",
                    who.plugin, who.timeout
                );
                who.log.line(Level::Warn, &who.stage, &line);
            }
            // Its thread may still have the plugin's own affairs to end: nobody waits for these.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
        }
    }
}
