//! `attention-pool`: features of a slide's tiles to one bag, and each tile's part in it.

mod bag;
mod members;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use weir_kernels::{KernelError, gated};
use weir_model::{BagModel, Pooling};
use weir_pipeline::schema::ModelField;
use weir_pipeline::{
    Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Plan, Port, Rows, Schema, StateArgs,
    StateBytes, Values,
};
use weir_record::{
    Body, Coverage, End, Event, Failure, Key, SlideId, SlideInfo, State, Tally, TileId,
};
use weir_runtime::stage::{Completed, Cx, Prepare, Prepared, Reduce, StageError, StageType};

use crate::executors::model_error;
use crate::kernels::{self, Stand};

use bag::{Circumstances, bag};
use members::Members;

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

With `head = \"portable\"` nothing that runs the pool changes a bit of it: bags of `whole-slide-from` tiles and more are pooled from \
one matrix by the one-pass kernels, on the processor's threads, or, where `device` names a GPU and a measurement at the start of the run \
says that it is faster, there (contract `ordered-f32/1`); smaller ones member by member. `head = \"fused\"` runs attention, normalisation and \
pool as one kernel, on the GPU where there is one: faster on large bags, within a tolerance of the portable head, and the \
outputs name its contract, `fused/1`. Of slides that become complete together, those with less than 512 KiB of features share a \
launch; a larger bag has its own and is read where it lies, as a launch costs less than copying it beside others. Features are f32, \
so on a GPU of compute capability 9.0 the fused head runs by `mma.sync`, as on 8.0.

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
        Param {
            name: "head",
            kind: ParamKind::Choice(&["portable", "fused"]),
            default: Some("\"portable\""),
            required: false,
            doc: "`portable`: the same bits everywhere; `fused`: attention and pool as one kernel, within a tolerance, under the contract `fused/1`; not for sparsemax and max",
        },
        Param {
            name: "whole-slide-from",
            kind: ParamKind::Integer {
                min: 1,
                max: 1 << 31,
            },
            default: Some("1024"),
            required: false,
            doc: "Tiles of a bag from which the portable head's bags are pooled by the one-pass kernels; it never changes an answer",
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
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
    example: "[stage.pool]
use = \"attention-pool\"
in = \"encode\"
model = \"b\"
",
};

