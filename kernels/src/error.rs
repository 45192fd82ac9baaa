//! Why a kernel was not run: always said before it would have been launched, unless the driver says so.

use crate::view::{Dtype, Place};
use std::fmt;

/// A kernel's refusal: which, on what, why.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelError {
    /// The kernel, as `pool`.
    pub kernel: &'static str,
    /// What it was asked to do, as `64 bags, 262144 rows, 1024 bf16`.
    pub shape: String,
    /// Why not.
    pub cause: Cause,
}

/// Why.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// An argument has another shape or too few elements.
    Shape {
        /// Which.
        argument: &'static str,
        /// What it should have.
        expected: String,
        /// What it has.
        got: String,
    },
    /// An argument is of another type.
    Dtype {
        /// Which.
        argument: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: Dtype,
    },
    /// An argument's elements lie in a way that the kernel cannot read.
    Strides {
        /// Which.
        argument: &'static str,
        /// How they should lie.
        expected: &'static str,
    },
    /// An argument lies elsewhere.
    Place {
        /// Which.
        argument: &'static str,
        /// Where it should lie.
        expected: Place,
        /// Where it lies.
        got: Place,
    },
    /// Offsets that do not ascend from 0.
    Offsets {
        /// Place in the list.
        at: usize,
        /// What stands there.
        got: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than the kernel can hold or count.
    Limit {
        /// Of what.
        what: &'static str,
        /// At most.
        limit: usize,
        /// Wanted.
        got: usize,
    },
    /// Something that this device or kernel does not do.
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        help: &'static str,
    },
    /// The driver or the compiler failed.
    Driver {
        /// What was being done.
        doing: &'static str,
        /// The driver's number for it (`CUresult`), as 2 where memory ran out; `None` where it was not the driver that failed.
        code: Option<i32>,
        /// What it said.
        what: String,
    },
}

/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) const OUT_OF_MEMORY: i32 = 2;

impl KernelError {
    /// Whether the device's memory did not suffice: fewer or smaller bags at once may work where other failures will not.
    pub fn out_of_memory(&self) -> bool {
        matches!(
            self.cause,
            Cause::Driver {
                code: Some(OUT_OF_MEMORY),
                ..
            }
        )
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kernel `{}` ({}): {}",
            self.kernel, self.shape, self.cause
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Shape {
                argument,
                expected,
                got,
            } => write!(f, "`{argument}` has {got}, but {expected} are needed"),
            Cause::Dtype {
                argument,
                expected,
                got,
            } => write!(f, "`{argument}` is {got}, but must be {expected}"),
            Cause::Strides { argument, expected } => {
                write!(f, "the elements of `{argument}` must lie {expected}")
            }
            Cause::Place {
                argument,
                expected,
                got,
            } => write!(f, "`{argument}` lies on {got}, but must lie on {expected}"),
            Cause::Offsets { at, got, why } => write!(f, "offset {at} is {got}: {why}"),
            Cause::Limit { what, limit, got } => {
                write!(f, "{got} {what}, but at most {limit} can be done")
            }
            Cause::Unsupported { what, help } => write!(f, "{what}; {help}"),
            Cause::Driver { doing, what, .. } => write!(f, "could not {doing}: {what}"),
        }
    }
}

impl std::error::Error for KernelError {}
