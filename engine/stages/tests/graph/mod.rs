//! The demo's graph, built without a pipeline file, over real slides and small networks with random weights, and a sink that keeps
//! what reaches it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_model::Weights;
use weir_model::folder::{parameters, save};
use weir_pipeline::model::{ModelInput, ModelKind};
use weir_pipeline::plan::StageRun;
use weir_pipeline::schema::StateBytes;
use weir_pipeline::{
    Deliver, Dim, Edge, Kind, ModelHeader, Node, ParamKind, Place, Plan, Port, Rows, RunSettings,
    Schema, Value, Values,
};
use weir_record::{Body, Event, Key, SlideId, SlideInfo, TileId};
use weir_runtime::stage::{Completed, Prepare, Prepared, Shared, Sink, StageError, StageType};
use weir_runtime::{Options, Outcome, RunError};

pub fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
        .display()
        .to_string()
}

/// Two small networks for tiles of `size` px at `mpp`, in folders that live as long as this.
pub struct Models {
    _folder: tempfile::TempDir,
    headers: BTreeMap<String, ModelHeader>,
}

pub fn models(size: u32, mpp: f64) -> Models {
    let folder = tempfile::tempdir().unwrap();
    let mut headers = BTreeMap::new();
    for (name, kind) in [("a", ModelKind::Scorer), ("b", ModelKind::Bag)] {
        let bag = kind == ModelKind::Bag;
        let text = |value: &str| if bag { value.to_owned() } else { String::new() };
        let header = ModelHeader {
            format: 1,
            kind,
            arch: "small".into(),
            feature: 128,
            hidden: if bag { 64 } else { 0 },
            gated: bag,
            classes: vec!["normal".into(), "tumour".into()],
            positive: "tumour".into(),
            input: ModelInput {
                size,
                mpp,
                mean: [0.5; 3],
                std: [0.25; 3],
            },
            normalise: text("squared-average"),
            link: text("sigmoid"),
            power: None,
            contract: text("ordered-f32/1"),
            sha256: String::new(),
            training: None,
            folder: PathBuf::new(),
        };
        let weights = Weights::start(&parameters(&header).unwrap(), 7);
        let header = save(&folder.path().join(name), &header, &weights).unwrap();
        headers.insert(name.to_owned(), header);
    }
    Models {
        _folder: folder,
        headers,
    }
}

/// A value of a parameter of that kind from its text in a pipeline file.
fn value(kind: ParamKind, text: &str) -> Value {
    match kind {
        ParamKind::Integer { .. } => Value::Integer(text.parse().unwrap()),
        ParamKind::Float { .. } => Value::Float(text.parse().unwrap()),
        ParamKind::Boolean => Value::Boolean(text.parse().unwrap()),
        ParamKind::Slides | ParamKind::Texts => {
            Value::Texts(text.split(' ').map(str::to_owned).collect())
        }
        ParamKind::Path { .. } => Value::Path(text.into()),
        _ => Value::Text(text.trim_matches('"').to_owned()),
    }
}

/// A graph that grows stage by stage.
pub struct Graph {
    plan: Plan,
    types: Vec<StageType>,
}

impl Graph {
    pub fn new(models: &Models) -> Self {
        let run = RunSettings {
            helpers: 2,
            readers: 2,
            memory: 64 << 20,
            executor: "burn".into(),
            ..RunSettings::default()
        };
        let plan = Plan {
            name: "test".into(),
            file: "test.weir.toml".into(),
            run,
            models: models.headers.clone(),
            plugins: Vec::new(),
            nodes: Vec::new(),
            hash: "of the test".into(),
        };
        let mut types = weir_stages::types().to_vec();
        types.push(COLLECT_TYPE);
        Graph { plan, types }
    }

    pub fn run_settings(&mut self) -> &mut RunSettings {
        &mut self.plan.run
    }

    /// Adds the code of a stage type of the test's own.
    pub fn with_type(mut self, of: StageType) -> Self {
        self.types.push(of);
        self
    }

