//! Where a kernel runs: on the processor, or on a device where that was measured to be faster.
//!
//! (a), (b), (d) and (e) have the same bits on both, so their place is a matter of time alone: what carrying the inputs over
//! and launching costs, against reading them here. Two sizes are timed on each when the device is opened; the lines
//! through them cross at a number of bytes, and calls with fewer stay on the processor. (c) has other bits on each device, so it runs where
//! the caller's plan says: on the device, if there is one.
//!
//! Experiments and tests set the threshold themselves, by the environment variable [`FROM`].

use crate::bags::Bags;
use crate::cpu::Cpu;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, Kernels, PoolBackward, PoolGradient, PoolOut,
    PoolState, Rule, TileForm, TopKOut, WeightsOut,
};
use crate::normalise::{Link, Normalisation};
use crate::view::{Layout, Place, View, ViewMut};
use std::ffi::OsStr;
use std::time::{Duration, Instant};

/// The environment variable that sets the threshold, in bytes of input, in place of the measurement: 0 for every call on the device.
/// It changes where (a), (b), (d) and (e) run, and so their time, but no bit of a result.
pub const FROM: &str = "WEIR_DEVICE_FROM";

/// The processor, with a device or without.
#[derive(Debug)]
pub struct Auto {
    cpu: Cpu,
    device: Option<Device>,
}

#[derive(Debug)]
struct Device {
    kernels: Box<dyn Kernels>,
    /// Bytes of input from which it is faster; `None`: it never is.
    from: Option<usize>,
    /// Nobody measured that: [`FROM`] says it.
    asked: bool,
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

    /// The processor and a device, with the threshold that [`FROM`] says, else a measured one.
    pub fn with(cpu: Cpu, device: Box<dyn Kernels>) -> Result<Auto, KernelError> {
        let Some(from) = asked()? else {
            return Auto::measured(cpu, device);
        };
        let mut auto = Auto::from_bytes(cpu, device, Some(from));
        if let Some(device) = &mut auto.device {
            device.asked = true;
        }
        Ok(auto)
    }

    /// The processor and a device, whose threshold is measured now; some tens of milliseconds.
    pub fn measured(cpu: Cpu, device: Box<dyn Kernels>) -> Result<Auto, KernelError> {
        // Far enough apart that the second is the memory's and the first the launch's.
        const ROWS: [usize; 2] = [128, 8192];
        let mut lines = [(0.0, 0.0); 2];
        let both: [&dyn Kernels; 2] = [&cpu, device.as_ref()];
        for (line, kernels) in lines.iter_mut().zip(both) {
            let mut points = [(0.0, 0.0); 2];
            for (point, rows) in points.iter_mut().zip(ROWS) {
                *point = (
                    (rows * WIDTH * 4) as f64,
                    time(kernels, rows)?.as_secs_f64(),
                );
            }
            let slope = (points[1].1 - points[0].1).max(0.0) / (points[1].0 - points[0].0);
            *line = (points[0].1 - slope * points[0].0, slope);
        }
        Ok(Auto::from_bytes(cpu, device, crossing(lines[0], lines[1])))
    }

    /// The same with a threshold that is given: bytes of input from which the device takes a call, `None` for never.
    pub fn from_bytes(cpu: Cpu, device: Box<dyn Kernels>, from: Option<usize>) -> Auto {
        Auto {
            cpu,
            device: Some(Device {
                kernels: device,
                from,
                asked: false,
            }),
        }
    }

    /// The processor.
    pub fn processor(&self) -> &Cpu {
        &self.cpu
    }

    /// Bytes of input from which the device takes a call; `None` where it never does, or there is none.
    pub fn threshold(&self) -> Option<usize> {
        self.device.as_ref()?.from
    }

    /// Whether [`FROM`] said the threshold.
    pub fn asked(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.asked)
    }

    /// Where calls whose bits do not hang on it run: `bytes` of input that lie on the host.
    pub fn at(&self, bytes: usize) -> &dyn Kernels {
        match &self.device {
            Some(device) if device.from.is_some_and(|from| bytes >= from) => {
                device.kernels.as_ref()
            }
            _ => &self.cpu,
        }
    }

    /// Where (c) runs.
    pub fn fused(&self) -> &dyn Kernels {
        match &self.device {
            Some(device) => device.kernels.as_ref(),
            None => &self.cpu,
        }
    }

    /// Where an input lies decides, if it lies on a device.
    fn of<const N: usize>(&self, input: &Layout<N>) -> &dyn Kernels {
        match (&self.device, input.place) {
            (Some(device), Place::Cuda(_)) => device.kernels.as_ref(),
            _ => self.at(input.len().saturating_mul(input.dtype.bytes())),
        }
    }
}

/// Width of the features that are timed.
const WIDTH: usize = 256;

