//! A stage of every kind and a slide reader that panic where they are told to: for the tests of what becomes of a panic in a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use weir_plugin::{
    Batch, Buffer, Call, End, Error, Facts, Filter, Level, Map, MppOrigin, Reader, Reduce, Region,
    Result, Row, Sink, Slide, SlideInfo, Source, SourceSlide, Step, Tile, Verdict, Waker,
};

/// px of a tile's side, tiles a row and rows of a slide.
const SIDE: i64 = 32;
const ACROSS: i64 = 5;
const DOWN: i64 = 4;
const SLIDES: [&str; 2] = ["a", "b"];

/// Panics at the line that calls it where that function is meant.
#[track_caller]
fn may_panic(meant: &str, here: &str) {
    if meant == here {
        panic!("on purpose, in {here}");
    }
}

/// The same for the first tile of slide `a` alone.
#[track_caller]
fn at_first(meant: &str, here: &str, batch: &Batch) {
    for (i, row) in batch.rows().iter().enumerate() {
        if batch.slide(i).id() == "a" && (row.x, row.y) == (0, 0) {
            may_panic(meant, here);
        }
    }
}

/// The value at a place: no two tiles and no two slides are the same.
fn value(slide: i64, x: i64, y: i64) -> u8 {
    ((slide * 1009 + x * 31 + y * 7).wrapping_mul(0x9e37_79b1) >> 13) as u8
}

/// Gives twenty tiles of two slides.
#[derive(weir_plugin::Stage)]
#[stage(source, id = "panics.grid", deterministic)]
#[output(tiles: pixels[32, 32, 3], mpp = 1.0)]
struct Grid {
    /// The function that panics.
    #[param(default = "none")]
    at: String,
}

struct Opened {
    number: i64,
    at: String,
    sent: AtomicI64,
}

impl Source for Grid {
    type Slide = Opened;

    fn slide(&self, i: u64, _: &Call) -> Result<Option<SlideInfo>> {
        Ok(SLIDES.get(i as usize).map(|id| SlideInfo {
            id: (*id).into(),
            path: "made up".into(),
            ..SlideInfo::default()
        }))
    }

    fn open(&self, i: u64, _: Waker, call: &Call) -> Result<(SlideInfo, Opened)> {
        let info = self.slide(i, call)?;
        let info = info.ok_or_else(|| Error::new("no such slide"))?;
        let at = if i == 0 { self.at.as_str() } else { "none" };
        may_panic(at, "open");
        let info = SlideInfo {
            size: ((ACROSS * SIDE) as u64, (DOWN * SIDE) as u64),
            mpp: Some((1.0, 1.0)),
            tiles: (ACROSS * DOWN) as u64,
            ..info
        };
        let opened = Opened {
            number: i as i64,
            at: at.into(),
            sent: AtomicI64::new(0),
        };
        Ok((info, opened))
    }
}

impl SourceSlide for Opened {
    fn next(&self, _: &Call) -> Result<Step> {
        let i = self.sent.fetch_add(1, Ordering::Relaxed);
        if i == 3 {
            may_panic(&self.at, "next");
        }
        if i == ACROSS * DOWN {
            return Ok(Step::End);
        }
        Ok(Step::Tile(Tile {
            x: i % ACROSS * SIDE,
            y: i / ACROSS * SIDE,
            width: SIDE as u32,
            height: SIDE as u32,
        }))
    }

    fn read(&self, row: &Row, into: Buffer, _: &Call) -> Result<()> {
        if (row.x, row.y) == (0, 0) {
            may_panic(&self.at, "read");
        }
        for (pixel, i) in into.pixels().chunks_exact_mut(3).zip(0..) {
            pixel.fill(value(self.number, row.x + i % SIDE, row.y + i / SIDE));
        }
        Ok(())
    }
}

/// Every value from 255.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "panics.invert", deterministic)]
#[input(tiles: pixels[height, width, 3], mpp = mpp)]
#[output(tiles: pixels[height, width, 3], mpp = mpp)]
struct Invert {
    /// The function that panics.
    #[param(default = "none")]
    at: String,
}

impl Map for Invert {
    fn map(&self, tiles: &Batch, call: &Call) -> Result<()> {
        let mut out = call.out().edit()?;
        at_first(&self.at, "map", tiles);
        for row in out.column_mut::<u8>("pixels")?.rows_mut() {
            row.iter_mut().for_each(|value| *value = 255 - *value);
        }
        out.emit()
    }
}

/// Keeps every tile.
#[derive(weir_plugin::Stage)]
#[stage(filter, id = "panics.keep", deterministic)]
#[input(tiles: pixels[height, width, 3], mpp = mpp)]
#[output(tiles: pixels[height, width, 3], mpp = mpp)]
struct Keep {
    /// The function that panics.
    #[param(default = "none")]
    at: String,
}

impl Filter for Keep {
    fn filter(&self, tiles: &Batch, call: &Call) -> Result<()> {
        call.sift(|_| {
            at_first(&self.at, "filter", tiles);
            Ok(Verdict::Keep)
        })
    }
}

/// What a stage that gathers has of each slide: its tiles and a number of each.
type Gathered = BTreeMap<u64, BTreeMap<u64, f32>>;

fn forget(slides: &mut Gathered, rows: &[Row]) {
    for row in rows {
        if let Some(tiles) = slides.get_mut(&row.key.slide) {
            tiles.remove(&row.key.tile);
        }
    }
}

