//! `top-k`: the m highest and the m lowest tiles of a slide.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_kernels::kernels::TopKOut;
use weir_kernels::{Auto, Bags, KernelError, Kernels, View, ViewMut};

use weir_pipeline::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Plan, Port, Rows, RunSettings, Schema, StateArgs,
};
use weir_record::{Body, End, Event, Failure, Key, SlideId, SlideInfo, TileId};
use weir_runtime::stage::{Completed, Cx, Prepare, Prepared, Reduce, StageError, StageType};

use crate::kernels::{self, Stand};

/// Size and resolution of the tiles go through: a `tile-fetch` behind reads tiles of that size.
const MPP: Option<Dim> = Some(Dim::Same("mpp"));

/// `top-k`.
pub const SCHEMA: Schema = Schema {
    name: "top-k",
    summary: "Selects the tiles with the highest and the lowest scores",
    doc: "Selects `highest` tiles from the top and `lowest` from the bottom of each slide's ranking: score descending, then \
place (row by row) ascending. When a slide has no more tiles than both together, all are selected, once.

In a live run the selection is published every `run.select-tick` while tiles still come; what is published at the end is the same \
as without.",
    rows: Rows::Reduce,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "highest",
            kind: ParamKind::Integer {
                min: 1,
                max: 1 << 20,
            },
            default: None,
            required: true,
            doc: "Tiles from the top",
        },
        Param {
            name: "lowest",
            kind: ParamKind::Integer {
                min: 0,
                max: 1 << 20,
            },
            default: None,
            required: true,
            doc: "Tiles from the bottom; they give a bag contrast. 0 for none",
        },
    ],
    ins: &[Port {
        name: "scores",
        kind: Kind::Scores,
        shape: &[
            Dim::Same("height"),
            Dim::Same("width"),
            Dim::Same("classes"),
        ],
        mpp: MPP,
        many: true,
        optional: false,
        doc: "Scores of all tiles",
    }],
    outs: &[Port {
        name: "picks",
        kind: Kind::Picks,
        shape: &[Dim::Same("height"), Dim::Same("width")],
        mpp: MPP,
        many: false,
        optional: false,
        doc: "The selected tiles",
    }],
    state_bytes,
    example: "[stage.top]
use = \"top-k\"
in = \"score\"
highest = 32
lowest = 32
",
};

/// The register of a tile and its place in the order, with what B-trees and hash tables leave empty. A run over slides whose tiles
/// come once keeps less: 16 bytes a tile, and twice that while it selects.
const TILE_BYTES: u64 = 80;

fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * TILE_BYTES
}

// ------------------------------------------------------------------------------------------------------- parameters

/// How many of each end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// From the top.
    pub highest: usize,
    /// From the bottom.
    pub lowest: usize,
}

// ---------------------------------------------------------------------------------------------------- pure function

/// A tile's place in its slide's ranking: score descending, then tile ascending. Nothing else orders tiles anywhere, so tables and
/// selections agree. Scores are finite; of two zeros, the positive one stands first.
#[derive(Clone, Copy, Debug)]
pub struct Rank {
    /// The tile's score.
    pub score: f32,
    /// The tile.
    pub tile: TileId,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.tile.cmp(&other.tile))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

/// What is selected: the revision and the score of each tile.
type Selection = BTreeMap<TileId, (u32, f32)>;

/// The scored tiles of a slide whose tiles come once: tile, revision, score.
type Column = Vec<(TileId, u32, f32)>;

