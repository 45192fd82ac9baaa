//! The source: slides of small tiles whose pixels are a function of the tile.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use weir_record::ledger::check;
use weir_record::{Body, End, Failure, Grid, Seal, Skip, SlideInfo, SlideKey, TileId};
use weir_runtime::stage::{
    OpenedSlide, Prepare, ReadError, Script, SlideRef, Source, Step, TileReader,
};

use super::types::scenario;
use super::{Panics, SIDE, Scenario, Seen, Slide, id, key, number, tile, word};

pub(super) struct Tiles {
    scenario: Arc<Scenario>,
    seen: Arc<Seen>,
    slides: Vec<SlideRef>,
}

impl Tiles {
    pub(super) fn new(cx: &Prepare) -> Self {
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
