//! The source operator: opens slides, takes leases, has tiles read, sends what comes back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use weir_record::{Body, Class, End, Event, Failure, Row, Seal, SlideId, SlideInfo, TileId};

use crate::host::{Alarm, Logic, Outputs, Wake};
use crate::house::House;
use crate::memory::state_bytes;
use crate::progress::add;
use crate::reading::{self, Content, Reading, STUCK, Wanted, Watch, stopped};
use crate::stage::{OpenedSlide, Script, SlideRef, Source, Step, TileReader};

/// Rows that one activation sends at most, so that a source never floods what follows.
const ROWS_A_TURN: usize = 64;
/// Tiles of a reader thread's job, at most: neighbours stay on one thread, and a hand-over costs less than a tile.
const TILES_A_JOB: usize = 16;
/// Jobs of a slide that wait for each reader thread, at most: what is read ahead beyond that only holds leases, and a slide whose
/// storage hangs must not hold those of all others.
const JOBS_AHEAD: usize = 4;
/// Failures that are told one by one; the rest are only counted.
pub(crate) const TOLD_FAILURES: u32 = 16;

pub(crate) struct SourceLogic {
    name: String,
    index: usize,
    source: Arc<dyn Source>,
    house: House,
    wake: Wake,
    sinks: usize,
    /// Slides of this worker that were not asked for yet.
    next: VecDeque<(u64, SlideRef)>,
    opening: usize,
    /// Open, but their state does not fit into the budget yet.
    unsettled: VecDeque<(SlideId, OpenedSlide, Duration)>,
    slides: Vec<Live>,
    /// Leased, and not yet given to a reader thread.
    wanted: Vec<Wanted>,
    /// Tiles of a reader thread's job: fewer where a turn's tiles are shared by many threads.
    tiles_a_job: usize,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Jobs that are not done.
    jobs: Vec<Arc<Watch>>,
    alarm: Alarm,
    stopped: bool,
}

struct Live {
    id: SlideId,
    info: Arc<SlideInfo>,
    script: Box<dyn Script>,
    reader: Arc<dyn TileReader>,
    held_back: Option<Step>,
    not_before: Option<Instant>,
    in_flight: usize,
    told: u32,
    done: bool,
    aborted: Arc<AtomicBool>,
    since: Instant,
}

/// What other threads answer.
pub(crate) enum Answer {
    Opened(u64, SlideRef, Result<OpenedSlide, Failure>, Duration),
    Read(SlideId, TileId, u32, Body),
}

impl SourceLogic {
    /// The source of the plan's node `index`, for worker `worker` of this process.
    pub(crate) fn new(
        house: House,
        index: usize,
        source: Arc<dyn Source>,
        worker: usize,
        keep: &dyn Fn(u64) -> bool,
        wake: Wake,
    ) -> Self {
        let (process, processes) = house.process;
        let next: VecDeque<(u64, SlideRef)> = source
            .slides()
            .iter()
            .enumerate()
            .map(|(number, slide)| (number as u64, slide.clone()))
            .filter(|(number, _)| keep(*number))
            .filter(|(number, _)| *number as usize % processes == process)
            .filter(|(number, _)| (*number as usize / processes) % house.workers == worker)
            .collect();
        add(&house.progress.slides, next.len() as u64);
        let sinks = house
            .plan
            .nodes
            .iter()
            .filter(|node| node.schema.rows == weir_pipeline::Rows::Sink)
            .count();
        house
            .bells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(wake.waker());
        let tiles_a_job = (ROWS_A_TURN / house.plan.run.readers.max(1)).clamp(1, TILES_A_JOB);
        SourceLogic {
            name: house.plan.nodes[index].name.clone(),
            index,
            source,
            house,
            wake,
            sinks,
            next,
            opening: 0,
            unsettled: VecDeque::new(),
            slides: Vec::new(),
            wanted: Vec::new(),
            tiles_a_job,
            answers: channel(),
            jobs: Vec::new(),
            alarm: Alarm::default(),
            stopped: false,
        }
    }

    fn open_more(&mut self) {
        while let Some((number, slide)) = self.next.front().cloned() {
            if !self.house.places.take(self.wake.waker()) {
                return;
            }
            self.next.pop_front();
            self.opening += 1;
            let (source, answer, waker) = (
                self.source.clone(),
                self.answers.0.clone(),
                self.wake.waker(),
            );
            // Ahead of the tiles that wait to be read, so that a slide is open before the last one's tiles run out.
            self.house.readers.submit(reading::OPENING, move || {
                let since = Instant::now();
                let opened = source.open(&slide);
                // Nobody listens any more when the run was aborted.
                let _ = answer.send(Answer::Opened(number, slide, opened, since.elapsed()));
                waker();
            });
        }
    }

