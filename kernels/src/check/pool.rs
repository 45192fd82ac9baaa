//! Arguments of (b).

use super::{Asked, FEATURES, weights};
use crate::bags::Bags;
use crate::error::KernelError;
use crate::kernels::{PoolBackward, PoolGradient, PoolOut, PoolState, Rule};
use crate::view::{Dtype, View};

/// Of the forward pass.
pub(crate) fn forward(
    asked: &Asked,
    bags: &Bags,
    rule: Rule,
    features: View<'_, 2>,
    logits: View<'_, 1>,
    out: &PoolOut<'_>,
) -> Result<(), KernelError> {
    rule.check(asked.kernel(), asked.shape())?;
    let width = features.shape()[1];
    asked.matrix(
        "features",
        features.layout(),
        FEATURES,
        [bags.total(), width],
    )?;
    asked.dense("logits", logits.layout(), Dtype::F32, [bags.total()])?;
    asked.dense(
        "pooled",
        out.pooled.layout(),
        Dtype::F32,
        [bags.len(), width],
    )?;
    weights::out(asked, bags, &out.weights)
}

/// Of the backward pass.
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward(
    asked: &Asked,
    bags: &Bags,
    rule: Rule,
    features: View<'_, 2>,
    logits: View<'_, 1>,
    state: &PoolState<'_>,
    gradient: &PoolGradient<'_>,
    out: &PoolBackward<'_>,
) -> Result<(), KernelError> {
    rule.check(asked.kernel(), asked.shape())?;
    let width = features.shape()[1];
    let rows = [bags.total(), width];
    asked.matrix("features", features.layout(), FEATURES, rows)?;
    weights::backward(
        asked,
        bags,
        logits,
        state.weights,
        state.sums,
        state.flags,
        &out.logits,
    )?;
    let vectors = [bags.len(), width];
    asked.dense("pooled", state.pooled.layout(), Dtype::F32, vectors)?;
    asked.dense(
        "pooled vectors' gradient",
        gradient.pooled.layout(),
        Dtype::F32,
        vectors,
    )?;
    if let Some(weights) = gradient.weights {
        asked.dense(
            "weights' gradient",
            weights.layout(),
            Dtype::F32,
            [bags.total()],
        )?;
    }
    if let Some(features_out) = &out.features {
        asked.matrix_out(
            "features' gradient",
            features_out.layout(),
            features.dtype(),
            rows,
        )?;
    }
    Ok(())
}
