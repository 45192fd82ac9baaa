//! The two loops over feature vectors: rows times numerators into a total, and the product of a row with a gradient. Each
//! in portable Rust and for AVX2 with F16C, which give the same bits: every component has its own accumulator, so the width
//! of a vector changes no order, and neither fuses.
//!
//! **The order of <h, u>.** A *piece* is 16 bytes of a row: 4 components of f32, 8 of f16 or bf16; 32 pieces are a
//! *stretch*, as a warp of a GPU reads it at once. The component c of a row stands at place c mod the stretch; each place
//! has one accumulator, which takes h_c u_c, multiply then add, from one stretch to the next, from 0. Then the accumulators
//! of a piece are added ascending, which leaves 32 sums, lane 0 to 31; then lane l and lane l xor 16 are added, then with
//! 8, 4, 2 and 1. Components that the last stretch lacks add nothing.

use super::avx2::{self, Eight};
use crate::pool::FEATURE_LIMIT;
use crate::view::Element;
use half::{bf16, f16};

/// Pieces of a stretch.
pub(super) const LANES: usize = 32;
/// Components of the longest stretch.
const STRETCH: usize = 256;

/// A type of features.
pub(super) trait Feature: Element + Eight {
    /// Components of a piece.
    const PIECE: usize = 16 / size_of::<Self>();

    /// Exactly.
    fn wide(self) -> f32;

    /// To the nearest, ties to even.
    fn narrow(value: f32) -> Self;

    /// `factor` times `u`, rounded to f32 and then to this type.
    fn scaled(factor: f32, u: &[f32], out: &mut [Self]) {
        assert_eq!(u.len(), out.len());
        if !avx2::scaled(factor, u, out) {
            scaled_plain(factor, u, out);
        }
    }
}

fn scaled_plain<T: Feature>(factor: f32, u: &[f32], out: &mut [T]) {
    for (out, u) in out.iter_mut().zip(u) {
        *out = T::narrow(factor * u);
    }
}

impl Feature for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> f32 {
        value
    }
}

impl Feature for f16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        // Without a branch, so that the loops below become vectors: exponent and mantissa at their new place are the
        // number over 2^112, subnormal ones too, and the product is exact. An exponent of ones stays one.
        let bits = u32::from(self.to_bits());
        let size = (bits & 0x7fff) << 13;
        let finite = (f32::from_bits(size) * f32::from_bits(0x7780_0000)).to_bits();
        let special = if size >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
        f32::from_bits(((bits & 0x8000) << 16) | finite | special)
    }
    fn narrow(value: f32) -> f16 {
        f16::from_f32(value)
    }
}

impl Feature for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    fn narrow(value: f32) -> bf16 {
        bf16::from_f32(value)
    }
}

/// Whether no feature of a row is one that is refused.
pub(super) fn admissible<T: Feature>(row: &[T]) -> bool {
    row.iter().all(|h| h.wide().abs() < FEATURE_LIMIT)
}

/// Whether a feature whose bits without the sign are these is one that is not refused: for numbers that are none, and
/// infinities, these bits are greater than any number's.
fn within(greatest: i32) -> bool {
    greatest < FEATURE_LIMIT.to_bits() as i32
}

/// Adds e_i h_i to `total`, row by row, and says whether no feature was one that is refused; where one was, `total` is of
/// no use. All rows are as long as `total`.
pub(super) fn accumulate<T: Feature>(rows: &[&[T]], e: &[f32], total: &mut [f32]) -> bool {
    assert!(rows.len() == e.len() && rows.iter().all(|row| row.len() == total.len()));
    let greatest = avx2::accumulate(rows, e, total);
    within(greatest.unwrap_or_else(|| accumulate_plain(rows, e, total)))
}

fn accumulate_plain<T: Feature>(rows: &[&[T]], e: &[f32], total: &mut [f32]) -> i32 {
    let mut greatest = 0;
    for (row, &e) in rows.iter().zip(e) {
        for (total, h) in total.iter_mut().zip(*row) {
            let h = h.wide();
            greatest = greatest.max(h.abs().to_bits() as i32);
            *total += e * h;
        }
    }
    greatest
}

/// <h, u> in the order of this module, and whether no feature is one that is refused. `u` is as long as `row`.
pub(super) fn product<T: Feature>(row: &[T], u: &[f32]) -> (f32, bool) {
    assert_eq!(row.len(), u.len());
    let mut places = [0f32; STRETCH];
    let places = &mut places[..LANES * T::PIECE];
    let greatest = avx2::products(row, u, places);
    let greatest = greatest.unwrap_or_else(|| places_plain(row, u, places));
    let mut lanes = [0f32; LANES];
    for (lane, piece) in lanes.iter_mut().zip(places.chunks_exact(T::PIECE)) {
        *lane = piece[1..].iter().fold(piece[0], |sum, place| sum + place);
    }
    for step in [16, 8, 4, 2, 1] {
        for lane in 0..step {
            lanes[lane] += lanes[lane + step];
        }
    }
    (lanes[0], within(greatest))
}

