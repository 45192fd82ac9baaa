//! Tiles of open slides, as the sinks that show tiles keep them until a slide ends, and what they say of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_pipeline::{ParamKind, Plan};
use weir_record::{Attention, Body, End, Event, Key, Picks, SlideId, SlideInfo, TileId};
use weir_runtime::stage::{Completed, Prepare};

/// Bytes that a tile takes, for reservations: score, attention, and its place in the order.
pub(crate) const BYTES: u64 = 64;

/// Ports of every sink that shows tiles.
pub(crate) const SCORES: usize = 0;
pub(crate) const ATTENTION: usize = 1;

/// Tiles of one open slide: what holds, whatever the order in which it came.
#[derive(Clone, Debug)]
pub(crate) struct Tiles {
    pub(crate) info: Arc<SlideInfo>,
    pub(crate) scores: BTreeMap<TileId, f32>,
    /// Members of the bag.
    pub(crate) attention: BTreeMap<TileId, Attention>,
    /// Tiles of which nothing could be made.
    pub(crate) failed: BTreeSet<TileId>,
    /// How many of each end were selected; `None` where nothing selects.
    pub(crate) picks: Option<Picks>,
    slide_failed: bool,
    skipped: bool,
}

impl Tiles {
    pub(crate) fn new(info: Arc<SlideInfo>) -> Self {
        Tiles {
            info,
            scores: BTreeMap::new(),
            attention: BTreeMap::new(),
            failed: BTreeSet::new(),
            picks: None,
            slide_failed: false,
            skipped: false,
        }
    }

    /// Takes what now holds for a tile.
    pub(crate) fn row(&mut self, port: usize, tile: TileId, body: &Body) {
        if port == SCORES {
            self.failed.remove(&tile);
        }
        match (port, body) {
            (SCORES, Body::Score(scores)) => {
                self.scores.insert(tile, scores.score);
            }
            (SCORES, other) => {
                self.scores.remove(&tile);
                if matches!(other, Body::Fail(_)) {
                    self.failed.insert(tile);
                }
            }
            (ATTENTION, Body::Attention(attention)) => {
                self.attention.insert(tile, **attention);
            }
            (ATTENTION, _) => {
                self.attention.remove(&tile);
            }
            _ => {}
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Selection { highest, lowest } => {
                self.picks = Some(Picks {
                    highest: *highest,
                    lowest: *lowest,
                });
            }
            Event::SlideFailed(_) => self.slide_failed = true,
            Event::Skipped { .. } => self.skipped = true,
            _ => {}
        }
    }

    /// What a sink does now that every port ended.
    pub(crate) fn verdict(&self, done: &[Completed]) -> Verdict {
        if self.skipped {
            Verdict::Skipped
        } else if self.slide_failed {
            Verdict::Remove
        } else if done.iter().any(|port| port.end == Some(End::Aborted)) {
            Verdict::Interrupted
        } else {
            Verdict::Write
        }
    }

    /// Tiles from the highest score to the lowest; of equals the lesser TileId first.
    pub(crate) fn ranked(&self) -> Vec<(TileId, f32)> {
        let mut ranked: Vec<(TileId, f32)> = self.scores.iter().map(|(t, s)| (*t, *s)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked
    }

    /// The end that each selected tile was taken from and its rank there, from 1: `high` for the first m of the order, `low`
    /// for the last m; a tile that is both (few tiles) is `high`.
    pub(crate) fn selected(&self) -> BTreeMap<TileId, (Side, u32)> {
        let Some(picks) = self.picks else {
            return BTreeMap::new();
        };
        let ranked = self.ranked();
        let low = ranked.iter().rev().take(picks.lowest as usize).zip(1..);
        let high = ranked.iter().take(picks.highest as usize).zip(1..);
        low.map(|((tile, _), rank)| (*tile, (Side::Low, rank)))
            .chain(high.map(|((tile, _), rank)| (*tile, (Side::High, rank))))
            .collect()
    }

    /// Every tile that has a score or is a member, in TileId order.
    pub(crate) fn all(&self) -> BTreeSet<TileId> {
        let mut all: BTreeSet<TileId> = self.scores.keys().copied().collect();
        all.extend(self.attention.keys());
        all
    }
}

/// What a sink does with a slide that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write its file.
    Write,
    /// The slide failed: a file of an earlier run would speak against it.
    Remove,
    /// An earlier run wrote it.
    Skipped,
    /// The run was stopped: what an earlier run wrote stays.
    Interrupted,
}

/// Which end a tile was selected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    High,
    Low,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::High => "high",
            Side::Low => "low",
        }
    }
}

/// The open slides of a sink.
#[derive(Default)]
pub(crate) struct OpenTiles(HashMap<SlideId, Tiles>);

impl OpenTiles {
    pub(crate) fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) {
        self.0.insert(slide, Tiles::new(info.clone()));
    }

    pub(crate) fn row(&mut self, port: usize, key: Key, body: &Body) {
        if let Some(tiles) = self.0.get_mut(&key.slide) {
            tiles.row(port, key.tile, body);
        }
    }

    pub(crate) fn event(&mut self, slide: SlideId, event: &Event) {
        if let Some(tiles) = self.0.get_mut(&slide) {
            tiles.event(event);
        }
    }

    pub(crate) fn get(&self, slide: SlideId) -> Option<&Tiles> {
        self.0.get(&slide)
    }

    pub(crate) fn closed(&mut self, slide: SlideId) {
        self.0.remove(&slide);
    }
}

/// Names of the classes that rows of an input speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    pub(crate) names: Vec<String>,
    /// The one whose probability is the score.
    pub(crate) positive: Option<String>,
}

impl Classes {
    /// From the model of the nearest stage upstream of input `port` that has one.
    pub(crate) fn upstream(cx: &Prepare, port: usize) -> Self {
        let edge = cx.node.inputs.iter().find(|edge| edge.port == port);
        edge.and_then(|edge| Self::behind(cx.plan, edge.node))
            .unwrap_or_default()
    }

    fn behind(plan: &Plan, node: usize) -> Option<Self> {
        let node = plan.nodes.get(node)?;
        let model = node.schema.params.iter().find_map(|param| {
            let name = matches!(param.kind, ParamKind::Model(_)).then_some(param.name)?;
            plan.models.get(node.values.text(name).ok()?)
        });
        match model {
            Some(header) => Some(Classes {
                names: header.classes.clone(),
                positive: Some(header.positive.clone()),
            }),
            None => node
                .inputs
                .iter()
                .find_map(|edge| Self::behind(plan, edge.node)),
        }
    }

    /// The name of class `index`; the index itself when no model says it.
    pub(crate) fn name(&self, index: u32) -> String {
        match self.names.get(index as usize) {
            Some(name) => name.clone(),
            None => index.to_string(),
        }
    }
}

/// A number for a table: the shortest text that reads back to the same bits; empty where there is none.
pub(crate) fn number(value: f32) -> String {
    let size = value.abs();
    if !value.is_finite() {
        String::new()
    } else if size != 0.0 && !(1e-5..1e16).contains(&size) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

/// As [`number`], for coordinates and resolutions.
pub(crate) fn number64(value: f64) -> String {
    value.to_string()
}
