//! What part of a slide's tiles may fail before the slide fails: the rule of `run.max-failed`, for reduces and sinks.
//!
//! A failed tile is an outcome that every stage behind it passes on, so the first stage that closes the domain counts it: a
//! reduce, or, where a stream ends without one, the sink. A sink beside a reduce that counts the same failures stays silent,
//! so that a slide fails once and for one reason.

use weir_pipeline::{Edge, Kind, Node, Plan, Rows};
use weir_record::{Failure, Tally};

use crate::progress::behind_a_reduce;

/// What part of the versions at a port may fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MayFail {
    part: f64,
    key: &'static str,
    /// Whether the port takes tiles, and not the one row of a slide as a whole.
    tiles: bool,
}

impl MayFail {
    /// At a port of `node`; tiles that a reduce selected have a setting of their own.
    pub(crate) fn at(plan: &Plan, node: &Node, port: usize) -> MayFail {
        let selected = node
            .inputs
            .iter()
            .any(|edge| edge.port == port && behind_a_reduce(plan, edge.node));
        let (part, key) = match selected {
            true => (plan.run.max_failed_picked, "max-failed-picked"),
            false => (plan.run.max_failed, "max-failed"),
        };
        let kind = node.schema.ins.get(port).map(|port| port.kind);
        let tiles = !matches!(kind, Some(Kind::Bag | Kind::Predictions));
        MayFail { part, key, tiles }
    }

    /// At a port of a sink; `None` where a reduce counts the same failures.
    pub(crate) fn at_sink(plan: &Plan, node: &Node, port: usize) -> Option<MayFail> {
        let mut feeds = node.inputs.iter().filter(|edge| edge.port == port);
        let counted = feeds.all(|edge| a_reduce_counts(plan, edge.node, edge.output));
        (!counted).then(|| MayFail::at(plan, node, port))
    }

    /// Why the slide fails, when more did.
    pub(crate) fn too_many(self, stage: &str, slide: &str, tally: &Tally) -> Option<Failure> {
        let counted = tally.value + tally.skipped() + tally.fail;
        if tally.fail as f64 <= self.part * counted as f64 {
            return None;
        }
        let (what, help) = match self.tiles {
            true => (
                format!(
                    "{} of {counted} tiles failed, more than {} %",
                    tally.fail,
                    100.0 * self.part
                ),
                format!(
                    "look at the tiles that failed; raise run.{} if so many may be missing",
                    self.key
                ),
            ),
            false => (
                "what is made of the whole slide failed".into(),
                "look at what failed".into(),
            ),
        };
        Some(Failure {
            stage: stage.to_owned(),
            slide: slide.to_owned(),
            tile: None,
            what,
            help,
        })
    }
}

/// Whether a reduce gets every failure that an output sends, as it is or through maps and filters, which pass failures on to
/// all of their outputs. Where an input takes several streams a value of another may stand in for a failure, so that does not
/// count.
fn a_reduce_counts(plan: &Plan, node: usize, output: usize) -> bool {
    let alone = |to: &Node, by: &Edge| to.inputs.iter().filter(|e| e.port == by.port).count() == 1;
    plan.nodes.iter().enumerate().any(|(at, to)| {
        to.inputs
            .iter()
            .any(|edge| (edge.node, edge.output) == (node, output) && alone(to, edge))
            && match to.schema.rows {
                Rows::Reduce => true,
                Rows::Map | Rows::Filter => {
                    (0..to.schema.outs.len()).any(|output| a_reduce_counts(plan, at, output))
                }
                Rows::Source | Rows::Sink => false,
            }
    })
}
