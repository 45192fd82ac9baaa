//! A stage as helper threads see it: how they run its batches, where the outcomes go, and which stage is chained to it.
//!
//! A batch's way from a helper thread to the worker and to a helper thread again costs changes of thread, each some microseconds of a
//! processor that decodes tiles meanwhile. Where one stage alone takes the outcomes of another and its batches take hardly longer than
//! such a change, the thread that made them runs them there as well: a *chained* batch, ahead of its rows. These come by way of the
//! worker as ever and find that they are in hand, so the operator's ledger of what it owes, its time-outs and its retries are what they
//! are for any batch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use weir_pipeline::{Node, Plan};
use weir_record::budget::Waker;

use super::task::{BatchRow, Outcomes, Task};
use super::{Coming, NEVER, Value};
use crate::house::House;
use crate::progress::add;
use crate::stage::{BatchShape, Prepared, Turn, Work};

/// A stage whose batches take no longer is chained: some ten changes of thread. One that takes longer gains more by being run on another
/// thread at the same time, and by larger batches.
const FAST: Duration = Duration::from_micros(100);

/// Nothing is known of a stage, whose first batch goes on at once.
const UNKNOWN: u8 = 0;
/// Its last batch took no longer than [`FAST`].
const QUICK: u8 = 1;
/// It took longer, or the first one is not back.
const SLOW: u8 = 2;

/// Runs a stage's batches, on helper threads of one worker.
pub(crate) struct Runner {
    pub(super) task: Task,
    pub(super) shape: BatchShape,
    /// The stage's node in the plan.
    pub(super) index: usize,
    pub(super) house: House,
    /// One of [`UNKNOWN`], [`QUICK`] and [`SLOW`].
    pace: AtomicU8,
    /// Rows wait at its operator for memory: others are not to overtake them.
    starved: AtomicBool,
    /// None before it is built.
    operator: OnceLock<Arc<Operator>>,
    jobs: AtomicU64,
    /// The stage that alone takes what this one makes. Its operator has it: a thread that hangs here keeps nothing of that stage.
    next: Option<Weak<Runner>>,
    patience: Duration,
}

/// Where a stage's operator hears of its batches.
struct Operator {
    answers: Sender<Answer>,
    waker: Waker,
}

/// What helper threads say to a stage's operator.
pub(super) enum Answer {
    /// A chained batch was begun; its rows are on their way to the operator.
    Chained(Coming),
    Done(Done),
}

/// A batch has its outcomes.
pub(super) struct Done {
    pub(super) job: u64,
    pub(super) took: Duration,
    pub(super) outcomes: Outcomes,
}

/// A batch of rows that this thread has just made.
struct Chained {
    job: u64,
    turn: Turn,
    rows: Vec<BatchRow>,
}

/// What a thread goes on with.
struct Onward {
    runner: Arc<Runner>,
    chained: Chained,
    unwoken: Vec<Waker>,
}

fn wake(operators: &[Waker]) {
    operators.iter().for_each(|waker| waker());
}

/// The runners of a worker's maps and filters, by their nodes.
pub(crate) fn runners(house: &House, stages: &[Prepared]) -> HashMap<usize, Arc<Runner>> {
    let mut runners: HashMap<usize, Arc<Runner>> = HashMap::new();
    // From the end, since inputs come from nodes before: each finds the one that is chained to it.
    for (index, stage) in stages.iter().enumerate().rev() {
        let Prepared::Work(work) = stage else {
            continue;
        };
        let next = only_taker(&house.plan, index).and_then(|next| runners.get(&next));
        let next = next.filter(|next| !work.inline() && next.may_be_chained());
        let runner = Runner::new(house, index, work.clone(), next);
        runners.insert(index, Arc::new(runner));
    }
    runners
}

/// The node that alone takes what `node` makes, and takes nothing else.
fn only_taker(plan: &Plan, node: usize) -> Option<usize> {
    let takes = |to: &&Node| to.inputs.iter().any(|edge| edge.node == node);
    let taker = plan.nodes.iter().position(|to| takes(&to))?;
    let alone = plan.nodes.iter().filter(takes).count() == 1
        && plan.nodes[node].schema.outs.len() == 1
        && plan.nodes[taker].inputs.len() == 1;
    alone.then_some(taker)
}

impl Runner {
    fn new(house: &House, index: usize, work: Arc<dyn Work>, next: Option<&Arc<Runner>>) -> Runner {
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
        Runner {
            task,
            shape,
            index,
            house: house.clone(),
            pace: AtomicU8::new(UNKNOWN),
            starved: AtomicBool::new(false),
            operator: OnceLock::new(),
            jobs: AtomicU64::new(0),
            next: next.map(Arc::downgrade),
            patience: next.map_or(shape.timeout, |next| next.patience.min(shape.timeout)),
        }
    }