/// `whole-slide-from` where nobody says it.
const WHOLE_SLIDE: usize = 1024;

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
        fused: text("head")?.as_deref() == Some("fused"),
    })
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
    let values = cx.values();
    let model = BagModel::load(cx.model("model")?, &pooling(values)?).map_err(model_error)?;
    let kernels = kernels::of(cx)?;
    kernels::enter(cx, &kernels, model.contract())?;
    let shared = Arc::new(Pooler {
        stage: cx.node.name.clone(),
        model,
        kernels,
        whole: match values.has("whole-slide-from") {
            true => values.integer("whole-slide-from")?.max(1) as usize,
            false => WHOLE_SLIDE,
        },
        selects: selecting_stage(cx.plan, &cx.node.name),
    });
    Ok(Prepared::Reduce(Arc::new(move || {
        Box::new(Pool::new(shared.clone()))
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

/// What to do about a pool that the kernels refused. The fused head stays on its device, as its bits hang on it; the portable one's
/// bags were pooled by the processor if memory were all that the device lacks.
fn help(model: &BagModel, error: &KernelError) -> &'static str {
    let fused = model.contract() == gated::CONTRACT;
    match (fused, error.out_of_memory()) {
        (true, true) => {
            "set head = \"portable\", whose bags the processor pools where the device's memory ends, make the bags smaller, or run the stage on the processor: run = { device = \"cpu\" }"
        }
        (true, false) => {
            "set head = \"portable\", or run the stage on the processor: run = { device = \"cpu\" }"
        }
        (false, _) => "run the stage on the processor: run = { device = \"cpu\" }",
    }
}

/// What all workers share.
struct Pooler {
    stage: String,
    model: BagModel,
    kernels: Arc<Stand>,
    /// Tiles of a bag from which it is pooled from its matrix.
    whole: usize,
    selects: Option<String>,
}

/// The stage, of one worker.
struct Pool {
    shared: Arc<Pooler>,
    slides: BTreeMap<SlideId, Slide>,
    /// To be published at the end of the turn, all in one launch.
    due: Vec<(SlideId, Completed)>,
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

impl Slide {
    fn about(&self, done: &Completed, empty: bool, selected: bool) -> Circumstances {
        let mut tally = done.tally.clone();
        // A tile that left the selection is no part of it: only a live run knows that there was one.
        tally.gone = 0;
        let source = if selected {
            self.source.clone()
        } else {
            done.tally.clone()
        };
        Circumstances {
            coverage: Coverage {
                source,
                selected: tally,
            },
            selection: done.through,
            ended: done.end,
            state: match done.end {
                None => State::Provisional,
                Some(End::Complete) if empty => State::NoTissue,
                Some(End::Complete) => State::Final,
                Some(End::Incomplete) => State::Incomplete,
                Some(End::Aborted) if self.failed => State::Failed,
                Some(End::Aborted) => State::Interrupted,
            },
        }
    }
}

impl Pool {
    fn new(shared: Arc<Pooler>) -> Self {
        Pool {
            shared,
            slides: BTreeMap::new(),
            due: Vec::new(),
        }
    }

    /// Sends the bags of what holds, with each member's part in them, and closes the generations.
    fn publish(&mut self, due: Vec<(SlideId, Completed)>, cx: &mut Cx) {
        let Pooler {
            stage,
            model,
            kernels,
            whole,
            selects,
        } = &*self.shared;
        let nothing = Members::default();
        let mut bags: Vec<(SlideId, Completed)> = Vec::with_capacity(due.len());
        for (id, done) in due {
            if let Some(slide) = self.slides.get_mut(&id) {
                slide.ready = None;
                bags.push((id, done));
            }
        }
        let members: Vec<&Members> = bags
            .iter()
            .map(|(id, done)| match self.slides.get(id) {
                Some(slide) if done.end != Some(End::Aborted) => &slide.members,
                _ => &nothing,
            })
            .collect();
        let matrices: Vec<Cow<'_, [f32]>> = members.iter().map(|one| one.in_order()).collect();
        let views: Vec<&[f32]> = matrices.iter().map(|matrix| &**matrix).collect();
        let pooled = model.pool_matrices(kernels, *whole, &views);
        kernels.tell_trace();
        let mut made = Vec::with_capacity(bags.len());
        for ((((id, done), members), matrix), pooled) in
            bags.iter().zip(&members).zip(&views).zip(pooled)
        {
            let Some(slide) = self.slides.get(id) else {
                continue;
            };
            let about = slide.about(done, members.len() == 0, selects.is_some());
            made.push(pooled.map(|pooled| bag(model, members, matrix, pooled, about)));
        }
        drop((matrices, members));
        for ((id, mut done), made) in bags.into_iter().zip(made) {
            let Some(slide) = self.slides.get_mut(&id) else {
                continue;
            };
            let (bag, attention) = match made {
                Ok(made) => made,
                Err(error) => {
                    slide.failed = true;
                    let failure = Failure {
                        stage: stage.clone(),
                        slide: cx.info(id).map_or_else(String::new, |info| info.id.clone()),
                        tile: None,
                        what: error.to_string(),
                        help: help(model, &error).into(),
                    };
                    cx.event(id, Event::SlideFailed(failure));
                    if done.end.is_none() {
                        // More of the slide may come: its domain ends when that does.
                        continue;
                    }
                    done.end = Some(End::Aborted);
                    let about = slide.about(&done, true, selects.is_some());
                    bag(model, &nothing, &[], model.pool(&[]), about)
                }
            };
            let sent: Vec<TileId> = attention.iter().map(|(tile, _)| *tile).collect();
            let left = slide
                .sent
                .iter()
                .filter(|tile| sent.is_empty() || !slide.members.has(tile));
            for tile in left {
                cx.version(ATTENTION, id, *tile, Body::Gone);
            }
            slide.sent = sent;
            for (tile, attention) in attention {
                cx.version(ATTENTION, id, tile, Body::Attention(Arc::new(attention)));
            }
            cx.version(BAG, id, TileId::SLIDE, Body::Bag(Arc::new(bag)));
            cx.seal(ATTENTION, id, done.end);
            cx.seal(BAG, id, done.end);
        }
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
            Some(Body::Feature(feature)) => slide.members.insert(key.tile, &feature),
            _ => slide.members.remove(key.tile),
        };
    }

    fn event(&mut self, slide: SlideId, event: &Event, _: &mut Cx) {
        let Some(slide) = self.slides.get_mut(&slide) else {
            return;
        };
        match event {
            Event::SlideFailed(_) => slide.failed = true,
            Event::Skipped { .. } => slide.skipped = true,
            Event::LedgerEnded { stage, tally, .. }
                if Some(stage) == self.shared.selects.as_ref() =>
            {
                slide.source = tally.clone();
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Cx) {
        let ready: Vec<(SlideId, Completed)> = self
            .slides
            .iter()
            .filter(|(_, slide)| !slide.failed)
            .filter_map(|(id, slide)| Some((*id, slide.ready.clone()?)))
            .collect();
        self.publish(ready, cx);
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
            let mut done = done.clone();
            if slide.failed {
                // What failed it was told; there is no bag of it any more.
                done.end = Some(End::Aborted);
            }
            self.due.push((id, done));
        }
    }

    fn settled(&mut self, cx: &mut Cx) {
        let due = std::mem::take(&mut self.due);
        if !due.is_empty() {
            self.publish(due, cx);
        }
    }

    fn closed(&mut self, slide: SlideId) {
        self.slides.remove(&slide);
    }
}
