//! Who is asked for a slide, in which order, and what is said when nobody takes it; what folders are searched for.
#![allow(clippy::unwrap_used)]

mod tiff_writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tiff_writer::{Order, TiffWriter, Tiles, Value, cut};
use weir_slide::input::{Files, files};
use weir_slide::leveled::{Found, FoundLevel, Handle, Handles, LeveledSlide, Said};
use weir_slide::{
    Fault, OpenOptions, Opener, Openers, Region, SlideError, SlideReader, open, open_and_tell,
};

/// Says `score` of every file and opens it, or declines.
struct Stand {
    id: &'static str,
    score: i32,
    takes: bool,
    log: Arc<Mutex<Vec<String>>>,
    endings: Vec<String>,
}

impl Opener for Stand {
    fn id(&self) -> &str {
        self.id
    }

    fn extensions(&self) -> &[String] {
        &self.endings
    }

    fn sniff(&self, path: &Path, head: &[u8], options: &OpenOptions) -> Result<i32, SlideError> {
        assert!(head.len() <= 4096);
        if options.timeout == Some(Duration::ZERO) {
            let shown = path.display().to_string();
            return Err(SlideError::new(Fault::Damaged, shown, "it hung", "wait"));
        }
        Ok(self.score)
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
        self.log.lock().unwrap().push(self.id.into());
        if !self.takes {
            let shown = path.display().to_string();
            return Err(SlideError::new(
                Fault::Unsupported,
                shown,
                "an unknown tongue",
                "translate it",
            ));
        }
        Ok(Arc::new(LeveledSlide::open(
            self.id,
            path,
            options,
            Arc::new(Grey),
        )?))
    }
}

/// 100 x 80 px and the half of it, each pixel as grey as its column.
struct Grey;

impl Handles for Grey {
    fn open(&self) -> Result<Arc<dyn Handle>, SlideError> {
        Ok(Arc::new(Grey))
    }

    fn parallel(&self) -> bool {
        true
    }

    fn spoils(&self) -> bool {
        false
    }
}

impl Handle for Grey {
    fn found(&self) -> Result<Found, SlideError> {
        let level = |width, height, downsample| FoundLevel {
            width,
            height,
            downsample,
            tile: None,
        };
        Ok(Found {
            format: "grey".into(),
            vendor: "nobody".into(),
            pixel: Some(((0.25, 0.25), Said::Objective)),
            levels: vec![level(100, 81, 1.0), level(50, 40, 2.0125)],
            pictures: Vec::new(),
            properties: Default::default(),
        })
    }

    fn read_region(
        &self,
        level: u32,
        corner: (u32, u32),
        size: (u32, u32),
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), SlideError> {
        let side = [100, 50][level as usize];
        assert!(
            corner.0 + size.0 <= side,
            "only what lies inside is asked for"
        );
        for row in 0..size.1 as usize {
            for column in 0..size.0 as usize {
                let value = (corner.0 as usize + column) << level;
                into[row * pitch + column * 3..][..3].fill(value as u8);
            }
        }
        Ok(())
    }

    fn picture(&self, _: usize, _: (u32, u32), _: &mut [u8]) -> Result<(), SlideError> {
        unreachable!("it has none")
    }
}

fn openers(stands: &[(&'static str, i32, bool)]) -> (Openers, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let stands = stands.iter().map(|&(id, score, takes)| {
        Arc::new(Stand {
            id,
            score,
            takes,
            log: log.clone(),
            endings: vec![format!("{id}x")],
        }) as Arc<dyn Opener>
    });
    (Openers::new(stands), log)
}

fn options(openers: Openers) -> OpenOptions {
    OpenOptions {
        openers,
        ..OpenOptions::default()
    }
}

fn text_file(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("slide.abc");
    std::fs::write(&path, "no tiff at all").unwrap();
    path
}

#[test]
fn the_surest_is_asked_first_ties_by_name_and_what_one_declines_the_next_may_take() {
    let folder = tempfile::tempdir().unwrap();
    let path = text_file(&folder);
    let (all, log) = openers(&[
        ("d", 40, true),
        ("c", 70, false),
        ("b", 70, false),
        ("a", 0, true),
        ("e", 5, true),
    ]);
    let (slide, choice) = open_and_tell(&path, &options(all)).unwrap();
    assert_eq!(*log.lock().unwrap(), ["b", "c", "d"]);
    assert_eq!(
        (slide.facts().reader.as_str(), choice.reader.as_str()),
        ("d/grey", "d")
    );
    let asked: Vec<(&str, i32, bool)> = choice
        .asked
        .iter()
        .map(|asked| (asked.id.as_str(), asked.score, asked.declined.is_some()))
        .collect();
    assert_eq!(
        asked,
        [
            ("b", 70, true),
            ("c", 70, true),
            ("d", 40, false),
            ("e", 5, false),
            ("a", 0, false)
        ]
    );
    assert!(choice.native.unwrap().what.contains("is no TIFF"));
}

#[test]
fn a_reader_that_cannot_be_asked_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = OpenOptions {
        timeout: Some(Duration::ZERO),
        ..options(openers(&[("a", 50, true)]).0)
    };
    let Err(error) = open(&text_file(&folder), &hangs) else {
        panic!("it opened")
    };
    let said = "a declined it: it hung; the native reader declined it: is no TIFF";
    assert!(error.what.starts_with(said), "{error}");
    assert_eq!(error.help, "wait");
}