/// Weighs every tile by its brightness.
#[derive(weir_plugin::Stage)]
#[stage(reduce, id = "panics.weigh", deterministic)]
#[input(tiles: pixels[height, width, 3])]
#[output(shares: attention)]
struct Weigh {
    /// The function that panics.
    #[param(default = "none")]
    at: String,
    slides: Gathered,
}

impl Reduce for Weigh {
    fn take(&mut self, _: &str, batch: &Batch, _: &Call) -> Result<()> {
        let pixels = batch.column::<u8>("pixels")?;
        at_first(&self.at, "row", batch);
        for (i, row) in batch.rows().iter().enumerate() {
            let sum: u32 = pixels.row(i).iter().map(|value| u32::from(*value)).sum();
            let tiles = self.slides.entry(row.key.slide).or_default();
            tiles.insert(row.key.tile, sum as f32);
        }
        Ok(())
    }

    fn remove(&mut self, _: &str, rows: &[Row], _: &Call) -> Result<()> {
        forget(&mut self.slides, rows);
        Ok(())
    }

    fn complete(&mut self, slide: Slide, _: u32, _: End, call: &Call) -> Result<()> {
        let none = BTreeMap::new();
        let tiles = self.slides.get(&slide.number()).unwrap_or(&none);
        let keys: Vec<u64> = tiles.keys().copied().collect();
        let mut out = call.out().make_for(slide.number(), &keys)?;
        if slide.id() == "a" {
            may_panic(&self.at, "complete");
        }
        let all: f32 = tiles.values().sum();
        for (i, sum) in tiles.values().enumerate() {
            out.set("weight", i, &[sum / all])?;
        }
        out.emit()
    }

    fn close(&mut self, slide: u64) {
        self.slides.remove(&slide);
    }
}

/// Writes each slide's weights to the bit.
#[derive(weir_plugin::Stage)]
#[stage(sink, id = "panics.write")]
#[input(shares: attention)]
struct Write {
    /// The function that panics.
    #[param(default = "none")]
    at: String,
    slides: Gathered,
}

impl Sink for Write {
    fn take(&mut self, _: &str, batch: &Batch, _: &Call) -> Result<()> {
        let weights = batch.column::<f32>("weight")?;
        at_first(&self.at, "row", batch);
        for (i, row) in batch.rows().iter().enumerate() {
            let tiles = self.slides.entry(row.key.slide).or_default();
            tiles.insert(row.key.tile, weights.row(i)[0]);
        }
        Ok(())
    }

    fn remove(&mut self, _: &str, rows: &[Row], _: &Call) -> Result<()> {
        forget(&mut self.slides, rows);
        Ok(())
    }

    fn complete(&mut self, slide: Slide, _: u32, _: End, call: &Call) -> Result<()> {
        if slide.id() == "a" {
            may_panic(&self.at, "complete");
        }
        let tiles = self.slides.remove(&slide.number()).unwrap_or_default();
        let line = |(tile, weight): (&u64, &f32)| format!("{tile} {:08x}\n", weight.to_bits());
        let lines: String = tiles.iter().map(line).collect();
        Ok(std::fs::write(
            call.folder().join(format!("{}.txt", slide.id())),
            lines,
        )?)
    }
}

/// A file of `PANICS`, the slide's number in a byte, and the function that panics.
#[derive(weir_plugin::Reader)]
#[reader(id = "panics", extensions = ["panics"], parallel)]
struct Panics {
    number: i64,
    at: String,
}

impl Reader for Panics {
    fn sniff(_: &Path, head: &[u8]) -> u8 {
        let ours = head.strip_prefix(b"PANICS");
        let at = ours.and_then(|rest| rest.get(1..)).unwrap_or(b"");
        may_panic(&String::from_utf8_lossy(at), "sniff");
        if ours.is_some() { 100 } else { 0 }
    }

    fn open(path: &Path, _: &Call) -> Result<Panics> {
        let text = std::fs::read_to_string(path)?;
        let (number, at) = text["PANICS".len()..].split_at(1);
        may_panic(at, "open");
        Ok(Panics {
            number: number.parse().map_err(|_| Error::new("no number"))?,
            at: at.into(),
        })
    }

    fn facts(&self, _: &Call) -> Result<Facts> {
        may_panic(&self.at, "info");
        Ok(Facts {
            format: "panics".into(),
            mpp: Some((1.0, 1.0)),
            mpp_origin: MppOrigin::Vendor,
            levels: vec![Level {
                width: ACROSS * SIDE,
                height: DOWN * SIDE,
                downsample: 1.0,
                ..Level::default()
            }],
            ..Facts::default()
        })
    }

    fn read_region(&self, _: u32, x: i64, y: i64, into: &mut Region, _: &Call) -> Result<()> {
        if (x, y) == (0, 0) {
            may_panic(&self.at, "read_region");
        }
        for row in 0..into.height() {
            for (pixel, column) in into.row_mut(row).chunks_exact_mut(3).zip(0..) {
                pixel.fill(value(self.number, x + column, y + i64::from(row)));
            }
        }
        Ok(())
    }
}

weir_plugin::export! {
    name: "panics",
    summary: "Panics where it is told to",
    stages: [Grid, Invert, Keep, Weigh, Write],
    readers: [Panics]
}
