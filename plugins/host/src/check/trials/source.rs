//! Tests of a source: the slides that it lists, what it sends of them, and in which order.

use super::memory::Memory;
use super::{No, Said, at_once, descriptors, wordless};
use crate::check::fence::Fence;
use crate::check::rows;
use crate::check::stand::{Made, Stand};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_abi::stage::DETERMINISTIC;
use weir_record::{Body, Event, SlideInfo, TileBuf, TileId};
use weir_runtime::stage::{OpenedSlide, Prepared, ReadError, SlideRef, Source, Step, TileReader};

/// Slides that are looked at.
const SLIDES: usize = 2;

/// Tiles of a slide that are read.
const TILES: usize = 24;

/// Steps that are asked for.
const STEPS: usize = 200_000;

/// How long a source may say that it has nothing yet.
const IDLE: Duration = Duration::from_secs(3);

/// A version that the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    tile: TileId,
    rev: u32,
    bytes: usize,
    /// Of pixels, whose width and height are known; else a vector.
    pixels: bool,
}

/// A source with its slides.
struct Listed {
    source: Arc<dyn Source>,
    slides: Vec<SlideRef>,
    /// Ends after the source.
    _made: Made,
}

fn list(stand: &Stand) -> Result<Listed, No> {
    let made = stand.ready()?;
    let Prepared::Source(source) = &made.prepared else {
        return Err(No::Skipped("it is no source".into()));
    };
    let source = source.clone();
    let slides: Vec<SlideRef> = source.slides().iter().take(SLIDES).cloned().collect();
    if slides.is_empty() {
        return Err(No::Skipped(format!(
            "it lists no slides: give --slide FILE, or --set {}.NAME=VALUE",
            stand.about.id
        )));
    }
    Ok(Listed {
        source,
        slides,
        _made: made,
    })
}

fn open(source: &dyn Source, slide: &SlideRef) -> Result<OpenedSlide, No> {
    source
        .open(slide)
        .map_err(|failure| No::Failed(format!("slide `{}`: {}", slide.id, failure.what)))
}

/// Everything that the source sends of a slide, and whether it said that there is no more.
fn walk(slide: &str, opened: &mut OpenedSlide) -> Result<(Vec<Sent>, Taken), No> {
    let failed = |what: &str| No::Failed(format!("slide `{slide}`: {what}"));
    let (mut sent, mut taken) = (Vec::new(), Taken::default());
    let mut idle_since: Option<Instant> = None;
    for _ in 0..STEPS {
        let step = opened.script.next();
        if !matches!(step, Step::Wait(_)) {
            idle_since = None;
        }
        match step {
            Step::Tile {
                tile,
                rev,
                width,
                height,
            } => sent.push(Sent {
                tile,
                rev,
                bytes: TileBuf::bytes(width, height),
                pixels: true,
            }),
            Step::Feature { tile, rev, width } => sent.push(Sent {
                tile,
                rev,
                bytes: width as usize * size_of::<f32>(),
                pixels: false,
            }),
            Step::Outcome {
                body: Body::Fail(failure),
                ..
            } => {
                if wordless(&failure.what) {
                    return Err(failed("a tile failed without a reason"));
                }
                taken.failed += 1;
            }
            Step::Outcome { .. } => taken.gone += 1,
            Step::Event(Event::SlideFailed(failure)) => return Err(failed(&failure.what)),
            Step::Event(_) | Step::Seal { .. } => {}
            Step::Wait(time) => {
                let since = *idle_since.get_or_insert_with(Instant::now);
                if since.elapsed() > IDLE {
                    return Ok((sent, taken));
                }
                std::thread::sleep(time);
            }
            Step::Done => {
                taken.ended = true;
                return Ok((sent, taken));
            }
        }
    }
    Ok((sent, taken))
}

/// What else was heard of a slide.
#[derive(Default)]
struct Taken {
    failed: u64,
    gone: u64,
    ended: bool,
}

