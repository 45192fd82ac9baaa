//! A whole graph without slides or networks: a source of small tiles whose pixels are a function of the tile, a scorer, a
//! selection, fetch, encoder, pool and sink, all with faults and delays on demand. What it must answer is computed beside it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_pipeline::{
    Deliver, Edge, Kind, Node, Place, Plan, Port, Rows, RunSettings, Schema, StateArgs, StateBytes,
    Values, plan::StageRun,
};
use weir_record::id::mix;
use weir_record::ledger::check;
use weir_record::{
    Body, Class, End, Failure, Feature, Grid, Key, Scores, Seal, Skip, SlideId, SlideInfo,
    SlideKey, Table, TileBuf, TileId,
};
use weir_runtime::stage::{
    Batch, BatchShape, Completed, Cx, OpenSlides, OpenedSlide, Prepare, Prepared, ReadError,
    Reduce, Script, Sink, SlideRef, Source, StageError, StageType, Step, TileReader, Work,
};
use weir_runtime::{Options, Outcome, RunError, run};

/// Side of a tile, px: 768 bytes of pixels.
const SIDE: u32 = 16;
/// Width of a feature: 1 KiB, so that it is leased.
const FEATURE: usize = 256;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub slides: Vec<Slide>,
    /// Tiles that are selected of a slide.
    pub highest: usize,
    /// Seeds the delays of scorer and encoder, each up to `delay`.
    pub seed: u64,
    pub delay: Duration,
    /// Where a stage panics.
    pub panics: Option<Panics>,
    /// A tile on which the scorer hangs for this long: (slide, tile).
    pub stuck: Option<(usize, u32, Duration)>,
}

#[derive(Clone, Debug, Default)]
pub struct Slide {
    pub tiles: u32,
    /// It cannot be opened.
    pub closed: bool,
    /// Tiles that cannot be read.
    pub bad: BTreeSet<u32>,
    /// Tiles that can be read at the second try only.
    pub flaky: BTreeSet<u32>,
    /// Before its last tile it waits this long.
    pub stalls: Duration,
}

/// At the first tile that comes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panics {
    Open,
    Reader,
    Worker,
    Helper,
    Sink,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            slides: Vec::new(),
            highest: 4,
            seed: 0,
            delay: Duration::ZERO,
            panics: None,
            stuck: None,
        }
    }
}

/// What happened, for the test to look at.
#[derive(Default)]
pub struct Seen {
    /// By slide: its answer, and when it was final.
    pub answers: Mutex<BTreeMap<String, (String, Instant)>>,
    pub open_now: AtomicUsize,
    pub open_most: AtomicUsize,
}

pub fn id(number: usize) -> String {
    format!("slide-{number:03}")
}

fn key(number: usize) -> SlideKey {
    SlideKey(mix(number as u64 + 1))
}

fn tile(number: u32) -> TileId {
    TileId::new(0, 0, (number % 100) as i64 * 16, (number / 100) as i64 * 16).unwrap()
}

fn number(tile: TileId) -> u32 {
    (tile.y() / 16 * 100 + tile.x() / 16) as u32
}

fn word(slide: SlideKey, tile: TileId) -> u64 {
    mix(slide.0 ^ tile.word())
}

/// Few values, so that there are ties.
fn score(word: u64) -> f32 {
    (word & 31) as f32 / 32.0
}

/// The tiles with the greatest scores; of equals the first.
fn best(mut scores: Vec<(f32, TileId)>, highest: usize) -> BTreeSet<TileId> {
    scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scores
        .into_iter()
        .take(highest)
        .map(|(_, tile)| tile)
        .collect()
}

impl Scenario {
    /// `slides` slides of `tiles` tiles each.
    pub fn of(slides: usize, tiles: u32) -> Self {
        Scenario {
            slides: vec![
                Slide {
                    tiles,
                    ..Slide::default()
                };
                slides
            ],
            ..Scenario::default()
        }
    }

    /// What each slide's answer must be.
    pub fn truth(&self) -> BTreeMap<String, String> {
        self.slides
            .iter()
            .enumerate()
            .map(|(at, slide)| {
                let key = key(at);
                if slide.closed {
                    return (id(at), answer(End::Aborted, []));
                }
                let readable = (0..slide.tiles).filter(|tile| !slide.bad.contains(tile));
                let scores = readable.map(|number| {
                    let tile = tile(number);
                    (score(word(key, tile)), tile)
                });
                let picked = best(scores.collect(), self.highest);
                let members = picked.into_iter().map(|tile| (tile, word(key, tile)));
                (id(at), answer(End::Complete, members))
            })
            .collect()
    }

