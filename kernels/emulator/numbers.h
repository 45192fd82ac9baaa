// 16-bit floats in software: f16 and bf16, to nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

namespace emu {

inline float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

inline uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

inline float from_bf16(uint16_t v) {
    return float_of((uint32_t)v << 16);
}

inline uint16_t to_bf16(float x) {
    const uint32_t u = bits_of(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

inline float from_f16(uint16_t v) {
    const uint32_t sign = (uint32_t)(v & 0x8000u) << 16, exponent = v >> 10 & 31u, mantissa = v & 0x3FFu;
    if (exponent == 31) return float_of(sign | 0x7F800000u | mantissa << 13);
    if (exponent) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    const float subnormal = (float)mantissa * 0x1p-24f;
    return float_of(sign | bits_of(subnormal));
}

inline uint16_t to_f16(float x) {
    const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, size = u & 0x7FFFFFFFu;
    if (size > 0x7F800000u) return 0x7FFF;                        // NaN, as the machine makes it
    if (size >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);   // 65520 and more: infinite
    if (size < 0x33000001u) return (uint16_t)sign;                // 2^-25 and less: zero
    if (size < 0x38800000u) {                                     // below 2^-14: subnormal, in units of 2^-24
        const uint32_t shift = 126 - (size >> 23), mantissa = (size & 0x7FFFFFu) | 0x800000u;
        const uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1);
        uint32_t v = mantissa >> shift;
        if (rest > half || (rest == half && (v & 1))) v++;
        return (uint16_t)(sign | v);
    }
    const uint32_t v = size - (112u << 23);
    return (uint16_t)(sign | ((v + 0xFFFu + (v >> 13 & 1u)) >> 13));
}

inline float from_16(uint16_t v, bool f16) {
    return f16 ? from_f16(v) : from_bf16(v);
}

}  // namespace emu
