// (a) From logits to weights, and back; what (b) shares with it.
//
//   greatest   a warp an item: the bag's greatest g, where softmax asks for it    (a maximum of integers: its order is free)
//   weights    a warp an item: w = e / S, and the sums of w^2 and of -w ln w; the bag's last warp merges the items' sums
//   mean       a warp an item: the sum of w dL/dw, merged in the same way
//   slopes     a thread a member: dL/da = slope / S (dL/dw - mean)
//
// S comes from the pool (pool.cu); (a) is a pool of vectors without a component. Reads 4 bytes a member a kernel.
#include "bags.cuh"
#include "rule.cuh"

#define THREADS 256

/// The item of this warp, or false beyond the last.
DEVICE bool own_item(const Item* items, u32 count, u32& item, Item& it) {
    item = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (item >= count) return false;
    it = items[item];
    return true;
}

/// `greatest` is all 0 before.
extern "C" __global__ void __launch_bounds__(THREADS) weir_greatest(const float* __restrict__ logits, const u32* __restrict__ list,
                                                                     const Item* __restrict__ items, u32 count, Rule rule,
                                                                     u32* greatest) {
    u32 item;
    Item it;
    if (!own_item(items, count, item, it)) return;
    u32 best = 0;
#pragma unroll
    for (u32 k = 0; k < EACH_LANE; k++) {
        const u32 p = k * WARP + lane_id();
        if (p >= it.rows) continue;
        const float g = linked(rule, logits[row_of(list, it.first + p)]);
        // A bag with such a member is passed again without it.
        if (g == g) best = max(best, ordered_bits(g));
    }
    for (int d = WARP / 2; d > 0; d /= 2) best = max(best, __shfl_xor_sync(FULL_WARP, best, d));
    if (lane_id() == 0) atomicMax(greatest + it.bag, best);
}

/// Weights of bags of which nothing was noticed in this pass that makes another necessary. `squares` and `entropies` hold a
/// sum an item, `count` (0 before and after) counts a bag's items. Rows that are no members keep what they have.
extern "C" __global__ void __launch_bounds__(THREADS)
    weir_weights(const float* __restrict__ logits, const u32* __restrict__ list, const Item* __restrict__ items, u32 item_count,
                 const u32* __restrict__ first, Rule rule, const u32* __restrict__ greatest, const float* __restrict__ sums,
                 const u32* __restrict__ noticed, float* squares, float* entropies, u32* count, float* weights,
                 float* bag_squares, float* bag_entropy) {
    u32 item;
    Item it;
    if (!own_item(items, item_count, item, it)) return;
    if (noticed[it.bag] & (REFUSED | UNIFORM)) return;
    const float sum = sums[it.bag];
    const float shift = from_ordered_bits(greatest[it.bag]);
    float square[EACH_LANE], part[EACH_LANE];
#pragma unroll
    for (u32 k = 0; k < EACH_LANE; k++) {
        const u32 p = k * WARP + lane_id();
        square[k] = part[k] = 0.0f;
        if (p >= it.rows) continue;
        const u32 row = row_of(list, it.first + p);
        const float w = __fdiv_rn(numerator(rule, linked(rule, logits[row]), shift), sum);
        weights[row] = w;
        square[k] = __fmul_rn(w, w);
        if (w > 0.0f) part[k] = -__fmul_rn(w, ln_f32(w));
    }
    const float own_squares = item_sum(square, it.rows);
    const float own_entropy = item_sum(part, it.rows);
    const u32 from = first[it.bag], of = first[it.bag + 1] - from;
    float all_squares = __fadd_rn(0.0f, own_squares), all_entropy = __fadd_rn(0.0f, own_entropy);
    if (of > 1) {
        if (lane_id() == 0) {
            squares[item] = own_squares;
            entropies[item] = own_entropy;
        }
        if (!last_of(count + it.bag, of)) return;
        all_squares = merged_sum(squares + from, of);
        all_entropy = merged_sum(entropies + from, of);
    }
    if (lane_id() == 0) {
        bag_squares[it.bag] = all_squares;
        bag_entropy[it.bag] = all_entropy;
    }
}

