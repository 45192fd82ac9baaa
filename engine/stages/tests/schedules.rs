//! LEDGER's property on the real operators: whatever a source withdraws, sends again or cannot read, whatever overtakes what,
//! live or not, on any number of workers, the slide ends in the batch truth and every ledger ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use graph::{Graph, Models, Seen, models};
use proptest::prelude::*;
use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Kind, Place, Port, Rows, Schema};
use weir_record::id::mix;
use weir_record::{Body, Class, Feature, Key, Scores, Skip, SlideInfo, TileId};
use weir_runtime::stage::{Batch, BatchShape, Prepare, Prepared, StageError, StageType, Work};
use weir_runtime::{Options, exit};

const SIZE: u32 = 8;
const HIGHEST: usize = 3;
const LOWEST: usize = 3;
/// Tiles of a slide at most; some are all selected, some are not.
const TILES: u32 = 24;

// ------------------------------------------------------------------------------------------- stages that are functions

/// How long a version waits in the scorer and in the encoder: by seed and version, up to so long.
struct Delays {
    seed: u64,
    longest: Duration,
}

impl Delays {
    fn wait(&self, key: Key, stage: u64) {
        if self.longest.is_zero() {
            return;
        }
        let word = mix(self.seed
            ^ mix(key.tile.word() ^ key.slide.number() ^ (key.rev as u64) << 40 ^ stage << 60));
        // Most are fast and a few are slow, so that much overtakes much.
        let scale = if word & 7 == 0 { 1 } else { 16 };
        std::thread::sleep(
            Duration::from_nanos(mix(word) % self.longest.as_nanos() as u64) / scale,
        );
    }
}

fn colour(body: &Body) -> u32 {
    match body {
        Body::Pixels(pixels) => {
            let p = pixels.pixels();
            u32::from_le_bytes([p[0], p[1], p[2], 0])
        }
        other => panic!("no pixels: {other:?}"),
    }
}

/// What the scorer makes of a colour: few different scores, so that there are ties.
enum Scored {
    Score(f32),
    Skip,
    Fail,
}

fn scored(colour: u32) -> Scored {
    let word = mix(colour as u64 + 1);
    match word % 19 {
        0 => Scored::Fail,
        1 | 2 => Scored::Skip,
        _ => Scored::Score((word >> 32 & 15) as f32 / 16.0),
    }
}

struct Scorer(Arc<Delays>);

impl Work for Scorer {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        // One row that fails fails the batch: the operator tries the others alone.
        for i in 0..batch.len() {
            self.0.wait(batch.key(i), 1);
            let outcome = match scored(colour(batch.body(i))) {
                Scored::Score(score) => Body::Score(Arc::new(Scores {
                    score,
                    probabilities: vec![1.0 - score, score],
                })),
                Scored::Skip => Body::Skip(Skip::Dropped {
                    stage: "score".into(),
                    reason: "blurred".into(),
                }),
                Scored::Fail => return Err(StageError::new("this colour is not scored", "")),
            };
            batch.set(i, 0, outcome);
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: 4,
            linger: Duration::from_micros(300),
            ..BatchShape::default()
        }
    }
}

struct Encoder(Arc<Delays>);

impl Work for Encoder {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for i in 0..batch.len() {
            self.0.wait(batch.key(i), 2);
            let seed = colour(batch.body(i)) as u64;
            let values = (0..128).map(|at| (mix(seed ^ at << 32) >> 40) as f32 / (1 << 24) as f32);
            let lease = batch.take_lease(i);
            batch.set(
                i,
                0,
                Body::Feature(Arc::new(Feature::new(values.collect(), lease))),
            );
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: 4,
            linger: Duration::from_micros(300),
            ..BatchShape::default()
        }
    }

    // Smaller than what is leased elsewhere, but here pixels and features are to compete.
    fn output_bytes(&self, _: &Body, _: &SlideInfo) -> Option<(Class, usize)> {
        Some((Class::Fetch, 128 * 4))
    }
}

const fn port(name: &'static str, kind: Kind) -> Port {
    Port {
        name,
        kind,
        shape: &[],
        mpp: None,
        many: false,
        optional: false,
        doc: "",
    }
}

