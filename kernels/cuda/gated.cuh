// What the kernels of (c) have in common: the head's form, the pool of an item's rows and what it leaves behind; then, by the
// block that is the last of a bag's items, their merge and the weights, which need the bag's sum.
//
// Contract `fused/1`: within a tolerance of the ordered contract; a function of the bag alone, so the same bits in any batch.
#pragma once
#include "bags.cuh"
#include "elements.cuh"
#include "rule.cuh"

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

/// Where bags' items and members begin, one a bag.
struct Bags {
    const u32* first;
    const u32* starts;
    /// Items of the bag that are done: 0 before.
    u32* done;
    /// How many bags are looked through for those without a member; 0 where there is none of them.
    u32 looked_through;
    u32 unused;
};

/// What the call gives: a weight a row, a vector a bag, then one a bag. A bag's last block writes all of its own.
struct Results {
    float *weights, *pooled, *sums, *squares, *entropy;
    u32* flags;
};

/// A piece of a row that begins at component `c` of it, where rows are `whole`.
template <class T>
DEVICE uint4 load_whole_piece(const Features& h, u64 row, u32 c) {
    return load16((const char*)h.address + row * h.pitch + (u64)c * T::BYTES);
}

/// A piece of a row that begins at component `c`, zeros beyond the row's end.
template <class T>
DEVICE uint4 load_piece(const Features& h, u64 row, u32 c) {
    const char* from = (const char*)h.address + row * h.pitch;
    if (h.whole) return c < h.width ? load_whole_piece<T>(h, row, c) : make_uint4(0, 0, 0, 0);
    u32 words[4] = {0, 0, 0, 0};
#pragma unroll
    for (u32 k = 0; k < T::PIECE; k++) {
        if (c + k >= h.width) break;
        if constexpr (T::HALF) {
            words[k / 2] |= (u32)((const u16*)from)[c + k] << (k % 2 * 16);
        } else {
            words[k] = ((const u32*)from)[c + k];
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/// The unit's part of the logit from its pre-activations (or two units' parts, without a gate). Half features take the fast
/// tanh, whose error of 2^-11 lies below that of the features.
template <class T>
DEVICE float unit(float v, float u, float w, float second_w, bool gated) {
    if constexpr (T::HALF) {
        const float t = tanh_approx(v);
        if (gated) return w * (t * __fmaf_rn(0.5f, tanh_approx(0.5f * u), 0.5f));
        return __fmaf_rn(w, t, second_w * tanh_approx(u));
    } else {
        if (gated) return w * (tanh_f32(v) * sigmoid_f32(u));
        return __fmaf_rn(w, tanh_f32(v), second_w * tanh_f32(u));
    }
}

/// Ways to come by a piece of an item's row: element by element, by 16 bytes of global memory, of shared memory.
#define BY_ELEMENTS 0
#define BY_PIECES 1
#define KEPT 2

/// An item's rows, where they lie in global memory alone.
template <class T>
struct RowsOfItem {
    static constexpr bool MAY_BE_KEPT = false;
    const Features& h;
    const u32* list;
    u32 first;
};

template <class T>
DEVICE u32 way_of(const RowsOfItem<T>& rows) {
    return rows.h.whole ? BY_PIECES : BY_ELEMENTS;
}

/// The piece of row `r` that begins at component `c`.
template <u32 WAY, class T>
DEVICE uint4 piece_of(const RowsOfItem<T>& rows, u32 r, u32 c) {
    const u64 row = row_of(rows.list, rows.first + r);
    if constexpr (WAY == BY_PIECES) return load_whole_piece<T>(rows.h, row, c);
    return load_piece<T>(rows.h, row, c);
}

/// Rows of the pool whose pieces are in flight.
#define POOL_FLIGHT 8

/// Adds e h of the piece that begins at component `c`, of rows first, first + groups, .. below `count`, which is not 0. Sets
/// bad[r] = 2 and `found` where a feature of row r must be refused.
///
/// There is one place in the code for each way, so that within it the loads of several rows are in flight: a choice at each load
/// would wait for each.
template <class T, u32 WAY, class Rows>
DEVICE void pool_rows(const Rows& rows, u32 first, u32 groups, u32 count, u32 c, const float* e, u32* bad,
                      float (&sum)[T::PIECE], u32& found) {
    constexpr u32 FLIGHT = WAY == BY_ELEMENTS ? 1 : POOL_FLIGHT;
#pragma unroll 1
    for (u32 from = first; from < count; from += FLIGHT * groups) {
        uint4 taken[FLIGHT];
#pragma unroll
        for (u32 q = 0; q < FLIGHT; q++)
            // Beyond the last: the last again, so that no load is in a branch.
            taken[q] = piece_of<WAY>(rows, min(from + q * groups, count - 1), c);
#pragma unroll
        for (u32 q = 0; q < FLIGHT; q++) {
            const u32 r = from + q * groups;
            if (r >= count) break;
            float x[T::PIECE];
            T::widen(taken[q], x);
            u32 fine = 1;
#pragma unroll
            for (u32 k = 0; k < T::PIECE; k++) fine &= magnitude(x[k]) < FEATURE_LIMIT ? 1u : 0u;
            // Without an order between this and who reads the same row's word: either value serves. Whoever sets it has `found`
            // the row, so all sums of this turn are thrown away; after the barrier everybody sees it.
            if (!fine && !bad[r]) {
                found = 1;
                bad[r] = 2;
            }
            // Chosen, not multiplied by 0: a refused row may hold anything.
            const bool in = !bad[r];
#pragma unroll
            for (u32 k = 0; k < T::PIECE; k++) sum[k] = __fmaf_rn(e[r], in ? x[k] : 0.0f, sum[k]);
        }
    }
}

#define POOL_SCRATCH(threads) (2 * ROWS * 4 + (threads) * 32)

/// The pool of an item's rows by the first `threads` threads of a block, which take part in barrier `barrier` alone. `logits`
/// in shared memory: one a row. Writes total and part, and which members are refused.
///
/// `scratch`: POOL_SCRATCH(threads) bytes of shared memory.
/// `rows`: a RowsOfItem, or what `way_of` and `piece_of` know.
template <class T, class Rows>
DEVICE void pool_item(const Rows& rows, const Features& h, const Item& it, u32 item, Rule rule, const float* logits, char* scratch,
                      u32 threads, u32 barrier, float* total, Part* parts, u8* refused) {
    constexpr u32 COUNT = T::PIECE;
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
                const u32 c = piece * COUNT;
                const u32 way = way_of(rows);
                if (way == BY_PIECES) pool_rows<T, BY_PIECES>(rows, group, groups, it.rows, c, e, bad, sum, found);
                if (way == BY_ELEMENTS) pool_rows<T, BY_ELEMENTS>(rows, group, groups, it.rows, c, e, bad, sum, found);
                if constexpr (Rows::MAY_BE_KEPT)
                    if (way == KEPT) pool_rows<T, KEPT>(rows, group, groups, it.rows, c, e, bad, sum, found);
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
/// before. The count begins at 0. `word`: in shared memory.
///
/// The barrier before brings the block's writes in order before the first thread's fence, which gives them to the device with
/// the count; the fence after takes what other blocks gave so, and the barrier hands it to the block.
DEVICE bool last_block_of(u32* count, u32 blocks, u32* word, u32 threads, u32 barrier) {
    named_barrier_sync(barrier, threads);
    if (threadIdx.x == 0) {
        __threadfence();
        const u32 before = atomicAdd(count, 1u);
        __threadfence();
        *word = before;
    }
    named_barrier_sync(barrier, threads);
    return *word == blocks - 1;
}

template <class T>
DEVICE float feature(const Features& h, u64 row, u32 c) {
    const char* from = (const char*)h.address + row * h.pitch;
    return T::one(((const typename T::Element*)from)[c]);
}

/// Components of a thread, and items whose totals are in flight.
#define MERGE_COLUMNS 4
#define MERGE_FLIGHT 8

/// What the weights of a bag need: S, the greatest g (softmax), and whether every numerator is 1.
struct Merged {
    float sum;
    float greatest;
    bool uniform;
};

/// The merge of a bag by the first `threads` threads of a block, items ascending: S, z = sum of totals / S, the flags. A bag
/// without a sum is pooled again, with equal weights.
template <class T>
DEVICE Merged merge_bag(const Features& h, const u32* list, u32 bag, Rule rule, const float* totals, const Part* parts,
                        const u8* refused, const Bags& bags, const Results& out, u32 threads) {
    const u32 t = threadIdx.x, lane = lane_id();
    const u32 from = bags.first[bag], of = bags.first[bag + 1] - from;
    const u32 start = bags.starts[bag], end = bags.starts[bag + 1];
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
                if (load_l2(refused + place)) continue;
                const u64 row = row_of(list, place);
#pragma unroll
                for (u32 j = 0; j < MERGE_COLUMNS; j++) total[j] = __fadd_rn(total[j], feature<T>(h, row, c[j]));
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
                out.pooled[(u64)bag * h.width + c[j]] = kept ? __fdiv_rn(total[j], sum) : 0.0f;
    }
    if (t == 0) {
        out.sums[bag] = sum;
        out.flags[bag] = (kept ? 0u : EMPTY) | (uniform ? UNIFORM : 0u) | (kept < end - start ? REFUSED : 0u) |
                        (strange || (kept && !in_range) ? OUT_OF_DOMAIN : 0u);
    }
    return {sum, greatest, uniform};
}

/// Items that a block weighs in a turn: a lane each adds up.
#define WEIGH_ITEMS WARP
/// From item to item of a turn: lanes that add up hit different banks.
#define WEIGH_PITCH (ROWS + 1)
#define WEIGH_SCRATCH (2 * WEIGH_ITEMS * WEIGH_PITCH * 4)
/// Members of a thread whose loads are in flight.
#define WEIGH_FLIGHT 4

/// The weights of a bag, and the sums of their squares and of -w ln w, by the first `threads` threads of a block: a thread a
/// member, then a lane an item, in the contract's order.
///
/// One block weighs a whole bag, since a launch that spread it over the device would cost its gap. It is bound by arithmetic,
/// some 100 instructions a member for the division and the logarithm; reckoned, not measured: 1 or 2 us for the few hundred
/// rows that top-k leaves of a bag, less than a launch; 3 us for 4,096 rows; some 15 us at the end of a bag of 20,000.
///
/// `scratch`: WEIGH_SCRATCH bytes of shared memory.
DEVICE void weigh_bag(const u32* list, u32 bag, Rule rule, const Merged& of, const float* logits, const u8* refused,
                      const Bags& bags, const Results& out, char* scratch, u32 threads, u32 barrier) {
    const u32 t = threadIdx.x, lane = lane_id();
    const u32 start = bags.starts[bag], end = bags.starts[bag + 1];
    float* squares = (float*)scratch;
    float* parts = squares + WEIGH_ITEMS * WEIGH_PITCH;
    float total = 0.0f;
#pragma unroll 1
    for (u32 base = start; base < end; base += WEIGH_ITEMS * ROWS) {
        const u32 here = min(end - base, (u32)(WEIGH_ITEMS * ROWS));
        // The scratch memory is still read by who asked for the block's count, or adds up the turn before.
        named_barrier_sync(barrier, threads);
#pragma unroll 1
        for (u32 first = t; first < here; first += WEIGH_FLIGHT * threads) {
            u32 row[WEIGH_FLIGHT], gone[WEIGH_FLIGHT];
            float a[WEIGH_FLIGHT];
#pragma unroll
            for (u32 k = 0; k < WEIGH_FLIGHT; k++) {
                // Beyond the last: the last again, so that no load is in a branch.
                const u32 place = base + min(first + k * threads, here - 1);
                row[k] = row_of(list, place);
                gone[k] = load_l2(refused + place);
            }
#pragma unroll
            for (u32 k = 0; k < WEIGH_FLIGHT; k++) a[k] = load_l2(logits + row[k]);
#pragma unroll
            for (u32 k = 0; k < WEIGH_FLIGHT; k++) {
                const u32 p = first + k * threads;
                if (p >= here) break;
                const float e = of.uniform ? 1.0f : numerator(rule, linked(rule, a[k]), of.greatest);
                const float w = gone[k] ? 0.0f : __fdiv_rn(e, of.sum);
                out.weights[row[k]] = w;
                const u32 at = p / ROWS * WEIGH_PITCH + p % ROWS;
                squares[at] = __fmul_rn(w, w);
                parts[at] = w > 0.0f ? -__fmul_rn(w, ln_f32(w)) : 0.0f;
            }
        }
        named_barrier_sync(barrier, threads);
        if (t >= 2 * WARP) continue;
        // Warp 0 adds up squares, warp 1 entropies.
        const float* own = (t < WARP ? squares : parts) + lane * WEIGH_PITCH;
        const u32 rows = here > lane * ROWS ? min(here - lane * ROWS, (u32)ROWS) : 0;
        float sum = 0.0f;
#pragma unroll 8
        for (u32 r = 0; r < rows; r++) sum = __fadd_rn(sum, own[r]);
        const u32 items = (here + ROWS - 1) / ROWS;
        for (u32 i = 0; i < items; i++) total = __fadd_rn(total, __shfl_sync(FULL_WARP, sum, (int)i));
    }
    if (t == 0) out.squares[bag] = total;
    // S adds in another order than the weights: it may be below a lone numerator by its last bit.
    if (t == WARP) out.entropy[bag] = fmaxf(total, 0.0f);
}

/// The pool of an item, and all else of its bag if this block is the bag's last. Arguments as of `pool_item`, `merge_bag` and
/// `weigh_bag`; of `logits` an item's, `all_logits` by row.
template <class T, class Rows>
DEVICE void pool_and_merge(const Rows& rows, const Features& h, const u32* list, const Item& it, u32 item, Rule rule,
                           const float* logits, const float* all_logits, char* scratch, u32 threads, u32 barrier, float* totals,
                           Part* parts, u8* refused, const Bags& bags, const Results& out) {
    pool_item<T>(rows, h, it, item, rule, logits, scratch, threads, barrier, totals, parts, refused);
    const u32 items = bags.first[it.bag + 1] - bags.first[it.bag];
    if (!last_block_of(bags.done + it.bag, items, (u32*)scratch, threads, barrier)) return;
    const Merged merged = merge_bag<T>(h, list, it.bag, rule, totals, parts, refused, bags, out, threads);
    weigh_bag(list, it.bag, rule, merged, all_logits, refused, bags, out, scratch, threads, barrier);
}

/// Bags without a member, which no item writes: the grid's blocks, of `threads` threads, share them.
DEVICE void empty_bags(u32 width, const Bags& bags, const Results& out, u32 threads) {
    for (u32 bag = blockIdx.x; bag < bags.looked_through; bag += gridDim.x) {
        if (bags.first[bag] != bags.first[bag + 1]) continue;
        for (u32 c = threadIdx.x; c < width; c += threads) out.pooled[(u64)bag * width + c] = 0.0f;
        if (threadIdx.x != 0) continue;
        out.sums[bag] = out.squares[bag] = out.entropy[bag] = 0.0f;
        out.flags[bag] = EMPTY;
    }
}
