//! Threads that do what would hold up a worker: reading, decoding, networks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

use crate::abort::Abort;

type Job = Box<dyn FnOnce() -> Then + Send>;

/// What a thread does after a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next one.
    Stay,
    /// It ends: another took its place while the job was stuck.
    Leave,
}

/// A number of threads over one queue: the greatest rank first; of one rank the job whose lane has the fewest running, and of
/// those the first. Jobs without a lane are first come first served. Dropping the last handle ends the threads after the job
/// that each has in hand.
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
}

#[derive(Default)]
struct Jobs {
    /// Threads that wait for a job. The last one is woken first: what it needs for the next job it has at hand from the last, in its
    /// stack, its share of the heap and its processor's caches.
    idle: Vec<Thread>,
    waiting: BTreeMap<Reverse<usize>, VecDeque<(Option<u64>, Job)>>,
    lanes: HashMap<u64, Lane>,
    closed: bool,
}

/// Jobs that belong together, as the reads of one slide.
#[derive(Default)]
struct Lane {
    running: usize,
    /// Jobs of it that are stuck: it gets no other thread until they are not.
    stuck: usize,
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
                while let Some((lane, job)) = queue.next() {
                    // A panic is a fault of the engine or of a stage, never of the input: the run ends.
                    let then = match catch_unwind(AssertUnwindSafe(job)) {
                        Ok(then) => then,
                        Err(panic) => {
                            abort.fatal(crate::abort::message(&*panic));
                            return;
                        }
                    };
                    queue.finished(lane, then);
                    if then == Then::Leave {
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
        let job = Box::new(move || {
            job();
            Then::Stay
        });
        self.put(rank, None, job, false);
    }

    /// Has `job` done when the turn of its lane comes; `first` puts it ahead of all that wait.
    pub(crate) fn submit_in(
        &self,
        lane: u64,
        rank: usize,
        first: bool,
        job: impl FnOnce() -> Then + Send + 'static,
    ) {
        self.put(rank, Some(lane), Box::new(job), first);
    }

    fn put(&self, rank: usize, lane: Option<u64>, job: Job, first: bool) {
        let mut jobs = self.0.queue.lock();
        let rank = jobs.waiting.entry(Reverse(rank)).or_default();
        if first {
            rank.push_front((lane, job));
        } else {
            rank.push_back((lane, job));
        }
        let woken = jobs.idle.pop();
        drop(jobs);
        woken.iter().for_each(Thread::unpark);
    }

    /// Whether a job of another lane waits.
    pub(crate) fn others_wait(&self, lane: u64) -> bool {
        let jobs = self.0.queue.lock();
        let mut waiting = jobs.waiting.values().flatten();
        waiting.any(|(other, _)| *other != Some(lane) && !jobs.is_stuck(*other))
    }

    /// A job of `lane` is stuck and will answer [`Then::Leave`]: another thread takes its place.
    pub(crate) fn relieve(&self, lane: u64) {
        self.0.queue.lock().lanes.entry(lane).or_default().stuck += 1;
        self.add();
    }
}

impl Jobs {
    fn wake_all(&mut self) {
        self.idle.drain(..).for_each(|idle| idle.unpark());
    }

    fn is_stuck(&self, lane: Option<u64>) -> bool {
        let lane = lane.and_then(|lane| self.lanes.get(&lane));
        lane.is_some_and(|lane| lane.stuck > 0)
    }

    fn take(&mut self) -> Option<(Option<u64>, Job)> {
        let found = self.waiting.iter().find_map(|(rank, jobs)| {
            let mut best: Option<(usize, usize)> = None;
            for (at, (lane, _)) in jobs.iter().enumerate() {
                if self.is_stuck(*lane) {
                    continue;
                }
                let lane = lane.and_then(|lane| self.lanes.get(&lane));
                let running = lane.map_or(0, |lane| lane.running);
                if best.is_none_or(|(least, _)| running < least) {
                    best = Some((running, at));
                }
                if running == 0 {
                    break;
                }
            }
            Some((*rank, best?.1))
        });
        let (rank, at) = found?;
        let (lane, job) = self.waiting.get_mut(&rank)?.remove(at)?;
        if let Some(lane) = lane {
            self.lanes.entry(lane).or_default().running += 1;
        }
        Some((lane, job))
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Option<u64>, Job)> {
        let mut jobs = self.lock();
        loop {
            if jobs.closed {
                return None;
            }
            if let Some(job) = jobs.take() {
                return Some(job);
            }
            let own = std::thread::current();
            jobs.idle.push(own.clone());
            drop(jobs);
            std::thread::park();
            jobs = self.lock();
            // Whoever woke it took it from there; but a thread may wake by itself.
            jobs.idle.retain(|idle| idle.id() != own.id());
        }
    }

