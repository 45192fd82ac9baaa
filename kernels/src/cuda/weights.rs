//! (a) on a device.

use super::stream::Stream;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::kernels::{Rule, WeightsOut};
use crate::view::{View, ViewMut};

pub(super) fn forward(
    _: &Stream,
    bags: &Bags,
    _: Rule,
    _: View<'_, 1>,
    _: WeightsOut<'_>,
) -> Result<(), KernelError> {
    Err(missing("weights", bags))
}

pub(super) fn backward(
    _: &Stream,
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
            what: "this kernel is not built for devices yet".into(),
            help: "use the processor",
        },
    }
}