/// What is selected of each column, all in one launch. The kernel ranks by score and then by row, so rows are put in the order of
/// their tiles first.
fn select(kernels: &Stand, ends: Ends, columns: &mut [&mut Column]) -> Vec<Selection> {
    for column in columns.iter_mut() {
        column.sort_unstable_by_key(|(tile, ..)| *tile);
    }
    let selected = launch(kernels, ends, columns);
    kernels.tell_trace();
    // The order is a total one, so a sort selects the same tiles: more of them than the kernel does, and where a device failed.
    selected.unwrap_or_else(|_| {
        let sorted = columns.iter().map(|column| {
            let mut ranked: Vec<(Rank, u32)> = column
                .iter()
                .map(|&(tile, rev, score)| (Rank { score, tile }, rev))
                .collect();
            ranked.sort_unstable();
            let low = ranked.len().saturating_sub(ends.lowest);
            let chosen = ranked.iter().enumerate();
            chosen
                .filter(|(place, _)| *place < ends.highest || *place >= low)
                .map(|(_, (rank, rev))| (rank.tile, (*rev, rank.score)))
                .collect()
        });
        sorted.collect()
    })
}

fn launch(
    kernels: &Auto,
    ends: Ends,
    columns: &[&mut Column],
) -> Result<Vec<Selection>, KernelError> {
    let mut offsets = vec![0];
    for column in columns {
        offsets.push(offsets[offsets.len() - 1] + column.len());
    }
    let scores: Vec<f32> = columns
        .iter()
        .flat_map(|column| column.iter().map(|(.., score)| *score))
        .collect();
    let bags = Bags::new(&offsets, None)?;
    let count = columns.len();
    let mut highest = vec![0i32; count * ends.highest];
    let mut lowest = vec![0i32; count * ends.lowest];
    let mut nans = vec![0u32; count];
    let out = TopKOut {
        highest: ViewMut::new(&mut highest, [count, ends.highest])?,
        lowest: ViewMut::new(&mut lowest, [count, ends.lowest])?,
        nans: ViewMut::new(&mut nans, [count])?,
    };
    let wanted = weir_kernels::kernels::Ends {
        highest: ends.highest,
        lowest: ends.lowest,
    };
    let scores = View::new(&scores, [scores.len()])?;
    kernels.top_k(&bags, wanted, scores, out)?;
    let of_bag = |places: &[i32], width: usize, bag: usize| -> Vec<i32> {
        places[bag * width..(bag + 1) * width].to_vec()
    };
    let selections = columns.iter().enumerate().map(|(bag, column)| {
        let mut places = of_bag(&highest, ends.highest, bag);
        places.extend(of_bag(&lowest, ends.lowest, bag));
        // -1 fills what a short slide leaves.
        let places = places.into_iter().filter_map(|at| usize::try_from(at).ok());
        places
            .filter_map(|at| column.get(at))
            .map(|&(tile, rev, score)| (tile, (rev, score)))
            .collect()
    });
    Ok(selections.collect())
}

/// Every tile that has a score, for tiles that may be withdrawn or come again: whoever left the selection may return.
#[derive(Debug, Default)]
struct Register {
    held: HashMap<TileId, (u32, f32)>,
    order: BTreeSet<Rank>,
}

impl Register {
    fn put(&mut self, rank: Rank, rev: u32) {
        self.take(rank.tile);
        self.held.insert(rank.tile, (rev, rank.score));
        self.order.insert(rank);
    }

    fn take(&mut self, tile: TileId) {
        if let Some((_, score)) = self.held.remove(&tile) {
            self.order.remove(&Rank { score, tile });
        }
    }

    fn selection(&self, ends: Ends) -> Selection {
        let top = self.order.iter().take(ends.highest);
        let bottom = self.order.iter().rev().take(ends.lowest);
        top.chain(bottom)
            .filter_map(|rank| Some((rank.tile, *self.held.get(&rank.tile)?)))
            .collect()
    }
}

// ------------------------------------------------------------------------------------------------------------- glue

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let ends = Ends {
        highest: cx.values().integer("highest")?.max(0) as usize,
        lowest: cx.values().integer("lowest")?.max(0) as usize,
    };
    let (stage, once) = (
        cx.node.name.clone(),
        tiles_come_once(cx.plan, &cx.node.name),
    );
    let kernels = kernels::of(cx)?;
    Ok(Prepared::Reduce(Arc::new(move || {
        Box::new(TopK::new(stage.clone(), ends, once, kernels.clone()))
    })))
}

