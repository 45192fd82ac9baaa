//! What a case must do at least: bytes through memory, each input read once and each output written once, and operations.

use crate::case::{Case, Kernel};
use serde::{Deserialize, Serialize};
use weir_kernels::Dtype;

/// The least work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Bytes read.
    pub read: f64,
    /// Bytes written.
    pub written: f64,
    /// Floating-point operations of products of matrices; 0 where bytes alone count.
    pub products: f64,
    /// All floating-point operations.
    pub flops: f64,
}

impl Cost {
    /// Bytes read and written.
    pub fn bytes(&self) -> f64 {
        self.read + self.written
    }
}

/// Rates that a machine was measured, or is said, to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Reading alone, bytes a second.
    pub read: f64,
    /// Copying, bytes read plus bytes written a second.
    pub copy: f64,
    /// Product of f32 matrices, operations a second.
    pub product: f64,
    /// Product of f16 or bf16 matrices.
    pub product_half: f64,
}

impl Ceilings {
    /// The rate of memory for work that reads and writes so: the copy's for what is written and as much read, the plain
    /// read's for the rest.
    pub fn memory_time(&self, cost: &Cost) -> f64 {
        let paired = cost.written.min(cost.read);
        2.0 * paired / self.copy + (cost.bytes() - 2.0 * paired) / self.read
    }

    /// The rate of products on elements of `dtype`.
    pub fn product_rate(&self, dtype: Dtype) -> f64 {
        if dtype == Dtype::F32 {
            self.product
        } else {
            self.product_half
        }
    }

    /// The floor, seconds: the longer of memory's and the products' time.
    pub fn floor(&self, case: &Case, cost: &Cost) -> f64 {
        self.memory_time(cost)
            .max(cost.products / self.product_rate(case.dtype))
    }

    /// What bounds the case.
    pub fn bound(&self, case: &Case, cost: &Cost) -> &'static str {
        if cost.products / self.product_rate(case.dtype) > self.memory_time(cost) {
            "product"
        } else if cost.written > 0.2 * cost.read {
            "copy"
        } else {
            "read"
        }
    }
}

/// The least work of a case.
pub fn cost(case: &Case) -> Cost {
    let n = case.total() as f64;
    let members = if case.masked { 0.9 * n } else { n };
    let (bags, d, l) = (case.bags as f64, case.d as f64, case.l as f64);
    let size = case.dtype.bytes() as f64;
    let features = members * d * size;
    // Numbers of a bag: S, sum of squares, entropy, flags.
    let of_bag = 16.0 * bags;
    match (case.kernel, case.backward) {
        (Kernel::Weights, false) => Cost {
            read: 4.0 * members,
            written: 4.0 * n + of_bag,
            products: 0.0,
            flops: 6.0 * members,
        },
        (Kernel::Weights, true) => Cost {
            read: 12.0 * members + of_bag,
            written: 4.0 * n,
            products: 0.0,
            flops: 6.0 * members,
        },
        (Kernel::Pool, false) => Cost {
            read: features + 4.0 * members,
            written: 4.0 * n + 4.0 * bags * d + of_bag,
            products: 0.0,
            flops: 2.0 * members * d,
        },
        (Kernel::Pool, true) => Cost {
            read: features + 8.0 * members + 8.0 * bags * d,
            written: n * d * size + 4.0 * n,
            products: 0.0,
            flops: 3.0 * members * d,
        },
        (Kernel::Gated, false) => {
            let product = 2.0 * members * d * 2.0 * l;
            Cost {
                read: features + 2.0 * l * d * size,
                written: 8.0 * n + 4.0 * bags * d + of_bag,
                products: product,
                flops: product + members * (2.0 * d + 12.0 * l),
            }
        }
        // The hidden units again unless they were kept, or, in a step, for the first time; then the gradients by the features
        // and by V and U: products of the forward's size.
        (Kernel::Gated, true) => {
            let (products, kept) = if case.kept && !case.step {
                (2.0, 8.0 * members * l)
            } else {
                (3.0, 0.0)
            };
            let product = products * 2.0 * members * d * 2.0 * l;
            Cost {
                read: features + 2.0 * l * d * size + 8.0 * members + kept,
                written: n * d * size + 8.0 * l * d,
                products: product,
                flops: product + members * (4.0 * d + 20.0 * l),
            }
        }
        (Kernel::TopK, _) => Cost {
            read: 4.0 * members,
            written: 8.0 * bags * d,
            products: 0.0,
            flops: 0.0,
        },
        (Kernel::Tiles, _) => Cost {
            read: 3.0 * n,
            written: 3.0 * n * size,
            products: 0.0,
            flops: 6.0 * n,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floors_of_the_design_page_come_out() {
        // 64 x 4096 x 1024 bf16, L 256, on a card that copies 4.3 TB/s and multiplies at 788 TFLOP/s: 0.125 and 0.349 ms.
        let card = Ceilings {
            read: 4.3e12,
            copy: 4.3e12,
            product: 67e12,
            product_half: 788e12,
        };
        let case = Case {
            kernel: Kernel::Pool,
            backward: false,
            softmax: false,
            dtype: Dtype::Bf16,
            bags: 64,
            rows: 4096,
            ragged: false,
            masked: false,
            d: 1024,
            l: 0,
            kept: false,
            step: false,
        };
        let floor = card.floor(&case, &cost(&case));
        assert!((floor - 0.125e-3).abs() < 0.002e-3, "{floor}");
        let gated = Case {
            kernel: Kernel::Gated,
            l: 256,
            ..case
        };
        let floor = card.floor(&gated, &cost(&gated));
        assert!((floor - 0.349e-3).abs() < 0.001e-3, "{floor}");
        assert_eq!(card.bound(&gated, &cost(&gated)), "product");
    }
}
