//! tanh and sigmoid of (c) on the processor, eight at a time, and the loops around them.
//!
//! Each loop is plain Rust, compiled twice: for the target's baseline, and for AVX2 with fused multiply-add. Errors against
//! f64 (the tests below): 1e-7, of tanh and of sigmoid.

use super::product::{PANEL, Simd};
use crate::pool::FEATURE_LIMIT;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A lane's units of a panel of a gated head: 8 of V, then the same 8 of U.
pub(super) const UNITS: usize = PANEL / 2;

/// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, highest power first; that of `math::exp`.
const EXP: [f32; 6] = [
    1.989_098_1e-4,
    1.393_364e-3,
    8.333_311e-3,
    4.166_646_5e-2,
    1.666_666_7e-1,
    5e-1,
];

#[inline(always)]
fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// e^x for |x| <= 87; beyond as if at the end. NaN stays NaN.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the whole number nearest to a small x in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let shifted = mul_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FUSED>(n, -0.693_359_4, x);
    let r = mul_add::<FUSED>(n, 2.121_944_4e-4, r);
    let mut y = EXP[0];
    for &coefficient in &EXP[1..] {
        y = mul_add::<FUSED>(y, r, coefficient);
    }
    let y = mul_add::<FUSED>(y, r * r, r) + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// tanh(v), sigmoid(u).
#[inline(always)]
fn gate<const FUSED: bool>(v: f32, u: f32) -> (f32, f32) {
    let e = exp::<FUSED>(-2.0 * v.abs());
    let t = ((1.0 - e) / (1.0 + e)).copysign(v);
    (t, 1.0 / (1.0 + exp::<FUSED>(-u)))
}

