//! `tile-reader`: slides to tiles at an exact resolution.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_pipeline::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, RunSettings, Schema, StateArgs,
    ValueError, Values,
};
use weir_record::id::mix;
use weir_record::ledger::check;
use weir_record::{Body, End, Failure, Seal, Skip, SlideInfo, SlideKey, TileId};
use weir_runtime::stage::{
    OpenedSlide, Overview, Prepare, Prepared, ReadError, Script, SlideRef, Source, StageError,
    StageType, Step, TileReader,
};
use weir_slide::{
    Edge, Fault, InputError, OpenOptions, SlideEntry, SlideError, SlideReader, TileCache, Tiling,
    TissueMask, input,
};

/// `tile-reader`.
pub const SCHEMA: Schema = Schema {
    name: "tile-reader",
    summary: "Reads slides as tiles of one size at one resolution",
    doc: "Opens the slides that `slides` names (files, folders, patterns, manifests), lays a grid over each, leaves out places \
without tissue, and sends the tiles' pixels. A tile has `size` x `size` px at exactly `mpp` um/px, whatever levels the slide \
has: the coarsest level that is fine enough is read, and each pixel is the mean over its own area.

The size of a slide's pixel comes from the first that speaks: `slide-mpp` or the manifest, the vendor's key, the TIFF resolution, \
the objective's power, `run.default-mpp`. A slide that nobody speaks for is not read, nor is one whose pixel cannot be.

A tile that cannot be read is counted as failed, never replaced. A slide without tissue is a legal, empty result.",
    rows: Rows::Source,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "slides",
            kind: ParamKind::Slides,
            default: None,
            required: true,
            doc: "Slides: files, folders, patterns with `*`, or manifests (CSV with the columns slide, label, split, patient, mpp)",
        },
        Param {
            name: "size",
            kind: ParamKind::Integer { min: 8, max: 8192 },
            default: None,
            required: true,
            doc: "Width and height of a tile, px at `mpp`",
        },
        Param {
            name: "mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 200.0,
            },
            default: None,
            required: true,
            doc: "Resolution of a tile's pixels, um/px",
        },
        Param {
            name: "overlap",
            kind: ParamKind::Integer { min: 0, max: 8191 },
            default: Some("0"),
            required: false,
            doc: "Pixels that neighbouring tiles share, px at `mpp`; less than `size`",
        },
        Param {
            name: "edge",
            kind: ParamKind::Choice(&["pad", "drop"]),
            default: Some("\"pad\""),
            required: false,
            doc: "Tiles that reach over the slide's right or lower edge: `pad` keeps them, white outside of the slide; `drop` leaves them out",
        },
        Param {
            name: "tissue",
            kind: ParamKind::Choice(&["otsu", "none"]),
            default: Some("\"otsu\""),
            required: false,
            doc: "Which places are tiles: `otsu` those with tissue, by a threshold on the saturation of an overview; `none` all",
        },
        Param {
            name: "tissue-min",
            kind: ParamKind::Float { min: 0.0, max: 1.0 },
            default: Some("0.25"),
            required: false,
            doc: "Part of a tile, 0 to 1, that must be tissue",
        },
        Param {
            name: "slide-mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 20.0,
            },
            default: None,
            required: false,
            doc: "Size of a level-0 pixel of every slide that the manifest says nothing of, um/px; believed rather than the file",
        },
        Param {
            name: "half-size",
            kind: ParamKind::Boolean,
            default: Some("false"),
            required: false,
            doc: "Decode JPEG straight to half the size where no level fits: faster, but pixels differ a little from the mean of four",
        },
        Param {
            name: "order",
            kind: ParamKind::Choice(&["file", "rows", "random"]),
            default: Some("\"file\""),
            required: false,
            doc: "Order in which tiles are read: `file` decodes each native tile once, `rows` goes row by row, `random` follows run.seed; it never changes an answer",
        },
    ],
    ins: &[],
    outs: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[Dim::Param("size"), Dim::Param("size"), Dim::Fixed(3.0)],
        mpp: Some(Dim::Param("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of each tile",
    }],
    state_bytes,
    example: "[stage.tiles]
use = \"tile-reader\"
slides = [\"slides/*.svs\"]
size = 224
mpp = 0.5
",
};

/// The list of the tiles that are still to be read.
fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * 8
}

// ------------------------------------------------------------------------------------------------------- parameters

/// How slides become tiles.
#[derive(Clone, Debug)]
struct Settings {
    size: u32,
    mpp: f64,
    overlap: u32,
    edge: Edge,
    /// Least part of a tile that must be tissue; `None` takes all places.
    tissue: Option<f64>,
    slide_mpp: Option<f64>,
    default_mpp: Option<f64>,
    half_size: bool,
    order: Order,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    File,
    Rows,
    Random,
}

