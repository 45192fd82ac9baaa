//! The operator of maps and filters: gathers values of all slides into batches, has helper threads work on them, and sees to it
//! that every version has exactly one outcome on every output, whatever a stage does.

mod linger;
mod task;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use weir_record::{Body, End, Event, Key, Lease, Row, SlideId, SlideInfo};

use crate::host::{Alarm, Logic, Outputs, Wake};
use crate::house::House;
use crate::source::TOLD_FAILURES;
use crate::stage::{BatchShape, Turn, Work};

use linger::Linger;
use task::{Task, failure};

/// The time-out of work that keeps to its own: longer than any run.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

pub(crate) struct WorkLogic {
    name: String,
    index: usize,
    work: Arc<dyn Work>,
    house: House,
    wake: Wake,
    shape: BatchShape,
    retries: u32,
    outputs: usize,
    slides: HashMap<SlideId, Open>,
    waiting: VecDeque<Value>,
    since: Option<Instant>,
    linger: Linger,
    jobs: HashMap<u64, InHand>,
    next_job: u64,
    answers: (Sender<Done>, Receiver<Done>),
    alarm: Alarm,
    /// No job is too late before this time.
    look_again: Instant,
    /// Values that wait, as the counters have it.
    counted: u64,
}

/// A slide at this stage.
struct Open {
    info: Arc<SlideInfo>,
    /// Failures told one by one.
    told: u32,
    /// Values that have no outcome yet.
    owed: u64,
    /// The news that nothing more comes waits until nothing is owed, so that it overtakes no value.
    closing: bool,
    /// Set when a seal says that the slide ends aborted: nothing comes of its values then, and nobody waits for them.
    aborted: Arc<AtomicBool>,
}

/// A value that waits, with the lease on its output once that is granted.
struct Value {
    key: Key,
    body: Body,
    info: Arc<SlideInfo>,
    lease: Option<Lease>,
    /// It was in a batch that did not come back in time.
    alone: bool,
    aborted: Arc<AtomicBool>,
}

/// A batch on a helper thread.
struct InHand {
    /// When it came to its turn: it may have waited long for a thread, or for a part of the stage that one batch has at a time.
    turn: Turn,
    rows: Vec<Waiting>,
}

/// A value on a helper thread, to be tried again when that does not come back.
struct Waiting {
    key: Key,
    body: Body,
    info: Arc<SlideInfo>,
    aborted: Arc<AtomicBool>,
}

struct Done {
    job: u64,
    took: Duration,
    rows: Vec<(Key, Vec<Body>)>,
}

impl WorkLogic {
    pub(crate) fn new(house: House, index: usize, work: Arc<dyn Work>, wake: Wake) -> Self {
        let node = &house.plan.nodes[index];
        let mut shape = work.shape();
        shape.rows = node.run.batch.unwrap_or(shape.rows).max(1);
        shape.timeout = node.run.timeout.unwrap_or(shape.timeout);
        if work.keeps_time() {
            shape.timeout = NEVER;
        }
        WorkLogic {
            name: node.name.clone(),
            index,
            retries: node.run.retries.unwrap_or(house.plan.run.retries),
            outputs: node.schema.outs.len(),
            work,
            wake,
            shape,
            slides: HashMap::new(),
            waiting: VecDeque::new(),
            since: None,
            linger: Linger::new(node.run.linger, shape.linger),
            jobs: HashMap::new(),
            next_job: 0,
            answers: channel(),
            alarm: Alarm::default(),
            look_again: Instant::now(),
            counted: 0,
            house,
        }
    }