fn places_plain<T: Feature>(row: &[T], u: &[f32], places: &mut [f32]) -> i32 {
    let mut greatest = 0;
    for (row, u) in row.chunks(places.len()).zip(u.chunks(places.len())) {
        for ((place, h), u) in places.iter_mut().zip(row).zip(u) {
            let h = h.wide();
            greatest = greatest.max(h.abs().to_bits() as i32);
            *place += h * u;
        }
    }
    greatest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_and_bf16_widens_to_the_same_number() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(same(half.wide(), half.to_f32()), "{bits:#06x}");
            assert!(same(brain.wide(), brain.to_f32()), "{bits:#06x}");
        }
    }

    fn rows<T: Feature>(width: usize, count: usize) -> Vec<Vec<T>> {
        let value = |k: usize| ((k * 2_654_435_761) % 65_521) as f32 / 8_000.0 - 4.0;
        (0..count)
            .map(|r| {
                (0..width)
                    .map(|c| T::narrow(value(r * width + c)))
                    .collect()
            })
            .collect()
    }

    fn both_paths<T: Feature>() {
        for width in [1, 7, 16, 33, 255, 256, 257, 1000, 1029] {
            let rows = rows::<T>(width, 21);
            let rows: Vec<&[T]> = rows.iter().map(Vec::as_slice).collect();
            let e: Vec<f32> = (0..21).map(|k| k as f32 * 0.37).collect();
            let (mut plain, mut fast) = (vec![0.0; width], vec![0.0; width]);
            assert!(within(accumulate_plain(&rows, &e, &mut plain)));
            assert!(accumulate(&rows, &e, &mut fast));
            assert_eq!(plain, fast, "{width}");
            let u: Vec<f32> = (0..width).map(|c| (c as f32).sin()).collect();
            let (mut plain, mut fast) = (vec![0.0; LANES * T::PIECE], vec![0.0; LANES * T::PIECE]);
            places_plain(rows[3], &u, &mut plain);
            if avx2::products(rows[3], &u, &mut fast).is_some() {
                assert_eq!(plain, fast, "{width}");
            }
        }
    }

    #[test]
    fn vectors_and_plain_loops_give_the_same_bits() {
        both_paths::<f32>();
        both_paths::<f16>();
        both_paths::<bf16>();
    }

    fn both_narrow<T: Feature>(bits: impl Fn(T) -> u32) {
        // Every upper half with lower halves about the ties of f16 and bf16: subnormals, infinities and NaNs among them.
        const LOWER: [u32; 12] = [
            0, 1, 0x0fff, 0x1000, 0x1001, 0x2000, 0x3000, 0x7fff, 0x8000, 0x8001, 0xf000, 0xffff,
        ];
        let u: Vec<f32> = (0..1u32 << 16)
            .flat_map(|upper| LOWER.map(|lower| f32::from_bits(upper << 16 | lower)))
            .collect();
        let (mut plain, mut fast) = (vec![T::default(); u.len()], vec![T::default(); u.len()]);
        for factor in [1.0, -0.37, 3e-5] {
            // A factor of 1 that the compiler knows of would leave signalling NaNs as they are.
            let factor = std::hint::black_box(factor);
            scaled_plain(factor, &u, &mut plain);
            T::scaled(factor, &u, &mut fast);
            let wrong = (0..u.len()).find(|&k| bits(plain[k]) != bits(fast[k]));
            assert_eq!(wrong.map(|k| u[k].to_bits()), None, "times {factor}");
        }
        for width in [0, 1, 7, 8, 9, 23] {
            let (u, out) = (&u[16_256 * 12..][..width], &mut fast[..width]);
            T::scaled(2.0, u, out);
            scaled_plain(2.0, u, &mut plain[..width]);
            assert!(
                (0..width).all(|k| bits(plain[k]) == bits(fast[k])),
                "{width}"
            );
        }
    }

    #[test]
    fn vectors_narrow_as_the_plain_loop_does_numbers_that_are_none_too() {
        both_narrow::<f32>(f32::to_bits);
        both_narrow::<f16>(|value| value.to_bits().into());
        both_narrow::<bf16>(|value| value.to_bits().into());
    }

    #[test]
    fn a_feature_that_is_refused_is_noticed_wherever_it_stands() {
        for width in [5, 40, 300] {
            for at in 0..width {
                for bad in [f32::NAN, f32::INFINITY, -1e18, 3e38] {
                    let mut row = vec![1.0f32; width];
                    row[at] = bad;
                    assert!(!accumulate(&[&row], &[0.0], &mut vec![0.0; width]));
                    assert!(!product(&row, &vec![1.0; width]).1);
                    row[at] = 9.99e17;
                    assert!(accumulate(&[&row], &[0.0], &mut vec![0.0; width]));
                }
            }
        }
    }
}
