// What the kernels of (c) have in common: the head's form, the pool of an item's rows and what it leaves behind, and the merge
// of a bag's items by the block that is the last of them.
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

/// What the merge says of a bag beside rule.cuh's; src/kernels.rs.
#define EMPTY 1u

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
/// the size of its total's greatest component, its members that were not refused, and whether one of them has a g outside
/// the rule's domain.
struct Part {
    float sum;
    float greatest;
    float size;
    u16 kept;
    u16 strange;
};

/// A part that another block has written.
DEVICE Part load_part(const Part* part) {
    const u32* words = (const u32*)part;
    const u32 counts = load_l2(words + 3);
    return {load_l2(&part->sum), load_l2(&part->greatest), load_l2(&part->size), (u16)(counts & 0xFFFFu), (u16)(counts >> 16)};
}

/// Where a bag's items and members begin, and what its last block writes. One element a bag.
struct Merge {
    const u32* first;
    const u32* starts;
    /// Items of the bag that are done: 0 before and after.
    u32* count;
    float* pooled;
    float* sums;
    /// The bag's greatest g, for softmax alone.
    float* greatest;
    u32* flags;
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
                    // Without an order between this and who reads the same row's word: either value serves. Whoever sets it
                    // has `found` the row, so all sums of this turn are thrown away; after the barrier everybody sees it.
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
            // Members in the lower half, in the upper those outside the domain.
            u32 kept = 0;
            for (u32 r = t; r < it.rows; r += WARP) {
                sum = __fadd_rn(sum, e[r]);
                if (!bad[r]) kept += in_domain(rule, linked(rule, logits[r])) ? 1u : 0x10001u;
            }
            size = t < threads / WARP ? sums[t] : 0.0f;
            for (int d = WARP / 2; d > 0; d /= 2) {
                sum = __fadd_rn(sum, __shfl_xor_sync(FULL_WARP, sum, d));
                kept += __shfl_xor_sync(FULL_WARP, kept, d);
                size = fmaxf(size, __shfl_xor_sync(FULL_WARP, size, d));
            }
            if (t == 0) parts[item] = {sum, greatest, size, (u16)(kept & 0xFFFFu), (u16)(kept >> 16)};
        }
        for (u32 r = t; r < it.rows; r += threads) refused[it.first + r] = bad[r] ? 1 : 0;
        return;
    }
}

/// Whether this block is the last of `blocks` to come here, by its first `threads` threads, and sees what the others wrote
/// before. The count is then 0 again. `word`: in shared memory.
DEVICE bool last_block_of(u32* count, u32 blocks, u32* word, u32 threads, u32 barrier) {
    __threadfence();
    named_barrier_sync(barrier, threads);
    if (threadIdx.x == 0) {
        const u32 before = atomicAdd(count, 1u);
        if (before == blocks - 1) *count = 0;
        *word = before;
    }
    named_barrier_sync(barrier, threads);
    __threadfence();
    return *word == blocks - 1;
}

template <int KIND>
DEVICE float feature(const Features& h, u64 row, u32 c) {
    const char* from = (const char*)h.address + row * h.pitch;
    if constexpr (KIND == F32) return ((const float*)from)[c];
    else return widened<KIND>(((const u16*)from)[c]);
}

/// Components of a thread, and items whose totals are in flight.
#define MERGE_COLUMNS 4
#define MERGE_FLIGHT 8

