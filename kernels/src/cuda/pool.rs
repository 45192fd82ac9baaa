//! (b) on a device.

use super::stream::Stream;
use super::weights::missing;
use crate::bags::Bags;
use crate::error::KernelError;
use crate::kernels::{PoolBackward, PoolGradient, PoolOut, PoolState, Rule};
use crate::view::View;

pub(super) fn forward(
    _: &Stream,
    bags: &Bags,
    _: Rule,
    _: View<'_, 2>,
    _: View<'_, 1>,
    _: PoolOut<'_>,
) -> Result<(), KernelError> {
    Err(missing("pool", bags))
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    _: &Stream,
    bags: &Bags,
    _: Rule,
    _: View<'_, 2>,
    _: View<'_, 1>,
    _: PoolState<'_>,
    _: PoolGradient<'_>,
    _: PoolBackward<'_>,
) -> Result<(), KernelError> {
    Err(missing("pool backward", bags))
}
