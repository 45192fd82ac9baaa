//! What was sent wrongly, withdrawn, unreadable and put right again leaves no trace in the answer: on real pixels and networks.
#![allow(clippy::unwrap_used, missing_docs)]

mod graph;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use graph::{Graph, bits, fixture, models, sharing, source};
use weir_pipeline::Schema;
use weir_record::id::mix;
use weir_record::{Body, End, Failure, Generations, SlideInfo, TileId};
use weir_runtime::exit;
use weir_runtime::stage::{
    OpenedSlide, Prepare, Prepared, ReadError, Script, SlideRef, Source, StageType, Step,
    TileReader,
};
use weir_slide::{Edge, OpenOptions, SlideReader, Tiling, TissueMask, slide_key};

const SIZE: u32 = 50;
const MPP: f64 = 8.0;

/// What the test's source is told.
#[derive(Default)]
struct Told {
    slides: Vec<String>,
    seed: u64,
}

const SCANNER: Schema = source("scanner");

const SCANNER_TYPE: StageType = StageType {
    schema: &SCANNER,
    prepare: |cx: &Prepare| {
        let told = cx.shared.get::<Told>();
        let slides = told.slides.iter().map(|path| {
            let id = Path::new(path)
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            SlideRef {
                key: slide_key(&id),
                id,
                path: path.clone(),
            }
        });
        Ok(Prepared::Source(Arc::new(Scanner {
            slides: slides.collect(),
            seed: told.seed,
        })))
    },
};

/// Sends the tiles that a `tile-reader` would, and gets many of them wrong first.
struct Scanner {
    slides: Vec<SlideRef>,
    seed: u64,
}

impl Source for Scanner {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let reader = weir_slide::open(Path::new(&slide.path), &OpenOptions::default()).unwrap();
        let facts = reader.facts();
        let tiling = Tiling::new(facts, SIZE, MPP, 0, Edge::Pad).unwrap();
        let tiles = TissueMask::of(reader.as_ref()).unwrap().keep(&tiling, 0.25);
        let mut info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        (info.width, info.height) = (facts.width(), facts.height());
        info.grids = vec![tiling.grid];
        info.tiles = tiles.len() as u64;
        let newest: Arc<Newest> = Arc::default();
        let (steps, right) = schedule(tiles, mix(slide.key.0 ^ self.seed));
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Player {
                steps,
                newest: newest.clone(),
            }),
            reader: Arc::new(Store {
                slide: reader,
                tiling,
                right,
                newest,
            }),
        })
    }
}

/// Every tile in some order; many come wrongly, are withdrawn, or cannot be read, and come again later; the slide is sealed in
/// between and opened again. Also: which version of each tile is right.
fn schedule(mut tiles: Vec<TileId>, seed: u64) -> (VecDeque<Step>, HashMap<TileId, u32>) {
    let roll = |tile: &TileId, of: u64| mix(tile.word() ^ mix(seed ^ of));
    tiles.sort_by_key(|tile| roll(tile, 0));
    let mut generations = Generations::default();
    let (mut steps, mut right) = (VecDeque::new(), HashMap::new());
    fn seal(generations: &mut Generations, steps: &mut VecDeque<Step>) {
        let seals = generations.seal(Some(End::Complete));
        steps.extend(
            seals
                .into_iter()
                .map(|(rev, seal)| Step::Seal { rev, seal }),
        );
    }
    let mut send = |generations: &mut Generations, steps: &mut VecDeque<Step>, tile: TileId| {
        let rev = generations.send(tile);
        right.insert(tile, rev);
        steps.push_back(Step::Tile {
            tile,
            rev,
            width: SIZE,
            height: SIZE,
        });
    };
    let (mut again, mut late) = (Vec::new(), Vec::new());
    for (at, tile) in tiles.iter().enumerate() {
        // The first version of a tile that comes again is a wrong one: see `Store`.
        send(&mut generations, &mut steps, *tile);
        match roll(tile, 1) % 8 {
            0 | 1 => again.push(*tile),
            2 => {
                let rev = generations.send(*tile);
                steps.push_back(Step::Outcome {
                    tile: *tile,
                    rev,
                    body: Body::Gone,
                });
                late.push(*tile);
            }
            _ => {}
        }
        if at % 16 == 15 {
            steps.push_back(Step::Wait(Duration::from_millis(3)));
            for tile in again.drain(..) {
                send(&mut generations, &mut steps, tile);
            }
        }
    }
    for tile in again {
        send(&mut generations, &mut steps, tile);
    }
    seal(&mut generations, &mut steps);
    steps.push_back(Step::Wait(Duration::from_millis(30)));
    for tile in late {
        send(&mut generations, &mut steps, tile);
    }
    seal(&mut generations, &mut steps);
    (steps, right)
}

