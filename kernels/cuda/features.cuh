// Feature vectors of f32, f16 and bf16 as warps read them: by slices of a piece (16 bytes) a lane, whole or element by element.
#pragma once
#include "bags.cuh"
#include "rule.cuh"

#if defined(WEIR_EMU)
#define MEMBER
#else
#define MEMBER __device__ __forceinline__
#endif

/// Types of features: how many make a piece, and how they become f32 and back.
struct F32 {
    typedef float Element;
    static const u32 PIECE = 4;
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
    static const u32 PIECE = 8;
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
    static const u32 PIECE = 8;
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

/// Column of a lane's element j within its slice: a piece's lie side by side; elements read one by one are lanes apart.
template <class T, bool WHOLE>
DEVICE u32 column(u32 slice, u32 j) {
    const u32 first = slice * WARP * T::PIECE;
    return WHOLE ? first + lane_id() * T::PIECE + j : first + j * WARP + lane_id();
}

/// Whether no value of a row's piece must be refused.
template <u32 N>
DEVICE bool fine(const float (&h)[N]) {
    bool fine = true;
#pragma unroll
    for (u32 j = 0; j < N; j++) fine = fine && magnitude(h[j]) < FEATURE_LIMIT;
    return fine;
}

/// A lane's part of a row: its piece, or its elements; 0 beyond the last column.
template <class T, bool WHOLE>
DEVICE void load_part(const typename T::Element* row, u32 slice, u32 width, float (&h)[T::PIECE]) {
    if (WHOLE) {
        const u32 c = column<T, WHOLE>(slice, 0);
        T::widen(c < width ? load_stream16(row + c) : make_uint4(0, 0, 0, 0), h);
    } else {
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) {
            const u32 c = column<T, WHOLE>(slice, j);
            h[j] = c < width ? T::one(row[c]) : 0.0f;
        }
    }
}

struct PoolArguments {
    const void* features;
    /// Elements from row to row.
    u64 stride;
    u32 width;
    u32 slices;
};