const fn filter(name: &'static str, ins: &'static [Port], outs: &'static [Port]) -> Schema {
    Schema {
        name,
        summary: "",
        doc: "",
        rows: Rows::Filter,
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

static SCORE: Schema = filter(
    "colour-score",
    &[port("tiles", Kind::Pixels)],
    &[port("scores", Kind::Scores)],
);
static ENCODE: Schema = filter(
    "colour-feature",
    &[port("tiles", Kind::Pixels)],
    &[port("features", Kind::Features)],
);

fn delays(cx: &Prepare) -> Arc<Delays> {
    let none = || {
        Ok::<_, StageError>(Delays {
            seed: 0,
            longest: Duration::ZERO,
        })
    };
    cx.shared.get_or_try("", none).unwrap()
}

// -------------------------------------------------------------------------------------------------------------- scripts

#[derive(Clone, Debug)]
struct Slide {
    /// Seals go ahead of the tiles.
    early: bool,
    /// Only the newest version of a tile can be read.
    latest: bool,
    acts: Vec<Act>,
}

#[derive(Clone, Debug)]
enum Act {
    /// A region that touches two tiles.
    Region(u32),
    Fail(u32),
    Gone(u32),
    Delay(u64),
    Seal,
}

fn slide() -> impl Strategy<Value = Slide> {
    let tile = 0..TILES;
    let act = prop_oneof![
        12 => tile.clone().prop_map(Act::Region),
        1 => tile.clone().prop_map(Act::Fail),
        3 => tile.prop_map(Act::Gone),
        1 => (0u64..4).prop_map(Act::Delay),
        1 => Just(Act::Seal),
    ];
    (
        any::<bool>(),
        prop::bool::weighted(0.3),
        prop::collection::vec(act, 0..50),
    )
        .prop_map(|(early, latest, acts)| Slide {
            early,
            latest,
            acts,
        })
}

/// What holds for a tile at the end: a colour, or nothing that can be read.
type Held = BTreeMap<u32, Option<u32>>;

fn place(tile: u32) -> (u32, u32) {
    (tile % 6 * SIZE, tile / 6 * SIZE)
}

/// The script of the slides and what holds at its end.
fn script(slides: &[Slide]) -> (String, Vec<Held>) {
    let (mut text, mut held) = (String::new(), Vec::new());
    for (number, slide) in slides.iter().enumerate() {
        let id = format!("s{number}");
        let Slide {
            early,
            latest,
            acts,
        } = slide;
        writeln!(
            text,
            r#"{{"do":"open","slide":"{id}","early":{early},"latest":{latest}}}"#
        )
        .unwrap();
        let mut holds = Held::new();
        for (at, act) in acts.iter().enumerate() {
            let mut send = |tile: u32| {
                let colour = (mix((number as u64) << 40 | (at as u64) << 20 | tile as u64)
                    & 0xff_ffff) as u32;
                let ([r, g, b, _], (x, y)) = (colour.to_le_bytes(), place(tile));
                writeln!(
                    text,
                    r#"{{"do":"tile","slide":"{id}","x":{x},"y":{y},"rgb":[{r},{g},{b}]}}"#
                )
                .unwrap();
                holds.insert(tile, Some(colour));
            };
            match act {
                Act::Region(tile) => {
                    send(*tile);
                    send((*tile + 1) % TILES);
                }
                Act::Fail(tile) => {
                    let (x, y) = place(*tile);
                    writeln!(
                        text,
                        r#"{{"do":"fail","slide":"{id}","x":{x},"y":{y},"what":"torn"}}"#
                    )
                    .unwrap();
                    holds.insert(*tile, None);
                }
                Act::Gone(tile) => {
                    let (x, y) = place(*tile);
                    writeln!(text, r#"{{"do":"gone","slide":"{id}","x":{x},"y":{y}}}"#).unwrap();
                    holds.remove(tile);
                }
                Act::Delay(ms) => {
                    writeln!(text, r#"{{"do":"delay","slide":"{id}","ms":{ms}}}"#).unwrap()
                }
                Act::Seal => {
                    writeln!(text, r#"{{"do":"seal","slide":"{id}","end":"complete"}}"#).unwrap()
                }
            }
        }
        held.push(holds);
    }
    (text, held)
}

/// The script that sends only what holds, once.
fn batch_script(held: &[Held]) -> String {
    let mut text = String::new();
    for (number, holds) in held.iter().enumerate() {
        writeln!(text, r#"{{"do":"open","slide":"s{number}"}}"#).unwrap();
        for (tile, colour) in holds {
            let (x, y) = place(*tile);
            match colour {
                Some(colour) => {
                    let [r, g, b, _] = colour.to_le_bytes();
                    writeln!(
                        text,
                        r#"{{"do":"tile","slide":"s{number}","x":{x},"y":{y},"rgb":[{r},{g},{b}]}}"#
                    )
                    .unwrap();
                }
                None => writeln!(
                    text,
                    r#"{{"do":"fail","slide":"s{number}","x":{x},"y":{y},"what":"torn"}}"#
                )
                .unwrap(),
            }
        }
    }
    text
}

/// The tiles that must be selected: score descending, then tile ascending; the first and the last of them.
fn selected(holds: &Held) -> BTreeSet<TileId> {
    let mut ranks: Vec<(f32, TileId)> = Vec::new();
    for (tile, colour) in holds {
        if let Some(Scored::Score(score)) = colour.map(scored) {
            let (x, y) = place(*tile);
            ranks.push((score, TileId::new(0, 0, x as i64, y as i64).unwrap()));
        }
    }
    ranks.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let last = ranks.len().saturating_sub(LOWEST);
    let chosen = ranks
        .iter()
        .enumerate()
        .filter(|(at, _)| *at < HIGHEST || *at >= last);
    chosen.map(|(_, (_, tile))| *tile).collect()
}

// ------------------------------------------------------------------------------------------------------------------ runs

struct How {
    workers: usize,
    threads: (usize, usize),
    live: bool,
    memory: u64,
    seed: u64,
    longest: Duration,
}

/// Plays a script; the exit code and what reached the sink, without what was withdrawn, left out or failed.
fn play(models: &Models, script: &str, how: &How) -> (u8, Seen) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.jsonl");
    std::fs::write(&file, script).unwrap();
    let (size, file) = (SIZE.to_string(), file.display().to_string());
    let mut graph = Graph::new(models)
        .with_type(StageType {
            schema: &SCORE,
            prepare: |cx| Ok(Prepared::Work(Arc::new(Scorer(delays(cx))))),
        })
        .with_type(StageType {
            schema: &ENCODE,
            prepare: |cx| Ok(Prepared::Work(Arc::new(Encoder(delays(cx))))),
        })
        .stage(
            "tiles",
            "scripted-source",
            &[],
            &[("script", file.as_str()), ("size", size.as_str())],
        )
        .stage("score", "colour-score", &["tiles=tiles.tiles"], &[])
        .stage(
            "top",
            "top-k",
            &["scores=score.scores"],
            &[("highest", "3"), ("lowest", "3")],
        )
        .stage("chosen", "tile-fetch", &["picks=top.picks"], &[])
        .stage("encode", "colour-feature", &["tiles=chosen.tiles"], &[])
        .stage(
            "pool",
            "attention-pool",
            &["features=encode.features"],
            &[("model", "b")],
        )
        .stage(
            "classify",
            "classifier",
            &["bag=pool.bag"],
            &[("model", "b")],
        )
        .stage(
            "collect",
            "collect",
            &[
                "predictions=classify.predictions",
                "scores=score.scores",
                "attention=pool.attention",
            ],
            &[],
        );
    let run = graph.run_settings();
    (run.workers, run.readers, run.helpers) = (how.workers, how.threads.0, how.threads.1);
    (run.live, run.memory, run.open_slides) = (how.live, how.memory, 3);
    (run.live_tick, run.select_tick) = (Duration::from_millis(2), Duration::from_millis(3));
    // Failures are part of the game, not the end of a slide.
    (run.max_failed, run.max_failed_picked, run.retries) = (1.0, 1.0, 0);
    let options = Options::default();
    let delays = Delays {
        seed: how.seed,
        longest: how.longest,
    };
    options
        .shared
        .get_or_try("", || Ok::<_, StageError>(delays))
        .unwrap();
    let (outcome, mut seen) = graph.run_with(options).unwrap();
    for slide in seen.values_mut() {
        for held in &mut slide.held {
            held.retain(|_, body| body.is_value());
        }
    }
    (outcome.exit_code(), seen)
}

fn within<T: Send + 'static>(limit: Duration, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(run()));
    told.recv_timeout(limit).expect("the run hangs or fails")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_ends_in_the_batch_truth(
        slides in prop::collection::vec(slide(), 1..5),
        workers in prop::sample::select(vec![1usize, 2, 4]),
        threads in (1usize..4, 1usize..4),
        live in any::<bool>(),
        memory in prop::sample::select(vec![0u64, 600, 1_500, 1 << 20]),
        seed in any::<u64>(),
        longest in prop::sample::select(vec![0u64, 50, 2_000]),
    ) {
        let models = Arc::new(models(SIZE, 1.0));
        let (text, held) = script(&slides);
        let how = How { workers, threads, live, memory, seed, longest: Duration::from_micros(longest) };
        let with = models.clone();
        let (code, seen) = within(Duration::from_secs(60), move || play(&with, &text, &how));
        let plain = How { workers: 1, threads: (1, 1), live: false, memory: 1 << 20, seed: 0, longest: Duration::ZERO };
        let (batch_code, truth) = play(&models, &batch_script(&held), &plain);
        for (number, holds) in held.iter().enumerate() {
            let id = format!("s{number}");
            let (slide, truth) = (&seen[&id], &truth[&id]);
            let members: BTreeSet<TileId> = slide.held[2].keys().copied().collect();
            prop_assert_eq!(members, selected(holds), "{}", id);
            prop_assert_eq!(slide.bits(), truth.bits(), "{}", id);
        }
        prop_assert_eq!(code, batch_code);
        prop_assert!(code == exit::DONE || code == exit::PARTLY);
    }
}
