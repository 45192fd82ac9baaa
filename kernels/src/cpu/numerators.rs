//! Numerators, weights and their sums in vectors: what (a) does to an item, and (b) beside its features.
//!
//! The loops are plain Rust, compiled for the target's baseline and for AVX2. Nothing is fused, and exp, ln and
//! sigmoid have the bits of [`crate::math`] (the tests below).
//!
//! A sum has one accumulator, whose additions wait for each other. Items do not wait for items, so [`ABREAST`] of them are
//! added at once, one a lane, each in its own order.

use super::elementary::{exp, ln, sigmoid};
use super::product::Simd;
use crate::kernels::Rule;
use crate::normalise::{Link, Normalisation};

/// Items whose sums run side by side.
pub(super) const ABREAST: usize = 8;

/// Writes a loop once and compiles it twice.
macro_rules! loops {
    ($($(#[$doc:meta])* $name:ident / $wide:ident = $body:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $wide($($argument: $type),*) $(-> $result)? {
            $body($($argument),*)
        }

        $(#[$doc])*
        pub(super) fn $name(simd: Simd, $($argument: $type),*) $(-> $result)? {
            match simd {
                // SAFETY: `Simd::here` has seen that the processor has these instructions.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { $wide($($argument),*) },
                Simd::Portable => $body($($argument),*),
            }
        }
    )*};
}

loops! {
    /// Turns logits into g; whether all logits are finite.
    links / links_avx2 = links_loop(link: Link, g: &mut [f32]) -> bool;
    /// The greatest of them, numbers that are none left out.
    greatest / greatest_avx2 = greatest_loop(g: &[f32]) -> f32;
    /// Turns g into numerators; whether all g lie in the rule's domain. `greatest` is the bag's greatest g.
    numerators / numerators_avx2 = numerators_loop(rule: Rule, greatest: f32, g: &mut [f32]) -> bool;
    /// Turns numerators into weights, and writes each one's part of the entropy.
    shares / shares_avx2 = shares_loop(sum: f32, e: &mut [f32], entropy: &mut [f32]);
    /// Turns dL/dw of members into dL/da, as [`Rule::slope`] does. `sum` is the bag's S, `mean` its mean of dL/dw.
    slopes / slopes_avx2 = slopes_loop(rule: Rule, sum: f32, mean: f32, logits: &[f32], weights: &[f32], gradient: &mut [f32]);
}

#[inline(always)]
fn links_loop(link: Link, g: &mut [f32]) -> bool {
    let finite = g.iter().fold(true, |all, a| all & a.is_finite());
    if link == Link::Sigmoid {
        g.iter_mut().for_each(|g| *g = sigmoid(*g));
    }
    finite
}

#[inline(always)]
fn greatest_loop(g: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 4 * ABREAST];
    let pieces = g.chunks_exact(lanes.len());
    let rest = pieces.remainder().iter().copied();
    let rest = rest.fold(f32::NEG_INFINITY, greater);
    for piece in pieces {
        for (lane, &g) in lanes.iter_mut().zip(piece) {
            *lane = greater(*lane, g);
        }
    }
    lanes.into_iter().fold(rest, greater)
}

#[inline(always)]
fn numerators_loop(rule: Rule, greatest: f32, g: &mut [f32]) -> bool {
    let inside = g.iter().fold(true, |all, &g| all & rule.in_domain(g));
    match rule.normalisation {
        Normalisation::SquaredAverage => g.iter_mut().for_each(|g| *g *= *g),
        Normalisation::Softmax => g.iter_mut().for_each(|g| *g = exp(*g - greatest)),
        Normalisation::Sigmoid => g.iter_mut().for_each(|g| *g = sigmoid(*g)),
        Normalisation::Power(p) => powers(p, g),
        // `Rule::check` has refused the last two.
        Normalisation::Mean | Normalisation::Max | Normalisation::Sparsemax => g.fill(1.0),
    }
    inside
}

