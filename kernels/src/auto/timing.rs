//! From how many bytes on a device is faster than the processor, by timing a kernel on both.
//!
//! What a device adds is a constant, launching and waiting, and what it saves grows with the bytes. So two sizes are timed on
//! each; the lines through them cross at a number of bytes.

use super::Kernel;
use crate::bags::Bags;
use crate::cpu::Cpu;
use crate::error::KernelError;
use crate::kernels::{Ends, Kernels, PoolOut, Rule, TileForm, TopKOut, WeightsOut};
use crate::normalise::{Link, Normalisation};
use crate::view::{View, ViewMut};
use std::time::{Duration, Instant};

/// How many times as large the second size is: far enough apart that the second is the memory's and the first the launch's.
const APART: usize = 64;
/// What a timed call should take at most; a device that is so slow is timed at a smaller second size.
const LONG: Duration = Duration::from_millis(5);
/// Calls that are timed at each size; the fastest counts.
const TURNS: usize = 3;

/// Bytes of input from which `device` does `kernel` faster; `None`: at none. An error when either refuses.
pub(super) fn threshold(
    kernel: Kernel,
    cpu: &Cpu,
    device: &dyn Kernels,
) -> Result<Option<usize>, KernelError> {
    Ok(crossing(line(kernel, cpu)?, line(kernel, device)?))
}

/// Seconds at 0 bytes, and seconds a byte.
type Line = (f64, f64);

/// The line of `kernel` on one device.
fn line(kernel: Kernel, on: &dyn Kernels) -> Result<Line, KernelError> {
    let mut small = Input::new(kernel, 1);
    // The first loads the code.
    small.call(on)?;
    let short = fastest(on, &mut small)?;
    let fit = LONG.as_secs_f64() / short.as_secs_f64().max(1e-9);
    let mut large = Input::new(kernel, (fit as usize).clamp(2, APART));
    // The first makes the scratch memory as large.
    if fit >= 1.0 {
        large.call(on)?;
    }
    let long = fastest(on, &mut large)?;
    let more = (large.bytes - small.bytes) as f64;
    let slope = (long.as_secs_f64() - short.as_secs_f64()).max(0.0) / more;
    Ok((short.as_secs_f64() - slope * small.bytes as f64, slope))
}

/// The fastest of some calls; one alone where they are long.
fn fastest(on: &dyn Kernels, input: &mut Input) -> Result<Duration, KernelError> {
    let mut fastest = Duration::MAX;
    for _ in 0..TURNS {
        let since = Instant::now();
        input.call(on)?;
        fastest = fastest.min(since.elapsed());
        if fastest > LONG {
            break;
        }
    }
    Ok(fastest)
}

/// The bytes from which the second line lies below the first.
fn crossing(cpu: Line, device: Line) -> Option<usize> {
    if device.1 < cpu.1 {
        let bytes = ((device.0 - cpu.0) / (cpu.1 - device.1)).max(0.0).ceil();
        return Some(bytes as usize);
    }
    None
}

/// What a kernel is timed on, with room for its results.
struct Input {
    kernel: Kernel,
    bytes: usize,
    /// Rows of (a), (b) and (d), tiles of (e).
    count: usize,
    features: Vec<f32>,
    logits: Vec<f32>,
    pooled: Vec<f32>,
    weights: Vec<f32>,
    tiles: Vec<u8>,
    pixels: Vec<f32>,
    ends: [Vec<i32>; 2],
}

/// Numbers of a row of (b).
const WIDTH: usize = 256;
/// Selected of each end by (d).
const SELECTED: usize = 32;
/// Side of a tile of (e), px.
const SIDE: usize = 128;
/// Rows of the smallest size: an item of (b), and as many rows of (a) and (d) as keep a few threads busy.
const ITEM: usize = crate::ROWS;
const ROWS: usize = 4096;

