//! Arguments of (d).

use super::ALIGNED;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::kernels::{Ends, TopKOut};
use crate::view::{Dtype, View};

/// A refusal of this kernel.
pub(crate) fn refuse(bags: &Bags, ends: Ends, cause: Cause) -> KernelError {
    KernelError {
        kernel: "top-k",
        shape: describe(bags, ends),
        cause,
    }
}

/// As an error names the call.
pub(crate) fn describe(bags: &Bags, ends: Ends) -> String {
    let Ends { highest, lowest } = ends;
    format!("{}, {highest} highest, {lowest} lowest", bags.describe())
}

/// What holds on every device: limits, types, shapes, and that the results lie without gaps.
pub(crate) fn check(
    bags: &Bags,
    ends: Ends,
    scores: &View<'_, 1>,
    out: &TopKOut<'_>,
) -> Result<(), KernelError> {
    let refuse = |cause| Err(refuse(bags, ends, cause));
    for (what, got) in [
        ("highest members", ends.highest),
        ("lowest members", ends.lowest),
    ] {
        if got > Ends::LIMIT {
            return refuse(Cause::Limit {
                what,
                limit: Ends::LIMIT,
                got,
            });
        }
    }
    let (highest, lowest) = (out.highest.as_view(), out.lowest.as_view());
    let nans = out.nans.as_view();
    for (argument, expected, must, got) in [
        ("scores", "f32", Dtype::F32, scores.dtype()),
        ("highest", "i32", Dtype::I32, highest.dtype()),
        ("lowest", "i32", Dtype::I32, lowest.dtype()),
        ("nans", "u32", Dtype::U32, nans.dtype()),
    ] {
        if got != must {
            return refuse(Cause::Dtype {
                argument,
                expected,
                got,
            });
        }
    }
    let (rows, count) = (bags.total(), bags.len());
    let shapes = [
        ("scores", vec![rows], scores.shape().to_vec()),
        (
            "highest",
            vec![count, ends.highest],
            highest.shape().to_vec(),
        ),
        ("lowest", vec![count, ends.lowest], lowest.shape().to_vec()),
        ("nans", vec![count], nans.shape().to_vec()),
    ];
    for (argument, expected, got) in shapes {
        if got != expected {
            return refuse(Cause::Shape {
                argument,
                expected: format!("{expected:?}"),
                got: format!("{got:?}"),
            });
        }
    }
    let lies = |dense, aligned| match (dense, aligned) {
        (false, _) => Some("in order and without gaps"),
        (_, false) => Some(ALIGNED),
        _ => None,
    };
    let lie = [
        (
            "scores",
            scores.layout().contiguous(),
            scores.layout().aligned(),
        ),
        (
            "highest",
            highest.layout().contiguous(),
            highest.layout().aligned(),
        ),
        (
            "lowest",
            lowest.layout().contiguous(),
            lowest.layout().aligned(),
        ),
        ("nans", nans.layout().contiguous(), nans.layout().aligned()),
    ];
    for (argument, dense, aligned) in lie {
        if let Some(expected) = lies(dense, aligned) {
            return refuse(Cause::Strides { argument, expected });
        }
    }
    Ok(())
}