/// [`crate::math::power`] of each.
#[inline(always)]
fn powers(p: f32, g: &mut [f32]) {
    if p.fract() == 0.0 && (0.0..=8.0).contains(&p) {
        for g in g {
            let size = g.abs();
            *g = 1.0;
            for _ in 0..p as u32 {
                *g *= size;
            }
        }
        return;
    }
    for g in g {
        let size = g.abs();
        let power = exp(p * ln(size));
        *g = if size == 0.0 { 0.0 } else { power };
    }
}

#[inline(always)]
fn shares_loop(sum: f32, e: &mut [f32], entropy: &mut [f32]) {
    for (e, entropy) in e.iter_mut().zip(entropy) {
        let w = *e / sum;
        *e = w;
        let part = -(w * ln(w));
        *entropy = if w > 0.0 { part } else { 0.0 };
    }
}

#[inline(always)]
fn slopes_loop(
    rule: Rule,
    sum: f32,
    mean: f32,
    logits: &[f32],
    weights: &[f32],
    gradient: &mut [f32],
) {
    let bag = (rule.link, mean);
    let (a, w, out) = (logits, weights, gradient);
    match rule.normalisation {
        Normalisation::SquaredAverage => slopes_by(bag, a, w, out, |g, _| (g + g) / sum),
        Normalisation::Power(0.0) => slopes_by(bag, a, w, out, |_, _| 0.0),
        Normalisation::Power(p) if p.fract() == 0.0 && (1.0..=9.0).contains(&p) => {
            slopes_by(bag, a, w, out, |g, _| {
                let size = g.abs();
                let mut power = 1.0;
                for _ in 0..p as u32 - 1 {
                    power *= size;
                }
                let share = (p * power).copysign(g) / sum;
                if g == 0.0 { 0.0 } else { share }
            });
        }
        Normalisation::Power(p) => slopes_by(bag, a, w, out, |g, _| {
            let share = (p * exp((p - 1.0) * ln(g.abs()))).copysign(g) / sum;
            if g == 0.0 { 0.0 } else { share }
        }),
        Normalisation::Sigmoid => slopes_by(bag, a, w, out, |g, _| sigmoid(g) * sigmoid(-g) / sum),
        Normalisation::Softmax => slopes_by(bag, a, w, out, |_, w| w),
        // `Rule::check` has refused the last two.
        Normalisation::Mean | Normalisation::Max | Normalisation::Sparsemax => {
            slopes_by(bag, a, w, out, |_, _| 0.0)
        }
    }
}

/// With the slope of the numerator by g over S, from g and the weight.
#[inline(always)]
fn slopes_by(
    (link, mean): (Link, f32),
    logits: &[f32],
    weights: &[f32],
    gradient: &mut [f32],
    share: impl Fn(f32, f32) -> f32,
) {
    let members = logits.iter().zip(weights).zip(gradient);
    if link == Link::Sigmoid {
        for ((&a, &w), gradient) in members {
            let g = sigmoid(a);
            *gradient = share(g, w) * (g * sigmoid(-a)) * (*gradient - mean);
        }
    } else {
        for ((&a, &w), gradient) in members {
            *gradient = share(a, w) * (*gradient - mean);
        }
    }
}

/// The sum of each list, from 0, ascending.
pub(super) fn sums(simd: Simd, lists: [&[f32]; ABREAST]) -> [f32; ABREAST] {
    abreast::<false>(simd, lists)
}

/// The sum of the squares of each list, from 0, ascending: multiply, then add.
pub(super) fn sums_of_squares(simd: Simd, lists: [&[f32]; ABREAST]) -> [f32; ABREAST] {
    abreast::<true>(simd, lists)
}

fn abreast<const SQUARES: bool>(simd: Simd, lists: [&[f32]; ABREAST]) -> [f32; ABREAST] {
    match simd {
        // SAFETY: `Simd::here` has seen that the processor has these instructions.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { abreast_avx2::<SQUARES>(lists) },
        Simd::Portable => lists.map(|list| {
            let of = |&x: &f32| if SQUARES { x * x } else { x };
            list.iter().map(of).fold(0.0, |sum, x| sum + x)
        }),
    }
}

