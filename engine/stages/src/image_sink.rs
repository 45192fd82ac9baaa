//! `image-sink`: pixels of tiles as pictures, to look at or to train on.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_model::file::Whole;
use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema, StateArgs, StateBytes};
use weir_record::{Body, End, Event, Key, SlideId, SlideInfo, TileBuf, TileId};
use weir_runtime::stage::{Completed, Prepare, Prepared, Sink, StageError, StageType};

use crate::folder;
use crate::writers::{Writers, cannot_write, remove};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "image-sink",
    summary: "writes each tile that it gets as a PNG; meant for selected tiles",
    doc: "Writes `OUT/SLIDE/tiles/X_Y.png` for each tile, X and Y its left and top edge in level-0 px (with `gG_` and `pP_` \
          ahead for other grids and planes than the first), exactly the pixels that reached the sink, without loss. Each \
          picture is synced to disk, so this is for what top-k selects, not for all tiles of a slide. What an earlier run \
          left there and this one does not select is removed.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(3.0)],
        mpp: Some(Dim::Same("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of tiles",
    }],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
    example: "[stage.images]\nuse = \"image-sink\"\nin = \"chosen\"\n",
};

/// The stage with its code.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

/// The tiles' names; pixels are written as they come.
fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * 16
}

/// The folder of the pictures in the slide's.
const FOLDER: &str = "tiles";

fn file_name(tile: TileId) -> String {
    let mut name = String::new();
    if tile.grid() != 0 {
        name += &format!("g{}_", tile.grid());
    }
    if tile.plane() != 0 {
        name += &format!("p{}_", tile.plane());
    }
    format!("{name}{}_{}.png", tile.x(), tile.y())
}

fn write_png(path: &Path, pixels: &TileBuf) -> io::Result<()> {
    let mut whole = Whole::create(path)?;
    let mut png = png::Encoder::new(&mut whole, pixels.width(), pixels.height());
    png.set_color(png::ColorType::Rgb);
    png.set_depth(png::BitDepth::Eight);
    let mut writer = png.write_header()?;
    writer.write_image_data(pixels.pixels())?;
    writer.finish()?;
    whole.finish()
}

struct Images {
    stage: String,
    out: PathBuf,
    writers: Arc<Writers>,
    slides: HashMap<SlideId, Slide>,
}

struct Slide {
    folder: PathBuf,
    written: BTreeSet<TileId>,
    failed: bool,
    skipped: bool,
    /// A picture could not be written.
    missing: bool,
}

impl Slide {
    /// Removes the pictures that do not belong to this run.
    fn tidy(&self) -> Result<(), StageError> {
        let keep: BTreeSet<String> = self.written.iter().map(|tile| file_name(*tile)).collect();
        let Ok(entries) = fs::read_dir(&self.folder) else {
            // Nothing was selected, now or before.
            return Ok(());
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str());
            let ours = path.extension().is_some_and(|end| end == "png");
            if ours && name.is_none_or(|name| self.failed || !keep.contains(name)) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Sink for Images {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        let folder = folder::of(&self.out, &info.id)?.join(FOLDER);
        let known = Slide {
            folder,
            written: BTreeSet::new(),
            failed: false,
            skipped: false,
            missing: false,
        };
        self.slides.insert(slide, known);
        Ok(())
    }

    fn row(&mut self, _: usize, key: Key, body: Body) -> Result<(), StageError> {
        let Some(slide) = self.slides.get_mut(&key.slide) else {
            return Ok(());
        };
        let path = slide.folder.join(file_name(key.tile));
        if let Body::Pixels(pixels) = body {
            slide.written.insert(key.tile);
            return write_png(&path, &pixels).map_err(|error| {
                slide.missing = true;
                cannot_write(&path, &error)
            });
        }
        if slide.written.remove(&key.tile) {
            remove(&path)?;
        }
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        if let Some(slide) = self.slides.get_mut(&slide) {
            slide.failed |= matches!(event, Event::SlideFailed(_));
            slide.skipped |= matches!(event, Event::Skipped { .. });
        }
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        let Some(known) = self.slides.get(&slide).filter(|known| !known.skipped) else {
            return Ok(());
        };
        let stopped = done.iter().any(|port| port.end == Some(End::Aborted)) && !known.failed;
        let tidied = if stopped { Ok(()) } else { known.tidy() };
        let whole = !stopped && !known.missing && tidied.is_ok();
        let there = known.folder.is_dir().then_some(FOLDER);
        self.writers
            .wrote(slide, &self.stage, whole.then_some(there))?;
        tidied
    }

    fn closed(&mut self, slide: SlideId) {
        self.slides.remove(&slide);
    }
}

/// Makes it ready for a run.
fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let writers = cx.shared.get::<Writers>();
    writers.enlist(&cx.node.name, FOLDER)?;
    let (stage, out) = (cx.node.name.clone(), cx.out());
    Ok(Prepared::Sink(Arc::new(move || {
        Box::new(Images {
            stage: stage.clone(),
            out: out.clone(),
            writers: writers.clone(),
            slides: HashMap::new(),
        })
    })))
}
