//! `heatmap-sink`: a picture of a slide's scores and attention.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use weir_model::file::Whole;
use weir_pipeline::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema, StateArgs, StateBytes,
};
use weir_record::{Body, Event, Key, Prediction, SlideId, SlideInfo};
use weir_runtime::stage::{
    Completed, OpenSlides, Prepare, Prepared, Sink, StageError, StageType, TileReader,
};

use crate::folder;
use crate::heatmap_picture::{self, Picture, Scene, Style};
use crate::palette::Palette;
use crate::tiles::{self, Classes, OpenTiles, Tiles, Verdict};
use crate::tiles_sink::{ATTENTION, SCORES};
use crate::writers::{Writers, cannot_write, remove};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "heatmap-sink",
    summary: "writes heatmap.png for each slide: tissue, scores and attention side by side",
    doc: "Writes `OUT/SLIDE/heatmap.png`: the slide with its selected tiles outlined, the scores of all tiles, and the \
          attention weights of the selected ones, each tile at its true place and size; with legends, a scale bar in um, and \
          hatched squares where a tile could not be read. Where tiles overlap, the mean is shown. A slide that failed or has \
          no tissue has no picture.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "max-side",
            kind: ParamKind::Integer {
                min: 200,
                max: 4000,
            },
            default: Some("800"),
            required: false,
            doc: "Longest side of each of the three pictures, px",
        },
        Param {
            name: "palette",
            kind: ParamKind::Choice(&["viridis", "inferno", "magma", "cividis"]),
            default: Some("\"viridis\""),
            required: false,
            doc: "Colours of the scores; all are perceptually uniform",
        },
        Param {
            name: "alpha",
            kind: ParamKind::Float { min: 0.1, max: 1.0 },
            default: Some("0.75"),
            required: false,
            doc: "How much of the tissue the colours cover, from 0.1 to 1 (all of it)",
        },
    ],
    ins: &[
        SCORES,
        ATTENTION,
        Port {
            name: "predictions",
            kind: Kind::Predictions,
            shape: &[Dim::Same("predicted classes")],
            mpp: None,
            many: false,
            optional: true,
            doc: "Predictions of slides, for the title",
        },
    ],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
    example: "[stage.heatmap]\nuse = \"heatmap-sink\"\nin = { scores = \"score\", attention = \"pool.attention\", predictions = \"classify\" }\n",
};

/// The stage with its code.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

/// The tiles and the picture.
fn state_bytes(args: &StateArgs) -> u64 {
    let side = args.values.integer("max-side").unwrap_or(800);
    args.tiles * tiles::BYTES + heatmap_picture::bytes(side.unsigned_abs())
}

const FILE: &str = "heatmap.png";

const PREDICTIONS: usize = 2;

/// What the sinks of all workers share.
struct Setting {
    stage: String,
    out: PathBuf,
    style: Style,
    positive: Option<String>,
    open: Arc<OpenSlides>,
    writers: Arc<Writers>,
}

/// All that a picture needs, apart from the sink, so that it can be painted on a thread of its own.
struct Job {
    setting: Arc<Setting>,
    slide: SlideId,
    path: PathBuf,
    tiles: Tiles,
    prediction: Option<Arc<Prediction>>,
    reader: Option<Arc<dyn TileReader>>,
}

impl Job {
    fn run(self) -> Result<(), StageError> {
        let painted = self.paint();
        let file = painted.is_ok().then_some(Some(FILE));
        self.setting
            .writers
            .wrote(self.slide, &self.setting.stage, file)?;
        painted
    }

    fn paint(&self) -> Result<(), StageError> {
        let overview = match &self.reader {
            Some(reader) => reader
                .overview(self.setting.style.max_side)
                .map_err(|error| error.to_string()),
            None => Err("the slide is no longer open".into()),
        };
        let scene = Scene {
            tiles: &self.tiles,
            overview,
            prediction: self.prediction.as_deref(),
            positive: self.setting.positive.as_deref(),
        };
        let picture = heatmap_picture::paint(&scene, &self.setting.style)?;
        write_png(&self.path, &picture).map_err(|error| cannot_write(&self.path, &error))
    }
}

