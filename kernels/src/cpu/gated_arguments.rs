//! What (c) is given, checked once: the host slices behind the views, or a typed error.

use super::gate::Row;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::Rule;
use crate::view::{Dtype, Element, Place, View, ViewMut};

/// Names kernel and shape in its errors.
pub(super) struct Call<'a> {
    pub kernel: &'static str,
    pub bags: &'a Bags,
    pub d: usize,
    pub dtype: Dtype,
}

impl<'a> Call<'a> {
    /// Checks rule, head and features.
    pub fn new(
        kernel: &'static str,
        bags: &'a Bags,
        rule: Rule,
        head: &GatedHead,
        features: &View<'_, 2>,
    ) -> Result<Call<'a>, KernelError> {
        let [_, d] = features.shape();
        let call = Call {
            kernel,
            bags,
            d,
            dtype: features.dtype(),
        };
        rule.check(kernel, &call.shape_of())?;
        if !matches!(call.dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            return Err(call.refuse(Cause::Dtype {
                argument: "features",
                expected: "f32, f16 or bf16",
                got: call.dtype,
            }));
        }
        call.shape(
            "features",
            features.shape(),
            [bags.total(), head.head().inputs()],
        )?;
        call.host("features", features.layout().place)?;
        if d > 1 && features.layout().strides[1] != 1 {
            return Err(call.refuse(Cause::Strides {
                argument: "features",
                expected: "side by side along a row",
            }));
        }
        Ok(call)
    }

    /// An error of this call.
    pub fn refuse(&self, cause: Cause) -> KernelError {
        KernelError {
            kernel: self.kernel,
            shape: self.shape_of(),
            cause,
        }
    }

    fn shape_of(&self) -> String {
        format!("{}, {} {}", self.bags.describe(), self.d, self.dtype)
    }

    fn shape<const N: usize>(
        &self,
        argument: &'static str,
        got: [usize; N],
        expected: [usize; N],
    ) -> Result<(), KernelError> {
        if got == expected {
            return Ok(());
        }
        Err(self.refuse(Cause::Shape {
            argument,
            expected: format!("{expected:?}"),
            got: format!("{got:?}"),
        }))
    }

    fn host(&self, argument: &'static str, got: Place) -> Result<(), KernelError> {
        if got == Place::Host {
            return Ok(());
        }
        Err(self.refuse(Cause::Place {
            argument,
            expected: Place::Host,
            got,
        }))
    }

    fn dtype<T: Element>(&self, argument: &'static str, got: Dtype) -> Result<(), KernelError> {
        if got == T::DTYPE {
            return Ok(());
        }
        Err(self.refuse(Cause::Dtype {
            argument,
            expected: T::DTYPE.name(),
            got,
        }))
    }

    fn gaps(&self, argument: &'static str) -> KernelError {
        self.refuse(Cause::Strides {
            argument,
            expected: "in order and without gaps",
        })
    }

    /// The elements of an input.
    pub fn read<'v, T: Element, const N: usize>(
        &self,
        argument: &'static str,
        view: &View<'v, N>,
        shape: [usize; N],
    ) -> Result<&'v [T], KernelError> {
        self.shape(argument, view.shape(), shape)?;
        self.dtype::<T>(argument, view.dtype())?;
        self.host(argument, view.layout().place)?;
        view.slice().ok_or_else(|| self.gaps(argument))
    }

    /// The elements of a result.
    pub fn write<'v, T: Element, const N: usize>(
        &self,
        argument: &'static str,
        view: &'v mut ViewMut<'_, N>,
        shape: [usize; N],
    ) -> Result<&'v mut [T], KernelError> {
        self.shape(argument, view.shape(), shape)?;
        self.dtype::<T>(argument, view.dtype())?;
        self.host(argument, view.layout().place)?;
        view.slice().ok_or_else(|| self.gaps(argument))
    }
}

/// The features, row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features<'a> {
    view: View<'a, 2>,
}

impl<'a> Features<'a> {
    /// Of a view that [`Call::new`] has checked.
    pub fn new(view: View<'a, 2>) -> Features<'a> {
        Features { view }
    }

    /// Writes row `row` to `to` as f32, zeros after its end.
    pub fn widen(&self, row: usize, to: &mut [f32]) {
        let d = self.view.shape()[1];
        let (to, rest) = to.split_at_mut(d);
        rest.fill(0.0);
        let row = match self.view.dtype() {
            Dtype::F16 => self.view.row(row).map(Row::F16),
            Dtype::Bf16 => self.view.row(row).map(Row::Bf16),
            _ => self.view.row(row).map(Row::F32),
        };
        // None only for a view that `Call::new` refuses.
        if let Some(row) = row {
            row.widen(to);
        }
    }
}
