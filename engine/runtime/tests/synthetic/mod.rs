//! A whole graph without slides or networks: a source of small tiles whose pixels are a function of the tile, a scorer, a
//! selection, fetch, encoder, pool and sink, all with faults and delays on demand. What it must answer is computed beside it.
#![allow(dead_code, clippy::unwrap_used)]

mod relay;
mod source;
mod stages;
pub mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_pipeline::{Edge, Node, Place, Plan, RunSettings, Schema, Values, plan::StageRun};
use weir_record::id::mix;
use weir_record::{End, Key, SlideKey, TileId};
use weir_runtime::stage::StageError;
use weir_runtime::{Options, Outcome, RunError, run};

use relay::{HeldUp, Left};
use types::{ENCODE, FETCH, POOL, RELAYS, SCORE, SELECT, SINK, SOURCE, TABLE, TYPES};

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
    /// The encoder cannot do anything with any tile.
    pub encodes_nothing: bool,
    /// Maps between source and scorer that hand tiles on.
    pub relays: usize,
    /// How long a batch takes at the first of them and at each other.
    pub relays_take: [Duration; 2],
    /// The first of them runs on the worker.
    pub inline_relay: bool,
    /// A tile on which one of them hangs for this long: (relay, slide, tile).
    pub stuck_relay: Option<(usize, usize, u32, Duration)>,
    /// They stand behind the fetch instead.
    pub relays_behind: bool,
    /// The selection sends every tile twice.
    pub selects_twice: bool,
    /// The selection holds the worker up until a helper thread goes on from the first relay to the second.
    pub holds_up: bool,
    /// The encoder waits for all relays to be left.
    pub awaits_relays: bool,
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
            encodes_nothing: false,
            relays: 0,
            relays_take: [Duration::ZERO; 2],
            inline_relay: false,
            stuck_relay: None,
            relays_behind: false,
            selects_twice: false,
            holds_up: false,
            awaits_relays: false,
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
    pub held_up: HeldUp,
    /// Names of the threads that the second relay ran on.
    pub relay_threads: Mutex<BTreeSet<String>>,
    pub left: Left,
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
        let mut stages: Vec<(&str, &'static Schema)> = vec![
            ("source", &SOURCE),
            ("score", &SCORE),
            ("select", &SELECT),
            ("fetch", &FETCH),
            ("encode", &ENCODE),
            ("pool", &POOL),
            ("sink", sink),
        ];
        let relays = RELAYS.iter().map(|relay| (relay.name, relay));
        let at = if self.relays_behind { 4 } else { 1 };
        stages.splice(at..at, relays.take(self.relays));
        let stages = stages.into_iter().enumerate();
        let nodes = stages.map(|(at, (name, schema))| node(name, schema, at.checked_sub(1)));
        Plan {
            name: "synthetic".into(),
            file: PathBuf::from("synthetic"),
            run,
            models: BTreeMap::new(),
            plugins: Vec::new(),
            nodes: nodes.collect(),
            hash: "of the synthetic graph".into(),
        }
    }

    /// The plan without the stages behind `stage`, and a sink on that stage's output.
    pub fn plan_to(&self, stage: &str, place: Place, run: RunSettings) -> Plan {
        let mut plan = self.plan(place, run);
        let end = plan.nodes.iter().position(|node| node.name == stage);
        let mut sink = plan.nodes.pop().unwrap();
        sink.inputs[0].node = end.unwrap();
        plan.nodes.truncate(end.unwrap() + 1);
        plan.nodes.push(sink);
        plan
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