/// Whether every tile that reaches the stage is sent once and never withdrawn: the case behind a `tile-reader`, whose slides are
/// files. Any other source may correct what it sent.
fn tiles_come_once(plan: &Plan, stage: &str) -> bool {
    let mut open: Vec<usize> = plan
        .nodes
        .iter()
        .position(|node| node.name == stage)
        .into_iter()
        .collect();
    while let Some(at) = open.pop() {
        let node = &plan.nodes[at];
        if node.schema.rows == Rows::Source && node.schema.name != crate::tile_reader::SCHEMA.name {
            return false;
        }
        open.extend(node.inputs.iter().map(|edge| edge.node));
    }
    true
}

/// The stage, of one worker.
struct TopK {
    stage: String,
    ends: Ends,
    once: bool,
    kernels: Arc<Stand>,
    slides: BTreeMap<SlideId, Slide>,
    /// To be published at the end of the turn, all in one launch.
    due: Vec<(SlideId, End)>,
}

struct Slide {
    seen: Seen,
    /// What the next stage knows.
    sent: BTreeMap<TileId, u32>,
    /// Something came since the last publication.
    touched: bool,
}

enum Seen {
    Once(Column),
    Corrected(Register),
}

impl TopK {
    fn new(stage: String, ends: Ends, once: bool, kernels: Arc<Stand>) -> Self {
        TopK {
            stage,
            ends,
            once,
            kernels,
            slides: BTreeMap::new(),
            due: Vec::new(),
        }
    }

    /// What is selected of some slides.
    fn chosen(&mut self, ids: &[SlideId]) -> BTreeMap<SlideId, Selection> {
        let mut chosen = BTreeMap::new();
        let (mut of, mut columns) = (Vec::new(), Vec::new());
        for (id, slide) in self.slides.iter_mut().filter(|(id, _)| ids.contains(id)) {
            match &mut slide.seen {
                Seen::Once(column) => {
                    of.push(*id);
                    columns.push(column);
                }
                Seen::Corrected(register) => {
                    chosen.insert(*id, register.selection(self.ends));
                }
            }
        }
        if !columns.is_empty() {
            chosen.extend(
                of.into_iter()
                    .zip(select(&self.kernels, self.ends, &mut columns)),
            );
        }
        chosen
    }

    /// Sends what changed since the last publication and closes the generation; nothing when nothing changed and the slide goes on.
    fn publish(id: SlideId, slide: &mut Slide, chosen: Selection, last: Option<End>, cx: &mut Cx) {
        slide.touched = false;
        let mut changed = false;
        for tile in slide.sent.keys().filter(|tile| !chosen.contains_key(tile)) {
            cx.version(0, id, *tile, Body::Gone);
            changed = true;
        }
        for (tile, (source_rev, score)) in &chosen {
            // A tile that came again and stays selected has other pixels.
            if slide.sent.get(tile) != Some(source_rev) {
                let picked = Body::Picked {
                    source_rev: *source_rev,
                    score: *score,
                };
                cx.version(0, id, *tile, picked);
                changed = true;
            }
        }
        slide.sent = chosen
            .into_iter()
            .map(|(tile, (rev, _))| (tile, rev))
            .collect();
        if changed || last.is_some() {
            cx.seal(0, id, last);
        }
    }
}

impl Reduce for TopK {
    fn opened(&mut self, slide: SlideId, _: &Arc<SlideInfo>, cx: &mut Cx) {
        let seen = if self.once {
            Seen::Once(Column::new())
        } else {
            Seen::Corrected(Register::default())
        };
        self.slides.insert(
            slide,
            Slide {
                seen,
                sent: BTreeMap::new(),
                touched: false,
            },
        );
        cx.event(
            slide,
            Event::Selection {
                highest: self.ends.highest as u32,
                lowest: self.ends.lowest as u32,
            },
        );
    }

