//! (a) on the processor.

use super::Cpu;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::kernels::{Rule, WeightsOut};
use crate::view::{View, ViewMut};

pub(super) fn forward(
    _: &Cpu,
    bags: &Bags,
    _: Rule,
    _: View<'_, 1>,
    _: WeightsOut<'_>,
) -> Result<(), KernelError> {
    Err(missing("weights", bags))
}

pub(super) fn backward(
    _: &Cpu,
    bags: &Bags,
    _: Rule,
    _: View<'_, 1>,
    _: (View<'_, 1>, View<'_, 1>, View<'_, 1>),
    _: View<'_, 1>,
    _: ViewMut<'_, 1>,
) -> Result<(), KernelError> {
    Err(missing("weights backward", bags))
}

pub(super) fn missing(kernel: &'static str, bags: &Bags) -> KernelError {
    KernelError {
        kernel,
        shape: bags.describe(),
        cause: Cause::Unsupported {
            what: "this kernel is not built yet".into(),
            help: "use the loops of weir_kernels::pool",
        },
    }
}
