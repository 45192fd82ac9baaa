//! Arguments of (a).

use super::Asked;
use crate::bags::Bags;
use crate::error::KernelError;
use crate::kernels::WeightsOut;
use crate::view::{Dtype, View, ViewMut};

/// Results of the forward pass.
pub(crate) fn out(asked: &Asked, bags: &Bags, to: &WeightsOut<'_>) -> Result<(), KernelError> {
    let f32s = |argument, view: &ViewMut<'_, 1>, len| {
        asked.dense(argument, view.layout(), Dtype::F32, [len])
    };
    f32s("weights", &to.weights, bags.total())?;
    f32s("sums", &to.sums, bags.len())?;
    f32s("squares", &to.squares, bags.len())?;
    f32s("entropy", &to.entropy, bags.len())?;
    asked.dense("flags", to.flags.layout(), Dtype::U32, [bags.len()])
}

/// Arguments that (a)'s and (b)'s backward passes have in common.
pub(crate) fn backward(
    asked: &Asked,
    bags: &Bags,
    logits: View<'_, 1>,
    weights: View<'_, 1>,
    sums: View<'_, 1>,
    flags: View<'_, 1>,
    out: &ViewMut<'_, 1>,
) -> Result<(), KernelError> {
    asked.dense("logits", logits.layout(), Dtype::F32, [bags.total()])?;
    asked.dense("weights", weights.layout(), Dtype::F32, [bags.total()])?;
    asked.dense("sums", sums.layout(), Dtype::F32, [bags.len()])?;
    asked.dense("flags", flags.layout(), Dtype::U32, [bags.len()])?;
    asked.dense("logits' gradient", out.layout(), Dtype::F32, [bags.total()])
}