    fn row(&mut self, _: usize, key: Key, body: Option<Body>, cx: &mut Cx) {
        let Some(slide) = self.slides.get_mut(&key.slide) else {
            return;
        };
        slide.touched = true;
        let score = match body {
            Some(Body::Score(scores)) if scores.score.is_finite() => Some(scores.score),
            Some(Body::Score(scores)) => {
                // The scorer's fault: its outcome should have been a Fail. It cannot be ranked.
                let failure = Failure {
                    stage: self.stage.clone(),
                    slide: cx
                        .info(key.slide)
                        .map_or_else(String::new, |info| info.id.clone()),
                    tile: Some((key.tile.x(), key.tile.y())),
                    what: format!("the score is {}, which has no rank", scores.score),
                    help: "this is a fault of the stage that scores: please report it".into(),
                };
                cx.event(key.slide, Event::TileFailed(failure));
                None
            }
            _ => None,
        };
        match (&mut slide.seen, score) {
            (Seen::Once(column), Some(score)) => column.push((key.tile, key.rev, score)),
            (Seen::Once(_), None) => {}
            (Seen::Corrected(register), Some(score)) => {
                let tile = key.tile;
                register.put(Rank { score, tile }, key.rev);
            }
            (Seen::Corrected(register), None) => register.take(key.tile),
        }
    }

    fn tick(&mut self, cx: &mut Cx) {
        let touched: Vec<SlideId> = self
            .slides
            .iter()
            .filter(|(_, slide)| slide.touched)
            .map(|(id, _)| *id)
            .collect();
        for (id, chosen) in self.chosen(&touched) {
            if let Some(slide) = self.slides.get_mut(&id) {
                Self::publish(id, slide, chosen, None, cx);
            }
        }
    }

    fn tick_every(&self, run: &RunSettings) -> std::time::Duration {
        run.select_tick
    }

    fn complete(&mut self, _: usize, slide: SlideId, done: &Completed, cx: &mut Cx) {
        match (done.end, self.slides.get_mut(&slide)) {
            // Nothing of a slide that failed is worth reading again.
            (Some(End::Aborted), _) => cx.seal(0, slide, Some(End::Aborted)),
            (Some(end), Some(_)) => self.due.push((slide, end)),
            _ => {}
        }
    }

