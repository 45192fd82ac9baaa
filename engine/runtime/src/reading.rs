//! What a reader thread does: reads tiles of one slide, makes room for other slides, and is relieved when storage hangs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_record::budget::Waker;
use weir_record::{Body, Failure, Feature, Lease, Skip, SlideId, SlideInfo, TileBuf, TileId};

use crate::crew::{Crew, Then};
use crate::house::House;
use crate::progress::add;
use crate::source::Answer;
use crate::stage::{ReadError, Step, TileReader};

/// Ranks of a reader thread's jobs.
pub(crate) const OPENING: usize = 1;
const READING: usize = 0;
/// A job that ran for so long makes room when other slides wait.
const SLICE: Duration = Duration::from_millis(10);
/// A tile that takes longer is stuck: another thread takes over from the one that reads it, and its slide gets no second one.
pub(crate) const STUCK: Duration = Duration::from_millis(100);
/// How long a job's tiles wait for the worker's attention, at most, while it goes on.
const SOON: Duration = Duration::from_millis(4);

/// A version to be read.
pub(crate) struct Wanted {
    pub(crate) slide: SlideId,
    pub(crate) info: Arc<SlideInfo>,
    pub(crate) reader: Arc<dyn TileReader>,
    pub(crate) tile: TileId,
    pub(crate) rev: u32,
    pub(crate) content: Content,
    pub(crate) lease: Option<Lease>,
    /// Set when the slide was stopped: nothing comes of its pixels then, and nobody waits for them.
    pub(crate) aborted: Arc<AtomicBool>,
}

/// What is read of a version.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    Pixels { width: u32, height: u32 },
    Feature { width: u32 },
}

impl Content {
    /// Bytes that are leased for it; bodies below 1 KiB are not leased.
    pub(crate) fn leased(self) -> Option<usize> {
        match self {
            Content::Pixels { width, height } => Some(TileBuf::bytes(width, height)),
            Content::Feature { width } => {
                let bytes = width as usize * size_of::<f32>();
                (bytes >= 1024).then_some(bytes)
            }
        }
    }

    /// The step that asks for it.
    pub(crate) fn step(self, tile: TileId, rev: u32) -> Step {
        match self {
            Content::Pixels { width, height } => Step::Tile {
                tile,
                rev,
                width,
                height,
            },
            Content::Feature { width } => Step::Feature { tile, rev, width },
        }
    }
}

/// Whether a reader thread's job goes on.
pub(crate) struct Watch {
    slide: SlideId,
    /// When the tile in hand was begun; `None` while the job waits.
    since: Mutex<Option<Instant>>,
    /// Another thread took over.
    relieved: AtomicBool,
    done: AtomicBool,
}

impl Watch {
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Has another thread take over when the tile in hand takes too long.
    pub(crate) fn look_after(&self, readers: &Crew, now: Instant) {
        // Held while the job is relieved, so that its thread cannot put it down in between.
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let late = since.is_some_and(|since| now.saturating_duration_since(since) > STUCK);
        if late && !self.relieved.swap(true, Ordering::AcqRel) {
            readers.relieve(self.slide.mixed());
        }
    }

    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// The thread puts the job down: what it does then.
    fn put_down(&self) -> Then {
        self.set(None);
        if self.relieved.swap(false, Ordering::AcqRel) {
            Then::Leave
        } else {
            Then::Stay
        }
    }
}

/// A reader thread's job: tiles of one slide.
pub(crate) struct Reading {
    tiles: VecDeque<Wanted>,
    watch: Arc<Watch>,
    answer: Sender<Answer>,
    waker: Waker,
    house: House,
    index: usize,
}

