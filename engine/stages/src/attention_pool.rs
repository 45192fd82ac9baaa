//! `attention-pool`: features of a slide's tiles to one bag, and each tile's part in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::{BagModel, Pooling};
use weir_pipeline::schema::ModelField;
use weir_pipeline::{
    Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Plan, Port, Rows, Schema, StateArgs,
    Values,
};
use weir_record::{
    Attention, Bag, BagFlags, Body, Coverage, End, Event, Feature, Key, SlideId, SlideInfo, State,
    Tally, TileId,
};
use weir_runtime::stage::{Completed, Cx, Prepare, Prepared, Reduce, StageError, StageType};

use crate::executors::model_error;

const FEATURE: Dim = Dim::Model {
    param: "model",
    field: ModelField::Feature,
};

/// `attention-pool`.
pub const SCHEMA: Schema = Schema {
    name: "attention-pool",
    summary: "Pools a slide's features by attention",
    doc: "Gives each tile an attention, normalises the attentions to weights that add up to 1, and pools the features by them. \
`squared-average` with `link = \"none\"` is the paper's literal form, w = a^2 / sum a^2; `link = \"sigmoid\"` squares the \
attention's sigmoid instead. Normalisation and link are the model's unless they are given here.

The pooled vector is a function of the set of tiles: the same to the bit, whatever order they came in and however often they were \
corrected. `accumulate = \"exact\"` pools by integer sums (contract `exact-q128/1`) where the normalisation allows it; such bags \
merge and retract exactly.

`bag` carries one bag a slide, `attention` each member's weight, contribution to the predicted class, and what the class's logit \
changes by when the tile is left out.",
    rows: Rows::Reduce,
    deliver: Deliver::Generation,
    place: Place::Home,
    params: &[
        Param {
            name: "model",
            kind: ParamKind::Model(ModelKind::Bag),
            default: None,
            required: true,
            doc: "Name of a [model] table; its kind is `bag`",
        },
        Param {
            name: "normalise",
            kind: ParamKind::Choice(&[
                "squared-average",
                "softmax",
                "sigmoid",
                "sparsemax",
                "mean",
                "max",
                "power",
            ]),
            default: None,
            required: false,
            doc: "How attentions become weights; the model's own when it is not given",
        },
        Param {
            name: "link",
            kind: ParamKind::Choice(&["none", "sigmoid"]),
            default: None,
            required: false,
            doc: "What an attention goes through before it is normalised; the model's own when it is not given",
        },
        Param {
            name: "power",
            kind: ParamKind::Float {
                min: 0.01,
                max: 64.0,
            },
            default: None,
            required: false,
            doc: "Exponent of `normalise = \"power\"`",
        },
        Param {
            name: "accumulate",
            kind: ParamKind::Choice(&["ordered", "exact"]),
            default: None,
            required: false,
            doc: "`ordered`: f32 in the tiles' order, for every normalisation; `exact`: integer sums, for squared-average and mean; the model's own when it is not given",
        },
    ],
    ins: &[Port {
        name: "features",
        kind: Kind::Features,
        shape: &[FEATURE],
        mpp: None,
        many: true,
        optional: false,
        doc: "Features of the bag's tiles",
    }],
    outs: &[
        Port {
            name: "bag",
            kind: Kind::Bag,
            shape: &[FEATURE],
            mpp: None,
            many: false,
            optional: false,
            doc: "One bag a slide",
        },
        Port {
            name: "attention",
            kind: Kind::Attention,
            shape: &[],
            mpp: None,
            many: false,
            optional: false,
            doc: "Each member's part in the bag",
        },
    ],
    state_bytes,
    example: "[stage.pool]
use = \"attention-pool\"
in = \"encode\"
model = \"b\"
",
};

/// A member's place in the set, beside its feature vector, bytes.
const MEMBER_BYTES: u64 = 96;

/// The members that hold, and as many that wait for their generation to be whole.
fn state_bytes(args: &StateArgs) -> u64 {
    2 * args.tiles * (4 * args.feature + MEMBER_BYTES)
}

// ------------------------------------------------------------------------------------------------------- parameters

fn pooling(values: &Values) -> Result<Pooling, StageError> {
    let text = |name: &str| -> Result<Option<String>, StageError> {
        if !values.has(name) {
            return Ok(None);
        }
        Ok(Some(values.text(name)?.to_owned()))
    };
    let power = if values.has("power") {
        Some(values.float("power")? as f32)
    } else {
        None
    };
    Ok(Pooling {
        normalise: text("normalise")?,
        link: text("link")?,
        power,
        accumulate: text("accumulate")?,
    })
}

// ---------------------------------------------------------------------------------------------------- pure function

/// The members of a bag; the answer is a function of this set.
type Members = BTreeMap<TileId, Arc<Feature>>;

/// What is known of a bag beside its members.
#[derive(Clone, Debug)]
struct Circumstances {
    coverage: Coverage,
    selection: u32,
    ended: Option<End>,
    state: State,
}

/// Pools `members`, with each one's part in the bag.
fn pool(
    model: &BagModel,
    members: &Members,
    about: Circumstances,
) -> (Bag, Vec<(TileId, Attention)>) {
    let features: Vec<&[f32]> = members.values().map(|feature| &***feature).collect();
    let pooled = model.pool(&features);
    let verdict = model.classify(&pooled.pooled);
    let attention = model.attention(&features, &pooled, &verdict);
    let mut flags = pooled.flags;
    if about.coverage.selected.fail > 0 {
        flags = flags.with(BagFlags::DEGRADED);
    }
    let bag = Bag {
        n: members.len() as u64,
        flags,
        pooled: pooled.pooled,
        effective: pooled.effective,
        entropy: pooled.entropy,
        exact: pooled.exact,
        contract: pooled.contract.to_owned(),
        coverage: about.coverage,
        selection: about.selection,
        ended: about.ended,
        state: about.state,
    };
    (bag, members.keys().copied().zip(attention).collect())
}

