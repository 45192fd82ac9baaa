//! exp, ln, sigmoid and tanh in f32 by additions, multiplications and one division, so that every machine makes the same
//! bits: a C library's differ from one release to the next, and a GPU's from both.
//!
//! No fused multiply-add anywhere: Rust never contracts, CUDA uses `__fmul_rn` and `__fadd_rn`. Polynomials interpolate at
//! Chebyshev nodes. Bounds, against f64 on every 1021st f32 (tests/math.rs): [`exp`] 1 ulp, [`ln`] 1 ulp,
//! [`sigmoid`] 2.5 ulp, [`tanh`] 1.5 ulp, where an ulp is that of the f32 nearest to the true value.

/// log2(e)
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: the first has so few bits that its product with any exponent is exact.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;

/// (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, highest power first.
pub(crate) const EXP: [f32; 6] = [
    1.989_098_1e-4,
    1.393_364e-3,
    8.333_311e-3,
    4.166_646_5e-2,
    1.666_666_7e-1,
    5e-1,
];

/// (tanh(x) / x - 1) / x^2 in powers of x^2 for |x| < 0.625, highest power first.
const TANH: [f32; 6] = [
    2.292_744_8e-3,
    -8.343_946e-3,
    2.176_891_9e-2,
    -5.395_926e-2,
    1.333_330_4e-1,
    -3.333_333_3e-1,
];

/// (ln(1 + x) - x + x^2 / 2) / x^3 for 1 + x in [sqrt(1/2), sqrt(2)], highest power first.
pub(crate) const LN: [f32; 9] = [
    6.971_612e-2,
    -1.147_973_4e-1,
    1.168_542e-1,
    -1.242_568_7e-1,
    1.424_905_8e-1,
    -1.666_780_2e-1,
    2.000_071_6e-1,
    -2.499_999_7e-1,
    3.333_333e-1,
];

/// Horner's rule: mul, then add.
#[inline(always)]
pub(crate) fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let mut y = coefficients[0];
    for &coefficient in &coefficients[1..] {
        y = y * x + coefficient;
    }
    y
}

/// 2^n for n in -126..=127; some number for others.
#[inline(always)]
pub(crate) fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// e^x. Above 88.72 infinite, below -103.97 zero, subnormal between there and -87.34; NaN stays NaN.
#[inline]
pub fn exp(x: f32) -> f32 {
    if x > 88.722_84 {
        return f32::INFINITY;
    }
    if x < -103.972_08 {
        return 0.0;
    }
    let n = (x * LOG2_E + 0.5).floor();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let y = polynomial(&EXP, r) * (r * r) + r + 1.0;
    // In two steps: 2^n alone may be no normal f32. A NaN's `n` becomes 0 and leaves `y` as it is.
    let n = n as i32;
    let half = n / 2;
    y * power_of_two(half) * power_of_two(n - half)
}

/// Natural logarithm. Zero gives minus infinity, a negative number NaN.
#[inline]
pub fn ln(x: f32) -> f32 {
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == f32::INFINITY {
        return x;
    }
    let (x, shift) = if x < f32::MIN_POSITIVE {
        (x * 33_554_432.0, -25)
    } else {
        (x, 0)
    };
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as i32 - 127 + shift;
    let mut m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    if m > std::f32::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let m = m - 1.0;
    let square = m * m;
    let n = exponent as f32;
    let mut y = polynomial(&LN, m) * m * square;
    y += n * LN2_LOW;
    y -= 0.5 * square;
    (m + y) + n * LN2_HIGH
}

/// 1 / (1 + e^-x), relatively exact on both sides.
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    if x < 0.0 {
        let e = exp(x);
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + exp(-x))
    }
}

/// Hyperbolic tangent.
#[inline]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    if size < 0.625 {
        let square = x * x;
        return (polynomial(&TANH, square) * square * size + size).copysign(x);
    }
    if size > 9.02 {
        return 1.0f32.copysign(x);
    }
    let y = 1.0 - 2.0 / (exp(size + size) + 1.0);
    if x.is_nan() { x } else { y.copysign(x) }
}

/// |x|^p for p >= 0: a product where p is a whole number up to 8, else e^(p ln|x|), whose relative error grows with
/// |p ln|x|| (2^-23 for each unit of it).
#[inline]
pub fn power(x: f32, p: f32) -> f32 {
    let size = x.abs();
    if p.fract() == 0.0 && (0.0..=8.0).contains(&p) {
        let mut y = 1.0;
        for _ in 0..p as u32 {
            y *= size;
        }
        return y;
    }
    if size == 0.0 {
        return 0.0;
    }
    exp(p * ln(size))
}