    fn settle(&mut self, out: &mut Outputs) {
        while let Some((id, opened, _)) = self.unsettled.front() {
            let bytes = state_bytes(&self.house.plan, opened.info.tiles) as usize;
            let reserved = self.house.budget.try_reserve(bytes).or_else(|| {
                self.house.budget.wake_when_free(self.wake.waker());
                self.house.budget.try_reserve(bytes)
            });
            let Some(reservation) = reserved else { return };
            let id = *id;
            let Some((_, opened, took)) = self.unsettled.pop_front() else {
                return;
            };
            self.house.places.settle(id, self.sinks, Some(reservation));
            self.house.open.enter(id, opened.reader.clone());
            add(&self.house.progress.tiles, opened.info.tiles);
            add(&self.house.progress.slides_opened, 1);
            out.send_all(Row {
                slide: id,
                tile: TileId::SLIDE,
                rev: 0,
                body: Body::Opened(opened.info.clone()),
            });
            out.event(
                id,
                Event::Took {
                    part: "open".into(),
                    ms: took.as_millis() as u64,
                },
            );
            self.slides.push(Live {
                id,
                info: opened.info,
                script: opened.script,
                reader: opened.reader,
                held_back: None,
                not_before: None,
                in_flight: 0,
                told: 0,
                done: false,
                aborted: Arc::default(),
                since: Instant::now(),
            });
            if self.stopped {
                self.stop_last();
            }
        }
    }

    fn stop_last(&mut self) {
        if let Some(slide) = self.slides.last_mut() {
            slide.script.stop();
        }
    }

    fn failed_to_open(
        &mut self,
        id: SlideId,
        slide: &SlideRef,
        failure: Failure,
        out: &mut Outputs,
    ) {
        self.house.places.settle(id, self.sinks, None);
        add(&self.house.progress.slides_opened, 1);
        let info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        out.send_all(Row {
            slide: id,
            tile: TileId::SLIDE,
            rev: 0,
            body: Body::Opened(Arc::new(info)),
        });
        out.event(id, Event::SlideFailed(failure));
        let seal = Seal {
            n: 0,
            check: 0,
            last: Some(End::Aborted),
        };
        out.send_all(Row {
            slide: id,
            tile: TileId::SLIDE,
            rev: 0,
            body: Body::Seal(seal),
        });
        out.event(id, Event::Closing);
    }

    /// Takes steps of one slide until it waits, is starved, or the turn is over. Returns rows sent and whether it starved.
    fn advance(&mut self, at: usize, room: usize, out: &mut Outputs) -> (usize, bool) {
        let mut sent = 0;
        let now = Instant::now();
        let most = JOBS_AHEAD * TILES_A_JOB * self.house.plan.run.readers.max(1);
        while sent < room {
            let slide = &mut self.slides[at];
            if slide.done || slide.not_before.is_some_and(|time| time > now) {
                return (sent, false);
            }
            slide.not_before = None;
            if slide.in_flight >= most {
                return (sent, false);
            }
            let step = slide
                .held_back
                .take()
                .unwrap_or_else(|| slide.script.next());
            let id = slide.id;
            match step {
                Step::Tile { tile, rev, .. } | Step::Feature { tile, rev, .. } if self.stopped => {
                    // Asked for before the stop, and held back since: the script counts it as sent.
                    out.send_all(Row {
                        slide: id,
                        tile,
                        rev,
                        body: stopped(&self.name),
                    });
                    sent += 1;
                }
                Step::Tile {
                    tile,
                    rev,
                    width,
                    height,
                } => {
                    if !self.want(at, tile, rev, Content::Pixels { width, height }) {
                        return (sent, true);
                    }
                    sent += 1;
                }
                Step::Feature { tile, rev, width } => {
                    if !self.want(at, tile, rev, Content::Feature { width }) {
                        return (sent, true);
                    }
                    sent += 1;
                }
                Step::Outcome { tile, rev, body } => {
                    out.send_all(Row {
                        slide: id,
                        tile,
                        rev,
                        body,
                    });
                    sent += 1;
                }
                Step::Seal { rev, seal } => {
                    if seal.last == Some(End::Aborted) {
                        slide.aborted.store(true, Ordering::Relaxed);
                    }
                    out.send_all(Row {
                        slide: id,
                        tile: TileId::SLIDE,
                        rev,
                        body: Body::Seal(seal),
                    });
                    // A script that seals on and on has its turn like any other.
                    sent += 1;
                }
                Step::Event(event) => {
                    sent += 1;
                    if matches!(event, Event::Skipped { .. }) {
                        // Its tiles are those of an earlier run: nobody waits for them to be read.
                        let tiles = &self.house.progress.tiles;
                        tiles.fetch_sub(slide.info.tiles, Ordering::Relaxed);
                    }
                    out.event(id, event);
                }
                Step::Wait(time) => {
                    self.slides[at].not_before = Some(now + time);
                    return (sent, false);
                }
                Step::Done => self.slides[at].done = true,
            }
        }
        (sent, false)
    }

