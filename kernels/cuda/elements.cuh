// The types of features and of a network's numbers: as they lie in memory (Element, of BYTES bytes; HALF: of 16 bits), how many
// make a piece of 16 bytes (PIECE), and how they become f32 (`one`; `widen`, of a piece) and back (`of`; `narrow`), to nearest.
#pragma once
#include "device.cuh"

#if defined(WEIR_EMU)
#define MEMBER
#else
#define MEMBER __device__ __forceinline__
#endif

struct F32 {
    typedef float Element;
    static const u32 PIECE = 4, BYTES = 4;
    static const bool HALF = false;
    static MEMBER void widen(const uint4& v, float (&h)[4]) {
        h[0] = __uint_as_float(v.x);
        h[1] = __uint_as_float(v.y);
        h[2] = __uint_as_float(v.z);
        h[3] = __uint_as_float(v.w);
    }
    static MEMBER uint4 narrow(const float (&h)[4]) {
        return make_uint4(__float_as_uint(h[0]), __float_as_uint(h[1]), __float_as_uint(h[2]), __float_as_uint(h[3]));
    }
    static MEMBER float one(float v) { return v; }
    static MEMBER float of(float v) { return v; }
};

struct F16 {
    typedef u16 Element;
    static const u32 PIECE = 8, BYTES = 2;
    static const bool HALF = true;
    static MEMBER float one(u16 v) { return f16_to_f32(v); }
    static MEMBER u16 of(float v) { return f32_to_f16(v); }
    static MEMBER void pair(u32 v, float& low, float& high) {
        low = f16_to_f32((u16)(v & 0xFFFFu));
        high = f16_to_f32((u16)(v >> 16));
    }
    static MEMBER void widen(const uint4& v, float (&h)[8]) {
        pair(v.x, h[0], h[1]);
        pair(v.y, h[2], h[3]);
        pair(v.z, h[4], h[5]);
        pair(v.w, h[6], h[7]);
    }
    static MEMBER u32 both(float low, float high) { return (u32)of(low) | (u32)of(high) << 16; }
    static MEMBER uint4 narrow(const float (&h)[8]) {
        return make_uint4(both(h[0], h[1]), both(h[2], h[3]), both(h[4], h[5]), both(h[6], h[7]));
    }
};

struct Bf16 {
    typedef u16 Element;
    static const u32 PIECE = 8, BYTES = 2;
    static const bool HALF = true;
    static MEMBER float one(u16 v) { return bf16_to_f32(v); }
    static MEMBER u16 of(float v) { return f32_to_bf16(v); }
    static MEMBER void pair(u32 v, float& low, float& high) {
        low = __uint_as_float(v << 16);
        high = __uint_as_float(v & 0xFFFF0000u);
    }
    static MEMBER void widen(const uint4& v, float (&h)[8]) {
        pair(v.x, h[0], h[1]);
        pair(v.y, h[2], h[3]);
        pair(v.z, h[4], h[5]);
        pair(v.w, h[6], h[7]);
    }
    static MEMBER u32 both(float low, float high) { return (u32)of(low) | (u32)of(high) << 16; }
    static MEMBER uint4 narrow(const float (&h)[8]) {
        return make_uint4(both(h[0], h[1]), both(h[2], h[3]), both(h[4], h[5]), both(h[6], h[7]));
    }
};
