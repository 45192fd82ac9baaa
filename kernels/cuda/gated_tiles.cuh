// The two products for (c)'s gradients, in tf32: a step of each out of a stage in shared memory, and how a warp's sums lie.
//
// A block's tile is 128 x 128; warp (m, n) of 2 x 4 has 64 x 32 of it, as 4 x 4 tiles of mma.m16n8k8. Which numbers of the
// block's tile make a tile of mma is free, so they are chosen for whole loads from shared memory and whole stores.
#pragma once
#include "gated_product.cuh"

/// A block's tile of `layers` and `rows`.
#define TILE 128
/// Floats from row to row of a tile whose rows lie one after the other along k: the four that a warp reads at once lie eight banks
/// apart, each of eight words.
#define ACROSS (TILE + 8)

/// A step of `layers`: so many rows of dL/dp (f32) and of the features, as they are stored.
template <class T>
struct LayersStep {
    static constexpr u32 DEPTH = T::HALF ? 32 : 16;
    /// Bytes from row to row of the features, with ACROSS's reason.
    static constexpr u32 ROW = TILE * T::BYTES + 32;
    /// Where the features begin.
    static constexpr u32 FEATURES = DEPTH * ACROSS * 4;
    static constexpr u32 BYTES = FEATURES + DEPTH * ROW;
};
#define LAYERS_STAGES 3

/// A step of `rows`: 128 rows by 16 columns of dL/dp, which lie along k, and 16 columns of the head by 128 components.
#define ROWS_DEPTH 16
#define ROWS_STAGES 4
#define ALONG (ROWS_DEPTH + 4)
#define ROWS_HEAD (TILE * ALONG * 4)
#define ROWS_STEP (ROWS_HEAD + ROWS_DEPTH * ACROSS * 4)

/// A number in two of tf32: the upper 19 bits, and what is left of it.
DEVICE void split(float x, u32& high, u32& low) {
    high = __float_as_uint(x) & 0xFFFFE000u;
    low = __float_as_uint(__fsub_rn(x, __uint_as_float(high)));
}

/// acc += a b of one 16 x 8 tile by eight of k.
template <class T>
DEVICE void multiply_tile(float (&acc)[4], const u32 (&high)[4], const u32 (&low)[4], const u32 (&b_high)[2], const u32 (&b_low)[2]) {
    if (!T::HALF) {
        mma_m16n8k8_tf32(acc, low, b_high);
        mma_m16n8k8_tf32(acc, high, b_low);
    }
    mma_m16n8k8_tf32(acc, high, b_high);
}

/// Component of a warp's 32 to which column `c` of a tile's product belongs, in tile j: neighbours lie in two tiles, so that a
/// lane reads two at once and its sums of two tiles are four neighbours, which it stores at once.
///
/// acc[i][2 p + e][2 y + z] is the component 16 p + 4 (lane % 4) + 2 z + e.
DEVICE u32 component(u32 j, u32 c) {
    return j / 2 * 16 + c * 2 + j % 2;
}

/// Those four neighbours, of row y of tile i.
DEVICE float4 neighbours(const float (&acc)[4][4][4], u32 i, u32 y, u32 p) {
    return make_float4(acc[i][2 * p][2 * y], acc[i][2 * p + 1][2 * y], acc[i][2 * p][2 * y + 1], acc[i][2 * p + 1][2 * y + 1]);
}

/// Row of `layers`' tile to which row y of a warp's tile i belongs: a lane reads four neighbours at once.
DEVICE u32 layers_row(u32 i, u32 y) {
    return i / 2 * 32 + lane_id() / 4 * 4 + i % 2 * 2 + y;
}