fn write_png(path: &Path, picture: &Picture) -> io::Result<()> {
    let mut whole = Whole::create(path)?;
    let mut png = png::Encoder::new(&mut whole, picture.width, picture.height);
    png.set_color(png::ColorType::Rgb);
    png.set_depth(png::BitDepth::Eight);
    png.add_text_chunk("Software".into(), "weir".into())?;
    png.add_text_chunk(
        "Warning".into(),
        "Research software, not a medical device".into(),
    )?;
    let mut writer = png.write_header()?;
    writer.write_image_data(&picture.pixels)?;
    writer.finish()?;
    whole.finish()
}

/// A worker's sink. One picture at a time is painted, beside the worker: the next one waits for it.
struct Heatmap {
    setting: Arc<Setting>,
    tiles: OpenTiles,
    predictions: HashMap<SlideId, Arc<Prediction>>,
    painting: Option<JoinHandle<Result<(), StageError>>>,
}

impl Heatmap {
    fn wait(&mut self) -> Result<(), StageError> {
        match self.painting.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(painted)) => painted,
            Some(Err(_)) => Err(StageError::new(
                "a picture could not be painted: its thread panicked",
                "this is a fault of weir: report it",
            )),
        }
    }

    fn start(&mut self, job: Job) -> Result<(), StageError> {
        let before = self.wait();
        let thread = std::thread::Builder::new().name("heatmap".into());
        self.painting = Some(thread.spawn(move || job.run()).map_err(|error| {
            StageError::new(
                format!("no thread for a picture: {error}"),
                "the system has too many threads; run fewer things at once",
            )
        })?);
        before
    }
}

impl Sink for Heatmap {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        self.tiles.opened(slide, info);
        Ok(())
    }

    fn row(&mut self, port: usize, key: Key, body: Body) -> Result<(), StageError> {
        match body {
            Body::Prediction(prediction) => {
                self.predictions.insert(key.slide, prediction);
            }
            _ if port == PREDICTIONS => {
                self.predictions.remove(&key.slide);
            }
            body => self.tiles.row(port, key, &body),
        }
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        self.tiles.event(slide, event);
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        let Some(tiles) = self.tiles.get(slide) else {
            return Ok(());
        };
        let setting = &self.setting;
        match tiles.verdict(done) {
            Verdict::Skipped => Ok(()),
            Verdict::Interrupted => setting.writers.wrote(slide, &setting.stage, None),
            verdict => {
                let path = folder::of(&setting.out, &tiles.info.id)?.join(FILE);
                if verdict == Verdict::Remove || tiles.scores.is_empty() {
                    let removed = remove(&path);
                    let file = removed.is_ok().then_some(None);
                    setting.writers.wrote(slide, &setting.stage, file)?;
                    return removed;
                }
                let job = Job {
                    setting: setting.clone(),
                    slide,
                    path,
                    tiles: tiles.clone(),
                    prediction: self.predictions.get(&slide).cloned(),
                    reader: setting.open.get(slide),
                };
                self.start(job)
            }
        }
    }

    fn closed(&mut self, slide: SlideId) {
        self.tiles.closed(slide);
        self.predictions.remove(&slide);
    }

    fn finish(&mut self) -> Result<(), StageError> {
        self.wait()
    }
}

/// Makes it ready for a run.
fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let writers = cx.shared.get::<Writers>();
    writers.enlist(&cx.node.name, FILE)?;
    let values = cx.values();
    let palette = values.text("palette")?;
    let setting = Arc::new(Setting {
        stage: cx.node.name.clone(),
        out: cx.out(),
        style: Style {
            max_side: values.integer("max-side")?.clamp(1, 4000) as u32,
            palette: Palette::named(palette).ok_or_else(|| {
                StageError::new(
                    format!("no palette is called `{palette}`"),
                    "this is a fault of the stage's schema: report it",
                )
            })?,
            alpha: values.float("alpha")? as f32,
        },
        positive: Classes::upstream(cx, tiles::SCORES).positive,
        open: cx.shared.get::<OpenSlides>(),
        writers,
    });
    Ok(Prepared::Sink(Arc::new(move || {
        Box::new(Heatmap {
            setting: setting.clone(),
            tiles: OpenTiles::default(),
            predictions: HashMap::new(),
            painting: None,
        })
    })))
}
