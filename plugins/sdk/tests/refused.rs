//! What the harness refuses of batches that a stage makes, in the words in which a run refuses it.
#![allow(clippy::unwrap_used)]

use weir_plugin::harness::{self, Rows};
use weir_plugin::{Batch, Call, End, Map, Reduce, Result, Row, Slide};

/// Edits what it should not.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "refused.edits")]
#[input(scores: scores[height, width, 2])]
#[output(scores: scores[height, width, 2])]
struct Edits;

impl Map for Edits {
    fn map(&self, _: &Batch, call: &Call) -> Result<()> {
        call.out().edit()?.emit()
    }
}

/// Makes one row in two ways.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "refused.both")]
#[input(tiles: pixels[height, width, 3])]
#[output(tiles: pixels[height, width, 3])]
struct Both {
    /// Which way comes first.
    #[param(default = false)]
    edit: bool,
}

impl Map for Both {
    fn map(&self, _: &Batch, call: &Call) -> Result<()> {
        if self.edit {
            let _edited = call.out().edit()?;
            return call.out().make(&[1]).map(drop);
        }
        let _made = call.out().make(&[1])?;
        call.out().edit().map(drop)
    }
}

/// Makes rows of these tiles, of the bag or of the shares.
#[derive(weir_plugin::Stage)]
#[stage(reduce, id = "refused.tiles")]
#[input(scores: scores[height, width, 2])]
#[output(bag: bag[2])]
#[output(shares: attention)]
struct Tiles {
    /// What to do.
    #[param]
    sin: String,
    tiles: Vec<u64>,
}

impl Reduce for Tiles {
    fn take(&mut self, _: &str, batch: &Batch, _: &Call) -> Result<()> {
        self.tiles
            .extend(batch.rows().iter().map(|row| row.key.tile));
        Ok(())
    }

    fn remove(&mut self, _: &str, _: &[Row], _: &Call) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, slide: Slide, _: u32, _: End, call: &Call) -> Result<()> {
        const SLIDE: u64 = weir_plugin::TILE_SLIDE;
        let (port, tiles) = match self.sin.as_str() {
            "none" => ("shares", self.tiles.clone()),
            "twice" => ("bag", vec![SLIDE, SLIDE]),
            "unknown" => ("shares", vec![self.tiles[0], 77_777]),
            "tile in a bag" => ("bag", vec![self.tiles[0]]),
            _ => ("shares", vec![SLIDE]),
        };
        call.to(port)?.make_for(slide.number(), &tiles).map(drop)
    }
}

fn said(error: weir_plugin::Error, told: &str) {
    assert!(error.message().contains(told), "{error}");
}

#[test]
fn only_pixels_are_edited() {
    let stage = harness::stage::<Edits>().start().unwrap();
    let rows = Rows::scores(2).push_scores("a", 0, 0, 1.0, &[0.5, 0.5]);
    said(
        stage.process(rows).unwrap_err(),
        "output `scores` carries scores, and only pixels are edited in place",
    );
}

#[test]
fn a_row_is_made_once_on_an_output_edited_or_fresh() {
    for first in [false, true] {
        let stage = harness::stage::<Both>().set("edit", first).start().unwrap();
        let rows = Rows::pixels(1, 1)
            .push("a", 0, 0, &[1_u8; 3])
            .push("a", 1, 0, &[1_u8; 3]);
        said(
            stage.process(rows).unwrap_err(),
            "it made two rows of row 1 on one output",
        );
    }
}

#[test]
fn a_reduce_makes_rows_of_what_it_holds_and_of_the_kind_that_an_output_carries() {
    for (sin, told) in [
        ("none", None),
        ("twice", Some("it gave a tile two rows on one output")),
        (
            "unknown",
            Some("it made a row of a tile that it was not given"),
        ),
        (
            "tile in a bag",
            Some("output `bag` carries bag, whose rows are the slide's"),
        ),
        (
            "slide in shares",
            Some("output `shares` carries attention, whose rows are tiles'"),
        ),
    ] {
        let stage = harness::stage::<Tiles>().set("sin", sin).start().unwrap();
        let rows = || Rows::scores(2).push_scores("a", 0, 0, 1.0, &[0.5, 0.5]);
        stage.take("scores", rows()).unwrap();
        let done = stage.complete("a", 0, End::Complete);
        match told {
            None => {
                done.unwrap();
                // What was withdrawn is no longer the stage's to speak of.
                stage.remove("scores", &rows()).unwrap();
                said(
                    stage.complete("a", 1, End::Complete).unwrap_err(),
                    "it made a row of a tile that it was not given",
                );
            }
            Some(told) => said(done.unwrap_err(), told),
        }
    }
}