/// Whether a member counts: its logit is a number, and its features were not refused.
DEVICE bool counts(const float* logits, const u8* refused, u32 row) {
    return is_finite(logits[row]) && !(refused && refused[row]);
}

/// The mean of a bag that has members that do not count: its items are cut anew from those that do, by one warp.
DEVICE float mean_of_counting(const float* logits, const u8* refused, const u32* list, const float* weights,
                              const float* gradient, u32 start, u32 end) {
    float total = 0.0f, sum = 0.0f;
    u32 rows = 0;
    for (u32 from = start; from < end; from += WARP) {
        const u32 place = from + lane_id();
        float term = 0.0f;
        bool mine = false;
        if (place < end) {
            const u32 row = row_of(list, place);
            mine = counts(logits, refused, row);
            if (mine) term = __fmul_rn(weights[row], gradient[row]);
        }
        u32 counting = __ballot_sync(FULL_WARP, mine);
        for (; counting; counting &= counting - 1) {
            if (rows == ROWS) {
                total = __fadd_rn(total, sum);
                sum = 0.0f;
                rows = 0;
            }
            sum = __fadd_rn(sum, __shfl_sync(FULL_WARP, term, __ffs((int)counting) - 1));
            rows += 1;
        }
    }
    return __fadd_rn(total, sum);
}

/// `mean` of a bag is the sum of w dL/dw over the members that count. `refused` may be null.
extern "C" __global__ void __launch_bounds__(THREADS)
    weir_mean(const float* __restrict__ logits, const u8* __restrict__ refused, const u32* __restrict__ list,
              const Item* __restrict__ items, u32 item_count, const u32* __restrict__ first, const u32* __restrict__ starts,
              const u32* __restrict__ flags, const float* __restrict__ weights, const float* __restrict__ gradient,
              float* sums, u32* count, float* mean) {
    u32 item;
    Item it;
    if (!own_item(items, item_count, item, it)) return;
    if (flags[it.bag] & UNIFORM) return;
    if (flags[it.bag] & REFUSED) {
        if (it.slot != 0) return;
        const float of_bag = mean_of_counting(logits, refused, list, weights, gradient, starts[it.bag], starts[it.bag + 1]);
        if (lane_id() == 0) mean[it.bag] = of_bag;
        return;
    }
    float term[EACH_LANE];
#pragma unroll
    for (u32 k = 0; k < EACH_LANE; k++) {
        const u32 p = k * WARP + lane_id();
        term[k] = 0.0f;
        if (p >= it.rows) continue;
        const u32 row = row_of(list, it.first + p);
        term[k] = __fmul_rn(weights[row], gradient[row]);
    }
    const float own = item_sum(term, it.rows);
    const u32 from = first[it.bag], of = first[it.bag + 1] - from;
    float all = __fadd_rn(0.0f, own);
    if (of > 1) {
        if (lane_id() == 0) sums[item] = own;
        if (!last_of(count + it.bag, of)) return;
        all = merged_sum(sums + from, of);
    }
    if (lane_id() == 0) mean[it.bag] = all;
}

/// `out` is 0 where it is not written: rows that are no members, or do not count, and bags with uniform weights.
extern "C" __global__ void __launch_bounds__(THREADS)
    weir_slopes(const float* __restrict__ logits, const u8* __restrict__ refused, const u32* __restrict__ list,
                const Item* __restrict__ items, u32 item_count, Rule rule, const u32* __restrict__ flags,
                const float* __restrict__ weights, const float* __restrict__ sums, const float* __restrict__ gradient,
                const float* __restrict__ mean, float* out) {
    u32 item;
    Item it;
    if (!own_item(items, item_count, item, it)) return;
    if (flags[it.bag] & UNIFORM) return;
#pragma unroll
    for (u32 k = 0; k < EACH_LANE; k++) {
        const u32 p = k * WARP + lane_id();
        if (p >= it.rows) continue;
        const u32 row = row_of(list, it.first + p);
        if (!counts(logits, refused, row)) continue;
        out[row] = slope(rule, logits[row], weights[row], sums[it.bag], __fsub_rn(gradient[row], mean[it.bag]));
    }
}
