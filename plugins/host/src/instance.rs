//! An instance of a plugin's stage, here or in a process of its own: made with its parameters, destroyed when nobody has it.

use crate::call::{Call, CallError};
use crate::errand;
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
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use weir_abi::stage::Stage;
use weir_abi::status;
use weir_runtime::stage::Ending;

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

    /// Destroys those of its instances that nobody else has: all at once where each has a process of its own, else one after the
    /// other, as the header promises. Each has its time; but when one did not come back in that, the others have as much together,
    /// each an equal part of what those before it left: many that hang hold the run up no longer than two. Processes, and the first
    /// instance in this one, are only begun with; what comes back waits for these and ends the others.
    pub fn destroy(&self, all: Vec<Arc<Instance>>) -> Ending {
        let all = all.into_iter().filter_map(Arc::into_inner);
        match self {
            Runner::Here(_) => one_by_one(all),
            Runner::Child(_) => at_once(all),
        }
    }
}

fn at_once(all: impl Iterator<Item = Instance>) -> Ending {
    let begin = |one: Instance| {
        let thread = Builder::new().name("weir-destroy".into());
        // Where there is no thread for it, it is dropped here.
        thread.spawn(move || drop(one)).ok()
    };
    let threads: Vec<JoinHandle<()>> = all.filter_map(begin).collect();
    Box::new(|| {
        for thread in threads {
            // Whether it panicked or not, nobody has the instance any more.
            let _ = thread.join();
        }
    })
}

fn one_by_one(all: impl Iterator<Item = Instance>) -> Ending {
    let lasts: Vec<Last> = all.filter_map(|mut one| one.last()).collect();
    let mut lasts = lasts.into_iter();
    let mut next = lasts.next().map(Last::begin);
    Box::new(move || {
        let mut over: Option<Instant> = None;
        while let Some(begun) = next.take() {
            let timeout = begun.who.timeout;
            let time = match over {
                Some(over) => {
                    over.saturating_duration_since(Instant::now()) / (lasts.len() as u32 + 1)
                }
                None => timeout,
            };
            if !begun.ends_within(time) {
                over = over.or(Instant::now().checked_add(timeout));
            }
            next = lasts.next().map(Last::begin);
        }
    })
}

type Destroy = unsafe extern "C" fn(*mut c_void);

/// A stage with its parameters.
pub(crate) struct Instance {
    /// Until it was called.
    destroy: Option<Destroy>,
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
            destroy: runner.table().destroy,
            me,
            remote,
            number,
            spoiled: AtomicBool::new(false),
            who: who.clone(),
        })
    }

    /// It panicked, or has a call that it does not end.
    pub fn spoil(&self) {
        self.spoiled.store(true, Ordering::SeqCst);
    }

    /// Whether it did.
    #[inline]
    pub fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::SeqCst)
    }

    /// Whether it can be used no more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.is_spoiled() || self.remote.as_ref().is_some_and(|remote| remote.is_gone())
    }

    /// The same of one that nobody had for a while, whose process may have ended meanwhile.
    pub fn has_ended(&self) -> bool {
        self.is_over()
            || self
                .remote
                .as_ref()
                .is_some_and(|remote| remote.has_ended())
    }

    /// Its last call, where it is to have one and has not had it.
    fn last(&mut self) -> Option<Last> {
        // Of a process that is to end, nothing need be spared.
        let usable = self.remote.is_some() || !self.spoiled.load(Ordering::SeqCst);
        let destroy = self.destroy.take().filter(|_| usable)?;
        Some(Last {
            destroy,
            me: self.me,
            who: self.who.clone(),
        })
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
        let Some(last) = self.last() else {
            return;
        };
        match self.remote {
            // That ends by itself.
            Some(_) => last.run(),
            None => {
                let time = last.who.timeout;
                last.begin().ends_within(time);
            }
        }
    }
}

/// The last call into an instance.
struct Last {
    destroy: Destroy,
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

    /// On another thread, since the run must end.
    fn begin(self) -> Begun {
        let who = self.who.clone();
        let (done, is_done) = mpsc::channel();
        let since = Instant::now();
        errand::run(Box::new(move || {
            self.run();
            // Nobody waits any more where it was late.
            let _ = done.send(());
        }));
        Begun {
            who,
            since,
            is_done,
        }
    }
}

/// A last call that was begun.
struct Begun {
    who: Arc<Who>,
    since: Instant,
    is_done: mpsc::Receiver<()>,
}

impl Begun {
    /// Where it does not come back in that time, the thread is left to it, with all that it may use (the plugin is never unloaded), and
    /// the user is told. Whether it came back.
    fn ends_within(self, time: Duration) -> bool {
        let left = time.saturating_sub(self.since.elapsed());
        match self.is_done.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => {
                let time = Duration::from_millis(time.as_millis() as u64);
                let line = format!(
                    "{} has been in `destroy` for {time:?} [E0523], and is left in it: what it had still to do may be undone; in a process of its own (`isolate`) it would be ended",
                    self.who.plugin
                );
                self.who.line(Level::Warn, &line);
                false
            }
            // A thread of its own may still have the plugin's affairs to end: nobody waits for these.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
        }
    }
}
