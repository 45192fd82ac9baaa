//! The bag that a set of members makes.

use weir_model::{BagModel, Pooled};
use weir_record::{Attention, Bag, BagFlags, Coverage, End, State, TileId};

use super::members::Members;

/// What is known of a bag beside its members.
#[derive(Clone, Debug)]
pub(super) struct Circumstances {
    pub(super) coverage: Coverage,
    pub(super) selection: u32,
    pub(super) ended: Option<End>,
    pub(super) state: State,
}

/// A pooled bag with each member's part in it; `matrix` holds the members' features in TileId order.
pub(super) fn bag(
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
