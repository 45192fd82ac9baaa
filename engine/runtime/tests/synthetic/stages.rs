//! What stands behind the source: a scorer, a selection, fetch, encoder, pool and sink.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weir_record::{
    Body, Class, End, Event, Feature, Key, Scores, Slab, SlideId, SlideInfo, Table, TileBuf, TileId,
};
use weir_runtime::stage::{
    Batch, BatchShape, Completed, Cx, OpenSlides, Reduce, Sink, StageError, Work,
};

use super::{FEATURE, Panics, SIDE, Scenario, Seen, answer, best, id, number, score};

fn word_of(body: &Body) -> u64 {
    match body {
        Body::Pixels(pixels) => u64::from_le_bytes(pixels.pixels()[..8].try_into().unwrap()),
        other => panic!("no pixels: {other:?}"),
    }
}

pub(super) struct Scorer(pub(super) Arc<Scenario>);

impl Work for Scorer {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        self.0.panic_at(Panics::Helper);
        for at in 0..batch.len() {
            let key = batch.key(at);
            self.0.dawdle(key, 1);
            if let Some((slide, tile, time)) = self.0.stuck
                && batch.info(at).id == id(slide)
                && number(key.tile) == tile
            {
                std::thread::sleep(time);
            }
            let score = score(word_of(batch.body(at)));
            let scores = Scores {
                score,
                probabilities: vec![1.0 - score, score],
            };
            batch.set_all(at, Body::Score(Arc::new(scores)));
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: 8,
            linger: Duration::from_millis(1),
            timeout: Duration::from_millis(300),
        }
    }
}

pub(super) struct Select {
    pub(super) scenario: Arc<Scenario>,
    pub(super) seen: Arc<Seen>,
    pub(super) scores: HashMap<SlideId, BTreeMap<TileId, (u32, f32)>>,
}

impl Reduce for Select {
    fn opened(&mut self, slide: SlideId, _: &Arc<SlideInfo>, _: &mut Cx) {
        self.scores.insert(slide, BTreeMap::new());
    }

    fn row(&mut self, _: usize, key: Key, body: Option<Body>, _: &mut Cx) {
        self.scenario.panic_at(Panics::Worker);
        if self.scenario.holds_up {
            self.seen.held_up.worker();
        }
        let scores = self.scores.get_mut(&key.slide).unwrap();
        match body {
            Some(Body::Score(score)) => scores.insert(key.tile, (key.rev, score.score)),
            _ => scores.remove(&key.tile),
        };
    }

    fn tick(&mut self, _: &mut Cx) {}

    fn complete(&mut self, _: usize, slide: SlideId, done: &Completed, cx: &mut Cx) {
        let Some(end) = done.end else { return };
        if end == End::Complete {
            let scores = &self.scores[&slide];
            let all = scores.iter().map(|(tile, (_, score))| (*score, *tile));
            for tile in best(all.collect(), self.scenario.highest) {
                let (source_rev, score) = scores[&tile];
                let times = if self.scenario.selects_twice { 2 } else { 1 };
                for _ in 0..times {
                    cx.version(0, slide, tile, Body::Picked { source_rev, score });
                }
            }
        }
        cx.seal(0, slide, Some(end));
    }

    fn closed(&mut self, slide: SlideId) {
        self.scores.remove(&slide);
    }
}

pub(super) struct Fetch(pub(super) Arc<OpenSlides>, pub(super) Slab);

impl Work for Fetch {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for at in 0..batch.len() {
            let key = batch.key(at);
            let reader = self.0.get(key.slide).unwrap();
            let bytes = TileBuf::bytes(SIDE, SIDE);
            let lease = batch.take_lease(at);
            let mut pixels = TileBuf::new(SIDE, SIDE, self.1.take(bytes), lease).unwrap();
            reader.read(key.tile, 0, pixels.pixels_mut()).unwrap();
            batch.set_all(at, Body::Pixels(Arc::new(pixels)));
        }
        Ok(())
    }

    fn output_bytes(&self, _: &Body, _: &SlideInfo) -> Option<(Class, usize)> {
        Some((Class::Fetch, TileBuf::bytes(SIDE, SIDE)))
    }
}

