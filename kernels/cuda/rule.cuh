// A rule member by member: the text of src/rule.rs.
#pragma once
#include "math.cuh"

#define SQUARED_AVERAGE 0
#define POWER 1
#define SIGMOID 2
#define SOFTMAX 3
/// The numerator 1: `mean`, and what stands in for a sum that is zero or out of range.
#define ONE 4

#define LINK_SIGMOID 1

/// What was noticed of a bag; src/kernels.rs.
#define UNIFORM 2u
#define OUT_OF_DOMAIN 4u
#define REFUSED 8u

/// Features of this size and more are refused; src/pool.rs.
#define FEATURE_LIMIT 1e18f

struct Rule {
    i32 normalisation;
    i32 link;
    float exponent;
    i32 unused;
};

/// g of a logit.
DEVICE float linked(Rule rule, float a) {
    return rule.link == LINK_SIGMOID ? sigmoid_f32(a) : a;
}

/// The numerator of g; `greatest` is the bag's greatest g, for softmax alone.
DEVICE float numerator(Rule rule, float g, float greatest) {
    if (rule.normalisation == SQUARED_AVERAGE) return __fmul_rn(g, g);
    if (rule.normalisation == POWER) return power_f32(g, rule.exponent);
    if (rule.normalisation == SIGMOID) return sigmoid_f32(g);
    if (rule.normalisation == SOFTMAX) return exp_f32(__fsub_rn(g, greatest));
    return 1.0f;
}

/// Whether g lies where its numerator keeps its precision.
DEVICE bool in_domain(Rule rule, float g) {
    if (rule.normalisation > POWER || g == 0.0f) return true;
    const float size = magnitude(g);
    return 1e-18f < size && size < 1e18f;
}

/// dL/da of a member; `apart` is how far its gradient lies from the bag's mean.
DEVICE float slope(Rule rule, float a, float weight, float sum, float apart) {
    const float g = linked(rule, a);
    float share = 0.0f;
    if (rule.normalisation == SQUARED_AVERAGE) {
        share = __fdiv_rn(__fadd_rn(g, g), sum);
    } else if (rule.normalisation == POWER) {
        if (g != 0.0f && rule.exponent != 0.0f) {
            const float p = rule.exponent;
            share = __fdiv_rn(with_sign(__fmul_rn(p, power_f32(g, __fsub_rn(p, 1.0f))), g), sum);
        }
    } else if (rule.normalisation == SIGMOID) {
        share = __fdiv_rn(__fmul_rn(sigmoid_f32(g), sigmoid_f32(-g)), sum);
    } else if (rule.normalisation == SOFTMAX) {
        share = weight;
    }
    if (rule.link == LINK_SIGMOID) share = __fmul_rn(share, __fmul_rn(g, sigmoid_f32(-a)));
    return __fmul_rn(share, apart);
}

/// A float as a number whose order is the float's; 0 is below all.
DEVICE u32 ordered_bits(float x) {
    const u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DEVICE float from_ordered_bits(u32 bits) {
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7FFFFFFFu : ~bits);
}