    /// Whether batches may be run here that were not gathered: not of a stage that runs on the worker, which would wait for it, nor of
    /// one that is told to have its rows gathered however fast it is.
    fn may_be_chained(&self) -> bool {
        let told = self.house.plan.nodes[self.index].run.linger;
        !self.task.work.inline() && told.is_none_or(|linger| linger.is_zero())
    }

    /// The operator that `waker` wakes hears of batches from now on.
    pub(super) fn belongs_to(&self, waker: Waker) -> Receiver<Answer> {
        let (answers, heard) = channel();
        // An operator is built once.
        let _ = self.operator.set(Arc::new(Operator { answers, waker }));
        heard
    }

    pub(super) fn job(&self) -> u64 {
        self.jobs.fetch_add(1, Ordering::Relaxed)
    }

    /// How long a batch, and those chained to it, may say nothing before its operator looks what was told: it is not woken while all
    /// that was made is in the hands of the next stage, and that one may hang.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Says whether rows wait at the operator for memory.
    pub(super) fn set_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Relaxed);
    }

    /// A batch did not come back: no thread goes on with this stage before another batch was fast.
    pub(super) fn hangs(&self) {
        self.pace.store(SLOW, Ordering::Relaxed);
    }

    /// Runs a batch of the operator's, and what is chained to it.
    pub(super) fn take(self: Arc<Self>, job: u64, turn: &Turn, values: Vec<Value>) {
        let rows = values.len();
        let mut next = self.run(job, turn, rows, |task| task.take(values, turn), Vec::new());
        while let Some(Onward {
            runner,
            chained: Chained { job, turn, rows },
            unwoken,
        }) = next
        {
            let n = rows.len();
            // Of a slide that is being stopped one batch more may be run: only the operator knows of that.
            next = runner.run(job, &turn, n, |task| task.run(rows, &turn), unwoken);
        }
    }

    /// Runs a batch, and lets go of the stage: its operator may be done when it hears of the outcomes, and ends it then; and what comes
    /// next may hang. `unwoken` are the operators before that were told of outcomes which are all in this batch.
    fn run(
        self: Arc<Self>,
        job: u64,
        turn: &Turn,
        rows: usize,
        run: impl FnOnce(&Task) -> Outcomes,
        mut unwoken: Vec<Waker>,
    ) -> Option<Onward> {
        self.is_first();
        let since = Instant::now();
        turn.begins();
        let outcomes = run(&self.task);
        let took = since.elapsed();
        self.house.progress.stages[self.index].worked(rows as u64, took);
        self.house.traced(self.index, since, rows as u64);
        // What was given up is nobody's: its rows were tried again.
        if !turn.answer() {
            wake(&unwoken);
            return None;
        }
        let pace = if took <= FAST { QUICK } else { SLOW };
        self.pace.store(pace, Ordering::Relaxed);
        let next = self.next.as_ref().and_then(Weak::upgrade);
        let made = outcomes.rows.len();
        let next = next.and_then(|next| Some((next.chain(&outcomes)?, next)));
        let operator = self.operator.get().cloned();
        drop(self);
        if let Some(operator) = operator {
            operator.tell(Answer::Done(Done {
                job,
                took,
                outcomes,
            }));
            unwoken.push(operator.waker.clone());
        }
        let whole = |chained: &Chained| chained.rows.len() == made;
        if !next.as_ref().is_some_and(|(chained, _)| whole(chained)) {
            wake(&unwoken);
            unwoken.clear();
        }
        // Else the worker has nothing to do with them before the next stage has.
        next.map(|(chained, runner)| Onward {
            runner,
            chained,
            unwoken,
        })
    }

    /// A batch begins; whether it is the first. Until that is back the stage counts as slow.
    fn is_first(&self) -> bool {
        let was = Ordering::Relaxed;
        let first = self.pace.compare_exchange(UNKNOWN, SLOW, was, was);
        first.is_ok()
    }

    /// Takes what the stage before made, as many rows as a batch holds and memory is there for, when this one is fast. Its operator
    /// hears of it before the rows can come.
    fn chain(&self, made: &Outcomes) -> Option<Chained> {
        let pace = self.pace.load(Ordering::Relaxed);
        if pace == SLOW || self.starved.load(Ordering::Relaxed) {
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
        // Of two threads one has the first.
        if rows.is_empty() || (pace == UNKNOWN && !self.is_first()) {
            return None;
        }
        let (job, turn) = (self.job(), Turn::waiting());
        let keys = rows.iter().map(|(key, ..)| *key);
        self.tell(Answer::Chained(Coming::of(job, turn.clone(), keys)));
        add(
            &self.house.progress.stages[self.index].chained,
            rows.len() as u64,
        );
        Some(Chained { job, turn, rows })
    }

    fn tell(&self, answer: Answer) {
        if let Some(operator) = self.operator.get() {
            operator.tell(answer);
        }
    }
}

impl Operator {
    fn tell(&self, answer: Answer) {
        // Nobody listens any more when the run was aborted.
        let _ = self.answers.send(answer);
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
