//! Where a kernel runs: on the processor, or on a device where that was measured to be faster.
//!
//! (a), (b), (d) and (e) have the same bits on both, so their place is a matter of time and of room alone:
//!
//! * A call runs on the device from a number of bytes on, one for each [`Kernel`]; what its backward pass reads is counted
//!   by the same one. The number is measured (`timing.rs`) the first time that somebody asks for it or calls the kernel, or said by
//!   the environment variable [`FROM`], for experiments and tests.
//! * An argument that lies on a device is used where it lies, so such a call runs there whatever its size.
//! * Where the device has no room for a call, in its memory or in its launches, and all arguments lie on the host, the processor does
//!   it, and [`Auto::refused`] counts it. Any other error of the device is the caller's: a device that fails is not hidden by
//!   one that works.
//!
//! (c) has other bits on each kind of device, so it runs where the caller's plan says, on the device if there is one, and
//! never moves: its errors are the caller's too.

mod timing;

#[cfg(test)]
mod tests;

use crate::bags::Bags;
use crate::cpu::Cpu;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, Kernels, PoolBackward, PoolGradient, PoolOut,
    PoolState, Rule, TileForm, TopKOut, WeightsOut,
};
use crate::view::{Dtype, Layout, View, ViewMut};
use std::ffi::OsStr;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The environment variable that sets the thresholds, in bytes of input, in place of the measurements: 0 for every call on the device.
/// It changes where (a), (b), (d) and (e) run, and so their time, but no bit of a result.
pub const FROM: &str = "WEIR_DEVICE_FROM";

/// A kernel that has the same bits everywhere, and whose place is therefore free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// (a) and its backward pass, by the bytes of the logits.
    Weights,
    /// (b) and its backward pass, by the bytes of the features.
    Pool,
    /// (d), by the bytes of the scores.
    TopK,
    /// (e), by the bytes of the tiles.
    Tiles,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Kernel; 4] = [Kernel::Weights, Kernel::Pool, Kernel::TopK, Kernel::Tiles];

    /// As errors call it.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Weights => "weights",
            Kernel::Pool => "pool",
            Kernel::TopK => "top-k",
            Kernel::Tiles => "tiles",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Calls that the device had no room for and the processor did, with the same results.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// How many; the measurement of a threshold is one, after which the processor does all of that kernel.
    pub calls: u64,
    /// What the device said to the first.
    pub first: KernelError,
}

/// The processor, with a device or without.
#[derive(Debug)]
pub struct Auto {
    cpu: Cpu,
    device: Option<Device>,
}

#[derive(Debug)]
struct Device {
    kernels: Box<dyn Kernels>,
    /// Of each [`Kernel`], in the order of [`Kernel::ALL`].
    places: [Standing; 4],
    /// Nobody measures: [`FROM`] says the thresholds.
    asked: bool,
}

/// What is known of one kernel on the device.
#[derive(Debug, Default)]
struct Standing {
    /// Bytes of input from which the device is faster; `None`: it never is. Set when it is asked for first.
    from: OnceLock<Result<Option<usize>, KernelError>>,
    refused: Mutex<Option<Refused>>,
}

/// What [`FROM`] says; `None` where it is not set.
pub fn asked() -> Result<Option<usize>, KernelError> {
    std::env::var_os(FROM).map(|text| bytes(&text)).transpose()
}

fn bytes(text: &OsStr) -> Result<usize, KernelError> {
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| KernelError {
        kernel: "threshold",
        shape: FROM.to_owned(),
        cause: Cause::Unsupported {
            what: format!("{FROM} is {text:?}, which is no whole number of bytes"),
            help: "set it to one, as 0 or 1048576, or leave it unset to have the threshold measured",
        },
    })
}

impl Auto {
    /// The processor alone.
    pub fn cpu(cpu: Cpu) -> Auto {
        Auto { cpu, device: None }
    }

    /// The processor and a device, with the thresholds that [`FROM`] says, else measured ones. An error when [`FROM`] is no number.
    pub fn with(cpu: Cpu, device: Box<dyn Kernels>) -> Result<Auto, KernelError> {
        let Some(from) = asked()? else {
            return Ok(Auto::measured(cpu, device));
        };
        let mut auto = Auto::from_bytes(cpu, device, [Some(from); 4]);
        if let Some(device) = &mut auto.device {
            device.asked = true;
        }
        Ok(auto)
    }

    /// The processor and a device, whose thresholds are measured, each when it is needed first: in about 20 ms, and what loading the
    /// kernel's code takes, which a kernel that nobody calls does not cost.
    pub fn measured(cpu: Cpu, device: Box<dyn Kernels>) -> Auto {
        let device = Some(Device {
            kernels: device,
            places: Default::default(),
            asked: false,
        });
        Auto { cpu, device }
    }

    /// The same with thresholds that are given, in the order of [`Kernel::ALL`]: bytes of input from which the device takes a call,
    /// `None` for never.
    pub fn from_bytes(cpu: Cpu, device: Box<dyn Kernels>, from: [Option<usize>; 4]) -> Auto {
        let device = Some(Device {
            kernels: device,
            places: from.map(|from| Standing {
                from: OnceLock::from(Ok(from)),
                refused: Mutex::default(),
            }),
            asked: false,
        });
        Auto { cpu, device }
    }

    /// The processor.
    pub fn processor(&self) -> &Cpu {
        &self.cpu
    }

    /// Whether there is a device beside it.
    pub fn has_device(&self) -> bool {
        self.device.is_some()
    }

    /// Bytes of input from which the device takes a call of `kernel`; `None` where it never does, or there is none. Measures it, where
    /// that was not done; an error when the device or the processor refuses what is timed.
    pub fn threshold(&self, kernel: Kernel) -> Result<Option<usize>, KernelError> {
        match &self.device {
            Some(device) => device.from(kernel, &self.cpu),
            None => Ok(None),
        }
    }

