//! A device that counts what it is asked.

use super::super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A device that does what the processor does, counts its calls, and refuses all of them where a cause is given.
#[derive(Debug)]
struct Counting {
    cpu: Cpu,
    calls: Arc<AtomicUsize>,
    refuses: Option<Cause>,
}

impl Counting {
    /// `work` by the processor, where the arguments lie on the host.
    fn count(
        &self,
        on_host: bool,
        work: impl FnOnce(&Cpu) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.refuses {
            Some(cause) => Err(refusal(cause.clone())),
            None if on_host => work(&self.cpu),
            None => Ok(()),
        }
    }
}

/// What it says.
pub(super) fn refusal(cause: Cause) -> KernelError {
    KernelError {
        kernel: "counting",
        shape: "a call".into(),
        cause,
    }
}

impl Kernels for Counting {
    fn device(&self) -> String {
        "counting".into()
    }

    fn kind(&self, features: Dtype) -> Result<String, KernelError> {
        Ok(format!("counting {features}"))
    }

    fn weights(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        mut out: WeightsOut<'_>,
    ) -> Result<(), KernelError> {
        // What a device that gives up has written may be anything.
        out.weights.slice::<f32>().unwrap().fill(f32::NAN);
        self.count(logits.layout().on_host(), |cpu| {
            cpu.weights(bags, rule, logits, out)
        })
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
        self.count(true, |cpu| {
            cpu.weights_backward(bags, rule, logits, weights, sums, flags, gradient, out)
        })
    }

    fn pool(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        mut out: PoolOut<'_>,
    ) -> Result<(), KernelError> {
        if let Some(pooled) = out.pooled.slice::<f32>() {
            pooled.fill(f32::NAN);
        }
        let on_host = features.layout().on_host() && out.on_host();
        self.count(on_host, |cpu| cpu.pool(bags, rule, features, logits, out))
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
        self.count(true, |cpu| {
            cpu.pool_backward(bags, rule, features, logits, state, gradient, out)
        })
    }

    fn gated_pool(
        &self,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: View<'_, 2>,
        out: GatedOut<'_>,
    ) -> Result<(), KernelError> {
        self.count(true, |cpu| cpu.gated_pool(bags, rule, head, features, out))
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
        self.count(true, |cpu| {
            cpu.gated_pool_backward(bags, rule, head, features, state, gradient, out)
        })
    }

    fn top_k(
        &self,
        bags: &Bags,
        ends: Ends,
        scores: View<'_, 1>,
        out: TopKOut<'_>,
    ) -> Result<(), KernelError> {
        self.count(true, |cpu| cpu.top_k(bags, ends, scores, out))
    }

    fn normalise_tiles(
        &self,
        tiles: View<'_, 4>,
        form: TileForm,
        out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        self.count(true, |cpu| cpu.normalise_tiles(tiles, form, out))
    }
}

/// Such a device, and its calls.
pub(super) fn counting(refuses: Option<Cause>) -> (Box<dyn Kernels>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let device = Counting {
        cpu: Cpu::new(1).unwrap(),
        calls: calls.clone(),
        refuses,
    };
    (Box::new(device), calls)
}
