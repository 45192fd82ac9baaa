//! What an argument must be, said once for all kernels and both devices: here what arguments have in common, then a module a
//! kernel.

pub(crate) mod pool;
pub(crate) mod tiles;
pub(crate) mod top_k;
pub(crate) mod weights;

use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::view::{Dtype, Layout, Place};

/// Most components of a feature vector that the kernels take.
pub const WIDTH_LIMIT: usize = 65_536;

/// How the elements of a result must lie.
pub(crate) const APART: &str = "apart: no element may stand for two places";

/// Where the elements of an argument must lie.
pub(crate) const ALIGNED: &str = "at an address that is a multiple of an element's size";

/// The types that features may have.
pub(crate) const FEATURES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::Bf16];

/// What is asked of a kernel, for its errors, and where its arguments may lie.
#[derive(Debug)]
pub(crate) struct Asked {
    kernel: &'static str,
    shape: String,
    device: Place,
}

impl Asked {
    /// On the processor `device` is [`Place::Host`]; on a device arguments may lie there and on the host.
    pub(crate) fn new(kernel: &'static str, shape: String, device: Place) -> Asked {
        Asked {
            kernel,
            shape,
            device,
        }
    }

    /// Of a kernel without features.
    pub(crate) fn rows(kernel: &'static str, bags: &Bags, device: Place) -> Asked {
        Asked::new(kernel, bags.describe(), device)
    }

    /// Of a kernel with features.
    pub(crate) fn features(
        kernel: &'static str,
        bags: &Bags,
        features: &Layout<2>,
        device: Place,
    ) -> Asked {
        let shape = format!(
            "{}, {} {}",
            bags.describe(),
            features.shape[1],
            features.dtype
        );
        Asked::new(kernel, shape, device)
    }

    pub(crate) fn kernel(&self) -> &'static str {
        self.kernel
    }

    pub(crate) fn shape(&self) -> &str {
        &self.shape
    }

    /// The error of that cause.
    pub(crate) fn refuse(&self, cause: Cause) -> KernelError {
        KernelError {
            kernel: self.kernel,
            shape: self.shape.clone(),
            cause,
        }
    }

    /// Whether there are at most `limit` of `what`.
    pub(crate) fn limit(
        &self,
        what: &'static str,
        limit: usize,
        got: usize,
    ) -> Result<(), KernelError> {
        if got > limit {
            return Err(self.refuse(Cause::Limit { what, limit, got }));
        }
        Ok(())
    }

    /// Type, shape and place of an argument, and that its elements lie inside the address space at their own alignment.
    fn lies<const N: usize>(
        &self,
        argument: &'static str,
        layout: &Layout<N>,
        dtypes: &[Dtype],
        shape: [usize; N],
    ) -> Result<(), KernelError> {
        if !dtypes.contains(&layout.dtype) {
            return Err(self.refuse(Cause::Dtype {
                argument,
                expected: match dtypes {
                    [only] => only.name(),
                    _ => "f32, f16 or bf16",
                },
                got: layout.dtype,
            }));
        }
        if layout.shape != shape {
            return Err(self.refuse(Cause::Shape {
                argument,
                expected: format!("{shape:?}"),
                got: format!("{:?}", layout.shape),
            }));
        }
        if layout.place != Place::Host && layout.place != self.device {
            return Err(self.refuse(Cause::Place {
                argument,
                expected: self.device,
                got: layout.place,
            }));
        }
        if layout.span().is_none() {
            return Err(self.refuse(Cause::Limit {
                what: "elements from the first to the last",
                limit: usize::MAX / 4,
                got: usize::MAX,
            }));
        }
        if !layout.aligned() {
            return Err(self.refuse(Cause::Strides {
                argument,
                expected: ALIGNED,
            }));
        }
        Ok(())
    }

    /// An argument whose elements lie in order without a gap.
    pub(crate) fn dense<const N: usize>(
        &self,
        argument: &'static str,
        layout: &Layout<N>,
        dtype: Dtype,
        shape: [usize; N],
    ) -> Result<(), KernelError> {
        self.lies(argument, layout, &[dtype], shape)?;
        if !layout.contiguous() {
            return Err(self.refuse(Cause::Strides {
                argument,
                expected: "in order and without gaps",
            }));
        }
        Ok(())
    }

    /// A matrix whose rows may lie apart, but not the elements of a row.
    pub(crate) fn matrix(
        &self,
        argument: &'static str,
        layout: &Layout<2>,
        dtypes: &[Dtype],
        shape: [usize; 2],
    ) -> Result<(), KernelError> {
        self.lies(argument, layout, dtypes, shape)?;
        self.limit("components", WIDTH_LIMIT, shape[1])?;
        if shape[1] > 1 && layout.strides[1] != 1 {
            return Err(self.refuse(Cause::Strides {
                argument,
                expected: "side by side within a row",
            }));
        }
        Ok(())
    }

    /// As [`Self::matrix`], to write: no two rows share an element.
    pub(crate) fn matrix_out(
        &self,
        argument: &'static str,
        layout: &Layout<2>,
        dtype: Dtype,
        shape: [usize; 2],
    ) -> Result<(), KernelError> {
        self.matrix(argument, layout, &[dtype], shape)?;
        if !layout.apart() {
            return Err(self.refuse(Cause::Strides {
                argument,
                expected: APART,
            }));
        }
        Ok(())
    }
}