impl Settings {
    fn new(values: &Values, run: &RunSettings) -> Result<Self, ValueError> {
        let px = |name: &str| -> Result<u32, ValueError> {
            Ok(values.integer(name)?.clamp(0, u32::MAX as i64) as u32)
        };
        Ok(Settings {
            size: px("size")?,
            mpp: values.float("mpp")?,
            overlap: px("overlap")?,
            edge: match values.text("edge")? {
                "drop" => Edge::Drop,
                _ => Edge::Pad,
            },
            tissue: match values.text("tissue")? {
                "none" => None,
                _ => Some(values.float("tissue-min")?),
            },
            slide_mpp: match values.has("slide-mpp") {
                true => Some(values.float("slide-mpp")?),
                false => None,
            },
            default_mpp: run.default_mpp,
            half_size: values.boolean("half-size")?,
            order: match values.text("order")? {
                "rows" => Order::Rows,
                "random" => Order::Random,
                _ => Order::File,
            },
            seed: run.seed,
        })
    }
}

// ---------------------------------------------------------------------------------------------------- pure function

/// The tiles of a slide, in the order in which they are read.
#[derive(Debug)]
struct Sheet {
    tiling: Tiling,
    tiles: Vec<TileId>,
    /// Places that the mask left out.
    background: u64,
}

/// Lays the grid and takes the places with tissue. `cache` bytes of decoded native tiles are there while the slide is read.
fn enumerate(
    slide: &dyn SlideReader,
    settings: &Settings,
    key: SlideKey,
    cache: usize,
) -> Result<Sheet, SlideError> {
    let facts = slide.facts();
    let tiling = Tiling::new(
        facts,
        settings.size,
        settings.mpp,
        settings.overlap,
        settings.edge,
    )?;
    if tiling.is_empty() {
        let what = format!(
            "no tile fits: the slide has {} x {} px, a tile covers {} px of it",
            facts.width(),
            facts.height(),
            tiling.grid.footprint
        );
        let help = "set edge = \"pad\", or a smaller size";
        return Err(SlideError::new(Fault::Request, &facts.path, what, help));
    }
    let mut tiles = match settings.tissue {
        None => tiling.tiles().collect(),
        Some(least) => TissueMask::of(slide)?.keep(&tiling, least),
    };
    match settings.order {
        Order::File => tiling.file_order(&mut tiles, facts, cache),
        Order::Rows => {}
        Order::Random => {
            let seed = mix(settings.seed ^ key.0);
            tiles.sort_by_key(|tile| mix(tile.word() ^ seed));
        }
    }
    let background = tiling.len() - tiles.len() as u64;
    Ok(Sheet {
        tiling,
        tiles,
        background,
    })
}

/// Sends a slide's tiles once: the seal first, since their number is known before the first is read.
struct Once {
    stage: Arc<str>,
    px: u32,
    seal: Option<Seal>,
    tiles: std::vec::IntoIter<TileId>,
    /// The seal of the generation that says: stopped.
    aborts: Option<Seal>,
    stopped: bool,
    done: bool,
}

const ABORTED: Seal = Seal {
    n: 0,
    check: 0,
    last: Some(End::Aborted),
};

impl Once {
    fn new(stage: Arc<str>, px: u32, tiles: Vec<TileId>) -> Self {
        let sum = tiles
            .iter()
            .fold(0u64, |sum, tile| sum.wrapping_add(check(*tile, 0)));
        Once {
            stage,
            px,
            seal: Some(Seal {
                n: tiles.len() as u64,
                check: sum,
                last: Some(End::Complete),
            }),
            tiles: tiles.into_iter(),
            aborts: None,
            stopped: false,
            done: false,
        }
    }
}

impl Script for Once {
    fn next(&mut self) -> Step {
        if let Some(seal) = self.seal.take() {
            return Step::Seal { rev: 0, seal };
        }
        // Ahead of what is left of generation 0, so that nothing takes that for the end.
        if let Some(seal) = self.aborts.take() {
            return Step::Seal { rev: 1, seal };
        }
        match self.tiles.next() {
            None => {
                self.done = true;
                Step::Done
            }
            Some(tile) if self.stopped => Step::Outcome {
                tile,
                rev: 0,
                body: Body::Skip(Skip::Dropped {
                    stage: self.stage.clone(),
                    reason: "the run was stopped".into(),
                }),
            },
            Some(tile) => Step::Tile {
                tile,
                rev: 0,
                width: self.px,
                height: self.px,
            },
        }
    }

