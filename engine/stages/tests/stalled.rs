//! A slide whose storage hangs holds up no other.
#![allow(clippy::unwrap_used, missing_docs)]

mod graph;

use std::sync::Arc;
use std::time::{Duration, Instant};

use graph::{Graph, models, sharing, source};
use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Kind, Place, Rows, Schema};
use weir_record::ledger::check;
use weir_record::{Body, End, Failure, Grid, Scores, Seal, SlideInfo, TileId};
use weir_runtime::exit;
use weir_runtime::stage::{
    Batch, OpenedSlide, Prepare, Prepared, ReadError, Script, SlideRef, Source, StageError,
    StageType, Step, TileReader, Work,
};
use weir_slide::slide_key;

const SLIDES: u64 = 10;
const TILES: i64 = 200;
/// Scoring takes time, but no processor, so that the test's clock does not hang on the machine's load.
const SCORING: Duration = Duration::from_millis(4);

/// Tiles of the first slide, and how long each read of it takes.
#[derive(Clone, Copy, Default)]
struct First {
    tiles: i64,
    takes: Duration,
}

const SHELF: Schema = source("shelf");

const SHELF_TYPE: StageType = StageType {
    schema: &SHELF,
    prepare: |cx: &Prepare| {
        let slides = (0..SLIDES).map(|number| {
            let id = format!("slide-{number}");
            SlideRef {
                key: slide_key(&id),
                path: id.clone(),
                id,
            }
        });
        Ok(Prepared::Source(Arc::new(Shelf {
            slides: slides.collect(),
            first: *cx.shared.get::<First>(),
        })))
    },
};

struct Shelf {
    slides: Vec<SlideRef>,
    first: First,
}

impl Source for Shelf {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let mut info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        let first = slide.id == "slide-0";
        let count = if first { self.first.tiles } else { TILES };
        info.tiles = count as u64;
        info.grids = vec![Grid {
            footprint: 8.0,
            mpp: 1.0,
            px: 8,
        }];
        let tiles: Vec<TileId> = (0..count)
            .map(|x| TileId::new(0, 0, x * 8, 0).unwrap())
            .collect();
        let seal = Seal {
            n: count as u64,
            check: tiles
                .iter()
                .fold(0, |sum: u64, tile| sum.wrapping_add(check(*tile, 0))),
            last: Some(End::Complete),
        };
        let mut steps = vec![Step::Seal { rev: 0, seal }];
        steps.extend(tiles.into_iter().map(|tile| Step::Tile {
            tile,
            rev: 0,
            width: 8,
            height: 8,
        }));
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Steps(steps.into_iter())),
            reader: Arc::new(Reader(if first {
                self.first.takes
            } else {
                Duration::ZERO
            })),
        })
    }
}

struct Steps(std::vec::IntoIter<Step>);

impl Script for Steps {
    fn next(&mut self) -> Step {
        self.0.next().unwrap_or(Step::Done)
    }

    fn stop(&mut self) {}
}

struct Reader(Duration);

impl TileReader for Reader {
    fn read(&self, _: TileId, _: u32, into: &mut [u8]) -> Result<(), ReadError> {
        std::thread::sleep(self.0);
        into.fill(9);
        Ok(())
    }
}

const SLEEPER: Schema = Schema {
    name: "sleeper",
    summary: "",
    doc: "",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: SHELF.outs,
    outs: &[graph::port("scores", Kind::Scores, &[])],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "",
};

const SLEEPER_TYPE: StageType = StageType {
    schema: &SLEEPER,
    prepare: |_| Ok(Prepared::Work(Arc::new(Sleeper))),
};

struct Sleeper;

impl Work for Sleeper {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for i in 0..batch.len() {
            std::thread::sleep(SCORING);
            let scores = Scores {
                score: 0.5,
                probabilities: vec![0.5, 0.5],
            };
            batch.set(i, 0, Body::Score(Arc::new(scores)));
        }
        Ok(())
    }
}

/// When each slide was final, from the start.
fn finals(tiles: i64, takes: Duration) -> Vec<Duration> {
    let mut graph = Graph::new(&models(8, 1.0))
        .with_type(SHELF_TYPE)
        .with_type(SLEEPER_TYPE)
        .stage("tiles", "shelf", &[], &[])
        .stage("score", "sleeper", &["tiles=tiles.tiles"], &[])
        .stage("collect", "collect", &["scores=score.scores"], &[]);
    let settings = graph.run_settings();
    (settings.open_slides, settings.helpers) = (SLIDES as usize, 4);
    let start = Instant::now();
    let (outcome, seen) = graph.run_with(sharing(First { tiles, takes })).unwrap();
    assert_eq!(outcome.exit_code(), exit::DONE);
    seen.values()
        .map(|slide| slide.ended.unwrap() - start)
        .collect()
}

fn last_of_the_others(finals: &[Duration]) -> Duration {
    finals[1..].iter().copied().max().unwrap()
}

/// Slow storage takes its share of the reader threads and no more; storage that hangs takes none for long.
#[test]
fn a_slide_whose_storage_is_slow_or_hangs_holds_up_no_other() {
    for (name, tiles, takes) in [
        ("slow", 50, Duration::from_millis(30)),
        ("hanging", 4, Duration::from_millis(800)),
    ] {
        let without = last_of_the_others(&finals(tiles, Duration::ZERO));
        let finals = finals(tiles, takes);
        let with = last_of_the_others(&finals);
        println!(
            "without {without:?}, {name} {with:?}, that slide itself {:?}",
            finals[0]
        );
        assert!(finals[0] >= takes * tiles as u32 / 2, "it was not {name}");
        assert!(
            with <= without.mul_f64(1.1),
            "{name}: {with:?} against {without:?}"
        );
    }
}