/// Writes a loop once and compiles it twice.
macro_rules! loops {
    ($($(#[$doc:meta])* $name:ident / $wide:ident = $body:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        #[allow(clippy::too_many_arguments)]
        fn $wide($($argument: $type),*) $(-> $result)? {
            $body::<true>($($argument),*)
        }

        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(super) fn $name(simd: Simd, $($argument: $type),*) $(-> $result)? {
            match simd {
                // SAFETY: `Simd::here` has seen that the processor has these instructions.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { $wide($($argument),*) },
                // A fused multiply-add is part of the baseline here, or else a slow call.
                Simd::Portable => $body::<{ cfg!(target_arch = "aarch64") }>($($argument),*),
            }
        }
    )*};
}

loops! {
    /// Whether every feature of a row may enter a pool.
    admissible / admissible_avx2 = admissible_loop(row: &[f32]) -> bool;
    /// The logit, without the head's bias, of a row's pre-activations.
    logit / logit_avx2 = logit_loop(hidden: &[f32], bias: &[f32], weight: &[f32], gated: bool) -> f32;
    /// As [`logit`]; leaves tanh and sigmoid in place of the pre-activations.
    logit_kept / logit_kept_avx2 = kept_loop(hidden: &mut [f32], bias: &[f32], weight: &[f32], gated: bool) -> f32;
    /// From tanh and sigmoid of a row and dL/da to dL/dp, p the pre-activations; adds dL/dp to `bias` and dL/dw to `weights`.
    backward / backward_avx2 = backward_loop(
        hidden: &[f32],
        da: f32,
        weight: &[f32],
        gated: bool,
        dp: &mut [f32],
        bias: &mut [f32],
        weights: &mut [f32]
    );
    /// Dot product.
    dot / dot_avx2 = dot_loop(a: &[f32], b: &[f32]) -> f32;
    /// sums += e row, multiply then add (contract `ordered-f32/1`).
    add_weighted / add_weighted_avx2 = add_weighted_loop(sums: &mut [f32], e: f32, row: &[f32]);
}

#[inline(always)]
fn admissible_loop<const FUSED: bool>(row: &[f32]) -> bool {
    row.iter()
        .fold(true, |all, h| all & (h.abs() < FEATURE_LIMIT))
}

#[inline(always)]
fn logit_loop<const FUSED: bool>(
    hidden: &[f32],
    bias: &[f32],
    weight: &[f32],
    gated_head: bool,
) -> f32 {
    let mut sums = [0.0f32; UNITS];
    if gated_head {
        let panels = hidden.chunks_exact(PANEL).zip(bias.chunks_exact(PANEL));
        for ((p, b), w) in panels.zip(weight.chunks_exact(UNITS)) {
            for j in 0..UNITS {
                let (t, s) = gate::<FUSED>(p[j] + b[j], p[UNITS + j] + b[UNITS + j]);
                sums[j] = mul_add::<FUSED>(w[j], t * s, sums[j]);
            }
        }
    } else {
        let units = hidden.chunks_exact(UNITS).zip(bias.chunks_exact(UNITS));
        for ((p, b), w) in units.zip(weight.chunks_exact(UNITS)) {
            for j in 0..UNITS {
                let t = gate::<FUSED>(p[j] + b[j], 0.0).0;
                sums[j] = mul_add::<FUSED>(w[j], t, sums[j]);
            }
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn kept_loop<const FUSED: bool>(
    hidden: &mut [f32],
    bias: &[f32],
    weight: &[f32],
    gated_head: bool,
) -> f32 {
    let mut sums = [0.0f32; UNITS];
    if gated_head {
        let panels = hidden.chunks_exact_mut(PANEL).zip(bias.chunks_exact(PANEL));
        for ((p, b), w) in panels.zip(weight.chunks_exact(UNITS)) {
            let (v, u) = p.split_at_mut(UNITS);
            for j in 0..UNITS {
                let (t, s) = gate::<FUSED>(v[j] + b[j], u[j] + b[UNITS + j]);
                (v[j], u[j]) = (t, s);
                sums[j] = mul_add::<FUSED>(w[j], t * s, sums[j]);
            }
        }
    } else {
        let units = hidden.chunks_exact_mut(UNITS).zip(bias.chunks_exact(UNITS));
        for ((p, b), w) in units.zip(weight.chunks_exact(UNITS)) {
            for j in 0..UNITS {
                p[j] = gate::<FUSED>(p[j] + b[j], 0.0).0;
                sums[j] = mul_add::<FUSED>(w[j], p[j], sums[j]);
            }
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn backward_loop<const FUSED: bool>(
    hidden: &[f32],
    da: f32,
    weight: &[f32],
    gated_head: bool,
    dp: &mut [f32],
    bias: &mut [f32],
    weights: &mut [f32],
) {
    let width = if gated_head { PANEL } else { UNITS };
    let rows = hidden.chunks_exact(width).zip(dp.chunks_exact_mut(width));
    let sums = bias
        .chunks_exact_mut(width)
        .zip(weights.chunks_exact_mut(UNITS));
    for (((p, dp), w), (bias, weights)) in rows.zip(weight.chunks_exact(UNITS)).zip(sums) {
        if gated_head {
            for j in 0..UNITS {
                let (t, s) = (p[j], p[UNITS + j]);
                let upper = da * w[j];
                let dv = upper * s * (1.0 - t * t);
                let du = upper * t * s * (1.0 - s);
                (dp[j], dp[UNITS + j]) = (dv, du);
                bias[j] += dv;
                bias[UNITS + j] += du;
                weights[j] = mul_add::<FUSED>(da, t * s, weights[j]);
            }
        } else {
            for j in 0..UNITS {
                let t = p[j];
                let dv = da * w[j] * (1.0 - t * t);
                dp[j] = dv;
                bias[j] += dv;
                weights[j] = mul_add::<FUSED>(da, t, weights[j]);
            }
        }
    }
}

#[inline(always)]
fn dot_loop<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [[0.0f32; UNITS]; 4];
    let (a_ends, b_ends) = (a.chunks_exact(4 * UNITS), b.chunks_exact(4 * UNITS));
    let rest = a_ends.remainder().iter().zip(b_ends.remainder());
    let rest = rest.fold(0.0, |sum, (&a, &b)| mul_add::<FUSED>(a, b, sum));
    for (a, b) in a_ends.zip(b_ends) {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = mul_add::<FUSED>(a[i * UNITS + j], b[i * UNITS + j], *sum);
            }
        }
    }
    let mut lanes = [0.0f32; UNITS];
    for j in 0..UNITS {
        lanes[j] = (sums[0][j] + sums[1][j]) + (sums[2][j] + sums[3][j]);
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_weighted_loop<const FUSED: bool>(sums: &mut [f32], e: f32, row: &[f32]) {
    for (sum, &h) in sums.iter_mut().zip(row) {
        *sum += e * h;
    }
}

/// A row of features as f32.
pub(super) enum Row<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Row<'_> {
    /// Widens it, exactly.
    pub fn widen(&self, to: &mut [f32]) {
        match self {
            Row::F32(row) => to.copy_from_slice(row),
            Row::F16(row) => row.convert_to_f32_slice(to),
            Row::Bf16(row) => {
                for (to, h) in to.iter_mut().zip(*row) {
                    *to = f32::from_bits(u32::from(h.to_bits()) << 16);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const FUSED: bool>() {
        let (mut of_tanh, mut of_sigmoid) = (0.0f64, 0.0f64);
        for i in -2_000_000..2_000_000 {
            let (v, u) = (i as f32 * 1.1e-5, i as f32 * -6e-5);
            let tanh = f64::from(v).tanh();
            let sigmoid = crate::reference::sigmoid(f64::from(u));
            let (t, s) = gate::<FUSED>(v, u);
            of_tanh = of_tanh.max((f64::from(t) - tanh).abs());
            of_sigmoid = of_sigmoid.max((f64::from(s) - sigmoid).abs());
        }
        println!("tanh {of_tanh:e}, sigmoid {of_sigmoid:e}");
        assert!(of_tanh < 1e-7 && of_sigmoid < 1e-7);
    }

    #[test]
    fn tanh_and_sigmoid_stay_within_their_bounds_with_and_without_fusing() {
        check::<false>();
        check::<true>();
    }

    #[test]
    fn tanh_and_sigmoid_of_what_is_no_number_are_none_and_saturate_at_the_ends() {
        assert!(gate::<false>(f32::NAN, 0.0).0.is_nan());
        assert!(gate::<false>(0.0, f32::NAN).1.is_nan());
        for v in [f32::INFINITY, f32::MAX] {
            assert_eq!(gate::<false>(v, 0.0).0, 1.0);
            assert_eq!(gate::<false>(-v, 0.0).0, -1.0);
            assert_eq!(gate::<false>(0.0, v).1, 1.0);
            assert!(gate::<false>(0.0, -v).1 < 1e-37);
        }
    }
}