    fn stop(&mut self) {
        if self.done || self.stopped {
            return;
        }
        self.stopped = true;
        match &mut self.seal {
            // Nothing was said of any tile yet.
            Some(seal) => {
                *seal = ABORTED;
                self.tiles = Vec::new().into_iter();
            }
            None => self.aborts = Some(ABORTED),
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- glue

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let settings = Settings::new(cx.values(), cx.run())?;
    if settings.overlap >= settings.size {
        return Err(StageError::new(
            format!(
                "tiles of {} px cannot share {} px",
                settings.size, settings.overlap
            ),
            "set overlap to less than size",
        ));
    }
    let entries = entries(cx.values().texts("slides")?)?;
    let slides = entries
        .iter()
        .map(|entry| SlideRef {
            id: entry.id.clone(),
            key: entry.key(),
            path: entry.path.display().to_string(),
        })
        .collect();
    Ok(Prepared::Source(Arc::new(Slides {
        stage: cx.node.name.as_str().into(),
        settings,
        slides,
        entries: entries
            .into_iter()
            .map(|entry| (entry.id.clone(), entry))
            .collect(),
        cache: TileCache::new(cx.budget),
        open_slides: cx.run().open_slides.max(1),
    })))
}

/// The slides that `inputs` name, sorted by id; their paths stand as they were written.
fn entries(inputs: &[String]) -> Result<Vec<SlideEntry>, StageError> {
    let here = Path::new(".");
    let mut entries = input::slides(inputs, here).map_err(|errors| refused(&errors))?;
    for entry in &mut entries {
        let plain: Option<PathBuf> = entry.path.strip_prefix(here).map(Path::to_path_buf).ok();
        entry.path = plain.unwrap_or_else(|| entry.path.clone());
    }
    Ok(entries)
}

fn refused(errors: &[InputError]) -> StageError {
    match errors {
        [one] => StageError::new(format!("{}: {}", one.place, one.what), one.help.clone()),
        several => {
            let lines: Vec<String> = several.iter().map(|error| format!("\n  {error}")).collect();
            StageError::new(
                format!(
                    "{} of the slides cannot be taken:{}",
                    several.len(),
                    lines.concat()
                ),
                "",
            )
        }
    }
}

/// The slides of a run.
struct Slides {
    stage: Arc<str>,
    settings: Settings,
    slides: Vec<SlideRef>,
    entries: HashMap<String, SlideEntry>,
    cache: TileCache,
    open_slides: usize,
}

impl Slides {
    fn failure(&self, slide: &SlideRef, error: SlideError) -> Failure {
        Failure {
            stage: self.stage.to_string(),
            slide: slide.id.clone(),
            tile: None,
            what: error.what_and_where(),
            help: error.help,
        }
    }
}

impl Source for Slides {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let fail = |error| self.failure(slide, error);
        let Some(entry) = self.entries.get(&slide.id) else {
            let what = "is not in the list of slides";
            let help = "this is a fault of weir: please report it";
            return Err(fail(SlideError::new(
                Fault::Request,
                &slide.path,
                what,
                help,
            )));
        };
        let options = OpenOptions {
            mpp: entry.mpp.or(self.settings.slide_mpp),
            default_mpp: self.settings.default_mpp,
            cache: Some(self.cache.clone()),
            half_size_decode: self.settings.half_size,
            ..OpenOptions::default()
        };
        let reader = weir_slide::open(&entry.path, &options).map_err(fail)?;
        let cache = self.cache.bytes() / self.open_slides;
        let sheet = enumerate(reader.as_ref(), &self.settings, slide.key, cache).map_err(fail)?;
        let info = info(slide, entry, reader.as_ref(), &sheet);
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Once::new(
                self.stage.clone(),
                sheet.tiling.grid.px,
                sheet.tiles,
            )),
            reader: Arc::new(Pixels {
                slide: reader,
                tiling: sheet.tiling,
            }),
        })
    }
}

fn info(
    slide: &SlideRef,
    entry: &SlideEntry,
    reader: &dyn SlideReader,
    sheet: &Sheet,
) -> SlideInfo {
    let facts = reader.facts();
    let half_size = if facts.half_size_decode {
        ", half-size decoding"
    } else {
        ""
    };
    SlideInfo {
        id: slide.id.clone(),
        key: slide.key,
        path: slide.path.clone(),
        width: facts.width(),
        height: facts.height(),
        mpp: facts.mpp,
        reader: format!("{}{half_size}", facts.reader),
        patient: entry.patient.clone(),
        label: entry.label.clone(),
        split: entry.split.clone(),
        grids: vec![sheet.tiling.grid],
        tiles: sheet.tiles.len() as u64,
        background: sheet.background,
        input: Some(facts.input),
    }
}

/// A slide's tiles; a file has one revision of them.
struct Pixels {
    slide: Arc<dyn SlideReader>,
    tiling: Tiling,
}

fn damaged(error: SlideError) -> ReadError {
    let what = error.what_and_where();
    ReadError::Damaged(if error.help.is_empty() {
        what
    } else {
        format!("{what}; {}", error.help)
    })
}

