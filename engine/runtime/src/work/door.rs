//! A stage as helper threads see it: how they work for it, where what they made goes, and which stage they go on with.
//!
//! A batch's way from a helper thread to the worker and to a helper thread again costs changes of thread, each some microseconds of a
//! processor that decodes tiles meanwhile. A helper thread that has outcomes for one stage alone, whose batches take hardly longer than
//! such a change, therefore goes on with that stage's work: an *early* batch, ahead of its rows. These come by way of the worker as
//! ever and find that they are in hand, so that nothing else about a stage knows of it: its ledger of what it owes, its time-outs and
//! its retries stay its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use weir_pipeline::Plan;
use weir_record::budget::Waker;
use weir_record::{Body, Key};

use super::task::{BatchRow, Outcomes, Task};
use super::{NEVER, Value};
use crate::house::House;
use crate::stage::{BatchShape, Prepared, Turn, Work};

/// A stage whose batches take no longer is gone on with at once: some ten changes of thread. One that takes longer gains more by being
/// worked for on another thread at the same time, and by larger batches.
const FAST: Duration = Duration::from_micros(100);

/// A worker's stage, for its helper threads.
pub(crate) struct Door {
    pub(super) task: Task,
    pub(super) shape: BatchShape,
    pub(super) index: usize,
    pub(super) house: House,
    /// Whether a thread that has rows for it may go on with them at once.
    open: AtomicBool,
    answers: Mutex<Vec<Answer>>,
    /// Wakes the operator; none before it is built.
    waker: OnceLock<Waker>,
    jobs: AtomicU64,
    /// The stage that alone takes what this one makes.
    next: Option<Arc<Door>>,
}

/// What helper threads say to a stage's operator.
pub(super) enum Answer {
    /// A batch was begun whose rows are on their way to the operator.
    Early(u64, Turn, Vec<(Key, Body)>),
    Done(Done),
}

/// A batch has its outcomes.
pub(super) struct Done {
    pub(super) job: u64,
    pub(super) took: Duration,
    pub(super) outcomes: Outcomes,
}

/// A batch that was begun ahead of its rows.
struct Early {
    job: u64,
    turn: Turn,
    rows: Vec<BatchRow>,
}

/// The doors of a worker's stages.
pub(crate) struct Doors<'a> {
    house: &'a House,
    stages: &'a [Prepared],
    made: HashMap<usize, Arc<Door>>,
}

impl<'a> Doors<'a> {
    pub(crate) fn new(house: &'a House, stages: &'a [Prepared]) -> Self {
        let made = HashMap::new();
        Doors {
            house,
            stages,
            made,
        }
    }

    /// The door of `work`, node `index` of the plan; the same one each time.
    pub(crate) fn of(&mut self, index: usize, work: &Arc<dyn Work>) -> Arc<Door> {
        if let Some(door) = self.made.get(&index) {
            return door.clone();
        }
        // What runs on the worker is not gone on from: the next stage's work may take long there, or hang.
        let next = follower(&self.house.plan, index).filter(|_| !work.inline());
        let next = next.and_then(|next| match &self.stages[next] {
            Prepared::Work(work) => Some(self.of(next, work)),
            _ => None,
        });
        let door = Arc::new(Door::new(self.house, index, work.clone(), next));
        self.made.insert(index, door.clone());
        door
    }
}

/// The node that alone takes what `node` makes, and takes nothing else.
fn follower(plan: &Plan, node: usize) -> Option<usize> {
    if plan.nodes[node].schema.outs.len() != 1 {
        return None;
    }
    let takes =
        |to: &weir_pipeline::Node| to.inputs.iter().filter(|edge| edge.node == node).count();
    let mut takers = (0..plan.nodes.len()).filter(|to| takes(&plan.nodes[*to]) > 0);
    let (taker, other) = (takers.next()?, takers.next());
    (other.is_none() && plan.nodes[taker].inputs.len() == 1).then_some(taker)
}

