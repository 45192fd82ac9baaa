//! What (c) is given, checked once: the host slices behind the views, or a typed error.

use super::gate::Row;
use crate::bags::Bags;
use crate::check::{Asked, FEATURES};
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::Rule;
use crate::view::{Dtype, Element, Place, View, ViewMut};

/// Names kernel and shape in its errors.
pub(super) struct Call {
    asked: Asked,
    pub d: usize,
}

impl Call {
    /// Checks rule, head and features.
    pub fn new(
        kernel: &'static str,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: &View<'_, 2>,
    ) -> Result<Call, KernelError> {
        let asked = Asked::features(kernel, bags, features.layout(), Place::Host);
        rule.check(kernel, asked.shape())?;
        let d = head.head().inputs();
        asked.matrix("features", features.layout(), FEATURES, [bags.total(), d])?;
        Ok(Call { asked, d })
    }

    /// An error of this call.
    pub fn refuse(&self, cause: Cause) -> KernelError {
        self.asked.refuse(cause)
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
        self.asked.dense(argument, view.layout(), T::DTYPE, shape)?;
        view.slice().ok_or_else(|| self.gaps(argument))
    }

    /// The elements of a result.
    pub fn write<'v, T: Element, const N: usize>(
        &self,
        argument: &'static str,
        view: &'v mut ViewMut<'_, N>,
        shape: [usize; N],
    ) -> Result<&'v mut [T], KernelError> {
        self.asked.dense(argument, view.layout(), T::DTYPE, shape)?;
        view.slice().ok_or_else(|| self.gaps(argument))
    }

    /// The rows of a result; they may lie apart.
    pub fn rows<'v, T: Element>(
        &self,
        argument: &'static str,
        view: &'v mut ViewMut<'_, 2>,
        shape: [usize; 2],
    ) -> Result<impl Iterator<Item = &'v mut [T]>, KernelError> {
        self.asked
            .matrix_out(argument, view.layout(), T::DTYPE, shape)?;
        view.rows().ok_or_else(|| self.gaps(argument))
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

    /// Row `row`; empty where the features are of another type.
    pub fn row<T: Element>(&self, row: usize) -> &'a [T] {
        self.view.row(row).unwrap_or(&[])
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
