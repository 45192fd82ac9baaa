//! `predictions-sink`: a slide's prediction, as a file of its own and in the tables of the run.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use weir_model::file;
use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema};
use weir_record::{
    Bag, BagFlags, Body, Coverage, End, Event, Failure, Key, Prediction, SlideId, SlideInfo, State,
};
use weir_runtime::stage::{Completed, MakeSink, Prepare, Prepared, Sink, StageError, StageType};

use crate::done::{self, Identity};
use crate::folder;
use crate::prediction_file::PredictionFile;
use crate::prediction_tables::{Log, table};
use crate::writers::{Writers, cannot_write};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "predictions-sink",
    summary: "writes predictions.csv, predictions.jsonl and, for each slide, prediction.json",
    doc: "Writes `OUT/SLIDE/prediction.json` when everything else of the slide is on disk: it names the plan, the models, the \
          executors and the input, so that a later run with the same ones skips the slide. A line of \
          `OUT/predictions.jsonl` is appended and synced as each slide ends; the last line of a slide holds. \
          `OUT/predictions.csv`, sorted by slide, is written at the end of the run, after Ctrl-C too.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[Port {
        name: "predictions",
        kind: Kind::Predictions,
        shape: &[Dim::Same("classes")],
        mpp: None,
        many: false,
        optional: false,
        doc: "Predictions of slides",
    }],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.predictions]\nuse = \"predictions-sink\"\nin = { predictions = \"classify\" }\n",
};

/// The stage with its code.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

/// A slide as far as this sink knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) info: Arc<SlideInfo>,
    pub(crate) prediction: Option<Arc<Prediction>>,
    pub(crate) failure: Option<Failure>,
    /// An earlier run is done with it.
    pub(crate) skipped: bool,
}

impl Known {
    pub(crate) fn new(info: Arc<SlideInfo>) -> Self {
        Known {
            info,
            prediction: None,
            failure: None,
            skipped: false,
        }
    }

    fn row(&mut self, body: Body) {
        match body {
            // A skipped slide's domains end empty: what comes of that is not its prediction.
            _ if self.skipped => {}
            Body::Prediction(prediction) => self.prediction = Some(prediction),
            _ => self.prediction = None,
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::SlideFailed(failure) => {
                self.failure.get_or_insert_with(|| failure.clone());
            }
            Event::Skipped { prediction, .. } => {
                self.skipped = true;
                self.prediction = Some(prediction.clone());
            }
            _ => {}
        }
    }

    /// What is said of the slide: a slide that failed or was interrupted has no class, whatever was predicted before.
    pub(crate) fn settled(&self, end: Option<End>) -> Prediction {
        let state = match (&self.failure, &self.prediction) {
            (Some(_), _) => State::Failed,
            (None, Some(prediction)) if end != Some(End::Aborted) || self.skipped => {
                return (**prediction).clone();
            }
            _ => State::Interrupted,
        };
        let known = self.prediction.as_deref();
        let coverage = known.map_or_else(Coverage::default, |known| known.bag.coverage.clone());
        Prediction {
            revision: known.map_or(0, |known| known.revision),
            state,
            classes: known.map_or_else(Vec::new, |known| known.classes.clone()),
            class: None,
            logits: Vec::new(),
            probabilities: Vec::new(),
            bag: Bag {
                n: 0,
                flags: BagFlags::EMPTY,
                pooled: Vec::new(),
                effective: 0.0,
                entropy: 0.0,
                exact: None,
                contract: known.map_or_else(String::new, |known| known.bag.contract.clone()),
                coverage,
                selection: known.map_or(0, |known| known.bag.selection),
                ended: end,
                state,
            },
        }
    }
}

/// The part in the slide's home process: `prediction.json`.
struct Home {
    out: PathBuf,
    identity: Arc<dyn Fn() -> Identity + Send + Sync>,
    writers: Arc<Writers>,
    slides: HashMap<SlideId, Known>,
}

