//! What a graph holds in memory.

use crate::plan::{Node, Plan};
use crate::schema::{Kind, StateArgs};

/// Bytes of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of what, in words.
    pub what: String,
    /// How many.
    pub bytes: u64,
    /// Whether they are kept, of every open slide or of all; else they are pixels on their way.
    pub kept: bool,
}

/// What the stage at `index` keeps of an open slide of `tiles` tiles.
pub fn state(plan: &Plan, index: usize, tiles: u64) -> u64 {
    let node = &plan.nodes[index];
    let feature = node
        .inputs
        .iter()
        .filter(|edge| node.schema.ins[edge.port].kind == Kind::Features)
        .find_map(|edge| {
            plan.nodes[edge.node]
                .shapes
                .get(edge.output)?
                .first()
                .copied()
        })
        .unwrap_or(0);
    node.schema.state_bytes.bytes(&StateArgs {
        values: &node.values,
        tiles: plan.takes_at_most(index, tiles),
        feature,
    })
}

/// Bytes of one tile of the pixels that a stage sends; `None` when it sends none or their size is not known.
pub fn tile(node: &Node) -> Option<u64> {
    let output = node
        .schema
        .outs
        .iter()
        .position(|port| port.kind == Kind::Pixels)?;
    match node.shapes.get(output)?.as_slice() {
        [height, width, ..] if height * width > 0 => Some(height * width * 3),
        _ => None,
    }
}

/// The least that must be there for one slide with one tile: what stages keep, and a batch of every stream of pixels.
pub(crate) fn least(plan: &Plan) -> Vec<Part> {
    let mut parts = Vec::new();
    for plugin in plan.plugins.iter().filter(|plugin| plugin.cache > 0) {
        parts.push(Part {
            what: format!("decoded tiles, kept by plugin `{}`", plugin.name),
            bytes: plugin.cache,
            kept: true,
        });
    }
    for memory in plan.stage_memories() {
        let of = format!("what stage `{}` allocates", memory.node.name);
        parts.push(Part {
            what: match memory.instances {
                1 => of,
                instances => format!("{of}, by {instances} instances"),
            },
            bytes: memory.bytes(),
            kept: true,
        });
    }
    for (index, node) in plan.nodes.iter().enumerate() {
        let bytes = state(plan, index, 1);
        if bytes > 0 {
            parts.push(Part {
                what: format!("an open slide, kept by stage `{}`", node.name),
                bytes,
                kept: true,
            });
        }
        if let Some(tile) = tile(node) {
            let rows = plan
                .nodes
                .iter()
                .filter(|user| user.inputs.iter().any(|edge| edge.node == index))
                .filter_map(|user| user.run.batch)
                .max()
                .unwrap_or(1) as u64;
            parts.push(Part {
                what: match rows {
                    1 => format!("one tile of stage `{}`", node.name),
                    rows => format!("a batch of {rows} tiles of stage `{}`", node.name),
                },
                bytes: rows * tile,
                kept: false,
            });
        }
    }
    parts
}

/// The budget in which these parts fit: of what the kept leaves, a quarter is the cache's, and an eighth of the rest is held
/// back from scanning.
pub(crate) fn needed(parts: &[Part]) -> u64 {
    let sum = |kept| {
        parts
            .iter()
            .filter(|part| part.kept == kept)
            .map(|part| part.bytes)
            .fold(0, u64::saturating_add)
    };
    sum(true).saturating_add(sum(false).saturating_mul(32).div_ceil(21))
}