    /// A plan of the whole graph; the sink stands at `place`.
    pub fn plan(&self, place: Place, run: RunSettings) -> Plan {
        let node = |name: &str, schema: &'static Schema, feeder: Option<usize>| Node {
            name: name.to_owned(),
            schema,
            values: Values::default(),
            inputs: feeder
                .map(|node| Edge {
                    port: 0,
                    node,
                    output: 0,
                })
                .into_iter()
                .collect(),
            run: StageRun::default(),
            shapes: vec![vec![FEATURE as u64]],
        };
        let sink = match place {
            Place::Home => &SINK,
            Place::First => &TABLE,
        };
        Plan {
            name: "synthetic".into(),
            file: PathBuf::from("synthetic"),
            run,
            models: BTreeMap::new(),
            plugins: Vec::new(),
            nodes: vec![
                node("source", &SOURCE, None),
                node("score", &SCORE, Some(0)),
                node("select", &SELECT, Some(1)),
                node("fetch", &FETCH, Some(2)),
                node("encode", &ENCODE, Some(3)),
                node("pool", &POOL, Some(4)),
                node("sink", sink, Some(5)),
            ],
            hash: "of the synthetic graph".into(),
        }
    }

    /// Runs it; `options.shared` is filled here.
    pub fn run(
        &self,
        place: Place,
        settings: RunSettings,
        options: Options,
    ) -> (Result<Outcome, RunError>, Arc<Seen>) {
        self.run_plan(self.plan(place, settings), options)
    }

    pub fn run_plan(&self, plan: Plan, options: Options) -> (Result<Outcome, RunError>, Arc<Seen>) {
        let scenario = self.clone();
        let made = options
            .shared
            .get_or_try("", || Ok::<_, StageError>(scenario));
        made.unwrap();
        let seen = options.shared.get::<Seen>();
        (run(Arc::new(plan), TYPES, options), seen)
    }
}

fn answer(end: End, members: impl IntoIterator<Item = (TileId, u64)>) -> String {
    let members = members
        .into_iter()
        .map(|(tile, word)| format!(" {}:{:04x}", number(tile), word as u16));
    format!("{end:?}{}", members.collect::<String>())
}

/// The answers that were seen.
pub fn answers(seen: &Seen) -> BTreeMap<String, String> {
    let answers = seen.answers.lock().unwrap();
    let answers = answers.iter();
    answers
        .map(|(id, (text, _))| (id.clone(), text.clone()))
        .collect()
}

/// Settings for a fast machine-independent run.
pub fn settings() -> RunSettings {
    RunSettings {
        helpers: 2,
        readers: 2,
        max_failed: 0.5,
        ..RunSettings::default()
    }
}

const fn port(kind: Kind) -> Port {
    Port {
        name: "rows",
        kind,
        shape: &[],
        mpp: None,
        many: false,
        optional: false,
        doc: "",
    }
}

const fn schema(
    name: &'static str,
    rows: Rows,
    ins: &'static [Port],
    outs: &'static [Port],
) -> Schema {
    Schema {
        name,
        summary: "",
        doc: "",
        rows,
        deliver: Deliver::Arrival,
        place: Place::Home,
        params: &[],
        ins,
        outs,
        batch_only: false,
        state_bytes: StateBytes::Nothing,
        example: "",
    }
}

fn keeps_features(_: &StateArgs) -> u64 {
    64 * FEATURE as u64
}

