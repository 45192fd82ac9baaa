//! What the engine costs: CPU time a tile, beyond reading, with a scorer that does nothing.
//!
//! `cargo run --release -p weir-benches --bin engine [TILES]`
//!
//! A source whose tiles take a known time to read, a scorer that answers at once, and a sink that keeps nothing. The same
//! reading in a plain loop is taken off; what is left is leases, buffers, threads, operators and ledgers.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_pipeline::plan::StageRun;
use weir_pipeline::schema::keeps_nothing;
use weir_pipeline::{
    Deliver, Edge, Kind, Node, Place, Plan, Port, Rows, RunSettings, Schema, Values,
};
use weir_record::ledger::check;
use weir_record::{
    Body, End, Failure, Grid, Key, Scores, Seal, SlideId, SlideInfo, SlideKey, TileId,
};
use weir_runtime::stage::{
    Batch, Completed, OpenedSlide, Prepare, Prepared, ReadError, Script, Sink, SlideRef, Source,
    StageError, StageType, Step, TileReader, Work,
};
use weir_runtime::{Options, run};

/// Side of a tile, px.
const SIDE: u32 = 224;
/// Slides that the tiles are spread over.
const SLIDES: u32 = 8;

fn main() {
    let tiles = std::env::args()
        .nth(1)
        .map_or(80_000, |text| text.parse().unwrap());
    println!("CPU time a tile of {SIDE} px, us; {tiles} tiles");
    println!(
        "{:>12} {:>8} {:>10} {:>8} {:>8} {:>10}",
        "read, us", "workers", "plain loop", "engine", "beyond", "tiles/s"
    );
    for read in [0, 50, 300] {
        let tiles = if read > 100 { tiles / 8 } else { tiles } / SLIDES * SLIDES;
        let read = Duration::from_micros(read);
        let plain = plain_loop(tiles, read) / tiles as f64;
        for workers in [1, 2, 4] {
            let (cpu, wall) = engine(tiles, read, workers);
            let cpu = cpu / tiles as f64;
            println!(
                "{:>12} {workers:>8} {plain:>10.2} {cpu:>8.2} {:>8.2} {:>10.0}",
                read.as_micros(),
                cpu - plain,
                tiles as f64 / wall.as_secs_f64()
            );
        }
    }
}

/// CPU time of the process so far, all threads, us.
fn cpu_time() -> f64 {
    // SAFETY: an all-zero rusage is a valid one, and the call only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

/// What reading a tile takes: CPU time, not sleep, and every byte is written.
fn read(into: &mut [u8], takes: Duration) {
    let since = Instant::now();
    into.fill(200);
    while since.elapsed() < takes {
        std::hint::spin_loop();
    }
}

fn plain_loop(tiles: u32, takes: Duration) -> f64 {
    let mut buffer = vec![0; (SIDE * SIDE * 3) as usize];
    let before = cpu_time();
    for _ in 0..tiles {
        read(std::hint::black_box(&mut buffer), takes);
    }
    cpu_time() - before
}

fn engine(tiles: u32, takes: Duration, workers: usize) -> (f64, Duration) {
    let node = |name: &str, schema: &'static Schema, feeder: Option<usize>| Node {
        name: name.into(),
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
        shapes: vec![vec![SIDE as u64, SIDE as u64, 3]],
    };
    let plan = Plan {
        name: "engine".into(),
        file: PathBuf::from("engine"),
        run: RunSettings {
            workers,
            memory: 256 << 20,
            ..RunSettings::default()
        },
        models: Default::default(),
        nodes: vec![
            node("source", &SOURCE, None),
            node("score", &SCORE, Some(0)),
            node("sink", &SINK, Some(1)),
        ],
        hash: "of the bench".into(),
    };
    let options = Options::default();
    let load = Load {
        tiles: tiles / SLIDES,
        takes,
    };
    options
        .shared
        .get_or_try("", || Ok::<_, StageError>(load))
        .unwrap();
    let (before, since) = (cpu_time(), Instant::now());
    let outcome = run(Arc::new(plan), TYPES, options).unwrap();
    assert_eq!(outcome.exit_code(), 0);
    (cpu_time() - before, since.elapsed())
}