    /// Sends what is full, late, or has nothing to wait for.
    fn dispatch(&mut self, inputs_done: bool) {
        loop {
            if self.waiting.is_empty() {
                self.since = None;
                return;
            }
            let late = self
                .since
                .is_some_and(|since| since.elapsed() >= self.linger.now());
            let granted = self.grant();
            let starved = granted < self.waiting.len().min(self.shape.rows);
            let full = granted >= self.shape.rows;
            let alone = self.waiting.front().is_some_and(|value| value.alone);
            if granted == 0 || !(full || late || inputs_done || starved || alone) {
                // Past its time it waits for leases, and who gives them back wakes.
                if let Some(since) = self.since.filter(|_| !late) {
                    self.alarm.set(&self.wake, since + self.linger.now());
                }
                return;
            }
            let count = if alone {
                1
            } else {
                granted.min(self.shape.rows)
            };
            let rows: Vec<Value> = self.waiting.drain(..count).collect();
            self.submit(rows);
            self.linger.sent();
            self.since = Some(Instant::now());
        }
    }

    /// Takes output leases for the first values that wait, as many as a batch holds; returns how many may go.
    fn grant(&mut self) -> usize {
        let most = self.shape.rows.min(self.waiting.len());
        for at in 0..most {
            let value = &mut self.waiting[at];
            if value.lease.is_some() {
                continue;
            }
            let Some((class, bytes)) = self.work.output_bytes(&value.body, &value.info) else {
                continue;
            };
            let budget = &self.house.budget;
            let lease = || budget.try_lease_for(self.index, class, bytes);
            let lease = lease().or_else(|| {
                budget.wake_when_free(self.wake.waker());
                lease()
            });
            match lease {
                Some(lease) => value.lease = Some(lease),
                None => return at,
            }
        }
        most
    }

    fn submit(&mut self, values: Vec<Value>) {
        let rows: Vec<Waiting> = values
            .iter()
            .map(|value| Waiting {
                key: value.key,
                body: value.body.clone(),
                info: value.info.clone(),
                aborted: value.aborted.clone(),
            })
            .collect();
        let job = self.next_job;
        self.next_job += 1;
        let task = Task {
            work: self.work.clone(),
            name: self.name.clone(),
            outputs: self.outputs,
            retries: self.retries,
            abort: self.house.abort.clone(),
        };
        let (answer, waker) = (self.answers.0.clone(), self.wake.waker());
        let (house, index) = (self.house.clone(), self.index);
        let turn = Turn::waiting();
        let own = turn.clone();
        let run = move || {
            let since = Instant::now();
            own.begins();
            let n = values.len() as u64;
            let rows = task.take(values, &own);
            let took = since.elapsed();
            house.progress.stages[index].worked(n, took);
            house.traced(index, since, n);
            // Nobody listens any more when the run was aborted or the answer is too late.
            let _ = answer.send(Done { job, took, rows });
            waker();
        };
        self.jobs.insert(job, InHand { turn, rows });
        if self.work.inline() {
            run();
        } else {
            // Stages further down first: what is nearly done gives back its bytes soonest.
            self.house.helpers.submit(self.index, run);
        }
    }

    fn take_answers(&mut self, out: &mut Outputs) {
        while let Ok(done) = self.answers.1.try_recv() {
            // An answer that comes after its time-out is nobody's: its rows were tried again.
            if self.jobs.remove(&done.job).is_none() {
                continue;
            }
            self.linger.learn(done.took);
            for (key, outcomes) in done.rows {
                self.send(key, outcomes, out);
            }
        }
    }

    fn send(&mut self, key: Key, outcomes: Vec<Body>, out: &mut Outputs) {
        let Some(slide) = self.slides.get_mut(&key.slide) else {
            return;
        };
        if let Some(Body::Fail(failure)) =
            outcomes.iter().find(|body| matches!(body, Body::Fail(_)))
        {
            slide.told += 1;
            if slide.told <= TOLD_FAILURES {
                out.event(key.slide, Event::TileFailed((**failure).clone()));
            }
        }
        for (port, body) in outcomes.into_iter().enumerate() {
            out.send(
                port,
                Row {
                    slide: key.slide,
                    tile: key.tile,
                    rev: key.rev,
                    body,
                },
            );
        }
        slide.owed -= 1;
        if slide.closing && slide.owed == 0 {
            self.slides.remove(&key.slide);
            out.event(key.slide, Event::Closing);
        }
    }