    fn settled(&mut self, cx: &mut Cx) {
        let due = std::mem::take(&mut self.due);
        let ids: Vec<SlideId> = due.iter().map(|(id, _)| *id).collect();
        let mut chosen = self.chosen(&ids);
        for (id, end) in due {
            if let (Some(slide), Some(chosen)) = (self.slides.get_mut(&id), chosen.remove(&id)) {
                Self::publish(id, slide, chosen, Some(end), cx);
            }
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
    use weir_record::{Scores, Tally};

    fn kernels() -> Arc<Stand> {
        static KERNELS: std::sync::OnceLock<Arc<Stand>> = std::sync::OnceLock::new();
        let make = || Arc::new(Auto::cpu(weir_kernels::Cpu::new(2).unwrap()).into());
        KERNELS.get_or_init(make).clone()
    }

    fn slide() -> SlideId {
        SlideId::new(0, 7)
    }

    fn tile(i: u32) -> TileId {
        TileId::new(0, 0, i as i64 % 10 * 50, i as i64 / 10 * 50).unwrap()
    }

    fn scored(score: f32) -> Option<Body> {
        Some(Body::Score(Arc::new(Scores {
            score,
            probabilities: vec![1.0 - score, score],
        })))
    }

    fn done(end: End) -> Completed {
        Completed {
            through: 0,
            end: Some(end),
            tally: Tally::default(),
        }
    }

    /// What a sort says of what holds: the first `highest` and the last `lowest`.
    fn truth(held: &BTreeMap<TileId, (u32, f32)>, ends: Ends) -> BTreeMap<TileId, u32> {
        let mut all: Vec<(TileId, u32, f32)> = held
            .iter()
            .map(|(tile, (rev, score))| (*tile, *rev, *score))
            .collect();
        all.sort_by(|a, b| b.2.partial_cmp(&a.2).unwrap().then(a.0.cmp(&b.0)));
        let n = all.len();
        all.into_iter()
            .enumerate()
            .filter(|(place, _)| *place < ends.highest || place + ends.lowest >= n)
            .map(|(_, (tile, rev, _))| (tile, rev))
            .collect()
    }

    /// What happens at the stage's door.
    #[derive(Clone, Debug)]
    enum Happens {
        /// A tile's newest version says this; eighths, so that there are ties.
        Comes(u32, Option<u8>),
        Tick,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            6 => (0u32..40, prop::option::weighted(0.8, 0u8..8)).prop_map(|(t, s)| Happens::Comes(t, s)),
            1 => Just(Happens::Tick),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order, ticks or none, what stands at the end is the selection of what holds, and every
        /// generation that was published on the way could be applied.
        #[test]
        fn what_stands_at_the_end_is_the_selection_of_what_holds(
            schedule in prop::collection::vec(happens(), 0..200),
            highest in 1usize..12,
            lowest in 0usize..12,
        ) {
            let ends = Ends { highest, lowest };
            let mut stage = TopK::new("top".into(), ends, false, kernels());
            let mut out = Collected::new(slide());
            let info = out.info.clone();
            stage.opened(slide(), &info, &mut out.cx());
            let (mut revs, mut held) = (BTreeMap::new(), BTreeMap::new());
            for step in &schedule {
                match step {
                    Happens::Comes(t, score) => {
                        let rev = revs.entry(*t).and_modify(|rev| *rev += 1).or_insert(0u32);
                        let key = Key { slide: slide(), tile: tile(*t), rev: *rev };
                        match score {
                            Some(score) => {
                                let score = *score as f32 / 8.0;
                                held.insert(tile(*t), (*rev, score));
                                stage.row(0, key, scored(score), &mut out.cx());
                            }
                            None => {
                                held.remove(&tile(*t));
                                stage.row(0, key, None, &mut out.cx());
                            }
                        }
                    }
                    Happens::Tick => {
                        stage.tick(&mut out.cx());
                        prop_assert_eq!(out.picked(0), truth(&held, ends));
                    }
                }
            }
            stage.complete(0, slide(), &done(End::Complete), &mut out.cx());
        stage.settled(&mut out.cx());
            prop_assert_eq!(out.picked(0), truth(&held, ends));
            prop_assert_eq!(out.ended(0), Some(End::Complete));
        }

        /// Tiles that come once need no register: the kernel, in one launch for several slides, tells the same selections,
        /// and so does the sort that stands in for it.
        #[test]
        fn the_kernel_selects_what_a_register_does(
            slides in prop::collection::vec(prop::collection::vec((0u8..8, any::<u32>()), 0..120), 1..4),
            highest in 1usize..20,
            lowest in 0usize..20,
        ) {
            let ends = Ends { highest, lowest };
            let mut columns: Vec<Column> = Vec::new();
            let mut truth = Vec::new();
            for scores in &slides {
                let mut register = Register::default();
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by_key(|i| scores[*i].1);
                let of = |i: usize| (tile(i as u32), scores[i].0 as f32 / 8.0);
                for i in 0..scores.len() {
                    let (tile, score) = of(i);
                    register.put(Rank { score, tile }, 0);
                }
                columns.push(order.into_iter().map(|i| (of(i).0, 0, of(i).1)).collect());
                truth.push(register.selection(ends));
            }
            let mut views: Vec<&mut Column> = columns.iter_mut().collect();
            prop_assert_eq!(&select(&kernels(), ends, &mut views), &truth);
            prop_assert!(launch(&kernels(), ends, &views).is_ok());
        }
    }

    #[test]
    fn more_than_the_kernel_selects_is_selected_by_a_sort() {
        let ends = Ends {
            highest: 2000,
            lowest: 1,
        };
        let mut column: Column = (0..2500)
            .map(|i| {
                (
                    TileId::new(0, 0, i, 0).unwrap(),
                    0,
                    (i * 7919 % 2500) as f32,
                )
            })
            .collect();
        let chosen = select(&kernels(), ends, &mut [&mut column]).remove(0);
        assert_eq!(chosen.len(), 2001);
        let scores = chosen.values().map(|(_, score)| *score);
        assert_eq!(scores.filter(|score| *score < 500.0).count(), 1);
    }

    #[test]
    fn a_rescanned_tile_that_stays_selected_is_picked_again_and_nothing_else_is() {
        let ends = Ends {
            highest: 2,
            lowest: 0,
        };
        let mut stage = TopK::new("top".into(), ends, false, kernels());
        let mut out = Collected::new(slide());
        let info = out.info.clone();
        stage.opened(slide(), &info, &mut out.cx());
        let key = |t: u32, rev| Key {
            slide: slide(),
            tile: tile(t),
            rev,
        };
        for (t, score) in [(1, 0.9), (2, 0.8), (3, 0.1)] {
            stage.row(0, key(t, 0), scored(score), &mut out.cx());
        }
        stage.tick(&mut out.cx());
        let before = out.rows.len();
        stage.row(0, key(1, 1), scored(0.85), &mut out.cx());
        stage.row(0, key(3, 1), scored(0.2), &mut out.cx());
        stage.tick(&mut out.cx());
        let new: Vec<_> = out.rows[before..].to_vec();
        assert_eq!(new.len(), 1, "{new:?}");
        assert_eq!(new[0].tile, tile(1));
        assert!(matches!(new[0].body, Body::Picked { source_rev: 1, .. }));
        // A tick without a change publishes nothing.
        stage.tick(&mut out.cx());
        assert_eq!((out.rows.len(), out.seals(0)), (before + 1, 2));
    }

    #[test]
    fn a_failed_slide_selects_nothing_and_says_so() {
        let ends = Ends {
            highest: 2,
            lowest: 2,
        };
        let mut stage = TopK::new("top".into(), ends, true, kernels());
        let mut out = Collected::new(slide());
        let info = out.info.clone();
        stage.opened(slide(), &info, &mut out.cx());
        let key = Key {
            slide: slide(),
            tile: tile(1),
            rev: 0,
        };
        stage.row(0, key, scored(0.5), &mut out.cx());
        stage.complete(0, slide(), &done(End::Aborted), &mut out.cx());
        stage.settled(&mut out.cx());
        assert!(out.picked(0).is_empty());
        assert_eq!(out.ended(0), Some(End::Aborted));
    }

    #[test]
    fn a_score_that_is_no_number_is_never_ranked() {
        let ends = Ends {
            highest: 1,
            lowest: 1,
        };
        let mut stage = TopK::new("top".into(), ends, true, kernels());
        let mut out = Collected::new(slide());
        let info = out.info.clone();
        stage.opened(slide(), &info, &mut out.cx());
        for (t, score) in [(0, f32::NAN), (1, 0.5), (2, f32::INFINITY)] {
            let key = Key {
                slide: slide(),
                tile: tile(t),
                rev: 0,
            };
            stage.row(0, key, scored(score), &mut out.cx());
        }
        stage.complete(0, slide(), &done(End::Complete), &mut out.cx());
        stage.settled(&mut out.cx());
        assert_eq!(out.picked(0).into_keys().collect::<Vec<_>>(), [tile(1)]);
        let told = out
            .events
            .iter()
            .filter(|event| matches!(event, Event::TileFailed(_)));
        assert_eq!(told.count(), 2);
    }
}
