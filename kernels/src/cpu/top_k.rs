//! (d) on the processor.

use super::Cpu;
use super::weights::missing;
use crate::bags::Bags;
use crate::error::KernelError;
use crate::kernels::{Ends, TopKOut};
use crate::view::View;

pub(super) fn select(
    _: &Cpu,
    bags: &Bags,
    _: Ends,
    _: View<'_, 1>,
    _: TopKOut<'_>,
) -> Result<(), KernelError> {
    Err(missing("top-k", bags))
}