    /// Takes the lease on a version that is to be read; false when there is none, and the step is held back.
    fn want(&mut self, at: usize, tile: TileId, rev: u32, content: Content) -> bool {
        let mut lease = None;
        if let Some(bytes) = content.leased() {
            let budget = &self.house.budget;
            let ask = || budget.try_lease_for(self.index, Class::Scan, bytes);
            lease = ask().or_else(|| {
                // Ask to be woken first and then again: bytes may have come free in between.
                budget.wake_when_free(self.wake.waker());
                ask()
            });
            if lease.is_none() {
                self.slides[at].held_back = Some(content.step(tile, rev));
                return false;
            }
        }
        let slide = &mut self.slides[at];
        slide.in_flight += 1;
        self.wanted.push(Wanted {
            slide: slide.id,
            info: slide.info.clone(),
            reader: slide.reader.clone(),
            tile,
            rev,
            content,
            lease,
            aborted: slide.aborted.clone(),
        });
        if self.wanted.len() >= self.tiles_a_job {
            self.read();
        }
        true
    }

    /// Gives the wanted tiles, which are of one slide, to a reader thread.
    fn read(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        let job = Reading::new(
            std::mem::take(&mut self.wanted).into(),
            (self.answers.0.clone(), self.wake.waker()),
            self.house.clone(),
            self.index,
        );
        self.jobs.push(job.watch());
        job.submit(false);
    }

    /// Looks after tiles that take too long.
    fn look_after_jobs(&mut self) {
        self.jobs.retain(|job| !job.is_done());
        let now = Instant::now();
        for job in &self.jobs {
            job.look_after(&self.house.readers, now);
        }
        if !self.jobs.is_empty() {
            self.alarm.set(&self.wake, now + STUCK);
        }
    }

    fn take_answers(&mut self, out: &mut Outputs) -> bool {
        for _ in 0..ROWS_A_TURN {
            let Ok(answer) = self.answers.1.try_recv() else {
                return false;
            };
            match answer {
                Answer::Opened(number, slide, opened, took) => {
                    self.opening -= 1;
                    let id = SlideId::new(self.house.process.0 as u16, number);
                    match opened {
                        Ok(opened) => self.unsettled.push_back((id, opened, took)),
                        Err(failure) => self.failed_to_open(id, &slide, failure, out),
                    }
                }
                Answer::Read(id, tile, rev, body) => {
                    if let Some(slide) = self.slides.iter_mut().find(|slide| slide.id == id) {
                        slide.in_flight -= 1;
                        if let Body::Fail(failure) = &body {
                            add(&self.house.progress.tiles_failed, 1);
                            slide.told += 1;
                            if slide.told <= TOLD_FAILURES {
                                out.event(id, Event::TileFailed((**failure).clone()));
                            }
                        }
                    }
                    out.send_all(Row {
                        slide: id,
                        tile,
                        rev,
                        body,
                    });
                }
            }
        }
        true
    }

    fn stop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.next.clear();
        for slide in &mut self.slides {
            slide.script.stop();
            slide.not_before = None;
        }
    }
}

impl Logic for SourceLogic {
    fn leave(self: Box<Self>) -> Option<Box<dyn Logic>> {
        Some(self)
    }

    fn rows(&mut self, _: usize, _: &mut Vec<Row>, _: &mut Outputs) {}

    fn turn(&mut self, _: bool, out: &mut Outputs) -> bool {
        if self.house.stop.level() > 0 {
            self.stop();
        }
        let more_answers = self.take_answers(out);
        self.open_more();
        self.settle(out);
        let (mut room, mut starved) = (ROWS_A_TURN, false);
        // The slide that was opened first goes first; the others fill what it leaves.
        for at in 0..self.slides.len() {
            if room == 0 || starved {
                break;
            }
            let (sent, hungry) = self.advance(at, room, out);
            self.read();
            room -= sent.min(room);
            starved = hungry;
        }
        self.look_after_jobs();
        let next = self
            .slides
            .iter()
            .filter_map(|slide| slide.not_before)
            .min();
        if let Some(at) = next {
            self.alarm.set(&self.wake, at);
        }
        self.slides.retain(|slide| {
            let over = slide.done && slide.in_flight == 0;
            if over {
                out.event(
                    slide.id,
                    Event::Took {
                        part: "read".into(),
                        ms: slide.since.elapsed().as_millis() as u64,
                    },
                );
                out.event(slide.id, Event::Closing);
            }
            !over
        });
        if more_answers || (room == 0 && !starved) {
            self.wake.again();
        }
        self.next.is_empty()
            && self.opening == 0
            && self.unsettled.is_empty()
            && self.slides.is_empty()
    }
}
