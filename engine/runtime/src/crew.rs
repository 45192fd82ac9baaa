//! Threads that do what would hold up a worker: reading, decoding, networks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::abort::Abort;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads over one queue: the greatest rank first, and of one rank first come first served. Dropping the last handle ends them after the job that
/// each has in hand.
#[derive(Clone)]
pub(crate) struct Crew(Arc<Hall>);

struct Hall {
    name: String,
    queue: Arc<Queue>,
    abort: Abort,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: BTreeMap<Reverse<usize>, VecDeque<Job>>,
    closed: bool,
}

impl Crew {
    /// `threads` threads called `weir-NAME`.
    pub(crate) fn new(name: &str, threads: usize, abort: Abort) -> Self {
        let crew = Crew(Arc::new(Hall {
            name: format!("weir-{name}"),
            queue: Arc::default(),
            abort,
        }));
        for _ in 0..threads.max(1) {
            crew.add();
        }
        crew
    }

    /// One thread more: in place of one that does not come back.
    pub(crate) fn add(&self) {
        let (queue, abort) = (self.0.queue.clone(), self.0.abort.clone());
        let spawned = std::thread::Builder::new()
            .name(self.0.name.clone())
            .spawn(move || {
                while let Some(job) = queue.next() {
                    // A panic is a fault of the engine or of a stage, never of the input: the run ends.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                        abort.fatal(crate::abort::message(&*panic));
                        return;
                    }
                }
            });
        if let Err(error) = spawned {
            self.0.abort.fatal(format!(
                "no thread for `{}` could be started: {error}",
                self.0.name
            ));
        }
    }

    /// Has `job` done when its turn comes: after those of greater `rank`.
    pub(crate) fn submit(&self, rank: usize, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.0.queue.lock();
        let rank = jobs.waiting.entry(Reverse(rank)).or_default();
        rank.push_back(Box::new(job));
        drop(jobs);
        self.0.queue.more.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if jobs.closed {
                return None;
            }
            if let Some(job) = jobs.waiting.values_mut().find_map(VecDeque::pop_front) {
                return Some(job);
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        let mut jobs = self.queue.lock();
        jobs.closed = true;
        jobs.waiting.clear();
        drop(jobs);
        self.queue.more.notify_all();
    }
}
