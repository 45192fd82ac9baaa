//! # weir-kernels: the arithmetic of a bag
//!
//! What stands between the feature vectors of a bag and its verdict: attention head, normalisation, pool, classifier.
//! All of it runs on the processor and on CUDA devices, with one fixed order of operations: the **contract
//! `ordered-f32/1`**.
//!
//! * Members come in TileId order. A sum over members runs within items of [`ROWS`] rows, ascending, one accumulator a
//!   component, multiply then add, never fused; the items' sums are added ascending.
//! * A dot product runs over ascending components from 0, the bias is added last.
//! * Each normalisation gives numerators e_i >= 0. S is their sum, T the sum of e_i h_i; a weight is e_i / S and the pool
//!   T / S, one f32 division each.
//! * Softmax subtracts the greatest logit of the bag before [`math::exp`]; a maximum has no rounding, so its order is free.
//! * [`math`] is the only source of transcendental functions.
//!
//! So a bag's numbers are a function of its members alone: of no batch, thread, worker, process or machine.
//!
//! Guards, the same for every normalisation: a member whose logit is not finite, or with a feature that is not finite or
//! 1e18 or more in size, is *refused*: the bag is as if it had not come, and says so. S = 0, or a sum out of f32's range,
//! gives uniform weights and says so. An empty bag has no weights. Nothing is added to S and nothing is scaled first; a
//! squared value outside 1e-18 < |g| < 1e18 is flagged.
//!
//! | module | idea |
//! |---|---|
//! | [`math`] | exp, ln, sigmoid, tanh, the same bits everywhere |
//! | [`linear`] | fully connected layer |
//! | [`attention`] | the attention head: plain, or gated |
//! | [`normalise`] | from logits to numerators: squared average, softmax, ... |
//! | [`pool`] | the pool itself, its guards, what leaving one member out would change |
//! | [`classifier`] | logits, probabilities, class |
//! | [`view`] | typed, strided windows on memory of the host or of a device |
//! | [`bags`] | which rows make which bag; items of 128 members |
//! | [`kernels`] | the trait that the processor and a device share, and its arguments |
//! | [`gated`] | the head as the fused kernel (contract `fused/1`) takes it |
//! | [`cpu`] | the kernels on the processor |
//! | [`cuda`] | the device: driver, code, memory, streams, launches |
//! | [`auto`] | where a call runs: the processor, or a device by measured thresholds |
//! | [`check`], [`error`] | what is refused before a launch, and how it is said |
//! | [`reference`](mod@reference) | the same in f64 by the textbook, with gradients: what the loops are held against |
//!
//! ```
//! use weir_kernels::normalise::{Link, SquaredAverage};
//! use weir_kernels::pool::pool;
//!
//! let members: [&[f32]; 4] = [&[1.0, 0.0], &[0.0, 2.0], &[4.0, 1.0], &[9.0, 9.0]];
//! let bag = pool(&SquaredAverage, Link::None, &[1.0, 2.0, -3.0, 0.0], &members);
//! assert_eq!(bag.pooled, [37.0 / 14.0, 17.0 / 14.0]);
//! assert_eq!(bag.weights, [1.0 / 14.0, 4.0 / 14.0, 9.0 / 14.0, 0.0]);
//! ```

pub mod attention;
pub mod auto;
pub mod bags;
pub mod check;
pub mod classifier;
pub mod cpu;
pub mod cuda;
pub mod error;
pub mod gated;
pub mod kernels;
pub mod linear;
pub mod math;
pub mod normalise;
pub mod pool;
pub mod reference;
mod rule;
pub mod view;

pub use auto::Auto;
pub use bags::Bags;
pub use cpu::Cpu;
pub use error::{Cause, KernelError};
pub use kernels::{Kernels, Rule};
pub use view::{Dtype, View, ViewMut};

/// Name of the numeric contract of these loops.
pub const CONTRACT: &str = "ordered-f32/1";

/// Members of one item: the unit in which sums over members run.
pub const ROWS: usize = 128;

/// The sum of `values` in the contract's order.
pub fn ordered_sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let (mut total, mut item) = (0.0, 0.0);
    for (row, value) in values.enumerate() {
        if row > 0 && row % ROWS == 0 {
            total += item;
            item = 0.0;
        }
        item += value;
    }
    total + item
}

/// The dot product in the contract's order.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + x * y)
}
