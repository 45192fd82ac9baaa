// What the kernels of (c) have in common: the head's form, what an item leaves behind, and the pool of an item's rows.
//
// Contract `fused/1`: within a tolerance of the ordered contract; a function of the bag alone, so the same bits in any batch.
#pragma once
#include "bags.cuh"
#include "rule.cuh"

#define BF16 0
#define F16 1
#define F32 2

/// Columns of a chunk of the head: 128 units of V and the same 128 of U; or, without a gate, 256 units of V.
#define CHUNK 256
#define HALF_CHUNK (CHUNK / 2)

/// Below every g.
#define LOWEST -3.402823466e38f

/// The features: row r begins at `address + r * pitch` bytes. `whole`: address and pitch are multiples of 16 bytes, and so is
/// the length of a row, so that it can be taken in pieces of 16 bytes.
struct Features {
    u64 address;
    u64 pitch;
    u32 width;
    u32 whole;
};

/// The head but for its matrices: per column of a chunk its bias and its unit's w (of U's columns it is not read).
struct Head {
    u64 bias;
    u64 weight;
    float offset;
    u32 chunks;
    u32 gated;
    u32 unused;
};

/// What an item leaves beside its total: the sum of its numerators, its greatest g (softmax: the numerators are against that),
/// the size of its total's greatest component, and its members that were not refused.
struct Part {
    float sum;
    float greatest;
    float size;
    u32 kept;
};

template <int KIND>
DEVICE float widened(u16 x) {
    return KIND == BF16 ? bf16_to_f32(x) : f16_to_f32(x);
}

/// Numbers in a piece of 16 bytes.
template <int KIND>
struct Piece {
    static constexpr u32 COUNT = KIND == F32 ? 4 : 8;
    static constexpr u32 BYTES = KIND == F32 ? 4 : 2;
};

/// Numbers of a piece as f32.
template <int KIND>
DEVICE void widen(uint4 v, float (&x)[Piece<KIND>::COUNT]) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if constexpr (KIND == F32) {
            x[k] = __uint_as_float(words[k]);
        } else {
            x[2 * k] = widened<KIND>((u16)(words[k] & 0xFFFFu));
            x[2 * k + 1] = widened<KIND>((u16)(words[k] >> 16));
        }
    }
}

