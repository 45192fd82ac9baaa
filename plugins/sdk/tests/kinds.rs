//! Each kind of stage, and a reader, through the border and back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use weir_plugin::export::Declared as _;
use weir_plugin::harness::{self, Rows, Sent};
use weir_plugin::param::{Bytes, Slides};
use weir_plugin::{
    Batch, Buffer, Call, End, Error, Facts, Filter, Finish, Level, Map, Picture, Reader, Reduce,
    Region, Result, Row, Sink, Slide, SlideInfo, Source, SourceSlide, Step, Tile, Verdict, Waker,
};

/// Every value from 255.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "all.invert", deterministic)]
#[input(tiles: pixels[height, width, 3])]
#[output(tiles: pixels[height, width, 3])]
struct Invert;

impl Map for Invert {
    fn map(&self, tiles: &Batch, call: &Call) -> Result<()> {
        let before: Vec<*const u8> = tiles
            .column::<u8>("pixels")?
            .iter()
            .map(<[u8]>::as_ptr)
            .collect();
        let mut out = call.out().edit()?;
        let mut moved = 0;
        for (row, before) in out.column_mut::<u8>("pixels")?.rows_mut().zip(before) {
            moved += u64::from(row.as_ptr() != before);
            row.iter_mut().for_each(|value| *value = 255 - *value);
        }
        call.count("moved", moved);
        out.emit()
    }
}

#[test]
fn pixels_that_are_edited_are_copies_and_what_came_stays_as_it_was() {
    let stage = harness::stage::<Invert>().start().unwrap();
    let tiles = Rows::pixels(2, 1)
        .push("a", 0, 0, &[1_u8; 6])
        .push("a", 2, 0, &[2_u8; 6]);
    for twice in [1, 2] {
        let done = stage.process(tiles.clone()).unwrap();
        assert_eq!(done.row::<u8>("tiles", 1, "pixels").unwrap(), [253; 6]);
        assert_eq!(stage.counter("moved"), 2 * twice);
    }
    stage.end().unwrap();
}

/// A stage with a parameter of every type.
#[derive(weir_plugin::Stage)]
#[stage(
    filter,
    id = "all.params",
    serial,
    example = "[stage.x]\nuse = \"all.params\""
)]
#[input(tiles: pixels["$size", "$size", 3], mpp = 0.5, doc = "What comes.")]
#[output(tiles: pixels["$size", "$size", 3])]
struct Params {
    /// A size, px.
    #[param(default = 2, min = 1, max = 4096)]
    size: u32,
    /// A factor.
    #[param(default = -0.5, min = -1.0, max = 1.0)]
    factor: f32,
    /// Whether.
    #[param(default = true)]
    on: bool,
    /// A "text" with \ in it.
    #[param(default = "a\"b\\c")]
    text: String,
    /// Which.
    #[param(default = "two-words", name = "which-one")]
    which: Which,
    /// How much.
    #[param(default = "1.5KiB")]
    much: Bytes,
    /// How long.
    #[param(default = "20ms")]
    long: Duration,
    /// Where.
    #[param]
    place: PathBuf,
    /// What.
    #[param(default = [])]
    slides: Slides,
    /// Names.
    #[param(default = ["x", "y"])]
    names: Vec<String>,
    /// Maybe a number.
    #[param(min = 3)]
    maybe: Option<i64>,
    calls: AtomicU64,
}

#[derive(weir_plugin::Choice, Clone, Copy, Debug, PartialEq)]
enum Which {
    One,
    TwoWords,
    #[choice("THREE")]
    Three,
}

impl Filter for Params {
    fn start(&mut self, call: &Call) -> Result<()> {
        if self.which == Which::Three {
            return Err(
                Error::param("which-one", "three is too many").help("take one or two-words")
            );
        }
        call.info(&format!(
            "{} {} {} {} {:?} {} {:?} {} {:?} {:?} {:?}",
            self.size,
            self.factor,
            self.on,
            self.text,
            self.which,
            self.much.0,
            self.long,
            self.place.display(),
            self.slides.0,
            self.names,
            self.maybe
        ));
        Ok(())
    }

    fn filter(&self, tiles: &Batch, call: &Call) -> Result<()> {
        self.calls.fetch_add(tiles.len() as u64, Ordering::Relaxed);
        let pixels = tiles.column::<u8>("pixels")?;
        call.sift(|i| match pixels.row(i)[0] {
            0 => Ok(Verdict::Skip("black")),
            255 => Err(Error::new("white hurts").help("look away")),
            _ => Ok(Verdict::Keep),
        })
    }
}

#[test]
fn parameters_arrive_as_their_types_and_what_is_refused_names_the_parameter() {
    let stage = harness::stage::<Params>()
        .set("place", "/x")
        .set("maybe", 7)
        .start()
        .unwrap();
    assert_eq!(
        stage.log()[0].text,
        "2 -0.5 true a\"b\\c TwoWords 1536 20ms /x [] [\"x\", \"y\"] Some(7)"
    );
    let refused = |setup: harness::Setup| setup.start().err().unwrap().to_string();
    let setup = harness::stage::<Params>;
    assert_eq!(refused(setup()), "parameter `place`: it is required");
    let placed = || setup().set("place", "/x");
    assert_eq!(
        refused(placed().set("size", 0)),
        "parameter `size`: 0 is less than 1"
    );
    assert_eq!(
        refused(placed().set("nonsense", 0)),
        "parameter `nonsense`: the stage has no such parameter"
    );
    assert_eq!(
        refused(placed().set("which-one", "THREE")),
        "parameter `which-one`: three is too many; take one or two-words"
    );
}

