//! Mean and covariance of many vectors, as exact sums.
//!
//! Sums of floating-point numbers depend on their order; these are of whole numbers, so the result is the same bits however the
//! pixels came, and what is rounded is the summand alone.

use crate::vector::{Matrix, Vector};

/// Fractional bits of a summand.
const BITS: i32 = 21;
/// Greatest absolute value of a summand before it is held: 2^8, as products of 2 x 29 bits leave five for adding in 64.
const MOST: f64 = 256.0;
/// How many products fit into 64 bits.
const BLOCK: usize = 16;

/// A number as a summand; one that is none is 0.
///
/// Added to 1.5 * 2^52 / 2^BITS, a double has no place for what lies below the last fractional bit, and its low half is the whole
/// number: without a call and without a cast that asks whether it fits, so that loops over it become vectors.
#[inline(always)]
pub fn fixed(x: f64) -> i32 {
    const ROUND: f64 = 1.5 * ((1u64 << (52 - BITS)) as f64);
    (x.clamp(-MOST, MOST) + ROUND).to_bits() as i32
}

/// Sums of vectors and of their products.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    count: u64,
    sums: [i64; 3],
    // rr rg rb gg gb bb
    products: [i128; 6],
}

impl Moments {
    /// Adds vectors of [`fixed`] numbers.
    pub fn add(&mut self, vectors: &[[i32; 3]]) {
        for block in vectors.chunks(BLOCK) {
            let mut products = [0i64; 6];
            for [r, g, b] in block {
                let (r, g, b) = (i64::from(*r), i64::from(*g), i64::from(*b));
                self.sums[0] += r;
                self.sums[1] += g;
                self.sums[2] += b;
                products[0] += r * r;
                products[1] += r * g;
                products[2] += r * b;
                products[3] += g * g;
                products[4] += g * b;
                products[5] += b * b;
            }
            for (sum, product) in self.products.iter_mut().zip(products) {
                *sum += i128::from(product);
            }
        }
        self.count += vectors.len() as u64;
    }

    /// How many vectors.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; of none it is 0.
    pub fn mean(&self) -> Vector {
        let n = self.count.max(1) as f64;
        self.sums.map(|sum| sum as f64 / n / f64::from(1 << BITS))
    }

    /// Their covariance, divided by their number.
    pub fn covariance(&self) -> Matrix {
        let n = i128::from(self.count.max(1));
        let scale = (n as f64) * (n as f64) * (f64::from(1 << BITS)).powi(2);
        // n * sum(xy) - sum(x) sum(y) in whole numbers: nothing cancels.
        let at = |i: usize, j: usize, product: usize| {
            let sums = i128::from(self.sums[i]) * i128::from(self.sums[j]);
            (n * self.products[product] - sums) as f64 / scale
        };
        let (rr, rg, rb) = (at(0, 0, 0), at(0, 1, 1), at(0, 2, 2));
        let (gg, gb, bb) = (at(1, 1, 3), at(1, 2, 4), at(2, 2, 5));
        [[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mean_and_covariance_are_those_of_the_numbers_in_any_order(
            mut rows in proptest::collection::vec(proptest::array::uniform3(-200.0f64..200.0), 1..200),
            by in 0usize..200,
        ) {
            let moments = |rows: &[[f64; 3]]| {
                let mut moments = Moments::default();
                moments.add(&rows.iter().map(|row| row.map(fixed)).collect::<Vec<_>>());
                moments
            };
            let first = moments(&rows);
            let n = rows.len() as f64;
            for i in 0..3 {
                let mean = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>() / n;
                prop_assert!((first.mean()[i] - mean(i)).abs() < 1e-6);
                for j in 0..3 {
                    let product = rows.iter().map(|row| (row[i] - mean(i)) * (row[j] - mean(j))).sum::<f64>() / n;
                    prop_assert!((first.covariance()[i][j] - product).abs() < 2e-4);
                }
            }
            let by = by % rows.len();
            rows.rotate_left(by);
            rows.reverse();
            prop_assert_eq!(moments(&rows), first);
        }
    }

    #[test]
    fn a_hundred_million_extreme_vectors_do_not_overflow() {
        let one = Moments {
            count: 100_000_000,
            sums: [i64::from(fixed(MOST)) * 100_000_000; 3],
            products: [i128::from(fixed(MOST)).pow(2) * 100_000_000; 6],
        };
        assert!((one.mean()[0] - MOST).abs() < 1e-9);
        assert_eq!(one.covariance(), [[0.0; 3]; 3]);
    }
}