/// A piece of a row that begins at component `c`, zeros beyond the row's end.
template <int KIND>
DEVICE uint4 load_piece(const Features& h, u64 row, u32 c) {
    const char* from = (const char*)h.address + row * h.pitch;
    if (h.whole) return c < h.width ? load16(from + (u64)c * Piece<KIND>::BYTES) : make_uint4(0, 0, 0, 0);
    u32 words[4] = {0, 0, 0, 0};
#pragma unroll
    for (u32 k = 0; k < Piece<KIND>::COUNT; k++) {
        if (c + k >= h.width) break;
        if constexpr (KIND == F32) {
            words[k] = ((const u32*)from)[c + k];
        } else {
            words[k / 2] |= (u32)((const u16*)from)[c + k] << (k % 2 * 16);
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/// The unit's part of the logit from its pre-activations (or two units' parts, without a gate). Half features take the fast
/// tanh, whose error of 2^-11 lies below that of the features.
template <int KIND>
DEVICE float unit(float v, float u, float w, float second_w, bool gated) {
    if constexpr (KIND == F32) {
        if (gated) return w * (tanh_f32(v) * sigmoid_f32(u));
        return __fmaf_rn(w, tanh_f32(v), second_w * tanh_f32(u));
    } else {
        const float t = tanh_approx(v);
        if (gated) return w * (t * __fmaf_rn(0.5f, tanh_approx(0.5f * u), 0.5f));
        return __fmaf_rn(w, t, second_w * tanh_approx(u));
    }
}

#define POOL_SCRATCH(threads) (2 * ROWS * 4 + (threads) * 32)

/// The pool of an item's rows by the first `threads` threads of a block, which take part in barrier `barrier` alone. `logits`
/// in shared memory: one a row. Writes total and part, and which members are refused.
///
/// `scratch`: POOL_SCRATCH(threads) bytes of shared memory.
/// `piece_of(r, c)`: the piece of the item's row r that begins at component c.
template <int KIND, class Pieces>
DEVICE void pool_item(Pieces piece_of, const Features& h, const Item& it, u32 item, Rule rule, const float* logits, char* scratch,
                      u32 threads, u32 barrier, float* total, Part* parts, u8* refused) {
    constexpr u32 COUNT = Piece<KIND>::COUNT;
    float* e = (float*)scratch;
    u32* bad = (u32*)scratch + ROWS;
    float* sums = (float*)scratch + 2 * ROWS;
    const u32 t = threadIdx.x;
    const u32 pieces = (h.width + COUNT - 1) / COUNT;
    // Threads beside each other take pieces beside each other; what is left over takes other rows.
    const u32 groups = pieces < threads ? threads / pieces : 1;
    const u32 group = groups > 1 ? t / pieces : 0;
    for (u32 r = t; r < ROWS; r += threads) bad[r] = r < it.rows && is_finite(logits[r]) ? 0u : 1u;
    named_barrier_sync(barrier, threads);
    // A row that is refused must leave no trace, and who sees a feature that refuses it holds one piece of it: then again.
    for (;;) {
        float greatest = LOWEST;
        if (rule.normalisation == SOFTMAX) {
            for (u32 r = t; r < ROWS; r += threads) e[r] = bad[r] ? LOWEST : linked(rule, logits[r]);
            named_barrier_sync(barrier, threads);
#pragma unroll 8
            for (u32 r = 0; r < ROWS; r++) greatest = fmaxf(greatest, e[r]);
            named_barrier_sync(barrier, threads);
        }
        for (u32 r = t; r < ROWS; r += threads) e[r] = bad[r] ? 0.0f : numerator(rule, linked(rule, logits[r]), greatest);
        named_barrier_sync(barrier, threads);
        u32 found = 0;
        float size = 0.0f;
        for (u32 first = 0; first < pieces; first += threads) {
            const u32 piece = groups > 1 ? t % pieces : first + t;
            float sum[COUNT];
#pragma unroll
            for (u32 k = 0; k < COUNT; k++) sum[k] = 0.0f;
            if (piece < pieces && group < groups) {
#pragma unroll 4
                for (u32 r = group; r < it.rows; r += groups) {
                    float x[COUNT];
                    widen<KIND>(piece_of(r, piece * COUNT), x);
                    u32 fine = 1;
#pragma unroll
                    for (u32 k = 0; k < COUNT; k++) fine &= magnitude(x[k]) < FEATURE_LIMIT ? 1u : 0u;
                    if (!fine && !bad[r]) {
                        found = 1;
                        bad[r] = 2;
                    }
                    // Chosen, not multiplied by 0: a refused row may hold anything.
                    const bool in = !bad[r];
#pragma unroll
                    for (u32 k = 0; k < COUNT; k++) sum[k] = __fmaf_rn(e[r], in ? x[k] : 0.0f, sum[k]);
                }
            }
            if (groups > 1) {
#pragma unroll
                for (u32 k = 0; k < COUNT; k++) sums[t * COUNT + k] = sum[k];
                named_barrier_sync(barrier, threads);
                if (t < pieces) {
                    for (u32 g = 1; g < groups; g++)
#pragma unroll
                        for (u32 k = 0; k < COUNT; k++) sum[k] = __fadd_rn(sum[k], sums[(g * pieces + t) * COUNT + k]);
                }
            }
            if (groups > 1 ? t < pieces : piece < pieces) {
#pragma unroll
                for (u32 k = 0; k < COUNT; k++) {
                    const u32 c = piece * COUNT + k;
                    if (c >= h.width) break;
                    total[(u64)item * h.width + c] = sum[k];
                    size = is_finite(sum[k]) ? fmaxf(size, magnitude(sum[k])) : __uint_as_float(0x7F800000u);
                }
            }
        }
        for (int d = WARP / 2; d > 0; d /= 2) {
            size = fmaxf(size, __shfl_xor_sync(FULL_WARP, size, d));
            found |= __shfl_xor_sync(FULL_WARP, found, d);
        }
        // Who still adds up its groups reads `sums`.
        named_barrier_sync(barrier, threads);
        if (lane_id() == 0) {
            sums[t / WARP] = size;
            sums[threads / WARP + t / WARP] = found ? 1.0f : 0.0f;
        }
        named_barrier_sync(barrier, threads);
        bool again = false;
        for (u32 w = 0; w < threads / WARP; w++) again |= sums[threads / WARP + w] != 0.0f;
        if (again) {
            named_barrier_sync(barrier, threads);
            continue;
        }
        if (t < WARP) {
            float sum = 0.0f;
            u32 kept = 0;
            for (u32 r = t; r < it.rows; r += WARP) {
                sum = __fadd_rn(sum, e[r]);
                kept += bad[r] ? 0u : 1u;
            }
            size = t < threads / WARP ? sums[t] : 0.0f;
            for (int d = WARP / 2; d > 0; d /= 2) {
                sum = __fadd_rn(sum, __shfl_xor_sync(FULL_WARP, sum, d));
                kept += __shfl_xor_sync(FULL_WARP, kept, d);
                size = fmaxf(size, __shfl_xor_sync(FULL_WARP, size, d));
            }
            if (t == 0) parts[item] = {sum, greatest, size, kept};
        }
        for (u32 r = t; r < it.rows; r += threads) refused[it.first + r] = bad[r] ? 1 : 0;
        return;
    }
}