/// Eight numbers of each list at a time, turned so that a vector holds one of each. What a list lacks is added as 0, which
/// changes no sum: none is -0, for it began with 0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn abreast_avx2<const SQUARES: bool>(lists: [&[f32]; ABREAST]) -> [f32; ABREAST] {
    use std::arch::x86_64::*;
    let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
    let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mut sums = _mm256_setzero_ps();
    for at in (0..longest).step_by(8) {
        let mut v = [_mm256_setzero_ps(); ABREAST];
        for (v, list) in v.iter_mut().zip(lists) {
            let left = list.len().saturating_sub(at);
            if left >= 8 {
                // SAFETY: eight numbers from `at` on lie in the list.
                *v = unsafe { _mm256_loadu_ps(list.as_ptr().add(at)) };
            } else if left > 0 {
                let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(left as i32), places);
                // SAFETY: `left` numbers from `at` on lie in the list, and no other is read.
                *v = unsafe { _mm256_maskload_ps(list.as_ptr().add(at), mask) };
            }
            if SQUARES {
                *v = _mm256_mul_ps(*v, *v);
            }
        }
        let mut pairs = v;
        for k in 0..4 {
            pairs[2 * k] = _mm256_unpacklo_ps(v[2 * k], v[2 * k + 1]);
            pairs[2 * k + 1] = _mm256_unpackhi_ps(v[2 * k], v[2 * k + 1]);
        }
        // [half][number mod 4]: of four lists, the number in the low four and the one in the high four.
        let mut fours = [[sums; 4]; 2];
        for (half, fours) in fours.iter_mut().enumerate() {
            let p = &pairs[4 * half..];
            *fours = [
                _mm256_shuffle_ps::<0x44>(p[0], p[2]),
                _mm256_shuffle_ps::<0xee>(p[0], p[2]),
                _mm256_shuffle_ps::<0x44>(p[1], p[3]),
                _mm256_shuffle_ps::<0xee>(p[1], p[3]),
            ];
        }
        let [first, second] = fours;
        for (first, second) in first.into_iter().zip(second) {
            let column = _mm256_permute2f128_ps::<0x20>(first, second);
            sums = _mm256_add_ps(sums, column);
        }
        for (first, second) in first.into_iter().zip(second) {
            let column = _mm256_permute2f128_ps::<0x31>(first, second);
            sums = _mm256_add_ps(sums, column);
        }
    }
    let mut out = [0.0; ABREAST];
    // SAFETY: `out` has room for eight.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math;

    /// Every so many-th f32 of both signs, and those around each branch.
    fn many() -> Vec<f32> {
        let mut all: Vec<f32> = (0..=u32::MAX).step_by(997).map(f32::from_bits).collect();
        let edges = [
            0.0,
            1.0,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::INFINITY,
            88.722_84,
            103.972_08,
            87.34,
            std::f32::consts::SQRT_2,
            std::f32::consts::FRAC_1_SQRT_2,
            1e-18,
            1e18,
            0.5,
            2.0,
        ];
        for edge in edges {
            for near in -64..=64 {
                let bits = edge.to_bits().wrapping_add_signed(near);
                all.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
            }
        }
        all.extend([f32::NAN, -f32::NAN, f32::from_bits(1), -f32::from_bits(1)]);
        all
    }

    fn same(what: &str, x: &[f32], got: &[f32], mut law: impl FnMut(f32) -> f32) {
        for (&x, &got) in x.iter().zip(got) {
            let law = law(x);
            let same = law.to_bits() == got.to_bits() || (law.is_nan() && got.is_nan());
            assert!(
                same,
                "{what} of {x:e} ({:#010x}): {got:e}, not {law:e}",
                x.to_bits()
            );
        }
    }

    #[test]
    fn vectors_of_exp_ln_sigmoid_and_power_have_the_bits_of_the_scalar_functions() {
        let x = many();
        for simd in [Simd::here(), Simd::Portable] {
            let by = |normalisation, greatest| {
                let mut g = x.clone();
                let rule = Rule {
                    normalisation,
                    link: Link::None,
                };
                numerators(simd, rule, greatest, &mut g);
                g
            };
            same("exp", &x, &by(Normalisation::Softmax, 0.0), |x| {
                math::exp(x - 0.0)
            });
            same("exp", &x, &by(Normalisation::Softmax, 7.3), |x| {
                math::exp(x - 7.3)
            });
            same(
                "sigmoid",
                &x,
                &by(Normalisation::Sigmoid, 0.0),
                math::sigmoid,
            );
            for p in [0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 0.5, 2.7] {
                same("power", &x, &by(Normalisation::Power(p), 0.0), |x| {
                    math::power(x, p)
                });
            }
            let mut g = x.clone();
            links(simd, Link::Sigmoid, &mut g);
            same("link", &x, &g, math::sigmoid);
            for normalisation in [
                Normalisation::SquaredAverage,
                Normalisation::Softmax,
                Normalisation::Sigmoid,
                Normalisation::Mean,
                Normalisation::Power(0.0),
                Normalisation::Power(0.5),
                Normalisation::Power(1.0),
                Normalisation::Power(2.0),
                Normalisation::Power(2.7),
                Normalisation::Power(9.0),
                Normalisation::Power(10.0),
            ] {
                for link in [Link::None, Link::Sigmoid] {
                    let rule = Rule {
                        normalisation,
                        link,
                    };
                    let w: Vec<f32> = x.iter().map(|a| (a * 0.37).abs().min(1.0)).collect();
                    let mut by_a: Vec<f32> = x.iter().map(|a| a.clamp(-9.0, 9.0)).collect();
                    let law: Vec<f32> = (by_a.iter().zip(&x).zip(&w))
                        .map(|((u, &a), &w)| rule.slope(a, w, 3.7, u - 0.3))
                        .collect();
                    slopes(simd, rule, 3.7, 0.3, &x, &w, &mut by_a);
                    let mut law = law.into_iter();
                    same("slope", &x, &by_a, |_| law.next().unwrap_or(0.0));
                }
            }
            for sum in [1.0, 3.7, 1e30] {
                let (mut w, mut entropy) = (x.clone(), x.clone());
                shares(simd, sum, &mut w, &mut entropy);
                same("share", &x, &w, |x| x / sum);
                same("entropy", &w, &entropy, |w| {
                    if w > 0.0 { -(w * math::ln(w)) } else { 0.0 }
                });
            }
        }
    }

    #[test]
    fn what_is_not_finite_or_outside_is_noticed_wherever_it_stands() {
        let rule = Rule {
            normalisation: Normalisation::SquaredAverage,
            link: Link::None,
        };
        for simd in [Simd::here(), Simd::Portable] {
            for count in [1, 7, 8, 31, 128] {
                assert!(links(simd, Link::None, &mut vec![1.0; count]));
                for at in 0..count {
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let mut a = vec![1.0; count];
                        a[at] = bad;
                        assert!(!links(simd, Link::Sigmoid, &mut a));
                    }
                    for far in [1e-18, -1e-18, 1e18, 3e38, 1e-40] {
                        let mut g = vec![0.0; count];
                        g[at] = far;
                        assert_eq!(
                            greatest(simd, &g),
                            far.max(if count > 1 { 0.0 } else { far })
                        );
                        assert!(!numerators(simd, rule, 0.0, &mut g));
                    }
                }
            }
        }
    }

    #[test]
    fn sums_side_by_side_are_each_in_its_own_order() {
        let value = |k: usize| ((k * 2_654_435_761) % 65_521) as f32 / 7_000.0;
        for turn in 0..40 {
            let lists: [Vec<f32>; ABREAST] = std::array::from_fn(|k| {
                let count = [128, 128, 0, 1, 77, 8, 120, 127][(k + turn) % ABREAST];
                (0..count)
                    .map(|i| value(i * 17 + k * 1000 + turn))
                    .collect()
            });
            let lists: [&[f32]; ABREAST] = std::array::from_fn(|k| &lists[k][..]);
            let bits = |sums: [f32; ABREAST]| sums.map(f32::to_bits);
            let (here, plain) = (Simd::here(), Simd::Portable);
            assert_eq!(bits(sums(here, lists)), bits(sums(plain, lists)));
            assert_eq!(
                bits(sums_of_squares(here, lists)),
                bits(sums_of_squares(plain, lists))
            );
        }
    }
}
