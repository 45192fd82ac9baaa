//! (c) on a device.

use super::stream::Stream;
use super::weights::missing;
use crate::bags::Bags;
use crate::error::KernelError;
use crate::gated::GatedHead;
use crate::kernels::{GatedBackward, GatedOut, PoolGradient, PoolState, Rule};
use crate::view::View;

pub(super) fn forward(
    _: &Stream,
    bags: &Bags,
    _: Rule,
    _: &GatedHead,
    _: View<'_, 2>,
    _: GatedOut<'_>,
) -> Result<(), KernelError> {
    Err(missing("gated pool", bags))
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    _: &Stream,
    bags: &Bags,
    _: Rule,
    _: &GatedHead,
    _: View<'_, 2>,
    _: View<'_, 1>,
    _: PoolState<'_>,
    _: PoolGradient<'_>,
    _: GatedBackward<'_>,
) -> Result<(), KernelError> {
    Err(missing("gated pool backward", bags))
}
