//! Slides of a script, played: the source, what it does next, and the pixels of its tiles.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_record::id::mix;
use weir_record::{
    Body, End, Failure, Grid, Mpp, MppOrigin, Seal, Skip, SlideInfo, SlideKey, TileBuf, TileId,
};
use weir_runtime::stage::{
    OpenedSlide, Overview, ReadError, Script, SlideRef, Source, Step, TileReader,
};

use super::script::{Act, Content, Part};

pub(super) struct Scripted {
    pub(super) stage: String,
    pub(super) slides: Vec<SlideRef>,
    pub(super) parts: BTreeMap<String, Part>,
    pub(super) size: u32,
    pub(super) mpp: f64,
}

impl Source for Scripted {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let failed = |what: &str| Failure {
            stage: self.stage.clone(),
            slide: slide.id.clone(),
            tile: None,
            what: what.to_owned(),
            help: String::new(),
        };
        let part = self.parts.get(&slide.id);
        let part = part.ok_or_else(|| failed("the script has no such slide"))?;
        if let Some(what) = &part.opening.error {
            return Err(failed(what));
        }
        let mut info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        (info.width, info.height) = (part.opening.width, part.opening.height);
        info.mpp = Some((Mpp(self.mpp), MppOrigin::Given));
        info.reader = "scripted".into();
        info.patient = part.opening.patient.clone();
        info.label = part.opening.label.clone();
        info.grids = vec![Grid {
            footprint: self.size as f64,
            mpp: self.mpp,
            px: self.size,
        }];
        info.tiles = part.tiles;
        let newest: Arc<Newest> = Arc::default();
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Player {
                steps: part.steps.clone(),
                newest: newest.clone(),
                after: part.after,
                stopped: false,
            }),
            reader: Arc::new(Store {
                key: slide.key,
                contents: part.contents.clone(),
                newest: part.opening.latest.then_some(newest),
                size: (part.opening.width, part.opening.height),
            }),
        })
    }
}

/// The newest revision of each tile that was sent.
type Newest = Mutex<HashMap<TileId, u32>>;

struct Player {
    steps: VecDeque<Act>,
    newest: Arc<Newest>,
    after: u32,
    stopped: bool,
}

impl Script for Player {
    fn next(&mut self) -> Step {
        loop {
            let step = match self.steps.pop_front() {
                None => return Step::Done,
                Some(Act::Hold) if self.stopped => continue,
                Some(Act::Hold) => {
                    self.steps.push_front(Act::Hold);
                    return Step::Wait(Duration::from_secs(1));
                }
                Some(Act::Panic) if self.stopped => continue,
                Some(Act::Panic) => panic!("the script says so"),
                Some(Act::Step(step)) => step,
            };
            match step {
                // A seal that was sent already may count it.
                Step::Tile { tile, rev, .. } if self.stopped => {
                    let body = Body::Skip(Skip::Dropped {
                        stage: "scripted-source".into(),
                        reason: "stopped".into(),
                    });
                    return Step::Outcome { tile, rev, body };
                }
                Step::Wait(_) if self.stopped => continue,
                Step::Tile { tile, rev, .. } | Step::Outcome { tile, rev, .. } => {
                    let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
                    newest.insert(tile, rev);
                }
                _ => {}
            }
            return step;
        }
    }

    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        // What the script did not come to is no part of the slide: a later generation says that it ended early.
        let seal = Seal {
            n: 0,
            check: 0,
            last: Some(End::Aborted),
        };
        let rev = self.after;
        self.steps.push_back(Act::Step(Step::Seal { rev, seal }));
    }
}

struct Store {
    key: SlideKey,
    contents: HashMap<(TileId, u32), (Content, Duration)>,
    /// When only the newest version is kept.
    newest: Option<Arc<Newest>>,
    size: (u64, u64),
}

impl TileReader for Store {
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError> {
        let Some((content, time)) = self.contents.get(&(tile, rev)) else {
            return Err(ReadError::Superseded);
        };
        if !time.is_zero() {
            std::thread::sleep(*time);
        }
        if let Some(newest) = &self.newest {
            let newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            if newest.get(&tile).is_some_and(|newest| *newest > rev) {
                return Err(ReadError::Superseded);
            }
        }
        match content {
            Content::Pattern(sent) => paint(self.key, tile, *sent, into),
            Content::Colour(rgb) => into
                .chunks_mut(rgb.len())
                .for_each(|pixel| pixel.copy_from_slice(&rgb[..pixel.len()])),
            Content::Unreadable(what) => return Err(ReadError::Damaged(what.clone())),
            Content::Panic => panic!("the script says so"),
        }
        Ok(())
    }

    fn overview(&self, max_side: u32) -> Result<Overview, ReadError> {
        let longest = self.size.0.max(self.size.1).max(1);
        let side = |length: u64| (length * max_side as u64 / longest).clamp(1, max_side as u64);
        let (width, height) = (side(self.size.0) as u32, side(self.size.1) as u32);
        Ok(Overview {
            width,
            height,
            pixels: vec![235; width as usize * height as usize * 3],
        })
    }
}

/// A tile's pattern: a colour of its own with a grain, by the slide, the tile and how often it was sent before.
fn paint(slide: SlideKey, tile: TileId, sent: u32, into: &mut [u8]) {
    let seed = mix(slide.0 ^ mix(tile.word() ^ (sent as u64) << 32));
    for (at, pixel) in into.chunks_mut(TileBuf::CHANNELS).enumerate() {
        let grain = mix(seed ^ at as u64);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let colour = (seed >> (8 * channel)) as u8 as u64 * 7 / 8;
            *value = (colour + (grain >> (8 * channel) & 31)) as u8;
        }
    }
}