pub(super) struct Encoder(pub(super) Arc<Scenario>, pub(super) Arc<Seen>);

impl Work for Encoder {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for at in 0..batch.len() {
            self.0.dawdle(batch.key(at), 2);
            if self.0.awaits_relays {
                self.1.left.awaited(self.0.relays, Duration::from_secs(10));
            }
            if self.0.encodes_nothing {
                return Err(StageError::new("it encodes nothing", ""));
            }
            let mut values = vec![0.0; FEATURE];
            values[0] = (word_of(batch.body(at)) as u16) as f32;
            let lease = batch.take_lease(at);
            batch.set_all(at, Body::Feature(Arc::new(Feature::new(values, lease))));
        }
        Ok(())
    }

    fn output_bytes(&self, _: &Body, _: &SlideInfo) -> Option<(Class, usize)> {
        Some((Class::Fetch, FEATURE * 4))
    }
}

#[derive(Default)]
pub(super) struct Pool(HashMap<SlideId, BTreeMap<TileId, Arc<Feature>>>);

impl Reduce for Pool {
    fn opened(&mut self, slide: SlideId, _: &Arc<SlideInfo>, _: &mut Cx) {
        self.0.insert(slide, BTreeMap::new());
    }

    fn row(&mut self, _: usize, key: Key, body: Option<Body>, _: &mut Cx) {
        let members = self.0.get_mut(&key.slide).unwrap();
        match body {
            Some(Body::Feature(feature)) => {
                assert_eq!(
                    feature.leased(),
                    0,
                    "what a reduce keeps is reserved, not leased"
                );
                members.insert(key.tile, feature)
            }
            _ => members.remove(&key.tile),
        };
    }

    fn tick(&mut self, _: &mut Cx) {}

    fn complete(&mut self, _: usize, slide: SlideId, done: &Completed, cx: &mut Cx) {
        let Some(end) = done.end else { return };
        let members = self.0[&slide]
            .iter()
            .map(|(tile, feature)| (*tile, feature[0] as u64));
        let table = Table {
            format: "answer/1".into(),
            bytes: answer(end, members).into_bytes(),
        };
        cx.version(0, slide, TileId::SLIDE, Body::Ext(Arc::new(table)));
        cx.seal(0, slide, Some(end));
    }

    fn closed(&mut self, slide: SlideId) {
        self.0.remove(&slide);
    }
}

pub(super) struct Collect {
    pub(super) scenario: Arc<Scenario>,
    pub(super) seen: Arc<Seen>,
    pub(super) slides: HashMap<SlideId, (String, String)>,
}

impl Sink for Collect {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        self.slides.insert(slide, (info.id.clone(), String::new()));
        Ok(())
    }

    fn row(&mut self, _: usize, key: Key, body: Body) -> Result<(), StageError> {
        self.scenario.panic_at(Panics::Sink);
        if let (Body::Ext(table), Some(slide)) = (body, self.slides.get_mut(&key.slide)) {
            slide.1 = String::from_utf8(table.bytes.clone()).unwrap();
        }
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        if let (Event::SlideFailed(failure), Some(slide)) = (event, self.slides.get_mut(&slide)) {
            slide.1 = format!("failed by {}, ", failure.stage);
        }
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        let (id, mut text) = self.slides[&slide].clone();
        // Rows of tiles are no answer.
        if !text.contains("Complete") && !text.contains("Aborted") {
            text += &format!("{:?}", done[0].end);
        }
        self.seen
            .answers
            .lock()
            .unwrap()
            .insert(id, (text, Instant::now()));
        Ok(())
    }

    fn closed(&mut self, slide: SlideId) {
        self.slides.remove(&slide);
        // A slide that cannot be opened was never counted.
        let _ = self
            .seen
            .open_now
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    }
}
