//! (e) on a device.

use super::stream::Stream;
use crate::error::{Cause, KernelError};
use crate::kernels::TileForm;
use crate::view::{View, ViewMut};

pub(super) fn normalise(
    _: &Stream,
    tiles: View<'_, 4>,
    _: TileForm,
    _: ViewMut<'_, 4>,
) -> Result<(), KernelError> {
    Err(KernelError {
        kernel: "tiles",
        shape: tiles.to_string(),
        cause: Cause::Unsupported {
            what: "this kernel is not built for devices yet".into(),
            help: "use the processor",
        },
    })
}