pub(super) fn listed(stand: &Stand) -> Said {
    let once = list(stand)?;
    let twice = list(stand)?;
    let (once, twice) = (once.source.slides(), twice.source.slides());
    if once != twice {
        return Err(No::Failed(
            "it listed other slides when it was asked again".into(),
        ));
    }
    if let Some(slide) = once.iter().find(|slide| slide.path.is_empty()) {
        return Err(No::Failed(format!("slide `{}` has no path", slide.id)));
    }
    Ok(format!("{} slides", once.len()))
}

/// Whether some of the tile lies inside of the slide.
fn is_inside(info: &SlideInfo, tile: TileId) -> bool {
    let Some(grid) = info.grid(tile) else {
        return false;
    };
    let within = |corner: i64, side: u64| {
        side == 0 || (corner as f64) < side as f64 && corner as f64 + grid.footprint > 0.0
    };
    within(tile.x(), info.width) && within(tile.y(), info.height)
}

pub(super) fn steps(stand: &Stand) -> Said {
    let listed = list(stand)?;
    let mut steps = 0;
    let mut notes = String::new();
    for slide in &listed.slides {
        let failed = |what: String| No::Failed(format!("slide `{}`: {what}", slide.id));
        let mut opened = open(&*listed.source, slide)?;
        let info = opened.info.clone();
        let (sent, taken) = walk(&slide.id, &mut opened)?;
        if let Some(out) = sent.iter().find(|sent| !is_inside(&info, sent.tile)) {
            let (x, y) = (out.tile.x(), out.tile.y());
            return Err(failed(format!(
                "a tile at ({x}, {y}) lies outside of its {} x {} px",
                info.width, info.height
            )));
        }
        if taken.ended {
            if !matches!(opened.script.next(), Step::Done) {
                return Err(failed("it went on after its end".into()));
            }
            let tiles: BTreeSet<TileId> = sent.iter().map(|sent| sent.tile).collect();
            let told = tiles.len() as u64 + taken.failed;
            if taken.gone == 0 && info.tiles > 0 && told != info.tiles {
                return Err(failed(format!(
                    "it said that it sends {} tiles, and sent {told}",
                    info.tiles
                )));
            }
        } else {
            notes = ", and more may come".into();
        }
        steps += sent.len();
    }
    Ok(format!("{steps} tiles{notes}"))
}

/// Reads a version into memory that held `before`.
fn read(reader: &dyn TileReader, sent: Sent, before: u8) -> Result<Vec<u8>, No> {
    let mut fence = Fence::new(sent.bytes, 16).map_err(No::Failed)?;
    fence.bytes_mut().fill(before);
    let said = match sent.pixels {
        true => reader.read(sent.tile, sent.rev, fence.bytes_mut()),
        false => reader.feature(sent.tile, sent.rev, fence.floats_mut()),
    };
    let place = format!("tile ({}, {})", sent.tile.x(), sent.tile.y());
    if !fence.is_whole() {
        return Err(No::Failed(format!(
            "{place}: it wrote beside what it was to fill"
        )));
    }
    match said {
        Ok(()) => Ok(fence.bytes_mut().to_vec()),
        Err(ReadError::Damaged(what)) if wordless(&what) => Err(No::Failed(format!(
            "{place} cannot be read, and it does not say why"
        ))),
        Err(error) => Err(No::Skipped(format!("{place}: {error}"))),
    }
}

/// Some of the slide's tiles that can be read, each with what it holds.
fn readable(opened: &mut OpenedSlide, slide: &str) -> Result<Vec<(Sent, Vec<u8>)>, No> {
    let (sent, _) = walk(slide, opened)?;
    let step = sent.len().div_ceil(TILES).max(1);
    let (mut all, mut why) = (Vec::new(), None);
    for &sent in sent.iter().step_by(step) {
        match read(&*opened.reader, sent, 0x00) {
            Ok(bytes) => all.push((sent, bytes)),
            // A damaged tile is no fault of the source's.
            Err(No::Skipped(what)) => why = Some(what),
            Err(no) => return Err(no),
        }
    }
    match (all.is_empty(), why) {
        (true, Some(what)) => Err(No::Failed(format!("no tile can be read: {what}"))),
        _ => Ok(all),
    }
}

