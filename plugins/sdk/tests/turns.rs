//! Who may be in an instance at once, and who owns a call.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use weir_plugin::harness::{self, Rows};
use weir_plugin::{Batch, Call, End, Map, Reduce, Result, Row, Slide};

/// How many are in the instance, and how many were at most.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Counts who is inside.
#[derive(weir_plugin::Stage)]
#[stage(reduce, id = "turns.alone")]
#[input(tiles: pixels[height, width, 3])]
#[output(notes: table)]
struct Alone;

fn visit() {
    let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(inside, Ordering::SeqCst);
    std::thread::yield_now();
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

impl Reduce for Alone {
    fn take(&mut self, _: &str, _: &Batch, _: &Call) -> Result<()> {
        visit();
        Ok(())
    }

    fn remove(&mut self, _: &str, _: &[Row], _: &Call) -> Result<()> {
        visit();
        Ok(())
    }

    fn complete(&mut self, _: Slide, _: u32, _: End, call: &Call) -> Result<()> {
        visit();
        call.to("notes")?.table(None, b"done")
    }

    fn close(&mut self, _: u64) {
        visit();
    }
}

fn tiles() -> Rows {
    Rows::pixels(1, 1).push("a", 0, 0, &[1_u8; 3])
}

#[test]
fn a_reduce_is_alone_in_each_of_its_functions() {
    let stage = harness::stage::<Alone>().start().unwrap();
    std::thread::scope(|scope| {
        for me in 0..8 {
            let stage = &stage;
            scope.spawn(move || {
                for _ in 0..500 {
                    match me % 4 {
                        0 => stage.take("tiles", tiles()).unwrap(),
                        1 => stage.remove("tiles", &tiles()).unwrap(),
                        2 => drop(stage.complete("a", 0, End::Provisional).unwrap()),
                        _ => stage.close("a"),
                    }
                }
            });
        }
    });
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
    stage.end().unwrap();
}

/// Keeps its call twice.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "turns.owners")]
#[input(tiles: pixels[height, width, 3])]
#[output(tiles: pixels[height, width, 3])]
struct Owners;

impl Map for Owners {
    fn map(&self, _: &Batch, call: &Call) -> Result<()> {
        let kept = call.detach()?;
        let second = kept.call().detach().err();
        let result = match second {
            Some(error) if error.message() == "the call was kept before" => {
                kept.call().out().pass_all()
            }
            _ => Ok(()),
        };
        kept.complete(result);
        Ok(())
    }
}

#[test]
fn a_call_that_is_kept_has_one_owner() {
    let stage = harness::stage::<Owners>().start().unwrap();
    assert_eq!(stage.process(tiles()).unwrap().kept(), [0]);
    stage.end().unwrap();
}

/// Looks whether the run is stopped, of a call that is gone.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "turns.gone")]
#[input(tiles: pixels[height, width, 3])]
#[output(tiles: pixels[height, width, 3])]
struct Gone;

impl Map for Gone {
    fn map(&self, _: &Batch, call: &Call) -> Result<()> {
        let kept = call.detach()?;
        let before = call.cancelled();
        kept.call().out().pass_all()?;
        kept.complete(Ok(()));
        match (before, call.cancelled()) {
            (false, true) => Ok(()),
            // Nothing is left to fail.
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_that_is_gone_is_cancelled() {
    let stage = harness::stage::<Gone>().start().unwrap();
    assert_eq!(stage.process(tiles()).unwrap().kept(), [0]);
    stage.end().unwrap();
}
