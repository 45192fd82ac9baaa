//! A source of features.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_plugin::harness::{self, Sent};
use weir_plugin::{
    Buffer, Call, Error, Result, Row, SlideInfo, Source, SourceSlide, Step, Tile, Waker,
};

/// Two slides of made-up features.
#[derive(weir_plugin::Stage)]
#[stage(source, id = "all.made-up")]
#[output(features: features["$width"])]
pub struct MadeUp {
    /// Width of the features.
    #[param(default = 3)]
    width: u32,
}

pub struct OneSlide {
    number: u64,
    width: u32,
    at: AtomicUsize,
    waker: Waker,
}

/// The waker of a slide of this width, for whoever wakes it too late.
static KEPT: Mutex<Option<Waker>> = Mutex::new(None);
const KEPT_OF: u32 = 77;
/// Of this width, nobody wakes anybody: as a source that asks somewhere whether there is more.
const ASKS: u32 = 5;

impl Source for MadeUp {
    type Slide = OneSlide;

    fn size(&self, port: &str, symbol: &str) -> Option<u64> {
        (port == "features" && symbol == "d").then_some(self.width.into())
    }

    fn slide(&self, i: u64, _: &Call) -> Result<Option<SlideInfo>> {
        Ok((i < 2).then(|| SlideInfo {
            id: format!("slide-{i}"),
            path: format!("made/up/{i}"),
            ..SlideInfo::default()
        }))
    }

    fn open(&self, i: u64, waker: Waker, call: &Call) -> Result<(SlideInfo, OneSlide)> {
        let info = self
            .slide(i, call)?
            .ok_or_else(|| Error::new("no such slide"))?;
        let info = SlideInfo {
            size: (1000, 500),
            mpp: Some((0.25, 0.25)),
            tiles: 2,
            tile_footprint: 256.0,
            ..info
        };
        if self.width == KEPT_OF {
            *KEPT.lock().unwrap() = Some(waker);
        }
        let slide = OneSlide {
            number: i,
            width: self.width,
            at: AtomicUsize::new(0),
            waker,
        };
        Ok((info, slide))
    }
}

impl SourceSlide for OneSlide {
    fn next(&self, _: &Call) -> Result<Step> {
        let tile = |x| Tile {
            x,
            y: 0,
            width: self.width,
            height: 1,
        };
        Ok(match self.at.fetch_add(1, Ordering::Relaxed) {
            0 => Step::Tile(tile(0)),
            1 => {
                if self.width != ASKS {
                    let waker = self.waker;
                    std::thread::spawn(move || waker.wake());
                }
                Step::Idle
            }
            2 => Step::Fail(tile(256), Error::new("torn")),
            3 => Step::Gone(tile(0)),
            4 => Step::Tile(tile(512)),
            5 => Step::Close,
            _ => Step::End,
        })
    }

    fn read(&self, row: &Row, into: Buffer, _: &Call) -> Result<()> {
        if row.x == 512 {
            return Err(Error::new("unreadable"));
        }
        into.features()?.fill(self.number as f32 + 0.5);
        Ok(())
    }
}

#[test]
fn a_source_sends_what_it_says_and_is_asked_again_when_it_has_nothing_yet() {
    for width in [4, ASKS] {
        sends_what_it_says(width);
    }
}

fn sends_what_it_says(width: u32) {
    let stage = harness::stage::<MadeUp>()
        .set("width", width)
        .start()
        .unwrap();
    assert_eq!(stage.size("features", "d").unwrap(), i64::from(width));
    let slides = stage.slides().unwrap();
    assert_eq!(
        slides.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(),
        ["slide-0", "slide-1"]
    );
    let slide = stage.open(1).unwrap();
    assert_eq!(
        (slide.info.size, slide.info.tile_footprint),
        ((1000, 500), 256.0)
    );
    let sent = slide.run(|tile| tile.width as usize * 4).unwrap();
    assert_eq!(sent[0].features().unwrap(), vec![1.5; width as usize]);
    assert!(
        matches!(&sent[1], Sent::Fail(tile, error) if tile.x == 256 && error.message() == "torn")
    );
    assert!(matches!(&sent[2], Sent::Gone(_)));
    assert!(matches!(&sent[3], Sent::Tile(_, Err(error)) if error.message() == "unreadable"));
    assert_eq!(sent[4], Sent::Close);
    drop(slide);
    stage.end().unwrap();
}

#[test]
fn whoever_wakes_a_slide_that_was_closed_does_no_harm() {
    let stage = harness::stage::<MadeUp>()
        .set("width", KEPT_OF)
        .start()
        .unwrap();
    drop(stage.open(0).unwrap());
    let waker = KEPT.lock().unwrap().take().unwrap();
    std::thread::spawn(move || waker.wake()).join().unwrap();
    stage.end().unwrap();
}