    /// As [`Auto::threshold`], where it is known already: `None` where nobody asked for it so far, or there is no device.
    pub fn known(&self, kernel: Kernel) -> Option<Option<usize>> {
        let standing = &self.device.as_ref()?.places[kernel as usize];
        standing.from.get()?.clone().ok()
    }

    /// Whether [`FROM`] said the thresholds.
    pub fn asked(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.asked)
    }

    /// The calls of `kernel` that the processor did because the device had no room; `None`: there was none.
    pub fn refused(&self, kernel: Kernel) -> Option<Refused> {
        let standing = &self.device.as_ref()?.places[kernel as usize];
        let refused = standing.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where (c) runs.
    pub fn fused(&self) -> &dyn Kernels {
        match &self.device {
            Some(device) => device.kernels.as_ref(),
            None => &self.cpu,
        }
    }

    /// Runs a call of `kernel` over `bytes` of input where it belongs.
    fn run(
        &self,
        kernel: Kernel,
        bytes: usize,
        on_host: bool,
        mut call: impl FnMut(&dyn Kernels) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let Some(device) = &self.device else {
            return call(&self.cpu);
        };
        if !on_host {
            return call(device.kernels.as_ref());
        }
        if device
            .from(kernel, &self.cpu)?
            .is_none_or(|from| bytes < from)
        {
            return call(&self.cpu);
        }
        match call(device.kernels.as_ref()) {
            Err(error) if no_room(&error) => {
                // What the device wrote before is written again. Where the processor refuses too, that is the caller's.
                call(&self.cpu)?;
                device.places[kernel as usize].count(error);
                Ok(())
            }
            done => done,
        }
    }
}

/// Whether another device may have the room that this one has not.
fn no_room(error: &KernelError) -> bool {
    error.out_of_memory() || matches!(error.cause, Cause::Limit { .. })
}

impl Device {
    fn from(&self, kernel: Kernel, cpu: &Cpu) -> Result<Option<usize>, KernelError> {
        let standing = &self.places[kernel as usize];
        let measure = || match timing::threshold(kernel, cpu, self.kernels.as_ref()) {
            // A device that is full now is no reason to fail: the processor does what it would have done, and that is told.
            Err(error) if no_room(&error) => {
                standing.count(error);
                Ok(None)
            }
            measured => measured,
        };
        standing.from.get_or_init(measure).clone()
    }
}

impl Standing {
    fn count(&self, error: KernelError) {
        let refused = self.refused.lock();
        let mut refused = refused.unwrap_or_else(PoisonError::into_inner);
        let first = Refused {
            calls: 0,
            first: error,
        };
        refused.get_or_insert(first).calls += 1;
    }
}

fn size<const N: usize>(input: &Layout<N>) -> usize {
    input.len().saturating_mul(input.dtype.bytes())
}

impl Kernels for Auto {
    fn device(&self) -> String {
        self.fused().device()
    }

    fn kind(&self, features: Dtype) -> Result<String, KernelError> {
        self.fused().kind(features)
    }

    fn weights(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        mut out: WeightsOut<'_>,
    ) -> Result<(), KernelError> {
        let input = logits.layout();
        let on_host = input.on_host() && out.on_host();
        self.run(Kernel::Weights, size(input), on_host, |kernels| {
            kernels.weights(bags, rule, logits, out.reborrow())
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
        mut out: ViewMut<'_, 1>,
    ) -> Result<(), KernelError> {
        let inputs = [&logits, &weights, &sums, &flags, &gradient];
        let on_host = inputs.iter().all(|view| view.layout().on_host()) && out.layout().on_host();
        self.run(Kernel::Weights, size(logits.layout()), on_host, |kernels| {
            let out = out.reborrow();
            kernels.weights_backward(bags, rule, logits, weights, sums, flags, gradient, out)
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
        let input = features.layout();
        let on_host = input.on_host() && logits.layout().on_host() && out.on_host();
        self.run(Kernel::Pool, size(input), on_host, |kernels| {
            kernels.pool(bags, rule, features, logits, out.reborrow())
        })
    }

    fn pool_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        state: PoolState<'_>,
        gradient: PoolGradient<'_>,
        mut out: PoolBackward<'_>,
    ) -> Result<(), KernelError> {
        let input = features.layout();
        let given = input.on_host() && logits.layout().on_host();
        let on_host = given && state.on_host() && gradient.on_host() && out.on_host();
        self.run(Kernel::Pool, size(input), on_host, |kernels| {
            let out = out.reborrow();
            kernels.pool_backward(bags, rule, features, logits, state, gradient, out)
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
        self.fused().gated_pool(bags, rule, head, features, out)
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
        let on = self.fused();
        on.gated_pool_backward(bags, rule, head, features, state, gradient, out)
    }

    fn top_k(
        &self,
        bags: &Bags,
        ends: Ends,
        scores: View<'_, 1>,
        mut out: TopKOut<'_>,
    ) -> Result<(), KernelError> {
        let input = scores.layout();
        let on_host = input.on_host() && out.on_host();
        self.run(Kernel::TopK, size(input), on_host, |kernels| {
            kernels.top_k(bags, ends, scores, out.reborrow())
        })
    }

    fn normalise_tiles(
        &self,
        tiles: View<'_, 4>,
        form: TileForm,
        mut out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        let input = tiles.layout();
        let on_host = input.on_host() && out.layout().on_host();
        self.run(Kernel::Tiles, size(input), on_host, |kernels| {
            kernels.normalise_tiles(tiles, form, out.reborrow())
        })
    }
}
