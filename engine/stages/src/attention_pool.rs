//! `attention-pool`: features of a slide's tiles to one bag, and each tile's part in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::{BagModel, Pooled, Pooling};
use weir_pipeline::schema::ModelField;
use weir_pipeline::{
    Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Plan, Port, Rows, Schema, StateArgs,
    Values,
};
use weir_record::{
    Attention, Bag, BagFlags, Body, Coverage, End, Event, Failure, Key, SlideId, SlideInfo, State,
    Tally, TileId,
};
use weir_runtime::stage::{Completed, Cx, Prepare, Prepared, Reduce, StageError, StageType};

use crate::executors::model_error;
use crate::kernels::{self, Stand};

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
outputs name its contract, `fused/1`. Slides that become complete together go into one launch.

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
    state_bytes,
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

// ---------------------------------------------------------------------------------------------------- pure function

/// The members of a bag, with their features in one matrix; the answer is a function of this set.
#[derive(Clone, Debug, Default)]
struct Members {
    /// Row of the matrix of each member.
    rows: BTreeMap<TileId, usize>,
    matrix: Vec<f32>,
    width: usize,
    /// Rows that belong to nobody.
    free: Vec<usize>,
}

impl Members {
    fn insert(&mut self, tile: TileId, feature: &[f32]) {
        self.width = feature.len();
        let mut new = || {
            self.free
                .pop()
                .unwrap_or(self.matrix.len() / feature.len().max(1))
        };
        let row = match self.rows.get(&tile) {
            Some(row) => *row,
            None => new(),
        };
        self.rows.insert(tile, row);
        let at = row * self.width;
        if at == self.matrix.len() {
            self.matrix.extend_from_slice(feature);
        } else {
            self.matrix[at..at + self.width].copy_from_slice(feature);
        }
    }

    fn remove(&mut self, tile: TileId) {
        self.free.extend(self.rows.remove(&tile));
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn has(&self, tile: &TileId) -> bool {
        self.rows.contains_key(tile)
    }

    fn tiles(&self) -> impl Iterator<Item = TileId> {
        self.rows.keys().copied()
    }

    /// The members' features in TileId order. A slide that came once and whole lies so already.
    fn in_order(&self) -> Cow<'_, [f32]> {
        if self.free.is_empty() && self.rows.values().copied().eq(0..self.rows.len()) {
            return Cow::Borrowed(&self.matrix);
        }
        let mut matrix = Vec::with_capacity(self.rows.len() * self.width);
        for row in self.rows.values() {
            matrix.extend_from_slice(&self.matrix[row * self.width..(row + 1) * self.width]);
        }
        Cow::Owned(matrix)
    }
}

/// What is known of a bag beside its members.
#[derive(Clone, Debug)]
struct Circumstances {
    coverage: Coverage,
    selection: u32,
    ended: Option<End>,
    state: State,
}

