//! What an open slide keeps of the budget, from the plan alone.

use weir_pipeline::{Plan, Rows, memory};

use crate::inbox::REGISTER_BYTES;

/// A plugin's manifest may say any number. More than this fits no budget, and the sum of what two slides keep is still one.
const MOST: u64 = 1 << 60;

/// Bytes that the stages of `plan` keep of an open slide of `tiles` tiles, registers included: what is reserved of the budget
/// when it opens.
pub fn state_bytes(plan: &Plan, tiles: u64) -> u64 {
    let stages = plan.nodes.iter().enumerate();
    stages
        .map(|(index, node)| {
            let registers = match node.schema.rows {
                Rows::Reduce | Rows::Sink => plan
                    .takes_at_most(index, tiles)
                    .saturating_mul(REGISTER_BYTES),
                _ => 0,
            };
            memory::state(plan, index, tiles).saturating_add(registers)
        })
        .fold(0, u64::saturating_add)
        .min(MOST)
}