    fn finished(&self, lane: Option<u64>, then: Then) {
        let Some(lane) = lane else { return };
        let mut jobs = self.lock();
        let state = jobs.lanes.entry(lane).or_default();
        state.running -= 1;
        if then == Then::Leave {
            state.stuck -= 1;
        }
        if state.running == 0 && state.stuck == 0 {
            jobs.lanes.remove(&lane);
        }
        if then == Then::Leave {
            // Threads that passed the lane over look again.
            jobs.wake_all();
        }
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        let mut jobs = self.queue.lock();
        jobs.closed = true;
        jobs.waiting.clear();
        jobs.wake_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::thread::current;
    use std::time::{Duration, Instant};

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_lane_with_many_jobs_leaves_threads_to_the_others() {
        let crew = Crew::new("test", 1, Abort::default());
        let (begin, wait) = channel::<()>();
        let (done, order) = channel();
        crew.submit(0, move || wait.recv_timeout(SOON).unwrap());
        for (lane, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1")] {
            let done = done.clone();
            crew.submit_in(lane, 0, false, move || {
                done.send(name).unwrap();
                Then::Stay
            });
        }
        assert!(crew.others_wait(1) && crew.others_wait(2));
        begin.send(()).unwrap();
        // One thread: nothing runs beside a job, so lanes are even and the first comes first.
        let order: Vec<_> = (0..4).map(|_| order.recv_timeout(SOON).unwrap()).collect();
        assert_eq!(order, ["a1", "a2", "a3", "b1"]);

        let crew = Crew::new("test", 2, Abort::default());
        let (go, held) = channel::<()>();
        let (done, order) = channel();
        let (begun, begins) = channel();
        crew.submit_in(1, 0, false, move || {
            begun.send(()).unwrap();
            held.recv_timeout(SOON).unwrap();
            Then::Stay
        });
        begins.recv_timeout(SOON).unwrap();
        let (begin, wait) = channel::<()>();
        crew.submit(0, move || wait.recv_timeout(SOON).unwrap());
        for (lane, name) in [(1, "a2"), (1, "a3"), (2, "b1")] {
            let done = done.clone();
            crew.submit_in(lane, 0, false, move || {
                done.send(name).unwrap();
                Then::Stay
            });
        }
        begin.send(()).unwrap();
        // Lane 1 has a job running: lane 2 goes first.
        assert_eq!(order.recv_timeout(SOON).unwrap(), "b1");
        go.send(()).unwrap();
    }

    #[test]
    fn the_thread_that_worked_last_works_next_and_all_do_when_there_is_enough() {
        let crew = Crew::new("test", 3, Abort::default());
        let all_wait = || {
            let until = Instant::now() + SOON;
            while crew.0.queue.lock().idle.len() < 3 {
                assert!(Instant::now() < until);
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let (told, worked) = channel();
        let mut all = HashSet::new();
        for _ in 0..5 {
            all_wait();
            let told = told.clone();
            crew.submit(0, move || told.send(current().id()).unwrap());
            all.insert(worked.recv_timeout(SOON).unwrap());
        }
        assert_eq!(all.len(), 1);
        all_wait();
        // A thread that is woken for nothing waits again.
        let idle = crew.0.queue.lock().idle.clone();
        idle.iter().for_each(Thread::unpark);
        all_wait();
        let meet = Arc::new(Barrier::new(3));
        for _ in 0..3 {
            let (told, meet) = (told.clone(), meet.clone());
            crew.submit(0, move || {
                meet.wait();
                told.send(current().id()).unwrap();
            });
        }
        let all: HashSet<_> = (0..3).map(|_| worked.recv_timeout(SOON).unwrap()).collect();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn a_stuck_lane_gets_no_second_thread_and_its_own_leaves() {
        let crew = Crew::new("test", 1, Abort::default());
        let (go, held) = channel::<()>();
        let (done, order) = channel();
        let (begun, begins) = channel();
        crew.submit_in(1, 0, false, move || {
            begun.send(()).unwrap();
            held.recv_timeout(SOON).unwrap();
            Then::Leave
        });
        for (lane, name) in [(1, "a2"), (2, "b1"), (2, "b2")] {
            let done = done.clone();
            crew.submit_in(lane, 0, false, move || {
                done.send(name).unwrap();
                Then::Stay
            });
        }
        begins.recv_timeout(SOON).unwrap();
        crew.relieve(1);
        assert_eq!(order.recv_timeout(SOON).unwrap(), "b1");
        assert_eq!(order.recv_timeout(SOON).unwrap(), "b2");
        assert!(
            order.recv_timeout(Duration::from_millis(30)).is_err(),
            "lane 1 is stuck"
        );
        go.send(()).unwrap();
        assert_eq!(order.recv_timeout(SOON).unwrap(), "a2");
    }
}