#[test]
fn when_nobody_takes_it_all_are_named_and_without_readers_the_plugin_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = text_file(&folder);
    let refused = |openers: Openers| match open(&path, &options(openers)) {
        Err(error) => error,
        Ok(_) => panic!("it opened"),
    };
    let error = refused(openers(&[("a", 0, true), ("b", 10, false)]).0);
    let cause = "b declined it: an unknown tongue; the native reader declined it: is no TIFF";
    assert!(
        error.what.starts_with(cause) && error.what.ends_with("; a does not know it"),
        "{error}"
    );
    assert_eq!(error.help, "translate it");
    let error = refused(Openers::default());
    assert!(
        error.help.contains("`[plugin.openslide]` in the pipeline"),
        "{error}"
    );
}

#[test]
fn a_whole_downsample_is_the_levels_own_and_pixels_are_read_from_the_level_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = text_file(&folder);
    let (all, _) = openers(&[("a", 1, true)]);
    let slide = open(&path, &options(all)).unwrap();
    let facts = slide.facts();
    assert_eq!(facts.levels[1].downsample, 2.0);
    assert_eq!(
        (
            facts.levels[0].tile_width,
            facts.levels[0].columns,
            facts.levels[0].rows
        ),
        (512, 1, 1)
    );
    assert_eq!(facts.require_mpp().unwrap().0.0, 0.25);
    assert_eq!(facts.input.0, 14);
    let mut pixels = vec![0; 10 * 4 * 3];
    let region = |x, w| Region {
        x,
        y: 0.0,
        w,
        h: 8.0,
    };
    slide
        .read(region(20.0, 20.0), 0, 10, 4, &mut pixels)
        .unwrap();
    let row: Vec<u8> = pixels[..30].iter().step_by(3).copied().collect();
    assert_eq!(row, [20, 22, 24, 26, 28, 30, 32, 34, 36, 38]);
    // Over the right edge: white.
    slide
        .read(region(96.0, 20.0), 0, 10, 4, &mut pixels)
        .unwrap();
    let row: Vec<u8> = pixels[..30].iter().step_by(3).copied().collect();
    assert_eq!(row, [96, 98, 255, 255, 255, 255, 255, 255, 255, 255]);
    let picture = slide.thumbnail(25).unwrap();
    assert_eq!(
        (picture.width, picture.height, picture.unread.len()),
        (25, 20, 0)
    );
    assert_eq!(
        slide.tile_raw(0, 0, 0).unwrap_err().fault,
        Fault::Unsupported
    );
}

/// Directories of 64 x 64 px, of which the first has `extra` tags.
fn tiff(path: &Path, extra: Vec<(u16, Value)>) {
    let of = Tiles {
        width: 64,
        height: 64,
        tile: 64,
        samples: 3,
        compression: 1,
        photometric: 2,
        predictor: false,
    };
    let mut file =
        TiffWriter::new(std::fs::File::create(path).unwrap(), Order::Little, false).unwrap();
    let tile = cut(&vec![7; 64 * 64 * 3], &of, 0, 0);
    let spans = [(file.data(&tile).unwrap(), tile.len() as u64)];
    let mut tags = of.tags(&spans);
    tags.extend(extra);
    file.directory(tags, true).unwrap();
    file.finish().unwrap();
}

#[test]
fn files_of_makers_with_a_layout_of_their_own_are_declined_and_turned_ones_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = |text: &str| Value::Ascii(text.into());
    let cases = [
        ("a.ndpi", Vec::new(), "Hamamatsu NDPI"),
        (
            "b.tif",
            vec![(65_420, Value::Long(vec![1]))],
            "Hamamatsu NDPI",
        ),
        (
            "c.scn",
            vec![(
                270,
                text("<scn xmlns=\"http://www.leica-microsystems.com/scn/2010/10/01\">"),
            )],
            "Leica SCN",
        ),
        (
            "d.tif",
            vec![(305, text("Philips DP v1.0"))],
            "Philips TIFF",
        ),
        ("e.tif", vec![(305, text("MedScan"))], "Trestle"),
    ];
    for (name, tags, maker) in cases {
        let path = folder.path().join(name);
        tiff(&path, tags);
        let (all, log) = openers(&[("other", 50, true)]);
        let (_, choice) = open_and_tell(&path, &options(all)).unwrap();
        assert_eq!(
            (choice.reader.as_str(), log.lock().unwrap().len()),
            ("other", 1),
            "{name}"
        );
        assert!(choice.native.unwrap().what.contains(maker), "{name}");
    }
    let path = folder.path().join("turned.tif");
    tiff(&path, vec![(274, Value::Short(vec![6]))]);
    let (all, log) = openers(&[("other", 50, true)]);
    let Err(error) = open(&path, &options(all)) else {
        panic!("it opened")
    };
    assert_eq!(
        (error.fault, log.lock().unwrap().len()),
        (Fault::Unfit, 0),
        "{error}"
    );
}

#[test]
fn folders_are_searched_for_the_endings_of_further_readers() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one.svs", "two.MRXS", "three.txt"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    let found = |kind: &Files| {
        let entries = files(&[".".into()], folder.path(), kind).unwrap();
        entries
            .into_iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&Files::SLIDES), ["one"]);
    let more = Files::SLIDES.and(&["mrxs".into(), "svs".into()]);
    assert_eq!(found(&more), ["one", "two"]);
    // A manifest names such a slide by its stem.
    std::fs::write(folder.path().join("list.csv"), "slide\ntwo\n").unwrap();
    let entries = files(&["list.csv".into()], folder.path(), &more).unwrap();
    assert_eq!(entries[0].path.file_name().unwrap(), "two.MRXS");
}