/// A pooled bag with each member's part in it; `matrix` holds the members' features in TileId order.
fn bag(
    model: &BagModel,
    members: &Members,
    matrix: &[f32],
    pooled: Pooled,
    about: Circumstances,
) -> (Bag, Vec<(TileId, Attention)>) {
    let features: Vec<&[f32]> = matrix.chunks_exact(members.width.max(1)).collect();
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
    (bag, members.tiles().zip(attention).collect())
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
    kernels::enter(cx, &kernels, model.contract());
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
        match pooled {
            Ok(pooled) => {
                for ((((id, done), members), matrix), pooled) in
                    bags.iter().zip(&members).zip(&views).zip(pooled)
                {
                    let Some(slide) = self.slides.get(id) else {
                        continue;
                    };
                    let about = slide.about(done, members.len() == 0, selects.is_some());
                    made.push(Ok(bag(model, members, matrix, pooled, about)));
                }
            }
            Err(error) => made.extend(bags.iter().map(|_| Err(error.clone()))),
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
                        slide: cx
                            .info(id)
                            .map_or_else(String::new, |info| info.id.clone()),
                        tile: None,
                        what: error.to_string(),
                        help: "run the stage on the processor: run = { device = \"cpu\" }, or set head = \"portable\"".into(),
                    };
                    cx.event(id, Event::SlideFailed(failure));
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
            self.due.push((id, done.clone()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collected::Collected;
    use proptest::prelude::*;
    use std::sync::OnceLock;
    use weir_kernels::{Auto, Cpu};
    use weir_model::Weights;
    use weir_model::folder::{parameters, save};
    use weir_pipeline::model::{ModelHeader, ModelInput};
    use weir_record::{Feature, Prediction};

    const FEATURE: usize = 6;

    /// A bag model with random weights, for features of six numbers.
    fn model() -> BagModel {
        static MODEL: OnceLock<(tempfile::TempDir, ModelHeader)> = OnceLock::new();
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            let header = ModelHeader {
                format: 1,
                kind: ModelKind::Bag,
                arch: "small".into(),
                feature: FEATURE as u32,
                hidden: 5,
                gated: true,
                classes: vec!["no".into(), "yes".into()],
                positive: "yes".into(),
                input: ModelInput {
                    size: 16,
                    mpp: 1.0,
                    mean: [0.5; 3],
                    std: [0.5; 3],
                },
                normalise: "squared-average".into(),
                link: "none".into(),
                power: None,
                contract: "ordered-f32/1".into(),
                sha256: String::new(),
                training: None,
                folder: Default::default(),
            };
            let weights = Weights::start(&parameters(&header).unwrap(), 3);
            let header = save(folder.path(), &header, &weights).unwrap();
            (folder, header)
        };
        let (_, header) = MODEL.get_or_init(make);
        BagModel::load(header, &Pooling::default()).unwrap()
    }

    /// What workers share, with bags of `whole` tiles and more pooled by the kernels.
    fn shared(selects: Option<&str>, whole: usize) -> Arc<Pooler> {
        Arc::new(Pooler {
            stage: "pool".into(),
            model: model(),
            kernels: Arc::new(Auto::cpu(Cpu::new(2).unwrap()).into()),
            whole,
            selects: selects.map(str::to_owned),
        })
    }

    /// The bag of a set by the loops, member by member.
    fn truth(
        held: &BTreeMap<TileId, Arc<Feature>>,
        about: Circumstances,
    ) -> (Bag, Vec<(TileId, Attention)>) {
        let mut members = Members::default();
        for (tile, feature) in held {
            members.insert(*tile, feature);
        }
        let features: Vec<&[f32]> = held.values().map(|feature| &***feature).collect();
        let (model, matrix) = (model(), members.in_order());
        let pooled = model.pool(&features);
        bag(&model, &members, &matrix, pooled, about)
    }

    fn slide() -> SlideId {
        SlideId::new(0, 3)
    }

    fn tile(i: u8) -> TileId {
        TileId::new(0, 0, i as i64 * 50, 0).unwrap()
    }

    fn feature(seed: u8) -> Arc<Feature> {
        let numbers = (0..FEATURE).map(|i| ((seed as usize * 31 + i * 17) % 97) as f32 / 50.0);
        Arc::new(Feature::new(numbers.collect(), None))
    }

    fn done(through: u32, end: Option<End>) -> Completed {
        Completed {
            through,
            end,
            tally: Tally::default(),
        }
    }

    fn opened(selects: Option<&str>) -> (Pool, Collected) {
        let mut stage = Pool::new(shared(selects, 4));
        let mut out = Collected::new(slide());
        let info = out.info.clone();
        stage.opened(slide(), &info, &mut out.cx());
        (stage, out)
    }

    fn published(out: &Collected) -> Bag {
        match out.held(BAG).get(&TileId::SLIDE) {
            Some(Body::Bag(bag)) => (**bag).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn attention(out: &Collected) -> BTreeMap<TileId, Attention> {
        let held = out.held(ATTENTION).iter().map(|(tile, body)| match body {
            Body::Attention(attention) => (*tile, **attention),
            other => panic!("{other:?}"),
        });
        held.collect()
    }

    /// A tile's feature, or that it left; a generation's end, whole or with a superseded tile; a tick.
    #[derive(Clone, Debug)]
    enum Happens {
        Comes(u8, Option<u8>),
        Whole,
        Withheld,
        Tick,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            6 => (0u8..20, prop::option::weighted(0.7, any::<u8>())).prop_map(|(t, f)| Happens::Comes(t, f)),
            2 => Just(Happens::Whole),
            1 => Just(Happens::Withheld),
            2 => Just(Happens::Tick),
        ]
    }

    proptest! {
        /// However a bag came about, what is published is the pool of the set that holds; and nothing is published of a
        /// generation that is not whole.
        #[test]
        fn a_bag_is_a_function_of_its_set(schedule in prop::collection::vec(happens(), 0..80)) {
            let (mut stage, mut out) = opened(None);
            let mut held: BTreeMap<TileId, Arc<Feature>> = BTreeMap::new();
            let mut whole = false;
            let mut rev = 0;
            for step in &schedule {
                match step {
                    Happens::Comes(t, value) => {
                        let key = Key { slide: slide(), tile: tile(*t), rev };
                        let body = value.map(|value| {
                            held.insert(tile(*t), feature(value));
                            Body::Feature(feature(value))
                        });
                        if body.is_none() {
                            held.remove(&tile(*t));
                        }
                        stage.row(0, key, body, &mut out.cx());
                        whole = false;
                    }
                    Happens::Whole => {
                        stage.complete(0, slide(), &done(rev, None), &mut out.cx());
                        stage.settled(&mut out.cx());
                        rev += 1;
                        whole = true;
                    }
                    Happens::Withheld => rev += 1,
                    Happens::Tick => {
                        let before = out.seals(BAG);
                        stage.tick(&mut out.cx());
                        prop_assert_eq!(out.seals(BAG) - before, usize::from(whole));
                        whole = false;
                    }
                }
            }
            stage.complete(0, slide(), &done(rev, Some(End::Complete)), &mut out.cx());
                        stage.settled(&mut out.cx());
            let about = Circumstances {
                coverage: Coverage::default(),
                selection: rev,
                ended: Some(End::Complete),
                state: if held.is_empty() { State::NoTissue } else { State::Final },
            };
            let (truth, parts) = truth(&held, about);
            // Debug shows each bit of an f32: two that differ have different texts.
            prop_assert_eq!(format!("{:?}", published(&out)), format!("{truth:?}"));
            prop_assert_eq!(attention(&out), parts.into_iter().collect::<BTreeMap<_, _>>());
            prop_assert_eq!((out.ended(BAG), out.ended(ATTENTION)), (Some(End::Complete), Some(End::Complete)));
            prop_assert_eq!(truth.exact.map(|sums| sums.n), Some(held.len() as i64));
        }
    }

    #[test]
    fn a_slide_that_failed_or_was_stopped_has_an_empty_bag_and_no_members() {
        for (failed, state) in [(true, State::Failed), (false, State::Interrupted)] {
            let (mut stage, mut out) = opened(None);
            let key = Key {
                slide: slide(),
                tile: tile(1),
                rev: 0,
            };
            stage.row(0, key, Some(Body::Feature(feature(1))), &mut out.cx());
            stage.complete(0, slide(), &done(0, None), &mut out.cx());
            stage.settled(&mut out.cx());
            stage.tick(&mut out.cx());
            assert_eq!(attention(&out).len(), 1);
            if failed {
                let failure = weir_record::Failure {
                    stage: "top".into(),
                    slide: "slide".into(),
                    tile: None,
                    what: "too many".into(),
                    help: String::new(),
                };
                stage.event(slide(), &Event::SlideFailed(failure), &mut out.cx());
            }
            stage.complete(0, slide(), &done(1, Some(End::Aborted)), &mut out.cx());
            stage.settled(&mut out.cx());
            let bag = published(&out);
            assert_eq!(
                (bag.state, bag.n, bag.ended),
                (state, 0, Some(End::Aborted))
            );
            assert!(bag.flags.has(BagFlags::EMPTY) && bag.pooled.is_empty());
            assert!(attention(&out).is_empty());
        }
    }

    #[test]
    fn a_slide_that_an_earlier_run_is_done_with_gets_no_bag() {
        let (mut stage, mut out) = opened(None);
        let prediction = Prediction {
            revision: 0,
            state: State::Final,
            classes: vec!["no".into(), "yes".into()],
            class: Some(0),
            logits: vec![1.0, 0.0],
            probabilities: vec![0.7, 0.3],
            bag: Bag {
                n: 0,
                flags: BagFlags::EMPTY,
                pooled: Vec::new(),
                effective: 0.0,
                entropy: 0.0,
                exact: None,
                contract: String::new(),
                coverage: Coverage::default(),
                selection: 0,
                ended: Some(End::Complete),
                state: State::Final,
            },
        };
        let event = Event::Skipped {
            path: "out/slide/prediction.json".into(),
            prediction: Arc::new(prediction),
        };
        stage.event(slide(), &event, &mut out.cx());
        stage.complete(0, slide(), &done(0, Some(End::Complete)), &mut out.cx());
        stage.settled(&mut out.cx());
        assert!(out.rows.is_empty());
        assert_eq!(
            (out.ended(BAG), out.ended(ATTENTION)),
            (Some(End::Complete), Some(End::Complete))
        );
    }

    #[test]
    fn coverage_is_what_the_selecting_stage_counted_and_a_lost_member_degrades_the_bag() {
        let (mut stage, mut out) = opened(Some("top"));
        let source = Tally {
            value: 90,
            fail: 1,
            ..Tally::default()
        };
        let ended = |stage: &str, tally: &Tally| Event::LedgerEnded {
            stage: stage.into(),
            port: "scores".into(),
            end: End::Complete,
            tally: tally.clone(),
        };
        stage.event(slide(), &ended("top", &source), &mut out.cx());
        stage.event(slide(), &ended("other", &Tally::default()), &mut out.cx());
        let key = Key {
            slide: slide(),
            tile: tile(1),
            rev: 0,
        };
        stage.row(0, key, Some(Body::Feature(feature(1))), &mut out.cx());
        let selected = Tally {
            value: 1,
            fail: 1,
            gone: 4,
            ..Tally::default()
        };
        let done = Completed {
            tally: selected,
            ..done(2, Some(End::Complete))
        };
        stage.complete(0, slide(), &done, &mut out.cx());
        stage.settled(&mut out.cx());
        let bag = published(&out);
        assert_eq!(bag.coverage.source, source);
        assert_eq!(
            (bag.coverage.selected.fail, bag.coverage.selected.gone),
            (1, 0)
        );
        assert!(bag.flags.has(BagFlags::DEGRADED));
        assert_eq!((bag.selection, bag.state), (2, State::Final));
    }
}
