//! How much memory a run needs, from its plan alone: what `weir graph` prints and a test holds the program to.

use serde::Serialize;
use weir_pipeline::{Kind, Node, Plan, Rows, StateArgs};

use crate::inbox::REGISTER_BYTES;

/// Bodies below this size are not leased.
const SMALL: u64 = 1024;
/// Stack and scratch of a reader or helper thread: a native tile of 1024 x 1024 px decoded, and the way there.
const A_THREAD: u64 = 8 << 20;
/// The program itself: code, tables, rows on their way.
const PROGRAM: u64 = 64 << 20;

/// Parts of a run's memory, bytes. Models are not in it: their weights, and what a network needs for its layers, are the
/// executor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `run.memory`: leases, caches, free buffers and what the stages keep of open slides, together.
    pub budget: u64,
    /// What the stages keep of a slide while it is open.
    pub state_a_slide: u64,
    /// Slides of this size that can be open at once: `run.open-slides`, or as many as leave an eighth of the budget; one at
    /// least.
    pub slides: u64,
    /// One row of each stage that makes pixels or features: granted however full the budget is.
    pub least: u64,
    /// Stacks and scratch of reader and helper threads.
    pub threads: u64,
    /// The program itself.
    pub program: u64,
}

impl Memory {
    /// Bytes that a run may need above `run.memory`.
    pub fn beyond(&self) -> u64 {
        let room = self.budget - self.budget / 8;
        self.least + self.threads + self.program + self.state_a_slide.saturating_sub(room)
    }

    /// Bytes that a run may need in all, models aside.
    pub fn total(&self) -> u64 {
        self.budget + self.beyond()
    }
}

/// What a run of `plan` over slides of `tiles` tiles needs, in each process.
pub fn memory(plan: &Plan, tiles: u64) -> Memory {
    let budget = plan.run.memory;
    let state_a_slide = state_bytes(plan, tiles);
    let room = budget - budget / 8;
    let fit = room.checked_div(state_a_slide).unwrap_or(u64::MAX);
    let threads = plan.run.readers.max(1) + plan.run.helpers.max(1) + plan.run.workers.max(1);
    Memory {
        budget,
        state_a_slide,
        slides: fit.clamp(1, plan.run.open_slides.max(1) as u64),
        least: plan.nodes.iter().map(a_row).sum(),
        threads: threads as u64 * A_THREAD,
        program: PROGRAM,
    }
}

/// Bytes of a row of a stage, when it makes what is leased.
fn a_row(node: &Node) -> u64 {
    if !matches!(node.schema.rows, Rows::Source | Rows::Map) {
        return 0;
    }
    let bytes = node
        .schema
        .outs
        .iter()
        .zip(&node.shapes)
        .map(|(port, shape)| {
            let size: u64 = shape.iter().product();
            match port.kind {
                Kind::Pixels => size,
                Kind::Features => 4 * size,
                _ => 0,
            }
        });
    bytes.filter(|bytes| *bytes >= SMALL).max().unwrap_or(0)
}

/// Bytes that the stages of `plan` keep of an open slide of `tiles` tiles, registers included: what is reserved of the budget
/// when it opens.
pub fn state_bytes(plan: &Plan, tiles: u64) -> u64 {
    let mut sum = 0;
    for (index, node) in plan.nodes.iter().enumerate() {
        let features = node
            .inputs
            .iter()
            .filter(|edge| node.schema.ins[edge.port].kind == Kind::Features);
        let feature = features
            .filter_map(|edge| plan.nodes[edge.node].shapes.get(edge.output)?.first())
            .next();
        let reaching = plan.takes_at_most(index, tiles);
        sum += (node.schema.state_bytes)(&StateArgs {
            values: &node.values,
            tiles: reaching,
            feature: feature.copied().unwrap_or(0),
        });
        if matches!(node.schema.rows, Rows::Reduce | Rows::Sink) {
            sum += reaching * REGISTER_BYTES;
        }
    }
    sum
}
