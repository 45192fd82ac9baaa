//! The operator of maps and filters: gathers values of all slides into batches, has helper threads work on them, and sees to it
//! that every version has exactly one outcome on every output, whatever a stage does.

mod linger;
mod runner;
mod task;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use weir_record::{Body, End, Event, Key, Lease, Row, SlideId, SlideInfo};

use crate::host::{Alarm, Logic, Outputs, Wake};
use crate::source::TOLD_FAILURES;
use crate::stage::Turn;

use linger::Linger;
pub(crate) use runner::runners;
use runner::{Answer, Done, Runner};
use task::{Outcomes, Task, failure};

/// The time-out of work that keeps to its own: longer than any run.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

pub(crate) struct WorkLogic {
    runner: Arc<Runner>,
    wake: Wake,
    slides: HashMap<SlideId, Open>,
    waiting: VecDeque<Value>,
    since: Option<Instant>,
    linger: Linger,
    jobs: HashMap<u64, InHand>,
    /// Batches whose rows did not all come yet.
    chained: Vec<Coming>,
    answers: Receiver<Answer>,
    alarm: Alarm,
    /// Jobs are looked at no later than then; while there are any, no further away than the runner is patient.
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
    /// To be tried again when it does not come back.
    rows: Vec<(Key, Body)>,
}

/// A chained batch, which was begun by the thread that made its rows, ahead of them.
struct Coming {
    job: u64,
    turn: Turn,
    /// Those that did not come yet, in the order in which they come: all are made by one batch of the stage before.
    missing: VecDeque<Key>,
    came: Vec<(Key, Body)>,
    /// What came of it meanwhile.
    done: Option<Done>,
}

impl Coming {
    fn of(job: u64, turn: Turn, keys: impl ExactSizeIterator<Item = Key>) -> Coming {
        Coming {
            job,
            turn,
            came: Vec::with_capacity(keys.len()),
            missing: keys.collect(),
            done: None,
        }
    }

    /// A row came: which of them has it in hand, where one does. It misses it no more.
    fn meet(all: &mut [Coming], key: Key) -> Option<usize> {
        let is_next = |coming: &mut Coming| coming.missing.pop_front_if(|next| *next == key);
        if let Some(at) = all.iter_mut().position(|coming| is_next(coming).is_some()) {
            return Some(at);
        }
        // A tile that is sent twice may have been taken for the other one's: then the rows behind it come too soon.
        let of = |coming: &Coming| coming.missing.iter().position(|next| *next == key);
        let (at, of) = all
            .iter()
            .enumerate()
            .find_map(|(at, it)| Some((at, of(it)?)))?;
        all[at].missing.remove(of);
        Some(at)
    }
}

impl WorkLogic {
    pub(crate) fn new(runner: Arc<Runner>, wake: Wake) -> Self {
        let told = runner.house.plan.nodes[runner.index].run.linger;
        WorkLogic {
            answers: runner.belongs_to(wake.waker()),
            linger: Linger::new(told, runner.shape.linger),
            runner,
            wake,
            slides: HashMap::new(),
            waiting: VecDeque::new(),
            since: None,
            jobs: HashMap::new(),
            chained: Vec::new(),
            alarm: Alarm::default(),
            look_again: Instant::now(),
            counted: 0,
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
            let starved = granted < self.waiting.len().min(self.runner.shape.rows);
            self.runner.set_starved(starved);
            let full = granted >= self.runner.shape.rows;
            let alone = self.waiting.front().is_some_and(|value| value.alone);
            // Of the slides that are open all is here; the next one may not be opened before one of them is done.
            let last = inputs_done || self.slides.values().all(|slide| slide.closing);
            if granted == 0 || !(full || late || last || starved || alone) {
                // Past its time it waits for leases, and who gives them back wakes.
                if let Some(since) = self.since.filter(|_| !late) {
                    self.alarm.set(&self.wake, since + self.linger.now());
                    self.runner
                        .house
                        .gathers
                        .needs(self.runner.shape.rows - granted);
                }
                return;
            }
            let count = if alone {
                1
            } else {
                granted.min(self.runner.shape.rows)
            };
            let rows: Vec<Value> = self.waiting.drain(..count).collect();
            self.submit(rows);
            self.linger.sent();
            self.since = Some(Instant::now());
        }
    }

