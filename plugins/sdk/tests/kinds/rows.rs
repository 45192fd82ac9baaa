//! A map, a filter, and a parameter of every type.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weir_plugin::harness::{self, Rows};
use weir_plugin::param::{Bytes, Slides};
use weir_plugin::{Batch, Call, Error, Filter, Map, Result, Verdict};

/// Every value from 255.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "all.invert", deterministic)]
#[input(tiles: pixels[height, width, 3])]
#[output(tiles: pixels[height, width, 3])]
pub struct Invert;

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
pub struct Params {
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