impl Door {
    fn new(house: &House, index: usize, work: Arc<dyn Work>, next: Option<Arc<Door>>) -> Door {
        let node = &house.plan.nodes[index];
        let mut shape = work.shape();
        shape.rows = node.run.batch.unwrap_or(shape.rows).max(1);
        shape.timeout = node.run.timeout.unwrap_or(shape.timeout);
        if work.keeps_time() {
            shape.timeout = NEVER;
        }
        let task = Task {
            work,
            name: node.name.clone(),
            outputs: node.schema.outs.len(),
            retries: node.run.retries.unwrap_or(house.plan.run.retries),
            abort: house.abort.clone(),
        };
        Door {
            task,
            shape,
            index,
            house: house.clone(),
            open: AtomicBool::new(false),
            answers: Mutex::default(),
            waker: OnceLock::new(),
            jobs: AtomicU64::new(0),
            next,
        }
    }

    /// The operator that takes the answers is woken by this.
    pub(super) fn belongs_to(&self, waker: Waker) {
        // An operator is built once.
        let _ = self.waker.set(waker);
    }

    /// A batch took so long; `gathers` says that the stage has its rows gathered however long it takes.
    pub(super) fn learn(&self, took: Duration, gathers: bool) {
        // What runs on the worker is no helper thread's.
        let open = took <= FAST && !gathers && !self.task.work.inline();
        self.open.store(open, Ordering::Relaxed);
    }

    /// How long a batch of this stage may be silent before somebody looks whether it, or a stage that was gone on with, came back.
    pub(super) fn patience(&self) -> Duration {
        let next = self.next.as_ref().map(|next| next.patience());
        self.shape.timeout.min(next.unwrap_or(NEVER))
    }

    pub(super) fn job(&self) -> u64 {
        self.jobs.fetch_add(1, Ordering::Relaxed)
    }

    /// Works on a batch of the operator's.
    pub(super) fn take(&self, job: u64, turn: &Turn, values: Vec<Value>) {
        self.work(job, turn, values.len(), |task| task.take(values, turn));
    }

    fn work(&self, job: u64, turn: &Turn, rows: usize, run: impl FnOnce(&Task) -> Outcomes) {
        let since = Instant::now();
        turn.begins();
        let outcomes = run(&self.task);
        let took = since.elapsed();
        self.house.progress.stages[self.index].worked(rows as u64, took);
        self.house.traced(self.index, since, rows as u64);
        // Of a batch that was given up nothing goes on: its rows were tried again.
        if !turn.answers() {
            return;
        }
        let early = self.next.as_ref().and_then(|next| next.early(&outcomes));
        self.tell(Answer::Done(Done {
            job,
            took,
            outcomes,
        }));
        if let Some((next, early)) = self.next.as_ref().zip(early) {
            next.go_on(early);
        }
        if let Some(waker) = self.waker.get() {
            waker();
        }
    }

    /// Takes what the stage before made, as many rows as a batch holds and memory is there for, when this one is fast. Its operator
    /// hears of it before the rows can come.
    fn early(&self, made: &Outcomes) -> Option<Early> {
        if !self.open.load(Ordering::Relaxed) {
            return None;
        }
        let values = made.rows.iter().zip(&made.bodies);
        let values = values.filter(|(_, body)| body.is_value());
        let rows = values.map_while(|((key, info), body)| {
            let lease = match self.task.work.output_bytes(body, info) {
                None => None,
                Some((class, bytes)) => {
                    Some(self.house.budget.try_lease_for(self.index, class, bytes)?)
                }
            };
            Some((*key, body.clone(), info.clone(), lease))
        });
        let rows: Vec<BatchRow> = rows.take(self.shape.rows).collect();
        if rows.is_empty() {
            return None;
        }
        let (job, turn) = (self.job(), Turn::waiting());
        // Now, and not with the first of its rows: nobody may wait for it any longer than that.
        turn.begins();
        let of = rows.iter().map(|(key, body, ..)| (*key, body.clone()));
        self.tell(Answer::Early(job, turn.clone(), of.collect()));
        Some(Early { job, turn, rows })
    }

    fn go_on(&self, Early { job, turn, rows }: Early) {
        self.work(job, &turn, rows.len(), |task| task.run(rows, &turn));
    }

    fn tell(&self, answer: Answer) {
        self.lock().push(answer);
    }

    /// What was said since this was asked last.
    pub(super) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