impl Reading {
    /// A job for `tiles`, at least one; answers go through the first of `back`, and the second wakes who waits for them.
    pub(crate) fn new(
        tiles: VecDeque<Wanted>,
        (answer, waker): (Sender<Answer>, Waker),
        house: House,
        index: usize,
    ) -> Self {
        let watch = Watch {
            slide: tiles[0].slide,
            since: Mutex::new(None),
            relieved: AtomicBool::new(false),
            done: AtomicBool::new(false),
        };
        Reading {
            tiles,
            watch: Arc::new(watch),
            answer,
            waker,
            house,
            index,
        }
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    /// Puts it into its slide's lane; `first`: ahead of what waits there.
    pub(crate) fn submit(self, first: bool) {
        let lane = self.watch.slide.mixed();
        let readers = self.house.readers.clone();
        readers.submit_in(lane, READING, first, move || self.run());
    }

    fn run(mut self) -> Then {
        let (house, index) = (self.house.clone(), self.index);
        let begun = Instant::now();
        let mut told = begun;
        while let Some(one) = self.tiles.pop_front() {
            let since = Instant::now();
            self.watch.set(Some(since));
            let (slide, tile, rev) = (one.slide, one.tile, one.rev);
            let body = one.read(&house, index);
            house.progress.stages[index].worked(1, since.elapsed());
            house.traced(index, since, 1);
            add(&house.progress.tiles_read, 1);
            // Nobody listens any more when the run was aborted.
            let _ = self.answer.send(Answer::Read(slide, tile, rev, body));
            if house.gathers.one_read() || told.elapsed() >= SOON {
                (self.waker)();
                told = Instant::now();
            }
            let lane = slide.mixed();
            if !self.tiles.is_empty() && begun.elapsed() >= SLICE && house.readers.others_wait(lane)
            {
                (self.waker)();
                let then = self.watch.put_down();
                self.submit(true);
                return then;
            }
        }
        let then = self.watch.put_down();
        self.watch.done.store(true, Ordering::Release);
        (self.waker)();
        then
    }
}

impl Wanted {
    fn read(self, house: &House, index: usize) -> Body {
        let node = &house.plan.nodes[index];
        if self.aborted.load(Ordering::Relaxed) {
            return stopped(&node.name);
        }
        let retries = node.run.retries.unwrap_or(house.plan.run.retries);
        let (tile, rev, reader, lease) = (self.tile, self.rev, self.reader, self.lease);
        let read = match self.content {
            Content::Pixels { width, height } => {
                let data = house.slab.take(TileBuf::bytes(width, height));
                match TileBuf::new(width, height, data, lease) {
                    None => Err(ReadError::Damaged(
                        "the tile's size does not fit its buffer".into(),
                    )),
                    Some(mut pixels) => {
                        again(retries, || reader.read(tile, rev, pixels.pixels_mut()))
                            .map(|()| Body::Pixels(Arc::new(pixels)))
                    }
                }
            }
            Content::Feature { width } => {
                let mut values = vec![0.0; width as usize];
                again(retries, || reader.feature(tile, rev, &mut values))
                    .map(|()| Body::Feature(Arc::new(Feature::new(values, lease))))
            }
        };
        match read {
            Ok(body) => body,
            Err(ReadError::Superseded) => Body::Skip(Skip::Superseded),
            Err(ReadError::Damaged(what)) => {
                Body::Fail(Arc::new(failure(&node.name, &self.info, tile, what)))
            }
        }
    }
}

/// Reads until it succeeds, or `retries` times more.
fn again(retries: u32, mut read: impl FnMut() -> Result<(), ReadError>) -> Result<(), ReadError> {
    let mut result = read();
    for _ in 0..retries {
        if matches!(result, Err(ReadError::Damaged(_))) {
            result = read();
        }
    }
    result
}

/// What becomes of a version of a slide that was stopped.
pub(crate) fn stopped(stage: &str) -> Body {
    Body::Skip(Skip::Dropped {
        stage: stage.into(),
        reason: "the run was stopped".into(),
    })
}

fn failure(stage: &str, info: &SlideInfo, tile: TileId, what: String) -> Failure {
    Failure {
        stage: stage.to_owned(),
        slide: info.id.clone(),
        tile: Some((tile.x(), tile.y())),
        what,
        help: String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::stand::{ONE, house, node};
    use std::sync::mpsc::channel;
    use weir_record::SlideKey;

    /// Tiles that are read at once.
    struct Ready;

    impl TileReader for Ready {
        fn read(&self, _: TileId, _: u32, _: &mut [u8]) -> Result<(), ReadError> {
            Ok(())
        }
    }

    fn wanted(tiles: u32) -> VecDeque<Wanted> {
        let info = SlideInfo::unopened("a".into(), SlideKey(1), "a.svs".into());
        let info = Arc::new(info);
        let tile = |x| Wanted {
            slide: SlideId::new(0, 0),
            info: info.clone(),
            reader: Arc::new(Ready),
            tile: TileId::new(0, 0, x, 0).unwrap(),
            rev: 0,
            content: Content::Pixels {
                width: 1,
                height: 1,
            },
            lease: None,
            aborted: Arc::default(),
        };
        (0..i64::from(tiles)).map(tile).collect()
    }

    #[test]
    fn whoever_reads_the_last_tile_of_a_batch_that_a_stage_gathers_tells_the_worker_at_once() {
        let house = house(vec![node(&ONE, &[])]);
        let (answer, answers) = channel();
        let (told, tells) = channel();
        let read = house.progress.clone();
        let waker: Waker = Arc::new(move || {
            let _ = told.send(read.tiles_read.load(Ordering::SeqCst));
        });
        house.gathers.needs(5);
        // A job after the other: none of them tells for its own sake before its end.
        let job = |tiles| {
            let back = (answer.clone(), waker.clone());
            let _ = Reading::new(wanted(tiles), back, house.clone(), 0).run();
        };
        job(3);
        job(4);
        // A slow machine may have been told in between.
        let told: Vec<u64> = tells.try_iter().collect();
        assert!([3, 5, 7].iter().all(|read| told.contains(read)), "{told:?}");
        assert_eq!(answers.try_iter().count(), 7);
        // Nobody gathers any more.
        assert!(!house.gathers.one_read());
        house.gathers.needs(0);
        assert!(!house.gathers.one_read());
    }
}