// ------------------------------------------------------------------------------------------------------------- glue

const BAG: usize = 0;
const ATTENTION: usize = 1;

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let model = BagModel::load(cx.model("model")?, &pooling(cx.values())?).map_err(model_error)?;
    let (model, selects) = (Arc::new(model), selecting_stage(cx.plan, &cx.node.name));
    Ok(Prepared::Reduce(Arc::new(move || {
        Box::new(Pool::new(model.clone(), selects.clone()))
    })))
}

/// The stage that selects the bag's tiles: the nearest reduce that they come from. `None`: all tiles are pooled.
fn selecting_stage(plan: &Plan, stage: &str) -> Option<String> {
    let mut at = plan.nodes.iter().find(|node| node.name == stage)?;
    loop {
        at = &plan.nodes[at.inputs.first()?.node];
        if at.schema.rows == Rows::Reduce {
            return Some(at.name.clone());
        }
    }
}

/// The stage, of one worker.
struct Pool {
    model: Arc<BagModel>,
    selects: Option<String>,
    slides: BTreeMap<SlideId, Slide>,
}

#[derive(Default)]
struct Slide {
    members: Members,
    /// Complete, but not published: waits for the tick.
    ready: Option<Completed>,
    /// Members that the next stages know.
    sent: Vec<TileId>,
    /// What the selecting stage counted when its domain ended.
    source: Tally,
    failed: bool,
    skipped: bool,
}

impl Pool {
    fn new(model: Arc<BagModel>, selects: Option<String>) -> Self {
        Pool {
            model,
            selects,
            slides: BTreeMap::new(),
        }
    }

    /// Sends the bag of what holds, with each member's part in it, and closes the generation.
    fn publish(&mut self, id: SlideId, done: &Completed, cx: &mut Cx) {
        let Some(slide) = self.slides.get_mut(&id) else {
            return;
        };
        slide.ready = None;
        let nothing = Members::new();
        let members = if done.end == Some(End::Aborted) {
            &nothing
        } else {
            &slide.members
        };
        let mut selected = done.tally.clone();
        // A tile that left the selection is no part of it: only a live run knows that there was one.
        selected.gone = 0;
        let source = match &self.selects {
            Some(_) => slide.source.clone(),
            None => done.tally.clone(),
        };
        let about = Circumstances {
            coverage: Coverage { source, selected },
            selection: done.through,
            ended: done.end,
            state: match done.end {
                None => State::Provisional,
                Some(End::Complete) if members.is_empty() => State::NoTissue,
                Some(End::Complete) => State::Final,
                Some(End::Incomplete) => State::Incomplete,
                Some(End::Aborted) if slide.failed => State::Failed,
                Some(End::Aborted) => State::Interrupted,
            },
        };
        let (bag, attention) = pool(&self.model, members, about);
        let left = slide.sent.iter().filter(|tile| !members.contains_key(tile));
        for tile in left {
            cx.version(ATTENTION, id, *tile, Body::Gone);
        }
        slide.sent = members.keys().copied().collect();
        for (tile, attention) in attention {
            cx.version(ATTENTION, id, tile, Body::Attention(Arc::new(attention)));
        }
        cx.version(BAG, id, TileId::SLIDE, Body::Bag(Arc::new(bag)));
        cx.seal(ATTENTION, id, done.end);
        cx.seal(BAG, id, done.end);
    }
}

impl Reduce for Pool {
    fn opened(&mut self, slide: SlideId, _: &Arc<SlideInfo>, _: &mut Cx) {
        self.slides.insert(slide, Slide::default());
    }

    fn row(&mut self, _: usize, key: Key, body: Option<Body>, _: &mut Cx) {
        let Some(slide) = self.slides.get_mut(&key.slide) else {
            return;
        };
        // A generation that is not whole was laid over the one that waited: what holds now is nobody's bag until `complete`.
        slide.ready = None;
        match body {
            Some(Body::Feature(feature)) => slide.members.insert(key.tile, feature),
            _ => slide.members.remove(&key.tile),
        };
    }

    fn event(&mut self, slide: SlideId, event: &Event, _: &mut Cx) {
        let Some(slide) = self.slides.get_mut(&slide) else {
            return;
        };
        match event {
            Event::SlideFailed(_) => slide.failed = true,
            Event::Skipped { .. } => slide.skipped = true,
            Event::LedgerEnded { stage, tally, .. } if Some(stage) == self.selects.as_ref() => {
                slide.source = tally.clone();
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Cx) {
        let ready: Vec<(SlideId, Completed)> = self
            .slides
            .iter()
            .filter_map(|(id, slide)| Some((*id, slide.ready.clone()?)))
            .collect();
        for (id, done) in ready {
            self.publish(id, &done, cx);
        }
    }

    fn complete(&mut self, _: usize, id: SlideId, done: &Completed, cx: &mut Cx) {
        let Some(slide) = self.slides.get_mut(&id) else {
            return;
        };
        if done.end.is_none() {
            slide.ready = Some(done.clone());
        } else if slide.skipped {
            // An earlier run's prediction stands; the event that brings it is forwarded by the operator.
            cx.seal(ATTENTION, id, done.end);
            cx.seal(BAG, id, done.end);
        } else {
            self.publish(id, done, cx);
        }
    }

    fn closed(&mut self, slide: SlideId) {
        self.slides.remove(&slide);
    }
}