#[derive(Clone, Copy, Default)]
struct Load {
    tiles: u32,
    takes: Duration,
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
        state_bytes: keeps_nothing,
        example: "",
    }
}

static SOURCE: Schema = schema("source", Rows::Source, &[], &[port(Kind::Pixels)]);
static SCORE: Schema = schema(
    "score",
    Rows::Map,
    &[port(Kind::Pixels)],
    &[port(Kind::Scores)],
);
static SINK: Schema = schema("sink", Rows::Sink, &[port(Kind::Scores)], &[]);

const TYPES: &[StageType] = &[
    StageType {
        schema: &SOURCE,
        prepare: source,
    },
    StageType {
        schema: &SCORE,
        prepare: |_| Ok(Prepared::Work(Arc::new(Free))),
    },
    StageType {
        schema: &SINK,
        prepare: |_| Ok(Prepared::Sink(Arc::new(|| Box::new(Nothing)))),
    },
];

fn source(cx: &Prepare) -> Result<Prepared, StageError> {
    let slides = (0..SLIDES).map(|at| SlideRef {
        id: format!("slide-{at}"),
        key: SlideKey(at as u64),
        path: String::new(),
    });
    let load = cx
        .shared
        .get_or_try("", || Err(StageError::new("no load", "")))?;
    Ok(Prepared::Source(Arc::new(Made(*load, slides.collect()))))
}

struct Made(Load, Vec<SlideRef>);

impl Source for Made {
    fn slides(&self) -> &[SlideRef] {
        &self.1
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let mut info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        info.tiles = self.0.tiles as u64;
        info.grids = vec![Grid {
            footprint: SIDE as f64,
            mpp: 1.0,
            px: SIDE,
        }];
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Steps {
                tiles: self.0.tiles,
                next: None,
            }),
            reader: Arc::new(Reader(self.0.takes)),
        })
    }
}

struct Steps {
    tiles: u32,
    next: Option<u32>,
}

impl Script for Steps {
    fn next(&mut self) -> Step {
        let tile = |at: u32| TileId::new(0, 0, (at % 1000) as i64, (at / 1000) as i64).unwrap();
        let Some(next) = self.next else {
            self.next = Some(0);
            let check = (0..self.tiles).fold(0u64, |sum, at| sum.wrapping_add(check(tile(at), 0)));
            let seal = Seal {
                n: self.tiles as u64,
                check,
                last: Some(End::Complete),
            };
            return Step::Seal { rev: 0, seal };
        };
        if next == self.tiles {
            return Step::Done;
        }
        self.next = Some(next + 1);
        Step::Tile {
            tile: tile(next),
            rev: 0,
            width: SIDE,
            height: SIDE,
        }
    }

    fn stop(&mut self) {}
}

struct Reader(Duration);

impl TileReader for Reader {
    fn read(&self, _: TileId, _: u32, into: &mut [u8]) -> Result<(), ReadError> {
        read(into, self.0);
        Ok(())
    }
}

struct Free;

impl Work for Free {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for at in 0..batch.len() {
            let scores = Scores {
                score: 0.5,
                probabilities: vec![0.5, 0.5],
            };
            batch.set(at, 0, Body::Score(Arc::new(scores)));
        }
        Ok(())
    }
}

struct Nothing;

impl Sink for Nothing {
    fn opened(&mut self, _: SlideId, _: &Arc<SlideInfo>) -> Result<(), StageError> {
        Ok(())
    }

    fn row(&mut self, _: usize, _: Key, _: Body) -> Result<(), StageError> {
        Ok(())
    }

    fn ended(&mut self, _: SlideId, _: &[Completed]) -> Result<(), StageError> {
        Ok(())
    }

    fn closed(&mut self, _: SlideId) {}
}