    /// Adds a stage. `inputs` are `PORT=STAGE.OUTPUT`, parameters `NAME=VALUE`.
    pub fn stage(mut self, name: &str, of: &str, inputs: &[&str], params: &[(&str, &str)]) -> Self {
        let types = self.types.iter();
        let schema = types.map(|t| t.schema).find(|s| s.name == of).unwrap();
        let mut values = BTreeMap::new();
        for param in schema.params {
            let given = params.iter().find(|(name, _)| *name == param.name);
            if let Some(text) = given.map(|(_, text)| *text).or(param.default) {
                values.insert(param.name.to_owned(), value(param.kind, text));
            }
        }
        for (given, _) in params {
            assert!(values.contains_key(*given), "{of} has no parameter {given}");
        }
        let inputs = inputs
            .iter()
            .map(|input| {
                let (port, from) = input.split_once('=').unwrap();
                let (stage, output) = from.split_once('.').unwrap();
                let node = self
                    .plan
                    .nodes
                    .iter()
                    .position(|n| n.name == stage)
                    .unwrap();
                let place = |ports: &[Port], name: &str| ports.iter().position(|p| p.name == name);
                Edge {
                    port: place(schema.ins, port).unwrap(),
                    node,
                    output: place(self.plan.nodes[node].schema.outs, output).unwrap(),
                }
            })
            .collect();
        self.plan.nodes.push(Node {
            name: name.to_owned(),
            schema,
            values: Values(values),
            inputs,
            run: StageRun::default(),
            shapes: schema.outs.iter().map(|_| vec![128]).collect(),
        });
        self
    }

    /// From scores on: the demo's stages, then the collecting sink.
    pub fn selection_and_bag(self, highest: &str, lowest: &str) -> Self {
        self.stage(
            "top",
            "top-k",
            &["scores=score.scores"],
            &[("highest", highest), ("lowest", lowest)],
        )
        .stage("chosen", "tile-fetch", &["picks=top.picks"], &[])
        .stage(
            "encode",
            "encoder",
            &["tiles=chosen.tiles"],
            &[("model", "b")],
        )
        .stage(
            "pool",
            "attention-pool",
            &["features=encode.features"],
            &[("model", "b")],
        )
        .stage(
            "classify",
            "classifier",
            &["bag=pool.bag"],
            &[("model", "b")],
        )
        .stage(
            "collect",
            "collect",
            &[
                "predictions=classify.predictions",
                "scores=score.scores",
                "attention=pool.attention",
            ],
            &[],
        )
    }

    /// The demo over `slides` (split by spaces), with `params` of its reader beside `size` and `mpp`.
    pub fn demo(models: &Models, slides: &str, params: &[(&str, &str)]) -> Self {
        let input = models.headers["a"].input.clone();
        let (size, mpp) = (input.size.to_string(), input.mpp.to_string());
        let mut all = vec![
            ("slides", slides),
            ("size", size.as_str()),
            ("mpp", mpp.as_str()),
        ];
        all.extend_from_slice(params);
        Graph::new(models)
            .stage("tiles", "tile-reader", &[], &all)
            .stage("score", "scorer", &["tiles=tiles.tiles"], &[("model", "a")])
            .selection_and_bag("32", "32")
    }

    /// The demo behind a source of the test's own.
    pub fn behind(models: &Models, source: StageType) -> Self {
        let name = source.schema.name;
        Graph::new(models)
            .with_type(source)
            .stage("tiles", name, &[], &[])
            .stage("score", "scorer", &["tiles=tiles.tiles"], &[("model", "a")])
            .selection_and_bag("32", "32")
    }

    /// Runs it.
    pub fn run(&self) -> Result<(Outcome, Seen), RunError> {
        self.run_with(Options::default())
    }

    pub fn run_with(&self, options: Options) -> Result<(Outcome, Seen), RunError> {
        let taken = options.shared.get::<Taken>();
        let outcome = weir_runtime::run(Arc::new(self.plan.clone()), &self.types, options)?;
        Ok((outcome, std::mem::take(&mut taken.0.lock().unwrap())))
    }
}

/// What reached the sink, by the slide's id.
pub type Seen = BTreeMap<String, Slide>;

/// What holds of one slide.
#[derive(Clone, Debug, Default)]
pub struct Slide {
    /// By port: predictions, scores, attention.
    pub held: [BTreeMap<TileId, Body>; 3],
    pub tallies: Vec<weir_record::Tally>,
    pub selection: Option<(u32, u32)>,
    pub ended: Option<Instant>,
}

impl Slide {
    pub fn prediction(&self) -> Option<&weir_record::Prediction> {
        match self.held[0].get(&TileId::SLIDE)? {
            Body::Prediction(prediction) => Some(prediction),
            _ => None,
        }
    }