static SOURCE: Schema = schema("source", Rows::Source, &[], &[port(Kind::Pixels)]);
static SCORE: Schema = schema(
    "score",
    Rows::Map,
    &[port(Kind::Pixels)],
    &[port(Kind::Scores)],
);
static SELECT: Schema = schema(
    "select",
    Rows::Reduce,
    &[port(Kind::Scores)],
    &[port(Kind::Picks)],
);
static FETCH: Schema = schema(
    "fetch",
    Rows::Map,
    &[port(Kind::Picks)],
    &[port(Kind::Pixels)],
);
static ENCODE: Schema = schema(
    "encode",
    Rows::Map,
    &[port(Kind::Pixels)],
    &[port(Kind::Features)],
);
static POOL: Schema = Schema {
    deliver: Deliver::Generation,
    batch_only: false,
    state_bytes: StateBytes::Of(keeps_features),
    ..schema(
        "pool",
        Rows::Reduce,
        &[port(Kind::Features)],
        &[port(Kind::Table)],
    )
};
static SINK: Schema = schema("sink", Rows::Sink, &[port(Kind::Table)], &[]);
static TABLE: Schema = Schema {
    place: Place::First,
    ..schema("table", Rows::Sink, &[port(Kind::Table)], &[])
};

/// The stage types of the graph.
pub const TYPES: &[StageType] = &[
    StageType {
        schema: &SOURCE,
        prepare: |cx| Ok(Prepared::Source(Arc::new(Tiles::new(cx)))),
    },
    StageType {
        schema: &SCORE,
        prepare: |cx| Ok(Prepared::Work(Arc::new(Scorer(scenario(cx))))),
    },
    StageType {
        schema: &SELECT,
        prepare: |cx| {
            let scenario = scenario(cx);
            Ok(Prepared::Reduce(Arc::new(move || {
                Box::new(Select {
                    scenario: scenario.clone(),
                    scores: HashMap::new(),
                })
            })))
        },
    },
    StageType {
        schema: &FETCH,
        prepare: |cx| {
            Ok(Prepared::Work(Arc::new(Fetch(
                cx.shared.get(),
                cx.slab.clone(),
            ))))
        },
    },
    StageType {
        schema: &ENCODE,
        prepare: |cx| Ok(Prepared::Work(Arc::new(Encoder(scenario(cx))))),
    },
    StageType {
        schema: &POOL,
        prepare: |_| Ok(Prepared::Reduce(Arc::new(|| Box::<Pool>::default()))),
    },
    StageType {
        schema: &SINK,
        prepare: collect,
    },
    StageType {
        schema: &TABLE,
        prepare: collect,
    },
];

fn scenario(cx: &Prepare) -> Arc<Scenario> {
    cx.shared
        .get_or_try("", || Err(()))
        .unwrap_or_else(|()| Arc::new(Scenario::default()))
}

fn collect(cx: &Prepare) -> Result<Prepared, StageError> {
    let (scenario, seen) = (scenario(cx), cx.shared.get::<Seen>());
    Ok(Prepared::Sink(Arc::new(move || {
        Box::new(Collect {
            scenario: scenario.clone(),
            seen: seen.clone(),
            slides: HashMap::new(),
        })
    })))
}

impl Scenario {
    fn dawdle(&self, key: Key, at: u64) {
        let longest = self.delay.as_nanos() as u64;
        if longest > 0 {
            let word = mix(self.seed ^ mix(key.slide.number() ^ key.tile.word() ^ at << 60));
            std::thread::sleep(Duration::from_nanos(word % longest));
        }
    }

    fn panic_at(&self, place: Panics) {
        if self.panics == Some(place) {
            panic!("the {place:?} was told to panic");
        }
    }
}

struct Tiles {
    scenario: Arc<Scenario>,
    seen: Arc<Seen>,
    slides: Vec<SlideRef>,
}

impl Tiles {
    fn new(cx: &Prepare) -> Self {
        let scenario = scenario(cx);
        let slides = (0..scenario.slides.len()).map(|at| SlideRef {
            id: id(at),
            key: key(at),
            path: format!("synthetic/{at}"),
        });
        Tiles {
            slides: slides.collect(),
            seen: cx.shared.get(),
            scenario,
        }
    }
}

impl Source for Tiles {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        self.scenario.panic_at(Panics::Open);
        let at = self
            .slides
            .iter()
            .position(|known| known.id == slide.id)
            .unwrap();
        let what = self.scenario.slides[at].clone();
        if what.closed {
            return Err(Failure {
                stage: "source".into(),
                slide: slide.id.clone(),
                tile: None,
                what: "it is closed".into(),
                help: String::new(),
            });
        }
        let now = self.seen.open_now.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.open_most.fetch_max(now, Ordering::SeqCst);
        let mut info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        info.tiles = what.tiles as u64;
        info.grids = vec![Grid {
            footprint: SIDE as f64,
            mpp: 1.0,
            px: SIDE,
        }];
        let seal = Seal {
            n: what.tiles as u64,
            check: (0..what.tiles).fold(0, |sum, at| sum.wrapping_add(check(tile(at), 0))),
            last: Some(End::Complete),
        };
        let reader = Pixels {
            key: slide.key,
            slide: what.clone(),
            tried: Mutex::default(),
            scenario: self.scenario.clone(),
        };
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Batchwise {
                slide: what,
                seal: Some(seal),
                next: 0,
                stopped: false,
                stalled: false,
            }),
            reader: Arc::new(reader),
        })
    }
}