impl TileReader for Pixels {
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError> {
        let px = self.tiling.grid.px;
        self.slide
            .read(self.tiling.region(tile), rev, px, px, into)
            .map_err(damaged)
    }

    fn overview(&self, max_side: u32) -> Result<Overview, ReadError> {
        let picture = self.slide.thumbnail(max_side).map_err(damaged)?;
        Ok(Overview {
            width: picture.width,
            height: picture.height,
            pixels: picture.pixels,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use weir_record::{Kind, Ledger};

    fn tiles(n: u32) -> Vec<TileId> {
        (0..n)
            .map(|i| TileId::new(0, 0, i as i64 % 7 * 50, i as i64 / 7 * 50).unwrap())
            .collect()
    }

    proptest! {
        /// Stopped after any number of steps, every version that a seal spoke of has one outcome and the slide ends aborted;
        /// not stopped, or stopped when all was said, it ends complete.
        #[test]
        fn a_stop_leaves_no_version_without_an_outcome(n in 0u32..40, steps in 0usize..60) {
            let mut script = Once::new("tiles".into(), 50, tiles(n));
            let mut ledger = Ledger::default();
            let (mut over, mut stopped_in_time) = (false, false);
            for step in 0.. {
                if step == steps && !over {
                    script.stop();
                    stopped_in_time = true;
                }
                match script.next() {
                    Step::Tile { tile, rev, .. } => {
                        prop_assert!(!stopped_in_time, "a tile after the stop");
                        ledger.outcome(rev, tile, Kind::Value).unwrap();
                    }
                    Step::Outcome { tile, rev, body } => {
                        ledger.outcome(rev, tile, Kind::of(&body).unwrap()).unwrap();
                    }
                    Step::Seal { rev, seal } => ledger.seal(rev, seal).unwrap(),
                    Step::Done => {
                        over = true;
                        if step >= steps {
                            break;
                        }
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let end = if stopped_in_time { End::Aborted } else { End::Complete };
            prop_assert_eq!(ledger.ended(), Some(end));
        }
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures")
            .join(name)
    }

    fn settings() -> Settings {
        Settings {
            size: 50,
            mpp: 4.0,
            overlap: 0,
            edge: Edge::Pad,
            tissue: Some(0.25),
            slide_mpp: None,
            default_mpp: None,
            half_size: false,
            order: Order::File,
            seed: 0,
        }
    }

    #[test]
    fn every_order_reads_the_same_tiles() {
        let slide =
            weir_slide::open(&fixture("slide-14082.tiff"), &OpenOptions::default()).unwrap();
        let sheet = |order| {
            let settings = Settings {
                order,
                ..settings()
            };
            enumerate(slide.as_ref(), &settings, SlideKey(7), 1 << 20).unwrap()
        };
        let (file, rows, random) = (sheet(Order::File), sheet(Order::Rows), sheet(Order::Random));
        assert_eq!(file.background + file.tiles.len() as u64, 60 * 51);
        assert!(file.tiles.len() > 450 && file.background > 2000);
        assert_ne!(random.tiles, rows.tiles);
        let sorted = |mut tiles: Vec<TileId>| {
            tiles.sort();
            tiles
        };
        let rows = sorted(rows.tiles);
        assert_eq!(sorted(file.tiles), rows);
        assert_eq!(sorted(random.tiles), rows);
    }

    #[test]
    fn a_slide_smaller_than_a_tile_says_what_to_do() {
        let slide =
            weir_slide::open(&fixture("slide-14082.tiff"), &OpenOptions::default()).unwrap();
        let settings = Settings {
            size: 4096,
            edge: Edge::Drop,
            ..settings()
        };
        let error = enumerate(slide.as_ref(), &settings, SlideKey(7), 1 << 20).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no tile fits: the slide has 3000 x 2550 px"),
            "{text}"
        );
        assert!(text.contains("edge = \"pad\""), "{text}");
    }

    #[test]
    fn two_slides_of_one_name_are_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let mut inputs = Vec::new();
        for part in ["a", "b"] {
            let place = folder.path().join(part);
            std::fs::create_dir(&place).unwrap();
            std::fs::copy(fixture("slide-14082.tiff"), place.join("s.tiff")).unwrap();
            inputs.push(place.join("s.tiff").display().to_string());
        }
        let error = entries(&inputs).unwrap_err();
        assert!(error.what.contains("two slides have the id `s`"), "{error}");
        assert!(error.help.contains("manifest"), "{error}");
        inputs.push("no-such-file.svs".into());
        let error = entries(&inputs).unwrap_err();
        assert!(
            error.what.starts_with("2 of the slides cannot be taken"),
            "{error}"
        );
    }
}