    /// Everything that a run promises, to the bit; not the numbers of generations, which tell how often it was corrected.
    pub fn bits(&self) -> String {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let mut text = String::new();
        if let Some(p) = self.prediction() {
            let bag = &p.bag;
            text += &format!(
                "{:?} {:?} {:?} {:?} n {} {:?} {:?} {:?} {:?} {} {:?} {:?}\n",
                p.state,
                p.class,
                bits(&p.logits),
                bits(&p.probabilities),
                bag.n,
                bag.flags,
                bits(&bag.pooled),
                bits(&[bag.effective, bag.entropy]),
                bag.exact,
                bag.contract,
                bag.coverage.source.value,
                bag.coverage.selected,
            );
        }
        for (tile, body) in self.held[1].iter().chain(&self.held[2]) {
            text += &match body {
                Body::Score(s) => format!("{tile:?} {:?}\n", bits(&s.probabilities)),
                Body::Attention(a) => format!(
                    "{tile:?} {:?} {}\n",
                    bits(&[a.logit, a.weight, a.contribution, a.leave_one_out]),
                    a.class
                ),
                Body::Fail(_) => format!("{tile:?} failed\n"),
                other => format!("{tile:?} {other:?}\n"),
            };
        }
        text
    }
}

/// What the sinks of a run took.
#[derive(Default)]
struct Taken(Mutex<Seen>);

pub const fn port(name: &'static str, kind: Kind, shape: &'static [Dim]) -> Port {
    Port {
        name,
        kind,
        shape,
        mpp: None,
        many: false,
        optional: true,
        doc: "",
    }
}

const COLLECT: Schema = Schema {
    name: "collect",
    summary: "",
    doc: "",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[
        port("predictions", Kind::Predictions, &[]),
        port("scores", Kind::Scores, &[]),
        port("attention", Kind::Attention, &[]),
    ],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "",
};

const COLLECT_TYPE: StageType = StageType {
    schema: &COLLECT,
    prepare: |cx: &Prepare| {
        let taken = cx.shared.get::<Taken>();
        Ok(Prepared::Sink(Arc::new(move || {
            Box::new(Collect {
                taken: taken.clone(),
                ids: HashMap::new(),
            })
        })))
    },
};

struct Collect {
    taken: Arc<Taken>,
    ids: HashMap<SlideId, String>,
}

impl Collect {
    fn with(&self, slide: SlideId, change: impl FnOnce(&mut Slide)) {
        let mut taken = self.taken.0.lock().unwrap();
        change(taken.entry(self.ids[&slide].clone()).or_default());
    }
}

impl Sink for Collect {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        self.ids.insert(slide, info.id.clone());
        self.with(slide, |_| {});
        Ok(())
    }

    fn row(&mut self, port: usize, key: Key, body: Body) -> Result<(), StageError> {
        self.with(key.slide, |slide| {
            match body {
                Body::Gone => slide.held[port].remove(&key.tile),
                body => slide.held[port].insert(key.tile, body),
            };
        });
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        if let Event::Selection { highest, lowest } = event {
            self.with(slide, |slide| slide.selection = Some((*highest, *lowest)));
        }
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        self.with(slide, |slide| {
            slide.ended = Some(Instant::now());
            slide.tallies = done.iter().map(|done| done.tally.clone()).collect();
        });
        Ok(())
    }

    fn closed(&mut self, _: SlideId) {}
}

/// Everything a run promises, of all slides.
pub fn bits(seen: &Seen) -> BTreeMap<&str, String> {
    seen.iter()
        .map(|(id, slide)| (id.as_str(), slide.bits()))
        .collect()
}

const TILES: &[Port] = &[port("tiles", Kind::Pixels, &[])];

/// The schema of a source of a test's own.
pub const fn source(name: &'static str) -> Schema {
    Schema {
        name,
        summary: "",
        doc: "",
        rows: Rows::Source,
        deliver: Deliver::Arrival,
        place: Place::Home,
        params: &[],
        ins: &[],
        outs: TILES,
        batch_only: false,
        state_bytes: StateBytes::Nothing,
        example: "",
    }
}

/// Shared values for a run, with one put in.
pub fn sharing<T: std::any::Any + Send + Sync>(value: T) -> Options {
    let shared = Shared::default();
    let _ = shared.get_or_try("", || Ok::<T, std::convert::Infallible>(value));
    Options {
        shared,
        ..Options::default()
    }
}

/// Ends the test when it takes longer.
pub fn within<T: Send + 'static>(limit: Duration, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(run()));
    receive.recv_timeout(limit).expect("it hangs")
}