struct Batchwise {
    slide: Slide,
    seal: Option<Seal>,
    next: u32,
    stopped: bool,
    stalled: bool,
}

impl Script for Batchwise {
    fn next(&mut self) -> Step {
        if let Some(mut seal) = self.seal.take() {
            if self.stopped {
                seal = Seal {
                    n: 0,
                    check: 0,
                    last: Some(End::Aborted),
                };
                self.next = self.slide.tiles;
            }
            return Step::Seal { rev: 0, seal };
        }
        if self.next == self.slide.tiles {
            return Step::Done;
        }
        if self.next + 1 == self.slide.tiles
            && !self.stalled
            && !self.slide.stalls.is_zero()
            && !self.stopped
        {
            self.stalled = true;
            return Step::Wait(self.slide.stalls);
        }
        let tile = tile(self.next);
        self.next += 1;
        if self.stopped {
            let skip = Skip::Dropped {
                stage: "source".into(),
                reason: "stopped".into(),
            };
            return Step::Outcome {
                tile,
                rev: 0,
                body: Body::Skip(skip),
            };
        }
        Step::Tile {
            tile,
            rev: 0,
            width: SIDE,
            height: SIDE,
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
    }
}

struct Pixels {
    key: SlideKey,
    slide: Slide,
    tried: Mutex<BTreeSet<u32>>,
    scenario: Arc<Scenario>,
}

impl TileReader for Pixels {
    fn read(&self, tile: TileId, _: u32, into: &mut [u8]) -> Result<(), ReadError> {
        self.scenario.panic_at(Panics::Reader);
        let at = number(tile);
        if self.slide.bad.contains(&at) {
            return Err(ReadError::Damaged(format!("tile {at} is bad")));
        }
        if self.slide.flaky.contains(&at) && self.tried.lock().unwrap().insert(at) {
            return Err(ReadError::Damaged(format!("tile {at} needs another try")));
        }
        into.fill(0);
        into[..8].copy_from_slice(&word(self.key, tile).to_le_bytes());
        Ok(())
    }
}

fn word_of(body: &Body) -> u64 {
    match body {
        Body::Pixels(pixels) => u64::from_le_bytes(pixels.pixels()[..8].try_into().unwrap()),
        other => panic!("no pixels: {other:?}"),
    }
}

struct Scorer(Arc<Scenario>);

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

struct Select {
    scenario: Arc<Scenario>,
    scores: HashMap<SlideId, BTreeMap<TileId, (u32, f32)>>,
}

impl Reduce for Select {
    fn opened(&mut self, slide: SlideId, _: &Arc<SlideInfo>, _: &mut Cx) {
        self.scores.insert(slide, BTreeMap::new());
    }

    fn row(&mut self, _: usize, key: Key, body: Option<Body>, _: &mut Cx) {
        self.scenario.panic_at(Panics::Worker);
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
                cx.version(0, slide, tile, Body::Picked { source_rev, score });
            }
        }
        cx.seal(0, slide, Some(end));
    }

    fn closed(&mut self, slide: SlideId) {
        self.scores.remove(&slide);
    }
}

struct Fetch(Arc<OpenSlides>, weir_record::Slab);

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

struct Encoder(Arc<Scenario>);

impl Work for Encoder {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for at in 0..batch.len() {
            self.0.dawdle(batch.key(at), 2);
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
struct Pool(HashMap<SlideId, BTreeMap<TileId, Arc<Feature>>>);

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

struct Collect {
    scenario: Arc<Scenario>,
    seen: Arc<Seen>,
    slides: HashMap<SlideId, (String, String)>,
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

    fn ended(&mut self, slide: SlideId, _: &[Completed]) -> Result<(), StageError> {
        let (id, text) = self.slides[&slide].clone();
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