type Newest = Mutex<HashMap<TileId, u32>>;

struct Player {
    steps: VecDeque<Step>,
    newest: Arc<Newest>,
}

impl Script for Player {
    fn next(&mut self) -> Step {
        let step = self.steps.pop_front().unwrap_or(Step::Done);
        if let Step::Tile { tile, rev, .. } | Step::Outcome { tile, rev, .. } = &step {
            self.newest.lock().unwrap().insert(*tile, *rev);
        }
        step
    }

    fn stop(&mut self) {}
}

/// Keeps only the newest version of a tile; versions that are not the right one show another place, or nothing that can be read.
struct Store {
    slide: Arc<dyn SlideReader>,
    tiling: Tiling,
    right: HashMap<TileId, u32>,
    newest: Arc<Newest>,
}

impl TileReader for Store {
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError> {
        // A scanner takes its time; a slide that is read in a few ms is done before anything can be said of it.
        std::thread::sleep(Duration::from_millis(1));
        if self.newest.lock().unwrap()[&tile] > rev {
            return Err(ReadError::Superseded);
        }
        let mut region = self.tiling.region(tile);
        if self.right[&tile] != rev {
            if mix(tile.word()).is_multiple_of(3) {
                return Err(ReadError::Damaged("torn".into()));
            }
            region.x = (region.x - region.w / 2.0).max(0.0);
        }
        let read = self.slide.read(region, 0, SIZE, SIZE, into);
        read.map_err(|error| ReadError::Damaged(error.to_string()))
    }
}

#[test]
fn what_was_put_right_leaves_no_trace_in_the_answer() {
    let models = models(SIZE, MPP);
    let slides = [
        fixture("slide-14082.tiff"),
        fixture("CMU-1-Small-Region.svs"),
    ];
    let mut plain = Graph::demo(&models, &slides.join(" "), &[]);
    plain.run_settings().seed = 1;
    let (_, truth) = plain.run().unwrap();
    let truth = bits(&truth);
    for (workers, live) in [(1, false), (2, true), (4, true), (2, false)] {
        let mut graph = Graph::behind(&models, SCANNER_TYPE);
        let settings = graph.run_settings();
        settings.workers = workers;
        settings.live = live;
        (settings.live_tick, settings.select_tick) =
            (Duration::from_millis(5), Duration::from_millis(20));
        let told = Told {
            slides: slides.to_vec(),
            seed: workers as u64,
        };
        let (outcome, seen) = graph.run_with(sharing(told)).unwrap();
        assert!(outcome.slides.values().all(|slide| slide.failed.is_none()));
        assert_eq!(
            outcome.exit_code(),
            exit::DONE,
            "{workers} workers, live {live}"
        );
        for (slide, bits) in bits(&seen) {
            assert_eq!(
                bits, truth[slide],
                "{slide}, {workers} workers, live {live}"
            );
        }
        if live {
            let revisions = seen
                .values()
                .map(|slide| slide.prediction().unwrap().revision);
            assert!(
                revisions.max().unwrap() > 1,
                "nothing was published while slides were open"
            );
        }
    }
}
