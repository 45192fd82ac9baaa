//! exp, ln and sigmoid of [`crate::math`], operation by operation, but without branches: both sides are made and one is
//! taken, so that a loop over many numbers becomes one over vectors. The bits are the same (tests of `numerators.rs`).

use crate::math::{EXP, LN, LN2_HIGH, LN2_LOW, LOG2_E, polynomial, power_of_two};

/// e^x.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let n = (x * LOG2_E + 0.5).floor();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let y = polynomial(&EXP, r) * (r * r) + r + 1.0;
    // Where x is so great or small that n is no exponent, y is not taken.
    let n = n as i32;
    let half = n / 2;
    let y = y * power_of_two(half) * power_of_two(n - half);
    let y = if x < -103.972_08 { 0.0 } else { y };
    if x > 88.722_84 { f32::INFINITY } else { y }
}

/// Natural logarithm.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 33_554_432.0 } else { x };
    let bits = scaled.to_bits();
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    let upper = m > std::f32::consts::SQRT_2;
    let exponent = (bits >> 23) as i32 - 127;
    let exponent = exponent + if small { -25 } else { 0 } + if upper { 1 } else { 0 };
    let m = if upper { m * 0.5 } else { m } - 1.0;
    let square = m * m;
    let n = exponent as f32;
    let mut y = polynomial(&LN, m) * m * square;
    y += n * LN2_LOW;
    y -= 0.5 * square;
    let y = (m + y) + n * LN2_HIGH;
    let y = if x > 0.0 { y } else { f32::NAN };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x == f32::INFINITY { x } else { y }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let negative = x < 0.0;
    let e = exp(if negative { x } else { -x });
    let above = if negative { e } else { 1.0 };
    above / (1.0 + e)
}
