// (c), second launch: what the items left, merged in order, and the weights, which need the bag's sum.
//
//        parts of items ──► S, greatest g ──► block (bag, 0): weights of the members, their squares and entropy, flags
//                                     └─────► block (bag, y): 256 components of z = sum of totals / S
//
// Every sum has an order that is a function of the bag alone. A bag without a sum is pooled again here with equal weights.
// Reads 4 bytes a member and the totals (D / 128 of the features' count); the features only where weights are uniform.
#include "gated.cuh"

#define THREADS 256
#define EMPTY 1u

/// A sum over the block, by all threads; `words`: one a warp.
DEVICE float block_sum(float x, float* words) {
    for (int d = WARP / 2; d > 0; d /= 2) x = __fadd_rn(x, __shfl_xor_sync(FULL_WARP, x, d));
    __syncthreads();
    if (lane_id() == 0) words[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = words[0];
    for (u32 w = 1; w < THREADS / WARP; w++) sum = __fadd_rn(sum, words[w]);
    return sum;
}

template <int KIND>
DEVICE float feature(const Features& h, u64 row, u32 c) {
    const char* from = (const char*)h.address + row * h.pitch;
    if constexpr (KIND == F32) return ((const float*)from)[c];
    else return widened<KIND>(((const u16*)from)[c]);
}

template <int KIND>
DEVICE void finish(const Features& h, const u32* list, const u32* first, const u32* starts, Rule rule, const float* logits,
                   const float* totals, const Part* parts, const u8* refused, float* pooled, float* weights, float* sums,
                   float* squares, float* entropies, u32* flags) {
    DYNAMIC_SHARED(shared);
    float* words = (float*)shared;
    const u32 bag = blockIdx.x, t = threadIdx.x;
    const u32 from = first[bag], to = first[bag + 1], start = starts[bag], end = starts[bag + 1];
    float greatest = LOWEST, size = 0.0f, sum = 0.0f;
    u32 kept = 0;
    if (rule.normalisation == SOFTMAX)
        for (u32 i = from; i < to; i++) greatest = fmaxf(greatest, parts[i].greatest);
    for (u32 i = from; i < to; i++) {
        const Part part = parts[i];
        const float scale = rule.normalisation == SOFTMAX && part.kept ? exp_f32(part.greatest - greatest) : 1.0f;
        sum = __fmaf_rn(scale, part.sum, sum);
        size = __fadd_rn(size, part.size);
        kept += part.kept;
    }
    // The greatest components' sum is no less than any component's.
    const bool in_range = is_finite(sum) && is_finite(size);
    const bool uniform = kept > 0 && (sum == 0.0f || !in_range);
    if (uniform) sum = (float)kept;
    if (kept == 0) sum = 0.0f;

    const u32 c = blockIdx.y * THREADS + t;
    if (c < h.width) {
        float total = 0.0f;
        if (uniform) {
            for (u32 place = start; place < end; place++)
                if (!refused[place]) total = __fadd_rn(total, feature<KIND>(h, row_of(list, place), c));
        } else {
#pragma unroll 4
            for (u32 i = from; i < to; i++) {
                const float scale = rule.normalisation == SOFTMAX && parts[i].kept ? exp_f32(parts[i].greatest - greatest) : 1.0f;
                total = __fmaf_rn(scale, totals[(u64)i * h.width + c], total);
            }
        }
        pooled[(u64)bag * h.width + c] = kept ? __fdiv_rn(total, sum) : 0.0f;
    }
    if (blockIdx.y != 0) return;

    float square = 0.0f, entropy = 0.0f, strange = 0.0f;
    for (u32 place = start + t; place < end; place += THREADS) {
        const u32 row = row_of(list, place);
        float w = 0.0f;
        if (!refused[place]) {
            const float g = linked(rule, logits[row]);
            w = __fdiv_rn(uniform ? 1.0f : numerator(rule, g, greatest), sum);
            square = __fmaf_rn(w, w, square);
            if (w > 0.0f) entropy = __fmaf_rn(-w, ln_f32(w), entropy);
            if (!in_domain(rule, g)) strange = 1.0f;
        }
        weights[row] = w;
    }
    square = block_sum(square, words);
    entropy = block_sum(entropy, words);
    strange = block_sum(strange, words);
    if (t == 0) {
        sums[bag] = sum;
        squares[bag] = square;
        entropies[bag] = fmaxf(entropy, 0.0f);
        flags[bag] = (kept ? 0u : EMPTY) | (uniform ? UNIFORM : 0u) | (kept < end - start ? REFUSED : 0u) |
                     (strange > 0.0f || (kept && !in_range) ? OUT_OF_DOMAIN : 0u);
    }
}

#define GATED_FINISH(name, kind)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                          \
        name(Features h, const u32* __restrict__ list, const u32* __restrict__ first, const u32* __restrict__ starts, Rule rule,    \
             const float* __restrict__ logits, const float* __restrict__ totals, const Part* __restrict__ parts,                   \
             const u8* __restrict__ refused, float* pooled, float* weights, float* sums, float* squares, float* entropies,         \
             u32* flags) {                                                                                                         \
        finish<kind>(h, list, first, starts, rule, logits, totals, parts, refused, pooled, weights, sums, squares, entropies,      \
                     flags);                                                                                                       \
    }

GATED_FINISH(weir_gated_finish_bf16, BF16)
GATED_FINISH(weir_gated_finish_f16, F16)
GATED_FINISH(weir_gated_finish_f32, F32)
