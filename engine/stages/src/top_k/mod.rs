//! `top-k`: the m highest and the m lowest tiles of a slide.

mod ranking;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_kernels::KernelError;
use weir_kernels::auto::Kernel;
use weir_pipeline::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Plan, Port, Rows, RunSettings, Schema, StateArgs,
    StateBytes,
};
use weir_record::{Body, End, Event, Failure, Key, SlideId, SlideInfo, TileId};
use weir_runtime::stage::{Completed, Cx, Prepare, Prepared, Reduce, StageError, StageType};

use crate::kernels::{self, Stand};

use ranking::{Column, Register, Selection, select};
pub use ranking::{Ends, Rank};

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
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
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
    if once && ends.fit_the_kernel() {
        kernels.needs(Kernel::TopK)?;
    }
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
    /// The kernels refused it, and that was told.
    failed: bool,
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

    /// What is selected of some slides, or why the kernels did not.
    fn chosen(&mut self, ids: &[SlideId]) -> BTreeMap<SlideId, Result<Selection, KernelError>> {
        let mut chosen = BTreeMap::new();
        let (mut of, mut columns) = (Vec::new(), Vec::new());
        for (id, slide) in self.slides.iter_mut().filter(|(id, _)| ids.contains(id)) {
            match &mut slide.seen {
                Seen::Once(column) => {
                    of.push(*id);
                    columns.push(column);
                }
                Seen::Corrected(register) => {
                    chosen.insert(*id, Ok(register.selection(self.ends)));
                }
            }
        }
        if !columns.is_empty() {
            let selected = select(&self.kernels, self.ends, &mut columns);
            self.kernels.tell_trace();
            match selected {
                Ok(selected) => chosen.extend(of.into_iter().zip(selected.into_iter().map(Ok))),
                Err(error) => chosen.extend(of.into_iter().map(|id| (id, Err(error.clone())))),
            }
        }
        chosen
    }

    /// Tells that nothing could be selected of a slide: it fails.
    fn fail(&mut self, id: SlideId, error: &KernelError, cx: &mut Cx) {
        if let Some(slide) = self.slides.get_mut(&id) {
            (slide.failed, slide.touched) = (true, false);
        }
        let failure = Failure {
            stage: self.stage.clone(),
            slide: cx.info(id).map_or_else(String::new, |info| info.id.clone()),
            tile: None,
            what: error.to_string(),
            help: "run the stage on the processor: run = { device = \"cpu\" }".into(),
        };
        cx.event(id, Event::SlideFailed(failure));
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
                failed: false,
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
            .filter(|(_, slide)| slide.touched && !slide.failed)
            .map(|(id, _)| *id)
            .collect();
        for (id, chosen) in self.chosen(&touched) {
            match (chosen, self.slides.get_mut(&id)) {
                (Ok(chosen), Some(slide)) => Self::publish(id, slide, chosen, None, cx),
                (Err(error), _) => self.fail(id, &error, cx),
                (Ok(_), None) => {}
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
            (Some(_), Some(failed)) if failed.failed => cx.seal(0, slide, Some(End::Aborted)),
            (Some(end), Some(_)) => self.due.push((slide, end)),
            _ => {}
        }
    }

    fn settled(&mut self, cx: &mut Cx) {
        let due = std::mem::take(&mut self.due);
        let ids: Vec<SlideId> = due.iter().map(|(id, _)| *id).collect();
        let mut chosen = self.chosen(&ids);
        for (id, end) in due {
            match (chosen.remove(&id), self.slides.get_mut(&id)) {
                (Some(Ok(chosen)), Some(slide)) => {
                    Self::publish(id, slide, chosen, Some(end), cx);
                }
                (Some(Err(error)), _) => {
                    self.fail(id, &error, cx);
                    cx.seal(0, id, Some(End::Aborted));
                }
                (Some(Ok(_)), None) | (None, _) => {}
            }
        }
    }

    fn closed(&mut self, slide: SlideId) {
        self.slides.remove(&slide);
    }
}