    /// Batches that did not come back: their rows are tried alone; a row that does not come back alone fails.
    fn give_up_late(&mut self, out: &mut Outputs) {
        let now = Instant::now();
        if self.jobs.is_empty() {
            return;
        }
        if now < self.look_again {
            // At each turn: an earlier alarm may have stood in for this one.
            return self.alarm.set(&self.wake, self.look_again);
        }
        let until = |job: &InHand| job.turn.since().unwrap_or(now) + self.shape.timeout;
        let late: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| until(job) <= now)
            .map(|(id, _)| *id)
            .collect();
        let next = self.jobs.values().map(until).filter(|at| *at > now).min();
        self.look_again = next.unwrap_or(now + self.shape.timeout);
        self.alarm.set(&self.wake, self.look_again);
        if !late.is_empty() {
            self.wake.again();
        }
        for id in late {
            let Some(job) = self.jobs.remove(&id) else {
                continue;
            };
            // The thread that has it may never come back.
            self.house.helpers.add();
            let alone = job.rows.len() == 1;
            for Waiting {
                key,
                body,
                info,
                aborted,
            } in job.rows
            {
                if alone {
                    let late = self.work.late(self.shape.timeout);
                    let failure = failure(&self.name, &info, key, late.what, &late.help);
                    self.send(key, vec![failure; self.outputs], out);
                } else {
                    self.waiting.push_front(Value {
                        key,
                        body,
                        info,
                        lease: None,
                        alone: true,
                        aborted,
                    });
                }
            }
        }
    }
}

impl Logic for WorkLogic {
    fn rows(&mut self, _: usize, rows: &mut Vec<Row>, out: &mut Outputs) {
        for row in rows.drain(..) {
            match &row.body {
                Body::Opened(info) => {
                    let open = Open {
                        info: info.clone(),
                        told: 0,
                        owed: 0,
                        closing: false,
                        aborted: Arc::default(),
                    };
                    self.slides.insert(row.slide, open);
                    out.send_all(row);
                }
                Body::Event(event) if **event == Event::Closing => {
                    if self
                        .slides
                        .get(&row.slide)
                        .is_some_and(|slide| slide.owed > 0)
                    {
                        if let Some(slide) = self.slides.get_mut(&row.slide) {
                            slide.closing = true;
                        }
                    } else {
                        self.slides.remove(&row.slide);
                        out.send_all(row);
                    }
                }
                body if !body.is_value() => {
                    if let Body::Seal(seal) = body
                        && seal.last == Some(End::Aborted)
                        && let Some(slide) = self.slides.get(&row.slide)
                    {
                        slide.aborted.store(true, Ordering::Relaxed);
                    }
                    out.send_all(row);
                }
                _ => {
                    let key = Key {
                        slide: row.slide,
                        tile: row.tile,
                        rev: row.rev,
                    };
                    let Some(slide) = self.slides.get_mut(&row.slide) else {
                        self.house.abort.fatal(format!(
                            "{}: a row came after its slide was closed",
                            self.name
                        ));
                        return;
                    };
                    slide.owed += 1;
                    self.since.get_or_insert_with(Instant::now);
                    let value = Value {
                        key,
                        body: row.body,
                        info: slide.info.clone(),
                        lease: None,
                        alone: false,
                        aborted: slide.aborted.clone(),
                    };
                    self.waiting.push_back(value);
                }
            }
        }
    }

    fn turn(&mut self, inputs_done: bool, out: &mut Outputs) -> bool {
        self.take_answers(out);
        self.dispatch(inputs_done);
        self.give_up_late(out);
        if self.work.inline() {
            self.take_answers(out);
        }
        let jobs = self.jobs.values().filter(|job| job.turn.since().is_none());
        let queued: usize = jobs.map(|job| job.rows.len()).sum();
        let counters = &self.house.progress.stages[self.index];
        // Each worker adds its change: the counter is all workers'.
        let waiting = (self.waiting.len() + queued) as u64;
        let change = waiting.wrapping_sub(self.counted);
        counters.waiting.fetch_add(change, Ordering::Relaxed);
        self.counted = waiting;
        inputs_done && self.waiting.is_empty() && self.jobs.is_empty()
    }
}
