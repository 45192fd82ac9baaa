// (c), second launch: the weights, which need the bag's sum, and what an empty bag has.
//
//        S, greatest g of the bag ──► a warp an item: w = e / S of its members, their squares and entropy
//                                     the bag's last warp adds the items' sums, ascending        (as weights.cu does)
//        a bag without an item    ──► a warp: zeros, and the flag that says so
//
// Everything else of a bag its last block has written in the first launch. Reads 5 bytes a member, writes 4.
#include "gated.cuh"

#define THREADS 256

/// What a bag without a member has.
DEVICE void empty_bag(u32 bag, u32 width, float* pooled, float* sums, float* squares, float* entropy, u32* flags) {
    for (u32 c = lane_id(); c < width; c += WARP) pooled[(u64)bag * width + c] = 0.0f;
    if (lane_id() != 0) return;
    sums[bag] = squares[bag] = entropy[bag] = 0.0f;
    flags[bag] = EMPTY;
}

/// A warp for each item, then one for each bag. `refused` by place; `squares` and `entropies` hold a sum an item, `count` (0
/// before and after) counts a bag's items.
extern "C" __global__ void __launch_bounds__(THREADS)
    weir_gated_finish(const u32* __restrict__ list, const Item* __restrict__ items, u32 item_count, const u32* __restrict__ first,
                      u32 bags, u32 width, Rule rule, const float* __restrict__ logits, const u8* __restrict__ refused,
                      const float* __restrict__ greatest, float* squares, float* entropies, u32* count, float* pooled,
                      float* weights, float* sums, float* bag_squares, float* bag_entropy, u32* flags) {
    const u32 item = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (item >= item_count) {
        const u32 bag = item - item_count;
        if (bag < bags && first[bag] == first[bag + 1]) empty_bag(bag, width, pooled, sums, bag_squares, bag_entropy, flags);
        return;
    }
    const Item it = items[item];
    const float sum = sums[it.bag], shift = greatest[it.bag];
    const bool uniform = flags[it.bag] & UNIFORM;
    float square[EACH_LANE], part[EACH_LANE];
#pragma unroll
    for (u32 k = 0; k < EACH_LANE; k++) {
        const u32 p = k * WARP + lane_id();
        square[k] = part[k] = 0.0f;
        if (p >= it.rows) continue;
        const u32 row = row_of(list, it.first + p);
        float w = 0.0f;
        if (!refused[it.first + p]) w = __fdiv_rn(uniform ? 1.0f : numerator(rule, linked(rule, logits[row]), shift), sum);
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
        // S adds in another order than the weights: it may be below a lone numerator by its last bit.
        bag_entropy[it.bag] = fmaxf(all_entropy, 0.0f);
    }
}
