//! A device that refuses every call, for tests of what a stage makes of that.

use std::sync::Arc;
use weir_kernels::gated::GatedHead;
use weir_kernels::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, PoolBackward, PoolGradient, PoolOut, PoolState,
    TileForm, TopKOut, WeightsOut,
};
use weir_kernels::{Auto, Bags, Cause, Cpu, Dtype, KernelError, Kernels, Rule, View, ViewMut};

use crate::kernels::Stand;

/// `CUDA_ERROR_OUT_OF_MEMORY`: the processor does the call.
pub(crate) const OUT_OF_MEMORY: i32 = 2;
/// `CUDA_ERROR_ILLEGAL_ADDRESS`: the call fails.
pub(crate) const LOST: i32 = 700;

/// Answers every call with that number of the driver's.
#[derive(Debug)]
struct Refusing(i32);

/// The processor and such a device, to which every call goes first.
pub(crate) fn refusing(code: i32) -> Arc<Stand> {
    let device = Box::new(Refusing(code));
    // Two threads are to be had on any machine that runs tests.
    #[allow(clippy::unwrap_used)]
    let cpu = Cpu::new(2).unwrap();
    Arc::new(Auto::from_bytes(cpu, device, [Some(0); 4]).into())
}

impl Refusing {
    fn refuse(&self, kernel: &'static str) -> Result<(), KernelError> {
        Err(KernelError {
            kernel,
            shape: "a call".into(),
            cause: Cause::Driver {
                doing: "use the device",
                code: Some(self.0),
                what: format!("the driver answered {}", self.0),
            },
        })
    }
}

impl Kernels for Refusing {
    fn device(&self) -> String {
        "cuda:0".into()
    }

    fn kind(&self, _: Dtype) -> Result<String, KernelError> {
        Ok("refusing".into())
    }

    fn weights(
        &self,
        _: &Bags,
        _: Rule,
        _: View<'_, 1>,
        _: WeightsOut<'_>,
    ) -> Result<(), KernelError> {
        self.refuse("weights")
    }

    fn weights_backward(
        &self,
        _: &Bags,
        _: Rule,
        _: View<'_, 1>,
        _: View<'_, 1>,
        _: View<'_, 1>,
        _: View<'_, 1>,
        _: View<'_, 1>,
        _: ViewMut<'_, 1>,
    ) -> Result<(), KernelError> {
        self.refuse("weights backward")
    }

    fn pool(
        &self,
        _: &Bags,
        _: Rule,
        _: View<'_, 2>,
        _: View<'_, 1>,
        _: PoolOut<'_>,
    ) -> Result<(), KernelError> {
        self.refuse("pool")
    }

    fn pool_backward(
        &self,
        _: &Bags,
        _: Rule,
        _: View<'_, 2>,
        _: View<'_, 1>,
        _: PoolState<'_>,
        _: PoolGradient<'_>,
        _: PoolBackward<'_>,
    ) -> Result<(), KernelError> {
        self.refuse("pool backward")
    }

    fn gated_pool(
        &self,
        _: &Bags,
        _: Rule,
        _: &GatedHead,
        _: View<'_, 2>,
        _: GatedOut<'_>,
    ) -> Result<(), KernelError> {
        self.refuse("gated pool")
    }

    fn gated_pool_backward(
        &self,
        _: &Bags,
        _: Rule,
        _: &GatedHead,
        _: View<'_, 2>,
        _: GatedState<'_>,
        _: PoolGradient<'_>,
        _: GatedBackward<'_>,
    ) -> Result<(), KernelError> {
        self.refuse("gated pool backward")
    }

    fn top_k(&self, _: &Bags, _: Ends, _: View<'_, 1>, _: TopKOut<'_>) -> Result<(), KernelError> {
        self.refuse("top-k")
    }

    fn normalise_tiles(
        &self,
        _: View<'_, 4>,
        _: TileForm,
        _: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        self.refuse("tiles")
    }
}
