// exp, ln, sigmoid, tanh and powers: the text of src/math.rs, operation by operation, so that every machine makes the same
// bits. Products and sums are written out by __fmul_rn and __fadd_rn, which no compiler fuses. tests/arithmetic.rs holds the
// two texts against each other.
#pragma once
#include "device.cuh"

#define LOG2_E 1.44269504088896340736f
// ln 2 in two parts: the first has so few bits that its product with any exponent is exact.
#define LN2_HIGH 0.6933594f
#define LN2_LOW -2.1219444e-4f
#define SQRT_2 1.41421356237309504880f
#define NOT_A_NUMBER __uint_as_float(0x7FC00000u)
#define INFINITE __uint_as_float(0x7F800000u)

/// One step of Horner's rule: mul, then add.
DEVICE float horner(float y, float x, float coefficient) {
    return __fadd_rn(__fmul_rn(y, x), coefficient);
}

/// 2^n for n in -126..=127.
DEVICE float power_of_two_f32(i32 n) {
    return __uint_as_float((u32)(n + 127) << 23);
}

/// The magnitude of `size` with the sign of `x`.
DEVICE float with_sign(float size, float x) {
    return __uint_as_float((__float_as_uint(size) & 0x7FFFFFFFu) | (__float_as_uint(x) & 0x80000000u));
}

DEVICE float magnitude(float x) {
    return __uint_as_float(__float_as_uint(x) & 0x7FFFFFFFu);
}

DEVICE bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7FFFFFFFu) < 0x7F800000u;
}

/// e^x.
DEVICE float exp_f32(float x) {
    if (x > 88.72284f) return INFINITE;
    if (x < -103.97208f) return 0.0f;
    const float n = floorf(__fadd_rn(__fmul_rn(x, LOG2_E), 0.5f));
    const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, LN2_HIGH)), __fmul_rn(n, LN2_LOW));
    float y = 1.9890981e-4f;
    y = horner(y, r, 1.393364e-3f);
    y = horner(y, r, 8.333311e-3f);
    y = horner(y, r, 4.1666465e-2f);
    y = horner(y, r, 1.6666667e-1f);
    y = horner(y, r, 5e-1f);
    y = __fadd_rn(__fadd_rn(__fmul_rn(y, __fmul_rn(r, r)), r), 1.0f);
    // In two steps: 2^n alone may be no normal number. A NaN stays one whatever it is multiplied by.
    const i32 whole = x == x ? __float2int_rz(n) : 0;
    const i32 half = whole / 2;
    return __fmul_rn(__fmul_rn(y, power_of_two_f32(half)), power_of_two_f32(whole - half));
}

/// Natural logarithm.
DEVICE float ln_f32(float x) {
    if (x == 0.0f) return -INFINITE;
    if (!(x > 0.0f)) return NOT_A_NUMBER;
    if (x == INFINITE) return x;
    i32 exponent = -127;
    if (x < 1.17549435e-38f) {
        x = __fmul_rn(x, 33554432.0f);
        exponent -= 25;
    }
    const u32 bits = __float_as_uint(x);
    exponent += (i32)(bits >> 23);
    float m = __uint_as_float((bits & 0x007FFFFFu) | 0x3F800000u);
    if (m > SQRT_2) {
        m = __fmul_rn(m, 0.5f);
        exponent += 1;
    }
    m = __fsub_rn(m, 1.0f);
    const float square = __fmul_rn(m, m);
    const float n = __int2float_rn(exponent);
    float y = 6.971612e-2f;
    y = horner(y, m, -1.1479734e-1f);
    y = horner(y, m, 1.168542e-1f);
    y = horner(y, m, -1.2425687e-1f);
    y = horner(y, m, 1.4249058e-1f);
    y = horner(y, m, -1.6667802e-1f);
    y = horner(y, m, 2.0000716e-1f);
    y = horner(y, m, -2.4999997e-1f);
    y = horner(y, m, 3.333333e-1f);
    y = __fmul_rn(__fmul_rn(y, m), square);
    y = __fadd_rn(y, __fmul_rn(n, LN2_LOW));
    y = __fsub_rn(y, __fmul_rn(0.5f, square));
    return __fadd_rn(__fadd_rn(m, y), __fmul_rn(n, LN2_HIGH));
}

/// 1 / (1 + e^-x).
DEVICE float sigmoid_f32(float x) {
    if (x < 0.0f) {
        const float e = exp_f32(x);
        return __fdiv_rn(e, __fadd_rn(1.0f, e));
    }
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, exp_f32(-x)));
}

/// Hyperbolic tangent.
DEVICE float tanh_f32(float x) {
    const float size = magnitude(x);
    if (size < 0.625f) {
        const float square = __fmul_rn(x, x);
        float y = 2.2927448e-3f;
        y = horner(y, square, -8.343946e-3f);
        y = horner(y, square, 2.1768919e-2f);
        y = horner(y, square, -5.395926e-2f);
        y = horner(y, square, 1.3333304e-1f);
        y = horner(y, square, -3.3333333e-1f);
        return with_sign(__fadd_rn(__fmul_rn(__fmul_rn(y, square), size), size), x);
    }
    if (size > 9.02f) return with_sign(1.0f, x);
    if (!(x == x)) return x;
    const float y = __fsub_rn(1.0f, __fdiv_rn(2.0f, __fadd_rn(exp_f32(__fadd_rn(size, size)), 1.0f)));
    return with_sign(y, x);
}

/// |x|^p.
DEVICE float power_f32(float x, float p) {
    const float size = magnitude(x);
    if (p == floorf(p) && p >= 0.0f && p <= 8.0f) {
        float y = 1.0f;
        for (i32 i = __float2int_rz(p); i > 0; i--) y = __fmul_rn(y, size);
        return y;
    }
    if (size == 0.0f) return 0.0f;
    return exp_f32(__fmul_rn(p, ln_f32(size)));
}
