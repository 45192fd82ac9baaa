//! Instances of a plugin's stage: made, shared as its manifest says, replaced after a panic, destroyed when nobody has them.

use crate::call::{Call, CallError, Said, Task, Told, Who};
use crate::manifest::Concurrency;
use crate::offer::HOST;
use crate::parameters::Parameters;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::stage::Stage;
use weir_abi::status::{self, Status};

/// A stage with its parameters.
pub(crate) struct Instance {
    stage: &'static Stage,
    me: *mut c_void,
    /// It panicked: its state may be anything, so it is used no more, and not destroyed either.
    spoiled: AtomicBool,
}

// SAFETY: the header lets every function be called on any thread; `Pool` sees to how many at once.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Instance {
    fn new(
        stage: &'static Stage,
        who: &Arc<Who>,
        parameters: &Parameters,
    ) -> Result<Instance, CallError> {
        let call = Call::setup(who.clone());
        let mut me = std::ptr::null_mut();
        let values = parameters.as_slice();
        let said = match stage.create {
            // SAFETY: as the header says: host, call and values live through the call.
            Some(create) => unsafe {
                create(
                    &HOST,
                    call.as_ptr(),
                    values.as_ptr(),
                    values.len() as u32,
                    &mut me,
                )
            },
            None => status::UNSUPPORTED,
        };
        call.end(said)?;
        Ok(Instance {
            stage,
            me,
            spoiled: AtomicBool::new(false),
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(destroy) = self
            .stage
            .destroy
            .filter(|_| !self.spoiled.load(Ordering::SeqCst))
        {
            // SAFETY: `create` made it, and every call into it holds a reference.
            unsafe { destroy(self.me) }
        }
    }
}

/// The instances of one stage of a pipeline in this process.
pub(crate) struct Pool {
    pub stage: &'static Stage,
    pub who: Arc<Who>,
    parameters: Parameters,
    /// Of a stage whose calls may overlap, always the same one.
    overlapping: bool,
    /// How long a call may take before its instance is given up.
    timeout: Duration,
    shelf: Mutex<Shelf>,
    back: Condvar,
}

struct Shelf {
    free: Vec<Arc<Instance>>,
    /// Those that a call has, and since when.
    out: Vec<(Arc<Instance>, Instant)>,
}

impl Pool {
    /// Makes the instances. `threads`: how many threads call, of which each has one where the manifest says so.
    pub fn new(
        stage: &'static Stage,
        who: Arc<Who>,
        parameters: Parameters,
        concurrency: Concurrency,
        threads: usize,
        timeout: Duration,
    ) -> Result<Pool, CallError> {
        let count = match concurrency {
            Concurrency::PerWorker => threads.max(1),
            Concurrency::Serial | Concurrency::Parallel => 1,
        };
        let free = (0..count)
            .map(|_| Instance::new(stage, &who, &parameters).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Pool {
            stage,
            who,
            parameters,
            overlapping: concurrency == Concurrency::Parallel,
            timeout,
            shelf: Mutex::new(Shelf {
                free,
                out: Vec::new(),
            }),
            back: Condvar::new(),
        })
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance, for one call; waits until one is free. A call that does not come back has its instance for ever, and a new one
    /// takes that one's place.
    fn take(&self) -> Arc<Instance> {
        let mut shelf = self.shelf();
        loop {
            if self.overlapping
                && let Some(one) = shelf.free.last()
            {
                return one.clone();
            }
            if let Some(one) = shelf.free.pop() {
                shelf.out.push((one.clone(), Instant::now()));
                return one;
            }
            let oldest = shelf.out.iter().map(|(_, since)| *since).min();
            let left = oldest.map_or(self.timeout, |since| {
                (since + self.timeout).saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                shelf.out.retain(|(_, since)| Some(*since) != oldest);
                drop(shelf);
                let fresh = Instance::new(self.stage, &self.who, &self.parameters);
                shelf = self.shelf();
                if let Ok(fresh) = fresh {
                    shelf.free.push(Arc::new(fresh));
                    continue;
                }
            }
            let (back, _) = self
                .back
                .wait_timeout(shelf, left.max(Duration::from_millis(10)))
                .unwrap_or_else(PoisonError::into_inner);
            shelf = back;
        }
    }

    /// Ends a call's claim on `one`. In the place of one that panicked comes a new one; where that cannot be made, the old one stays
    /// and fails every call.
    fn give_back(&self, one: Arc<Instance>) {
        let fresh = one
            .spoiled
            .load(Ordering::SeqCst)
            .then(|| Instance::new(self.stage, &self.who, &self.parameters).ok())
            .flatten()
            .map(Arc::new);
        let mut shelf = self.shelf();
        if self.overlapping {
            if let Some(fresh) = fresh
                && let Some(place) = shelf.free.iter_mut().find(|at| Arc::ptr_eq(at, &one))
            {
                *place = fresh;
            }
            return;
        }
        let known = shelf.out.iter().position(|(out, _)| Arc::ptr_eq(out, &one));
        // One that was given up already has its successor.
        if let Some(known) = known {
            shelf.out.swap_remove(known);
            shelf.free.push(fresh.unwrap_or(one));
            self.back.notify_one();
        }
    }

    /// A call: `enter` calls the plugin's function. A call that it leaves pending is waited for, with its instance free for others.
    pub fn call(
        &self,
        task: Task,
        enter: impl FnOnce(&Stage, *mut c_void, *mut weir_abi::Call) -> Status,
    ) -> Result<Vec<Told>, CallError> {
        let call = Call::new(self.who.clone(), task);
        let instance = self.take();
        if instance.spoiled.load(Ordering::SeqCst) {
            self.give_back(instance);
            call.fail(Said {
                what: "it panicked before, and could not be made anew".into(),
                ..Said::default()
            });
            return call.end(status::PANIC);
        }
        let mut said = enter(self.stage, instance.me, call.as_ptr());
        if said == status::PANIC {
            instance.spoiled.store(true, Ordering::SeqCst);
        }
        self.give_back(instance.clone());
        if said == status::PENDING {
            said = call.wait(|| {
                if let Some(cancel) = self.stage.cancel {
                    // SAFETY: the instance lives, and `cancel` may be called from any thread.
                    unsafe { cancel(instance.me) }
                }
            });
            if said == status::PANIC {
                instance.spoiled.store(true, Ordering::SeqCst);
            }
        }
        call.end(said)
    }

    /// A call that answers with nothing and cannot fail.
    pub fn tell(&self, enter: impl FnOnce(&Stage, *mut c_void)) {
        let instance = self.take();
        if !instance.spoiled.load(Ordering::SeqCst) {
            enter(self.stage, instance.me);
        }
        self.give_back(instance);
    }
}