pub(super) fn read_fills(stand: &Stand) -> Said {
    let listed = list(stand)?;
    let mut n = 0;
    for slide in &listed.slides {
        let mut opened = open(&*listed.source, slide)?;
        for (sent, bytes) in readable(&mut opened, &slide.id)? {
            if read(&*opened.reader, sent, 0xff)? != bytes {
                return Err(No::Failed(format!(
                    "slide `{}`, tile ({}, {}): read() left bytes as they were: all of it, or an error",
                    slide.id,
                    sent.tile.x(),
                    sent.tile.y()
                )));
            }
            n += 1;
        }
    }
    Ok(format!("{n} tiles"))
}

pub(super) fn at_once_reads(stand: &Stand) -> Said {
    let listed = list(stand)?;
    let slide = &listed.slides[0];
    let mut opened = open(&*listed.source, slide)?;
    let wanted = readable(&mut opened, &slide.id)?;
    let reader = opened.reader.clone();
    at_once(4, |thread| {
        let n = wanted.len();
        for at in 0..n {
            let (sent, bytes) = &wanted[(at + thread * n / 4) % n];
            if read(&*reader, *sent, 0xff)? != *bytes {
                return Err(No::Failed(
                    "reads at once gave other bytes than one alone".into(),
                ));
            }
        }
        Ok(())
    })?;
    Ok(format!("4 threads, {} tiles each", wanted.len()))
}

/// A slide's name, what was sent of it, and digests of what was read.
type Slide = (String, Vec<Sent>, Vec<String>);

pub(super) fn same_twice(stand: &Stand) -> Said {
    if stand.table.flags & DETERMINISTIC == 0 {
        return Err(No::Skipped(
            "it does not say that it is deterministic".into(),
        ));
    }
    let both: Vec<Vec<Slide>> = (0..2)
        .map(|_| {
            let listed = list(stand)?;
            let slides = listed.slides.iter().map(|slide| {
                let sent = walk(&slide.id, &mut open(&*listed.source, slide)?)?.0;
                let read = readable(&mut open(&*listed.source, slide)?, &slide.id)?;
                let digests = read.iter().map(|(_, bytes)| rows::digest(bytes)).collect();
                Ok((slide.id.clone(), sent, digests))
            });
            slides.collect()
        })
        .collect::<Result<_, No>>()?;
    match both[0] == both[1] {
        true => Ok(String::new()),
        false => Err(No::Failed(
            "it sent other tiles, or other bits, of the same slide when it was opened again".into(),
        )),
    }
}

pub(super) fn open_close(stand: &Stand) -> Said {
    let listed = list(stand)?;
    let slide = &listed.slides[0];
    let (mut warm, mut before) = (Memory::default(), 0);
    for i in 0..50 {
        let mut opened = open(&*listed.source, slide)?;
        // Closed in the midst of its steps.
        for _ in 0..3 {
            if let Step::Wait(_) = opened.script.next() {
                break;
            }
        }
        drop(opened);
        if i == 10 {
            (warm, before) = (Memory::now(), descriptors());
        }
    }
    match descriptors() > before {
        true => Err(No::Failed(format!(
            "40 slides that were closed left {} files open",
            descriptors() - before
        ))),
        false => warm.steady(39),
    }
}

/// How many things that cannot be fail; an error where one does so without a reason.
pub(super) fn failures(stand: &Stand) -> Result<usize, No> {
    let Ok(listed) = list(stand) else {
        return Ok(0);
    };
    let slide = &listed.slides[0];
    let mut opened = open(&*listed.source, slide)?;
    let (sent, _) = walk(&slide.id, &mut opened)?;
    let (Some(&one), Some(far)) = (sent.first(), TileId::new(0, 0, 15_000_000, 15_000_000)) else {
        return Ok(0);
    };
    // A tile that it never sent. What it makes of that is its affair, but not to say nothing.
    match read(&*opened.reader, Sent { tile: far, ..one }, 0) {
        Ok(_) => Ok(0),
        Err(No::Skipped(_)) => Ok(1),
        Err(no) => Err(no),
    }
}
