//! The kernels on a device: a stream runs them in its order.

use super::stream::Stream;
use super::{gated, gated_backward, pool, tiles, top_k, weights};
use crate::bags::Bags;
use crate::error::KernelError;
use crate::gated::GatedHead;
use crate::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, Kernels, PoolBackward, PoolGradient, PoolOut,
    PoolState, Rule, TileForm, TopKOut, WeightsOut,
};
use crate::view::{Dtype, View, ViewMut};

/// Results on the device can be read by what comes later in the stream, or waits for it; results on the host are there when
/// a call returns.
impl Kernels for Stream {
    fn device(&self) -> String {
        self.gpu().place().to_string()
    }

    fn kind(&self, features: Dtype) -> Result<String, KernelError> {
        gated::kind(self, features)
    }

    fn weights(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        out: WeightsOut<'_>,
    ) -> Result<(), KernelError> {
        weights::forward(self, bags, rule, logits, out)
    }

    fn weights_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        weights: View<'_, 1>,
        sums: View<'_, 1>,
        flags: View<'_, 1>,
        gradient: View<'_, 1>,
        out: ViewMut<'_, 1>,
    ) -> Result<(), KernelError> {
        weights::backward(
            self,
            bags,
            rule,
            logits,
            (weights, sums, flags),
            gradient,
            out,
        )
    }

    fn pool(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        out: PoolOut<'_>,
    ) -> Result<(), KernelError> {
        pool::forward(self, bags, rule, features, logits, out)
    }

    fn pool_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        state: PoolState<'_>,
        gradient: PoolGradient<'_>,
        out: PoolBackward<'_>,
    ) -> Result<(), KernelError> {
        pool::backward(self, bags, rule, features, logits, state, gradient, out)
    }

    fn gated_pool(
        &self,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: View<'_, 2>,
        out: GatedOut<'_>,
    ) -> Result<(), KernelError> {
        gated::forward(self, bags, rule, head, features, out)
    }

    fn gated_pool_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: View<'_, 2>,
        state: GatedState<'_>,
        gradient: PoolGradient<'_>,
        out: GatedBackward<'_>,
    ) -> Result<(), KernelError> {
        gated_backward::backward(self, bags, rule, head, features, state, gradient, out)
    }

    fn top_k(
        &self,
        bags: &Bags,
        ends: Ends,
        scores: View<'_, 1>,
        out: TopKOut<'_>,
    ) -> Result<(), KernelError> {
        top_k::select(self, bags, ends, scores, out)
    }

    fn normalise_tiles(
        &self,
        tiles: View<'_, 4>,
        form: TileForm,
        out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        tiles::normalise(self, tiles, form, out)
    }
}