impl Sink for Home {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        self.slides.insert(slide, Known::new(info.clone()));
        Ok(())
    }

    fn row(&mut self, _: usize, key: Key, body: Body) -> Result<(), StageError> {
        if let Some(known) = self.slides.get_mut(&key.slide) {
            known.row(body);
        }
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        if let Some(known) = self.slides.get_mut(&slide) {
            known.event(event);
        }
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        let Some(known) = self.slides.get(&slide).filter(|known| !known.skipped) else {
            return Ok(());
        };
        let prediction = known.settled(done.first().and_then(|port| port.end));
        if prediction.state == State::Interrupted {
            return Ok(());
        }
        let path = folder::of(&self.out, &known.info.id)?.join(done::FILE);
        let (info, failure) = (known.info.clone(), known.failure.clone());
        let identity = (self.identity)();
        let write = move |files: Option<Vec<String>>| {
            let whole = PredictionFile::new(&info, &prediction, failure.as_ref(), files, &identity);
            serde_json::to_vec_pretty(&whole)
                .map_err(std::io::Error::from)
                .and_then(|mut text| {
                    text.push(b'\n');
                    file::write(&path, &text)
                })
                .map_err(|error| cannot_write(&path, &error))
        };
        self.writers.last(slide, Box::new(write))
    }

    fn closed(&mut self, slide: SlideId) {
        self.slides.remove(&slide);
    }
}

/// The shard of a batch that a run is, as `2-of-4`; its tables have it in their names. In
/// [`Shared`](weir_runtime::stage::Shared), put there before the run; empty for a run of all slides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard(pub String);

impl Shard {
    fn file(&self, end: &str) -> String {
        match self.0.as_str() {
            "" => format!("predictions.{end}"),
            shard => format!("predictions-{shard}.{end}"),
        }
    }
}

/// The part at process 0: the tables of all slides.
struct First {
    out: PathBuf,
    shard: Arc<Shard>,
    plan: String,
    log: Log,
    open: HashMap<SlideId, Known>,
    /// Slides that ended, by id.
    ended: BTreeMap<String, (Arc<SlideInfo>, Option<Failure>, Prediction)>,
}

impl First {
    /// What the tables say of the slide from now on.
    fn settle(&mut self, slide: SlideId, end: Option<End>) -> Result<(), StageError> {
        let Some(known) = self.open.get(&slide) else {
            return Ok(());
        };
        let (info, prediction) = (known.info.clone(), known.settled(end));
        let failure = known.failure.clone();
        let appended = match prediction.state {
            State::Interrupted => Ok(()),
            _ => self
                .log
                .append(&info, failure.as_ref(), &prediction, &self.plan),
        };
        self.ended
            .insert(info.id.clone(), (info, failure, prediction));
        appended
    }
}

impl Sink for First {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        self.open.insert(slide, Known::new(info.clone()));
        Ok(())
    }

    fn row(&mut self, _: usize, key: Key, body: Body) -> Result<(), StageError> {
        if let Some(known) = self.open.get_mut(&key.slide) {
            known.row(body);
        }
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        if let Some(known) = self.open.get_mut(&slide) {
            known.event(event);
        }
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        self.settle(slide, done.first().and_then(|port| port.end))
    }

    fn closed(&mut self, slide: SlideId) {
        self.open.remove(&slide);
    }

    fn finish(&mut self) -> Result<(), StageError> {
        let path = self.out.join(self.shard.file("csv"));
        table(self.ended.values())
            .and_then(|bytes| file::write(&path, &bytes))
            .map_err(|error| cannot_write(&path, &error))
    }
}

/// Makes it ready for a run.
fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let writers = cx.shared.get::<Writers>();
    writers.enlist_last(&cx.node.name, done::FILE)?;
    let (out, plan, shared) = (cx.out(), Arc::new(cx.plan.clone()), cx.shared.clone());
    let (hash, shard) = (plan.hash.clone(), shared.get::<Shard>());
    // Asked for when a slide ends: executors are known when every stage is prepared.
    let identity: Arc<dyn Fn() -> Identity + Send + Sync> =
        Arc::new(move || Identity::of(&plan, &shared));
    let home: MakeSink = {
        let out = out.clone();
        Arc::new(move || {
            Box::new(Home {
                out: out.clone(),
                identity: identity.clone(),
                writers: writers.clone(),
                slides: HashMap::new(),
            })
        })
    };
    let first: MakeSink = Arc::new(move || {
        Box::new(First {
            log: Log::new(out.join(shard.file("jsonl"))),
            out: out.clone(),
            shard: shard.clone(),
            plan: hash.clone(),
            open: HashMap::new(),
            ended: BTreeMap::new(),
        })
    });
    Ok(Prepared::SinkPair { home, first })
}
