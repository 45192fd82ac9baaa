//! Arguments of (e).

use super::{ALIGNED, APART};
use crate::error::{Cause, KernelError};
use crate::kernels::TileForm;
use crate::view::{Dtype, View, ViewMut};

/// A refusal of this kernel.
pub(crate) fn refuse(
    tiles: &View<'_, 4>,
    form: &TileForm,
    out: &ViewMut<'_, 4>,
    cause: Cause,
) -> KernelError {
    KernelError {
        kernel: "tiles",
        shape: describe(tiles, form, out),
        cause,
    }
}

/// As an error names the call.
pub(crate) fn describe(tiles: &View<'_, 4>, form: &TileForm, out: &ViewMut<'_, 4>) -> String {
    let [y, x] = form.corner;
    format!("{tiles} from row {y}, column {x} to {out:?}")
}

/// What holds on every device: types, shapes, that the part lies inside the tiles, and that the form is one.
pub(crate) fn check(
    tiles: &View<'_, 4>,
    form: &TileForm,
    out: &ViewMut<'_, 4>,
) -> Result<(), KernelError> {
    let refuse = |cause| Err(refuse(tiles, form, out, cause));
    if tiles.dtype() != Dtype::U8 {
        return refuse(Cause::Dtype {
            argument: "tiles",
            expected: "u8",
            got: tiles.dtype(),
        });
    }
    if !matches!(out.dtype(), Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
        return refuse(Cause::Dtype {
            argument: "out",
            expected: "f32, f16 or bf16",
            got: out.dtype(),
        });
    }
    let ([count, height, width, channels], [n, planes, h, w]) = (tiles.shape(), out.shape());
    if channels != 3 {
        return refuse(Cause::Shape {
            argument: "tiles",
            expected: "3 channels (a stride leaves others out)".into(),
            got: channels.to_string(),
        });
    }
    if [n, planes] != [count, 3] {
        return refuse(Cause::Shape {
            argument: "out",
            expected: format!("{count} tiles of 3 planes"),
            got: format!("{n} of {planes}"),
        });
    }
    for (argument, what, corner, taken, there) in [
        ("tiles", "rows", form.corner[0], h, height),
        ("tiles", "columns", form.corner[1], w, width),
    ] {
        let end = corner.checked_add(taken);
        if end.is_none_or(|end| end > there) {
            return refuse(Cause::Shape {
                argument,
                expected: format!("{corner} + {taken} {what}"),
                got: format!("{there} {what}"),
            });
        }
    }
    if !out.layout().aligned() {
        return refuse(Cause::Strides {
            argument: "out",
            expected: ALIGNED,
        });
    }
    if !out.layout().apart() {
        return refuse(Cause::Strides {
            argument: "out",
            expected: APART,
        });
    }
    if let Some(&channel) = form.channels.iter().find(|&&channel| channel > 2) {
        return refuse(Cause::Limit {
            what: "as a channel's number",
            limit: 2,
            got: channel.into(),
        });
    }
    if !form.scale.iter().chain(&form.shift).all(|x| x.is_finite()) {
        return refuse(Cause::Unsupported {
            what: format!(
                "scale {:?} or shift {:?} is not finite",
                form.scale, form.shift
            ),
            help: "give a standard deviation above 0",
        });
    }
    Ok(())
}