#[test]
fn of_a_filter_each_row_is_kept_skipped_with_its_reason_or_failed() {
    let stage = harness::stage::<Params>()
        .set("place", "/x")
        .start()
        .unwrap();
    let tiles = [7_u8, 0, 255, 9]
        .iter()
        .enumerate()
        .fold(Rows::pixels(2, 2), |rows, (i, value)| {
            rows.push("a", i as i64 * 2, 0, &[*value; 12])
        });
    let done = stage.process(tiles).unwrap();
    assert_eq!(done.kept(), [0, 3]);
    assert_eq!(done.skipped(), [(1, "black")]);
    assert_eq!(done.failed().len(), 1);
    assert_eq!(done.failed()[0].1.to_string(), "white hurts; look away");
    stage.end().unwrap();
}

/// Number of tiles and sum of the scores, of each slide.
#[derive(weir_plugin::Stage)]
#[stage(reduce, id = "all.sum", state(slide = 64, tile = 24))]
#[input(scores: scores[height, width, classes])]
#[output(bag: bag[2])]
#[output(notes: table)]
struct Sum {
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
struct Write {
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

/// Two slides of made-up features.
#[derive(weir_plugin::Stage)]
#[stage(source, id = "all.made-up")]
#[output(features: features["$width"])]
struct MadeUp {
    /// Width of the features.
    #[param(default = 3)]
    width: u32,
}

struct OneSlide {
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

/// Files of one grey.
#[derive(weir_plugin::Reader)]
#[reader(id = "grey", extensions = ["grey"], parallel)]
struct Grey {
    value: u8,
    size: u32,
}

impl Reader for Grey {
    fn sniff(path: &Path, head: &[u8]) -> u8 {
        let named = path.extension().is_some_and(|it| it == "grey");
        if named && head.len() == 1 { 100 } else { 0 }
    }

    fn open(path: &Path, _: &Call) -> Result<Grey> {
        let value = *std::fs::read(path)?
            .first()
            .ok_or_else(|| Error::new("the file is empty"))?;
        Ok(Grey { value, size: 10 })
    }

    fn facts(&self, _: &Call) -> Result<Facts> {
        let size = i64::from(self.size);
        Ok(Facts {
            format: "grey".into(),
            levels: vec![Level {
                width: size,
                height: size,
                downsample: 1.0,
                ..Level::default()
            }],
            pictures: vec![Picture {
                name: "label".into(),
                width: 2,
                height: 1,
            }],
            properties: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
            ..Facts::default()
        })
    }

    fn read_region(&self, _: u32, x: i64, y: i64, into: &mut Region, _: &Call) -> Result<()> {
        into.white();
        let size = i64::from(self.size);
        for row in 0..into.height() {
            let inside = |at: i64| (0..size).contains(&at);
            let columns = into.width();
            let pixels = into.row_mut(row);
            for column in
                (0..columns).filter(|it| inside(x + i64::from(*it)) && inside(y + i64::from(row)))
            {
                pixels[column as usize * 3..][..3].fill(self.value);
            }
        }
        Ok(())
    }

    fn picture(&self, _: u32, into: &mut Region, _: &Call) -> Result<()> {
        into.row_mut(0).fill(9);
        Ok(())
    }
}

#[test]
fn a_reader_gives_its_facts_exact_regions_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.grey");
    std::fs::write(&path, [77]).unwrap();
    let reader = harness::reader::<Grey>();
    assert_eq!(reader.sniff(&path).unwrap(), 100);
    let slide = reader.open(&path).unwrap();
    let facts = slide.facts().unwrap();
    assert_eq!(
        facts.properties[0],
        ("a".into(), "1".into()),
        "sorted by key"
    );
    assert_eq!(facts.levels[0].width, 10);
    let pixels = slide.region(0, -1, 9, 2, 2).unwrap();
    assert_eq!(
        pixels,
        [255, 255, 255, 77, 77, 77, 255, 255, 255, 255, 255, 255]
    );
    assert_eq!(slide.picture(0).unwrap(), [9; 6]);
    std::fs::write(&path, []).unwrap();
    assert_eq!(
        reader.open(&path).err().unwrap().message(),
        "the file is empty"
    );
}

/// The whole of it is a manifest that weir takes.
#[test]
fn the_manifest_is_one_that_the_host_takes() {
    use weir_plugin::export::{ABI, Declared, DeclaredReader};
    let text = format!(
        "{{\"weir-abi\":\"{ABI}\",\"name\":\"all\",\"version\":\"1.0.0\",\"summary\":\"All\",\"stages\":[{}],\"readers\":[{}]}}",
        [
            Invert::MANIFEST.concat(),
            Params::MANIFEST.concat(),
            Sum::MANIFEST.concat(),
            Write::MANIFEST.concat(),
            MadeUp::MANIFEST.concat()
        ]
        .join(","),
        <Grey as DeclaredReader>::MANIFEST.concat()
    );
    let manifest = weir_plugin_host::manifest::Manifest::parse(text.as_bytes()).unwrap();
    let params = &manifest.stages[1];
    assert_eq!(params.params.len(), 11);
    assert_eq!(params.params[3].doc, "A \"text\" with \\ in it.");
    assert!(params.params[7].required && !params.params[10].required);
    assert_eq!(params.params[4].values, ["one", "two-words", "THREE"]);
    assert_eq!(
        (params.params[1].min, params.params[10].max),
        (Some(-1.0), None)
    );
    assert_eq!(manifest.stages[2].state.tile, 24);
    assert_eq!(manifest.readers[0].extensions, ["grey"]);
}