    /// Takes output leases for the first values that wait, as many as a batch holds; returns how many may go.
    fn grant(&mut self) -> usize {
        let most = self.runner.shape.rows.min(self.waiting.len());
        for at in 0..most {
            let value = &mut self.waiting[at];
            if value.lease.is_some() {
                continue;
            }
            let Some((class, bytes)) = self.runner.task.work.output_bytes(&value.body, &value.info)
            else {
                continue;
            };
            let budget = &self.runner.house.budget;
            let lease = || budget.try_lease_for(self.runner.index, class, bytes);
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
        let rows = values.iter().map(|value| (value.key, value.body.clone()));
        let (job, turn) = (self.runner.job(), Turn::waiting());
        let hand = InHand {
            turn: turn.clone(),
            rows: rows.collect(),
        };
        self.jobs.insert(job, hand);
        if self.is_inline() {
            self.runner.clone().take(job, &turn, values);
        } else {
            let runner = self.runner.clone();
            // Stages further down first: what is nearly done gives back its bytes soonest.
            let rank = self.runner.index;
            let run = move || runner.take(job, &turn, values);
            self.runner.house.helpers.submit(rank, run);
        }
    }

    fn is_inline(&self) -> bool {
        self.runner.task.work.inline()
    }

    fn take_answers(&mut self, out: &mut Outputs) {
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Answer::Chained(coming) => {
                    self.linger.sent();
                    self.chained.push(coming);
                }
                Answer::Done(done) => {
                    let mut chained = self.chained.iter_mut();
                    match chained.find(|coming| coming.job == done.job) {
                        Some(coming) => coming.done = Some(done),
                        None => self.finish(done, out),
                    }
                }
            }
        }
    }

    /// A row came; gives it back unless a helper thread has it in hand already. Before all of its batch came that is not late: the
    /// operator before, which is as patient as this one at most, looks to that.
    fn not_in_hand(&mut self, key: Key, body: Body, out: &mut Outputs) -> Option<Body> {
        let Some(at) = Coming::meet(&mut self.chained, key) else {
            return Some(body);
        };
        let coming = &mut self.chained[at];
        coming.came.push((key, body));
        if coming.missing.is_empty() {
            let whole = self.chained.swap_remove(at);
            match whole.done {
                Some(done) => self.finish(done, out),
                None => {
                    let (turn, rows) = (whole.turn, whole.came);
                    let since = turn.since().unwrap_or_else(Instant::now);
                    self.look_again = self.look_again.min(since + self.runner.shape.timeout);
                    self.jobs.insert(whole.job, InHand { turn, rows });
                }
            }
        }
        None
    }

    fn finish(&mut self, done: Done, out: &mut Outputs) {
        self.jobs.remove(&done.job);
        self.linger.learn(done.took);
        let Outcomes { rows, bodies } = done.outcomes;
        let (mut bodies, outputs) = (bodies.into_iter(), self.runner.task.outputs);
        for (key, _) in rows {
            self.send(key, bodies.by_ref().take(outputs), out);
        }
    }

    /// Sends the outcome of a row on each output.
    fn send(&mut self, key: Key, outcomes: impl Iterator<Item = Body>, out: &mut Outputs) {
        let Some(slide) = self.slides.get_mut(&key.slide) else {
            return;
        };
        let mut failed = false;
        for (port, body) in outcomes.enumerate() {
            if let Body::Fail(failure) = &body
                && !std::mem::replace(&mut failed, true)
            {
                slide.told += 1;
                if slide.told <= TOLD_FAILURES {
                    out.event(key.slide, Event::TileFailed((**failure).clone()));
                }
            }
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
        let (timeout, patience) = (self.runner.shape.timeout, self.runner.patience());
        let since = |job: &InHand| job.turn.since().unwrap_or(now);
        let late: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| since(job) + timeout <= now && job.turn.give_up())
            .map(|(id, _)| *id)
            .collect();
        let next = self.jobs.values().map(|job| since(job) + timeout);
        let next = next.filter(|at| *at > now).min();
        let most = now + patience;
        self.look_again = next.map_or(most, |at| at.min(most));
        self.alarm.set(&self.wake, self.look_again);
        if !late.is_empty() {
            self.wake.again();
        }
        for id in late {
            let Some(job) = self.jobs.remove(&id) else {
                continue;
            };
            // The thread that has it may never come back.
            self.runner.house.helpers.add();
            self.runner.hangs();
            let alone = job.rows.len() == 1;
            for (key, body) in job.rows {
                let Some(slide) = self.slides.get(&key.slide) else {
                    continue;
                };
                if alone {
                    let Task { work, name, .. } = &self.runner.task;
                    let late = work.late(timeout);
                    let failure = failure(name, &slide.info, key, late.what, &late.help);
                    let outcomes = std::iter::repeat_n(failure, self.runner.task.outputs);
                    self.send(key, outcomes, out);
                } else {
                    self.waiting.push_front(Value {
                        key,
                        body,
                        info: slide.info.clone(),
                        lease: None,
                        alone: true,
                        aborted: slide.aborted.clone(),
                    });
                }
            }
        }
    }
}

impl Logic for WorkLogic {
    fn rows(&mut self, _: usize, rows: &mut Vec<Row>, out: &mut Outputs) {
        // Which of them are in hand was said before they were sent.
        self.take_answers(out);
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
                        self.runner.house.abort.fatal(format!(
                            "{}: a row came after its slide was closed",
                            self.runner.task.name
                        ));
                        return;
                    };
                    slide.owed += 1;
                    let Some(body) = self.not_in_hand(key, row.body, out) else {
                        continue;
                    };
                    let Some(slide) = self.slides.get(&row.slide) else {
                        continue;
                    };
                    let value = Value {
                        key,
                        body,
                        info: slide.info.clone(),
                        lease: None,
                        alone: false,
                        aborted: slide.aborted.clone(),
                    };
                    self.since.get_or_insert_with(Instant::now);
                    self.waiting.push_back(value);
                }
            }
        }
    }

    fn turn(&mut self, inputs_done: bool, out: &mut Outputs) -> bool {
        self.take_answers(out);
        self.dispatch(inputs_done);
        self.give_up_late(out);
        if self.is_inline() {
            self.take_answers(out);
        }
        let jobs = self.jobs.values().filter(|job| job.turn.is_waiting());
        let queued: usize = jobs.map(|job| job.rows.len()).sum();
        let counters = &self.runner.house.progress.stages[self.runner.index];
        // Each worker adds its change: the counter is all workers'.
        let waiting = (self.waiting.len() + queued) as u64;
        let change = waiting.wrapping_sub(self.counted);
        counters.waiting.fetch_add(change, Ordering::Relaxed);
        self.counted = waiting;
        inputs_done && self.waiting.is_empty() && self.chained.is_empty() && self.jobs.is_empty()
    }

    fn leave(self: Box<Self>) -> Option<Box<dyn Logic>> {
        let house = self.runner.house.clone();
        match Arc::try_unwrap(self.runner) {
            Ok(runner) => house.leave(runner.task.work),
            // A thread has it that was given up: whoever has it last ends it, that thread or the run.
            Err(runner) => house.ends(Box::new(move || drop(runner))),
        }
        None
    }
}
