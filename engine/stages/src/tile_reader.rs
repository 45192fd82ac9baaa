//! `tile-reader`: slides to tiles at an exact resolution.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use weir_pipeline::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, RunSettings, Schema, StateArgs,
    StateBytes, ValueError, Values,
};
use weir_record::id::mix;
use weir_record::{Budget, Failure, SlideInfo, SlideKey, TileId};
use weir_runtime::stage::{
    OpenedSlide, Overview, Prepare, Prepared, ReadError, SlideRef, Source, StageError, StageType,
    TileReader,
};
use weir_slide::input::Files;
use weir_slide::{
    Edge, Fault, OpenOptions, Openers, SlideEntry, SlideError, SlideReader, TileCache, Tiling,
    TissueMask,
};

use crate::done::Earlier;
use crate::inputs::entries;
use crate::tile_script::{Once, Sends};

/// `tile-reader`.
pub const SCHEMA: Schema = Schema {
    name: "tile-reader",
    summary: "Reads slides as tiles of one size at one resolution",
    doc: "Opens the slides that `slides` names (files, folders, patterns, manifests), lays a grid over each, leaves out places \
without tissue, and sends the tiles' pixels. A tile has `size` x `size` px at exactly `mpp` um/px, whatever levels the slide \
has: the coarsest level that is fine enough is read, and each pixel is the mean over its own area.

The size of a slide's pixel comes from the first that speaks: `slide-mpp` or the manifest, the vendor's key, the TIFF resolution, \
the objective's power, `run.default-mpp`. A slide that nobody speaks for is not read, nor is one whose pixel cannot be.

A tile that cannot be read is counted as failed, never replaced. A slide without tissue is a legal, empty result.

`run.timeout` is for slide readers of plugins: how long one may take to look at a slide, to open it or to read a region, 60 s by default. One that is isolated is ended then; of another the log says which slide it is at.",
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
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
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
    tiles: Vec<TileId>,
    /// Places that the mask left out.
    background: u64,
}

/// Lays the grid; a slide that no tile fits on is refused.
fn lay(slide: &dyn SlideReader, settings: &Settings) -> Result<Tiling, SlideError> {
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
    Ok(tiling)
}

/// Takes the places with tissue. `cache` bytes of decoded native tiles are there while the slide is read.
fn enumerate(
    slide: &dyn SlideReader,
    tiling: Tiling,
    settings: &Settings,
    key: SlideKey,
    cache: usize,
) -> Result<Sheet, SlideError> {
    let mut tiles = match settings.tissue {
        None => tiling.tiles().collect(),
        Some(least) => TissueMask::of(slide)?.keep(&tiling, least),
    };
    match settings.order {
        Order::File => tiling.file_order(&mut tiles, slide.facts(), cache),
        Order::Rows => {}
        Order::Random => {
            let seed = mix(settings.seed ^ key.0);
            tiles.sort_by_key(|tile| mix(tile.word() ^ seed));
        }
    }
    let background = tiling.len() - tiles.len() as u64;
    Ok(Sheet { tiles, background })
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
    let openers = cx.shared.get::<Openers>();
    let files = Files::SLIDES.and(&openers.extensions());
    let entries = entries(cx.values().texts("slides")?, &files)?;
    let slides = entries
        .iter()
        .map(|entry| SlideRef {
            id: entry.id.clone(),
            key: entry.key(),
            path: entry.path.display().to_string(),
        })
        .collect();
    Ok(Prepared::Source(Arc::new(Slides {
        earlier: Earlier::new(cx),
        stage: cx.node.name.as_str().into(),
        settings,
        slides,
        entries: entries
            .into_iter()
            .map(|entry| (entry.id.clone(), entry))
            .collect(),
        cache: TileCache::new(cx.budget),
        timeout: cx.node.run.timeout,
        budget: cx.budget.clone(),
        openers: Openers::clone(&openers),
        open_slides: cx.run().open_slides.max(1),
    })))
}

/// The slides of a run.
struct Slides {
    stage: Arc<str>,
    settings: Settings,
    slides: Vec<SlideRef>,
    entries: HashMap<String, SlideEntry>,
    cache: TileCache,
    /// Of the stage: how long a plugin's reader may take for a region.
    timeout: Option<Duration>,
    budget: Budget,
    /// Readers of the run's plugins, for what the native reader declines.
    openers: Openers,
    open_slides: usize,
    earlier: Earlier,
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
            openers: self.openers.clone(),
            timeout: self.timeout,
            budget: Some(self.budget.clone()),
            ..OpenOptions::default()
        };
        let reader = weir_slide::open(&entry.path, &options).map_err(fail)?;
        let tiling = lay(reader.as_ref(), &self.settings).map_err(fail)?;
        let pixels = Pixels {
            slide: reader,
            tiling,
        };
        let reader = pixels.slide.as_ref();
        let mut info = info(slide, entry, reader, &tiling);
        let script = match self.earlier.find(&info) {
            Some(earlier) => {
                info.tiles = earlier.tiles;
                info.background = earlier.background;
                Once::skipped(earlier.news())
            }
            None => {
                let cache = self.cache.bytes() / self.open_slides;
                let sheet =
                    enumerate(reader, tiling, &self.settings, slide.key, cache).map_err(fail)?;
                info.tiles = sheet.tiles.len() as u64;
                info.background = sheet.background;
                {
                    let what = Sends::Pixels(tiling.grid.px);
                    Once::new(self.stage.clone(), what, sheet.tiles)
                }
            }
        };
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(script),
            reader: Arc::new(pixels),
        })
    }
}

/// What is known before the tiles are.
fn info(
    slide: &SlideRef,
    entry: &SlideEntry,
    reader: &dyn SlideReader,
    tiling: &Tiling,
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
        grids: vec![tiling.grid],
        tiles: 0,
        background: 0,
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
    use std::path::{Path, PathBuf};

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
            let tiling = lay(slide.as_ref(), &settings).unwrap();
            enumerate(slide.as_ref(), tiling, &settings, SlideKey(7), 1 << 20).unwrap()
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
        let error = lay(slide.as_ref(), &settings).unwrap_err();
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
        let error = entries(&inputs, &Files::SLIDES).unwrap_err();
        assert!(error.what.contains("two slides have the id `s`"), "{error}");
        assert!(error.help.contains("manifest"), "{error}");
        inputs.push("no-such-file.svs".into());
        let error = entries(&inputs, &Files::SLIDES).unwrap_err();
        assert!(
            error.what.starts_with("2 of the slides cannot be taken"),
            "{error}"
        );
    }
}
