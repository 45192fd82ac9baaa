//! The bench finds what is wrong with a kernel: each fault is planted into the processor's own and found by name.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use weir_bench_kernels::case::{Case, Kernel};
use weir_bench_kernels::ceilings::Processor;
use weir_bench_kernels::measure::Bench;
use weir_bench_kernels::nvtx::Ranges;
use weir_bench_kernels::record::Measured;
use weir_kernels::gated::GatedHead;
use weir_kernels::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, PoolBackward, PoolGradient, PoolOut, PoolState,
    TileForm, TopKOut, WeightsOut,
};
use weir_kernels::{Bags, Cpu, Dtype, KernelError, Kernels, Rule, View, ViewMut};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// One component is off by a thousandth.
    Inexact,
    /// One component is written by nobody.
    Unwritten,
    /// The second run gives another last bit.
    Moving,
    /// The last bag depends on how many bags there are.
    Batch,
    /// A masked row gets a weight.
    Mask,
    /// One of the head's weights is off by a thousandth, within what half features are promised.
    HeadWeight,
    /// Its S is.
    HeadSum,
}

/// The processor's kernels with a fault in the pool.
#[derive(Debug)]
struct Planted {
    cpu: Cpu,
    fault: Fault,
    runs: AtomicUsize,
}

impl Kernels for Planted {
    fn device(&self) -> String {
        "cpu".into()
    }

    fn kind(&self, features: Dtype) -> Result<String, KernelError> {
        self.cpu.kind(features)
    }

    fn pool(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        mut out: PoolOut<'_>,
    ) -> Result<(), KernelError> {
        let again = PoolOut {
            pooled: out.pooled.reborrow(),
            weights: WeightsOut {
                weights: out.weights.weights.reborrow(),
                sums: out.weights.sums.reborrow(),
                squares: out.weights.squares.reborrow(),
                entropy: out.weights.entropy.reborrow(),
                flags: out.weights.flags.reborrow(),
            },
        };
        self.cpu.pool(bags, rule, features, logits, again)?;
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let pooled = out.pooled.slice::<f32>().unwrap();
        let last = pooled.len() - 1;
        let bent = |x: f32| f32::from_bits(x.to_bits() ^ 1);
        match self.fault {
            Fault::None => {}
            Fault::Inexact => pooled[last] = pooled[last] * 1.001 + 1e-3,
            Fault::Unwritten => pooled[last] = f32::from_bits(0xffff_ffff),
            Fault::Moving if run > 0 => pooled[last] = bent(pooled[last]),
            Fault::Batch if bags.len() > 1 => pooled[last] = bent(pooled[last]),
            Fault::Mask => {
                let weights = out.weights.weights.slice::<f32>().unwrap();
                let masked = weights.iter().position(|w| *w == 0.0).unwrap();
                weights[masked] = 1e-9;
            }
            _ => {}
        }
        Ok(())
    }

    fn weights(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        out: WeightsOut<'_>,
    ) -> Result<(), KernelError> {
        self.cpu.weights(bags, rule, logits, out)
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
        self.cpu
            .weights_backward(bags, rule, logits, weights, sums, flags, gradient, out)
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
        self.cpu
            .pool_backward(bags, rule, features, logits, state, gradient, out)
    }

    fn gated_pool(
        &self,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: View<'_, 2>,
        mut out: GatedOut<'_>,
    ) -> Result<(), KernelError> {
        let of = &mut out.pool.weights;
        let again = GatedOut {
            logits: out.logits.reborrow(),
            pool: PoolOut {
                pooled: out.pool.pooled.reborrow(),
                weights: WeightsOut {
                    weights: of.weights.reborrow(),
                    sums: of.sums.reborrow(),
                    squares: of.squares.reborrow(),
                    entropy: of.entropy.reborrow(),
                    flags: of.flags.reborrow(),
                },
            },
            tape: out.tape,
        };
        self.cpu.gated_pool(bags, rule, head, features, again)?;
        match self.fault {
            Fault::HeadWeight => {
                let weights = of.weights.slice::<f32>().unwrap();
                let member = weights.iter().position(|w| *w > 0.0).unwrap();
                weights[member] *= 1.001;
            }
            Fault::HeadSum => of.sums.slice::<f32>().unwrap()[0] *= 1.001,
            _ => {}
        }
        Ok(())
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
        self.cpu
            .gated_pool_backward(bags, rule, head, features, state, gradient, out)
    }

    fn top_k(
        &self,
        bags: &Bags,
        ends: Ends,
        scores: View<'_, 1>,
        out: TopKOut<'_>,
    ) -> Result<(), KernelError> {
        self.cpu.top_k(bags, ends, scores, out)
    }

    fn normalise_tiles(
        &self,
        tiles: View<'_, 4>,
        form: TileForm,
        out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        self.cpu.normalise_tiles(tiles, form, out)
    }
}

fn measured(fault: Fault) -> Measured {
    let head = matches!(fault, Fault::HeadWeight | Fault::HeadSum);
    measured_as(fault, head)
}

/// Of a fault in the pool, or in the pool behind a head of half features.
fn measured_as(fault: Fault, head: bool) -> Measured {
    let planted = Planted {
        cpu: Cpu::new(1).unwrap(),
        fault,
        runs: AtomicUsize::new(0),
    };
    let processor = Processor::new(1, 1 << 16).unwrap();
    let ranges = Ranges::none();
    let bench = Bench {
        kernels: &planted,
        other: None,
        card: None,
        beside: None,
        processor: &processor,
        threads: 1,
        ceilings: None,
        ranges: &ranges,
        cache: 1 << 16,
        limit: 0.1,
        begun: Instant::now(),
    };
    let (kernel, dtype, l) = match head {
        true => (Kernel::Gated, Dtype::Bf16, 7),
        false => (Kernel::Pool, Dtype::F32, 0),
    };
    let case = Case {
        kernel,
        backward: false,
        softmax: false,
        dtype,
        bags: 3,
        rows: 40,
        ragged: true,
        masked: true,
        d: 33,
        l,
        kept: false,
        step: false,
    };
    bench.measure(&case).unwrap()
}

#[test]
fn a_kernel_without_fault_passes() {
    for head in [false, true] {
        let found = measured_as(Fault::None, head);
        assert!(!found.failed(), "{found:?}");
        assert!(found.error.is_some_and(|error| error > 0.0));
    }
}

#[test]
fn every_planted_fault_is_found_and_named() {
    for (fault, named) in [
        (Fault::Unwritten, "nobody wrote element 98 of `pooled`"),
        (
            Fault::Moving,
            "a second run differs: element 98 of `pooled`",
        ),
        (Fault::Batch, "bag 2 alone differs from itself in the batch"),
        (Fault::Mask, "of the masked row"),
        (Fault::HeadWeight, "but the logits give"),
        (Fault::HeadSum, "`sums` 0 is"),
    ] {
        let found = measured(fault);
        assert!(found.failed(), "{fault:?}");
        let wrong = found.wrong.unwrap_or_default();
        assert!(wrong.contains(named), "{fault:?}: {wrong}");
    }
    let found = measured(Fault::Inexact);
    assert!(found.failed() && found.worst == "pooled");
    assert!(found.error > Some(1e-4), "{:?}", found.error);
}