/// The fastest of some poolings of a bag of `rows` rows.
fn time(kernels: &dyn Kernels, rows: usize) -> Result<Duration, KernelError> {
    let features: Vec<f32> = (0..rows * WIDTH).map(|k| (k % 97) as f32 / 97.0).collect();
    let logits: Vec<f32> = (0..rows).map(|k| (k % 13) as f32 / 13.0 + 0.1).collect();
    let rule = Rule {
        normalisation: Normalisation::SquaredAverage,
        link: Link::None,
    };
    let bags = Bags::one(rows)?;
    let (mut pooled, mut weights) = (vec![0.0f32; WIDTH], vec![0.0f32; rows]);
    let (mut sums, mut squares, mut entropy, mut flags) = ([0.0f32], [0.0f32], [0.0f32], [0u32]);
    let mut fastest = Duration::MAX;
    // The first loads the code.
    for turn in 0..4 {
        let since = Instant::now();
        let out = PoolOut {
            pooled: ViewMut::new(&mut pooled, [1, WIDTH])?,
            weights: WeightsOut {
                weights: ViewMut::new(&mut weights, [rows])?,
                sums: ViewMut::new(&mut sums, [1])?,
                squares: ViewMut::new(&mut squares, [1])?,
                entropy: ViewMut::new(&mut entropy, [1])?,
                flags: ViewMut::new(&mut flags, [1])?,
            },
        };
        let (features, logits) = (
            View::new(&features, [rows, WIDTH])?,
            View::new(&logits, [rows])?,
        );
        kernels.pool(&bags, rule, features, logits, out)?;
        if turn > 0 {
            fastest = fastest.min(since.elapsed());
        }
    }
    Ok(fastest)
}

/// The bytes from which the second line (seconds at 0 bytes, seconds a byte) lies below the first.
fn crossing(cpu: (f64, f64), device: (f64, f64)) -> Option<usize> {
    if device.1 < cpu.1 {
        let bytes = ((device.0 - cpu.0) / (cpu.1 - device.1)).max(0.0).ceil();
        return Some(bytes as usize);
    }
    None
}

impl Kernels for Auto {
    fn device(&self) -> String {
        self.fused().device()
    }

    fn weights(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        out: WeightsOut<'_>,
    ) -> Result<(), KernelError> {
        self.of(logits.layout()).weights(bags, rule, logits, out)
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
        let on = self.of(logits.layout());
        on.weights_backward(bags, rule, logits, weights, sums, flags, gradient, out)
    }

    fn pool(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        out: PoolOut<'_>,
    ) -> Result<(), KernelError> {
        let on = self.of(features.layout());
        on.pool(bags, rule, features, logits, out)
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
        let on = self.of(features.layout());
        on.pool_backward(bags, rule, features, logits, state, gradient, out)
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
        out: TopKOut<'_>,
    ) -> Result<(), KernelError> {
        self.of(scores.layout()).top_k(bags, ends, scores, out)
    }

    fn normalise_tiles(
        &self,
        tiles: View<'_, 4>,
        form: TileForm,
        out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        self.of(tiles.layout()).normalise_tiles(tiles, form, out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_device_takes_what_it_does_faster_and_no_more() {
        // 1 us and 1 GB/s, against 21 us and 5 GB/s: equal at 25,000 bytes.
        assert_eq!(crossing((1e-6, 1e-9), (21e-6, 0.2e-9)), Some(25_000));
        assert_eq!(crossing((1e-6, 1e-9), (0.0, 0.2e-9)), Some(0));
        assert_eq!(crossing((1e-6, 1e-9), (0.0, 1e-9)), None);
    }

    #[test]
    fn a_threshold_that_is_asked_for_is_a_whole_number_of_bytes() {
        assert_eq!(bytes("0".as_ref()), Ok(0));
        assert_eq!(bytes("1048576".as_ref()), Ok(1 << 20));
        for wrong in ["", "-1", "1 MiB", "never"] {
            let refused = bytes(wrong.as_ref()).unwrap_err().to_string();
            assert!(refused.contains("WEIR_DEVICE_FROM"), "{refused}");
        }
    }

    #[test]
    fn where_a_call_runs_hangs_on_its_bytes_alone() {
        let cpu = || Cpu::new(1).unwrap();
        let two = Auto::from_bytes(cpu(), Box::new(cpu()), Some(1000));
        let is_cpu = |kernels: &dyn Kernels| {
            std::ptr::eq(
                std::ptr::from_ref(kernels).cast::<u8>(),
                std::ptr::from_ref(two.processor()).cast::<u8>(),
            )
        };
        assert!(is_cpu(two.at(999)) && !is_cpu(two.at(1000)) && !is_cpu(two.fused()));
        assert_eq!(Auto::cpu(cpu()).threshold(), None);
        assert!(Auto::measured(cpu(), Box::new(cpu())).is_ok());
    }
}
