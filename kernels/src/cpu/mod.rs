//! The kernels on the processor: twins of the CUDA ones, the features read once.

mod avx2;
mod elementary;
mod features;
mod gate;
mod gated;
mod gated_arguments;
mod gated_backward;
mod gated_block;
mod logits;
mod numerators;
mod pool;
mod product;
mod slopes;
mod tiles;
mod top_k;
mod weights;

use crate::bags::Bags;
use crate::error::KernelError;
use crate::gated::GatedHead;
use crate::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, Kernels, PoolBackward, PoolGradient, PoolOut,
    PoolState, Rule, TileForm, TopKOut, WeightsOut,
};
use crate::view::{Dtype, View, ViewMut};
use std::sync::Arc;

pub(crate) use gated::PackedHead;

/// The processor, with a number of threads. No result depends on it.
#[derive(Clone, Debug)]
pub struct Cpu {
    threads: Arc<rayon::ThreadPool>,
}

impl Cpu {
    /// With that many threads, 0 for one a core. An error when the system gives no thread.
    pub fn new(threads: usize) -> Result<Cpu, KernelError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|number| format!("kernel-{number}"))
            .build()
            .map(|threads| Cpu {
                threads: Arc::new(threads),
            })
            .map_err(|error| KernelError {
                kernel: "cpu",
                shape: format!("{threads} threads"),
                cause: crate::error::Cause::Driver {
                    code: None,
                    doing: "start threads",
                    what: error.to_string(),
                },
            })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }
}

impl Kernels for Cpu {
    fn device(&self) -> String {
        "cpu".into()
    }

    fn kind(&self, _: Dtype) -> Result<String, KernelError> {
        Ok(product::Simd::here().name().into())
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