impl Input {
    /// Some tens of kilobytes of it, so many times.
    fn new(kernel: Kernel, times: usize) -> Input {
        let mut input = Input {
            kernel,
            bytes: 0,
            count: 0,
            features: Vec::new(),
            logits: Vec::new(),
            pooled: Vec::new(),
            weights: Vec::new(),
            tiles: Vec::new(),
            pixels: Vec::new(),
            ends: [vec![0; SELECTED], vec![0; SELECTED]],
        };
        match kernel {
            Kernel::Weights | Kernel::TopK => {
                input.count = ROWS * times;
                input.bytes = input.count * 4;
            }
            Kernel::Pool => {
                input.count = ITEM * times;
                input.bytes = input.count * WIDTH * 4;
                let numbers = 0..input.count * WIDTH;
                input.features = numbers.map(|k| (k % 97) as f32 / 97.0).collect();
                input.pooled = vec![0.0; WIDTH];
            }
            Kernel::Tiles => {
                input.count = times;
                input.bytes = input.count * SIDE * SIDE * 3;
                input.tiles = (0..input.bytes).map(|k| (k % 251) as u8).collect();
                input.pixels = vec![0.0; input.bytes];
                return input;
            }
        }
        let logits = 0..input.count;
        input.logits = logits.map(|k| (k % 13) as f32 / 13.0 + 0.1).collect();
        input.weights = vec![0.0; input.count];
        input
    }

    fn call(&mut self, on: &dyn Kernels) -> Result<(), KernelError> {
        let rule = Rule {
            normalisation: Normalisation::SquaredAverage,
            link: Link::None,
        };
        let count = self.count;
        let (mut sums, mut squares, mut entropy) = ([0.0f32], [0.0f32], [0.0f32]);
        let (mut flags, mut nans) = ([0u32], [0u32]);
        let logits = View::new(&self.logits, [self.logits.len()])?;
        let weights = WeightsOut {
            weights: ViewMut::new(&mut self.weights, [self.logits.len()])?,
            sums: ViewMut::new(&mut sums, [1])?,
            squares: ViewMut::new(&mut squares, [1])?,
            entropy: ViewMut::new(&mut entropy, [1])?,
            flags: ViewMut::new(&mut flags, [1])?,
        };
        match self.kernel {
            Kernel::Weights => on.weights(&Bags::one(count)?, rule, logits, weights),
            Kernel::Pool => {
                let features = View::new(&self.features, [count, WIDTH])?;
                let out = PoolOut {
                    pooled: ViewMut::new(&mut self.pooled, [1, WIDTH])?,
                    weights,
                };
                on.pool(&Bags::one(count)?, rule, features, logits, out)
            }
            Kernel::TopK => {
                let [highest, lowest] = &mut self.ends;
                let out = TopKOut {
                    highest: ViewMut::new(highest, [1, SELECTED])?,
                    lowest: ViewMut::new(lowest, [1, SELECTED])?,
                    nans: ViewMut::new(&mut nans, [1])?,
                };
                let ends = Ends {
                    highest: SELECTED,
                    lowest: SELECTED,
                };
                on.top_k(&Bags::one(count)?, ends, logits, out)
            }
            Kernel::Tiles => {
                let tiles = View::new(&self.tiles, [count, SIDE, SIDE, 3])?;
                let out = ViewMut::new(&mut self.pixels, [count, 3, SIDE, SIDE])?;
                on.normalise_tiles(tiles, TileForm::new([0.5; 3], [0.25; 3]), out)
            }
        }
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
    fn every_kernel_can_be_timed() {
        let cpu = Cpu::new(2).unwrap();
        let since = Instant::now();
        for kernel in Kernel::ALL {
            let of = Instant::now();
            let (at_0, slope) = line(kernel, &cpu).unwrap();
            assert!(at_0.is_finite() && slope >= 0.0, "{kernel}");
            println!("{kernel}: {at_0} s, {slope} s a byte; {:?}", of.elapsed());
        }
        println!("{:?}", since.elapsed());
    }
}