/// One step of `layers`: acc (warp (m, n) of 2 x 4: 64 columns of the head, 32 components) += dL/dp' h.
template <class T>
DEVICE void multiply_layers(float (&acc)[4][4][4], const char* stage, u32 m, u32 n) {
    typedef LayersStep<T> Step;
    const u32 g = lane_id() / 4, q = lane_id() % 4;
    const float* a_tile = (const float*)stage + q * ACROSS + m * 64 + g * 4;
    const char* b_tile = stage + Step::FEATURES + q * Step::ROW + (n * 32 + component(0, g)) * T::BYTES;
#pragma unroll
    for (u32 k = 0; k < Step::DEPTH; k += 8) {
        u32 b_high[4][2], b_low[4][2];
#pragma unroll
        for (u32 x = 0; x < 2; x++)
#pragma unroll
            for (u32 p = 0; p < 2; p++) {
                const char* from = b_tile + (k + x * 4) * Step::ROW + component(2 * p, 0) * T::BYTES;
                float2 v;
                if constexpr (!T::HALF) {
                    v = *(const float2*)from;
                } else {
                    const u32 both = *(const u32*)from;
                    v = make_float2(T::one((u16)(both & 0xFFFFu)), T::one((u16)(both >> 16)));
                }
                split(v.x, b_high[2 * p][x], b_low[2 * p][x]);
                split(v.y, b_high[2 * p + 1][x], b_low[2 * p + 1][x]);
            }
#pragma unroll
        for (u32 pair = 0; pair < 2; pair++) {
            u32 high[2][4], low[2][4];
#pragma unroll
            for (u32 x = 0; x < 2; x++) {
                const float4 v = *(const float4*)(a_tile + (k + x * 4) * ACROSS + pair * 32);
                split(v.x, high[0][2 * x], low[0][2 * x]);
                split(v.y, high[0][2 * x + 1], low[0][2 * x + 1]);
                split(v.z, high[1][2 * x], low[1][2 * x]);
                split(v.w, high[1][2 * x + 1], low[1][2 * x + 1]);
            }
#pragma unroll
            for (u32 i = 0; i < 2; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) multiply_tile<T>(acc[pair * 2 + i][j], high[i], low[i], b_high[j], b_low[j]);
        }
    }
}

/// One step of `rows`: acc (warp (m, n) of 2 x 4: 64 rows, 32 components) += dL/dp (V, U).
template <class T>
DEVICE void multiply_rows(float (&acc)[4][4][4], const char* stage, u32 m, u32 n) {
    const u32 lane = lane_id(), q = lane % 4;
    const float* a_tile = (const float*)stage + (m * 64 + lane % 16) * ALONG + lane / 16 * 4;
    const float* b_tile = (const float*)(stage + ROWS_HEAD) + q * ACROSS + n * 32 + component(0, lane / 4);
    // Of f32 two tiles at a time, and the rows read twice: all four would not leave enough registers for two blocks.
    constexpr u32 PAIRS = T::HALF ? 2 : 1;
#pragma unroll
    for (u32 k = 0; k < ROWS_DEPTH; k += 8)
#pragma unroll
        for (u32 first = 0; first < 2; first += PAIRS) {
            u32 b_high[2 * PAIRS][2], b_low[2 * PAIRS][2];
#pragma unroll
            for (u32 x = 0; x < 2; x++)
#pragma unroll
                for (u32 p = 0; p < PAIRS; p++) {
                    const float2 v = *(const float2*)(b_tile + (k + x * 4) * ACROSS + component(2 * (first + p), 0));
                    split(v.x, b_high[2 * p][x], b_low[2 * p][x]);
                    split(v.y, b_high[2 * p + 1][x], b_low[2 * p + 1][x]);
                }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                // Four words are as long as eight numbers of 16 bits: the lanes get the words that the product wants of them.
                u32 a[4], high[4], low[4];
                ldmatrix_x4(a, a_tile + i * 16 * ALONG + k);
#pragma unroll
                for (u32 x = 0; x < 4; x++) split(__uint_as_float(a[x]), high[x], low[x]);
#pragma unroll
                for (u32 j = 0; j < 2 * PAIRS; j++)
                    multiply_tile<T>(acc[i][2 * first + j], high, low, b_high[j], b_low[j]);
            }
        }
}

/// Stores four components of a row that begin at a multiple of four.
template <class T>
DEVICE void store_four(void* row, u32 f, const float4& x) {
    if constexpr (!T::HALF) {
        *(float4*)((float*)row + f) = x;
    } else {
        *(uint2*)((u16*)row + f) = make_uint2(T::both(x.x, x.y), T::both(x.z, x.w));
    }
}

template <class T>
DEVICE void store_one(void* row, u32 f, float x) {
    ((typename T::Element*)row)[f] = T::of(x);
}
