//! (d) on a device.

use super::stream::Stream;
use super::weights::missing;
use crate::bags::Bags;
use crate::error::KernelError;
use crate::kernels::{Ends, TopKOut};
use crate::view::View;

pub(super) fn select(
    _: &Stream,
    bags: &Bags,
    _: Ends,
    _: View<'_, 1>,
    _: TopKOut<'_>,
) -> Result<(), KernelError> {
    Err(missing("top-k", bags))
}
