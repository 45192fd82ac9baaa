//! A reduce and sinks.

use std::collections::BTreeMap;
use weir_plugin::export::Declared as _;
use weir_plugin::harness::{self, Rows};
use weir_plugin::{Batch, Call, End, Finish, Reduce, Result, Row, Sink, Slide};

/// Number of tiles and sum of the scores, of each slide.
#[derive(weir_plugin::Stage)]
#[stage(reduce, id = "all.sum", state(slide = 64, tile = 24))]
#[input(scores: scores[height, width, classes])]
#[output(bag: bag[2])]
#[output(notes: table)]
pub struct Sum {
    slides: BTreeMap<u64, BTreeMap<u64, f32>>,
}

impl Reduce for Sum {
    fn take(&mut self, port: &str, batch: &Batch, _: &Call) -> Result<()> {
        assert_eq!(port, "scores");
        let scores = batch.column::<f32>("score")?;
        for (i, row) in batch.rows().iter().enumerate() {
            self.slides
                .entry(row.key.slide)
                .or_default()
                .insert(row.key.tile, scores.row(i)[0]);
        }
        Ok(())
    }

    fn remove(&mut self, _: &str, rows: &[Row], _: &Call) -> Result<()> {
        for row in rows {
            self.slides
                .entry(row.key.slide)
                .or_default()
                .remove(&row.key.tile);
        }
        Ok(())
    }

    fn complete(&mut self, slide: Slide, generation: u32, end: End, call: &Call) -> Result<()> {
        let tiles = self.slides.entry(slide.number()).or_default();
        let mut bag = call
            .out()
            .make_for(slide.number(), &[weir_plugin::TILE_SLIDE])?;
        bag.set("pooled", 0, &[tiles.len() as f32, tiles.values().sum()])?;
        bag.set("effective", 0, &[tiles.len() as f32])?;
        bag.set("entropy", 0, &[0.0_f32])?;
        bag.set("members", 0, &[tiles.len() as u64])?;
        bag.set("flags", 0, &[0_u32])?;
        bag.emit()?;
        let note = format!("{} {generation} {end:?}", slide.id());
        call.to("notes")?.table(None, note.as_bytes())
    }

    fn close(&mut self, slide: u64) {
        self.slides.remove(&slide);
    }
}

#[test]
fn a_reduce_follows_replacements_and_withdrawals() {
    let stage = harness::stage::<Sum>().start().unwrap();
    let rows = Rows::scores(2)
        .push_scores("a", 0, 0, 1.0, &[0.5, 0.5])
        .push_scores("b", 0, 0, 9.0, &[0.5, 0.5])
        .push_scores("a", 4, 0, 2.0, &[0.5, 0.5]);
    stage.take("scores", rows).unwrap();
    let pooled = |done: &harness::Done| done.rows::<f32>("bag", "pooled")[0].1.to_vec();
    let done = stage.complete("a", 0, End::Provisional).unwrap();
    assert_eq!(pooled(&done), [2.0, 3.0]);
    assert_eq!(done.table("notes", None).unwrap(), b"a 0 Provisional");
    let again = Rows::scores(2)
        .push_scores("a", 4, 0, 5.0, &[0.5, 0.5])
        .rev(1);
    stage.take("scores", again).unwrap();
    stage
        .remove(
            "scores",
            &Rows::scores(2).push_scores("a", 0, 0, 0.0, &[0.0, 0.0]),
        )
        .unwrap();
    assert_eq!(
        pooled(&stage.complete("a", 1, End::Complete).unwrap()),
        [1.0, 5.0]
    );
    stage.close("a");
    assert_eq!(
        pooled(&stage.complete("b", 0, End::Complete).unwrap()),
        [1.0, 9.0]
    );
    stage.end().unwrap();
}

/// Writes one file a slide.
#[derive(weir_plugin::Stage)]
#[stage(sink, id = "all.write")]
#[input(features: features[d])]
pub struct Write {
    lines: BTreeMap<u64, String>,
    slides: usize,
}

impl Sink for Write {
    fn take(&mut self, _: &str, batch: &Batch, _: &Call) -> Result<()> {
        let features = batch.column::<f32>("features")?;
        for (i, row) in batch.rows().iter().enumerate() {
            let lines = self.lines.entry(batch.slide(i).number()).or_default();
            lines.push_str(&format!("{} {} {:?}\n", row.x, row.y, features.row(i)));
        }
        Ok(())
    }

    fn remove(&mut self, _: &str, _: &[Row], _: &Call) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, slide: Slide, _: u32, _: End, call: &Call) -> Result<()> {
        let lines = self.lines.remove(&slide.number()).unwrap_or_default();
        self.slides += 1;
        // An io::Error becomes one of ours.
        Ok(std::fs::write(call.folder().join(slide.id()), lines)?)
    }
}

impl Finish for Write {
    fn finish(&mut self, call: &Call) -> Result<()> {
        Ok(std::fs::write(
            call.folder().join("all"),
            self.slides.to_string(),
        )?)
    }
}

/// Writes nothing, and has nothing to do at the end of the run.
#[derive(weir_plugin::Stage)]
#[stage(sink, id = "all.drop")]
#[input(features: features[d])]
struct Discard;

impl Sink for Discard {
    fn take(&mut self, _: &str, _: &Batch, _: &Call) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &str, _: &[Row], _: &Call) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, _: Slide, _: u32, _: End, _: &Call) -> Result<()> {
        Ok(())
    }
}

/// By that a host knows whether each open slide may have an instance of its own.
#[test]
fn only_a_sink_that_is_a_finish_has_the_function_for_the_end_of_the_run() {
    assert!(Write::TABLE.finish.is_some());
    assert!(Discard::TABLE.finish.is_none());
    assert!(Sum::TABLE.finish.is_none());
}

#[test]
fn a_sink_writes_slides_and_then_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let stage = harness::stage::<Write>()
        .folder(folder.path())
        .start()
        .unwrap();
    stage
        .take(
            "features",
            Rows::features(2).push("a", 3, 4, &[1.0_f32, 2.0]),
        )
        .unwrap();
    stage.complete("a", 0, End::Complete).unwrap();
    stage.finish().unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("a"), "3 4 [1.0, 2.0]\n");
    assert_eq!(read("all"), "1");
    let refused = stage
        .complete("no/such/folder", 0, End::Complete)
        .unwrap_err();
    assert!(refused.message().contains("No such file"), "{refused}");
    stage.end().unwrap();
}