/// The merge of a bag by the first `threads` threads of a block, items ascending: S, z = sum of totals / S, the flags. A bag
/// without a sum is pooled again, with equal weights.
template <int KIND>
DEVICE void merge_bag(const Features& h, const u32* list, u32 bag, Rule rule, const float* totals, const Part* parts,
                      const u8* refused, const Merge& to, u32 threads) {
    const u32 t = threadIdx.x, lane = lane_id();
    const u32 from = to.first[bag], of = to.first[bag + 1] - from;
    const u32 start = to.starts[bag], end = to.starts[bag + 1];
    const bool softmax = rule.normalisation == SOFTMAX;
    // Each warp makes this for itself.
    float greatest = LOWEST;
    if (softmax) {
        for (u32 i = lane; i < of; i += WARP) greatest = fmaxf(greatest, load_l2(&parts[from + i].greatest));
        for (int d = WARP / 2; d > 0; d /= 2) greatest = fmaxf(greatest, __shfl_xor_sync(FULL_WARP, greatest, d));
    }
    auto scale_of = [&](const Part& part) { return softmax && part.kept ? exp_f32(part.greatest - greatest) : 1.0f; };
    float sum = 0.0f, size = 0.0f;
    u32 kept = 0, strange = 0;
    for (u32 i = 0; i < of; i += WARP) {
        Part part = {0.0f, LOWEST, 0.0f, 0, 0};
        if (i + lane < of) part = load_part(parts + from + i + lane);
        const float scale = scale_of(part);
        size = __fadd_rn(size, part.size);
        kept += part.kept;
        strange |= part.strange;
        const u32 here = min(of - i, (u32)WARP);
        for (u32 p = 0; p < here; p++)
            sum = __fmaf_rn(__shfl_sync(FULL_WARP, scale, (int)p), __shfl_sync(FULL_WARP, part.sum, (int)p), sum);
    }
    for (int d = WARP / 2; d > 0; d /= 2) {
        size = __fadd_rn(size, __shfl_xor_sync(FULL_WARP, size, d));
        kept += __shfl_xor_sync(FULL_WARP, kept, d);
        strange |= __shfl_xor_sync(FULL_WARP, strange, d);
    }
    // The greatest components' sum is no less than any component's.
    const bool in_range = is_finite(sum) && is_finite(size);
    const bool uniform = kept > 0 && (sum == 0.0f || !in_range);
    if (uniform) sum = (float)kept;
    if (kept == 0) sum = 0.0f;

    for (u32 base = 0; base < h.width; base += MERGE_COLUMNS * threads) {
        u32 c[MERGE_COLUMNS];
        float total[MERGE_COLUMNS];
#pragma unroll
        for (u32 j = 0; j < MERGE_COLUMNS; j++) {
            // Beyond the last: the first again, so that no load is in a branch.
            c[j] = base + j * threads + t < h.width ? base + j * threads + t : 0;
            total[j] = 0.0f;
        }
        if (uniform) {
            for (u32 place = start; place < end; place++) {
                if (refused[place]) continue;
                const u64 row = row_of(list, place);
#pragma unroll
                for (u32 j = 0; j < MERGE_COLUMNS; j++) total[j] = __fadd_rn(total[j], feature<KIND>(h, row, c[j]));
            }
        } else {
            for (u32 i = 0; i < of; i += WARP) {
                const float scale = softmax && i + lane < of ? scale_of(load_part(parts + from + i + lane)) : 1.0f;
                const u32 here = min(of - i, (u32)WARP);
                const float* own = totals + (u64)(from + i) * h.width;
#pragma unroll 1
                for (u32 p = 0; p < here; p += MERGE_FLIGHT) {
                    float v[MERGE_FLIGHT][MERGE_COLUMNS];
#pragma unroll
                    for (u32 q = 0; q < MERGE_FLIGHT; q++)
#pragma unroll
                        for (u32 j = 0; j < MERGE_COLUMNS; j++)
                            v[q][j] = load_l2(own + (u64)min(p + q, here - 1) * h.width + c[j]);
#pragma unroll
                    for (u32 q = 0; q < MERGE_FLIGHT; q++) {
                        const float of_item = __shfl_sync(FULL_WARP, scale, (int)(p + q));
#pragma unroll
                        for (u32 j = 0; j < MERGE_COLUMNS; j++)
                            if (p + q < here) total[j] = __fmaf_rn(of_item, v[q][j], total[j]);
                    }
                }
            }
        }
#pragma unroll
        for (u32 j = 0; j < MERGE_COLUMNS; j++)
            if (base + j * threads + t < h.width)
                to.pooled[(u64)bag * h.width + c[j]] = kept ? __fdiv_rn(total[j], sum) : 0.0f;
    }
    if (t != 0) return;
    to.sums[bag] = sum;
    to.greatest[bag] = greatest;
    to.flags[bag] = (kept ? 0u : EMPTY) | (uniform ? UNIFORM : 0u) | (kept < end - start ? REFUSED : 0u) |
                    (strange || (kept && !in_range) ? OUT_OF_DOMAIN : 0u);
}

/// The pool of an item, and of its bag if this block is the bag's last. Arguments as of `pool_item` and `merge_bag`.
template <int KIND, class Pieces>
DEVICE void pool_and_merge(Pieces piece_of, const Features& h, const u32* list, const Item& it, u32 item, Rule rule,
                           const float* logits, char* scratch, u32 threads, u32 barrier, float* totals, Part* parts, u8* refused,
                           const Merge& to) {
    pool_item<KIND>(piece_of, h, it, item, rule, logits, scratch, threads, barrier, totals, parts, refused);
    const u32 items = to.first[it.bag + 1] - to.first[it.bag];
    if (last_block_of(to.count + it.bag, items, (u32*)scratch, threads, barrier))
        merge_bag<KIND>(h, list, it.bag, rule, totals, parts, refused, to, threads);
}
