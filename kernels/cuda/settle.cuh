// What is left of each bag after the pass over all of them: its flags, bags without a member, and bags that are passed again.
//
//   noticed of the bag        what is done
//   nothing, out of domain    its flags are written: a thread looks at one word
//   no member                 zeros, EMPTY
//   refused                   passed again without the refused rows
//   uniform, now or then      passed again with the numerator 1
//
// The repetition is the device's own matter, so that nobody waits for the host to look at what was noticed. A block
// takes a bag, a warp a slice of its columns at a time, all its members one after the other: slow, since it is rare, in the contract's
// order, so that the bits are those of a pass in which the refused rows had not come.
#pragma once
#include "features.cuh"

/// A bag that keeps no member; src/kernels.rs.
#define EMPTY 1u

#define SETTLE_THREADS 256
#define SETTLE_WARPS (SETTLE_THREADS / WARP)
/// Rows whose loads are in flight.
#define SETTLE_FLIGHT 4

/// Where results lie: one a row, one vector a bag, then one a bag.
struct Settled {
    float *weights, *pooled, *sums, *squares, *entropy;
    u32* flags;
};

/// A bag that is passed again.
struct Again {
    const float* logits;
    const u32* list;
    const u8* refused;
    Rule rule;
    float shift;
    /// Places of its members.
    u32 start, end;
};

/// The row and the numerator of the member at `place`; false where there is none or it is refused.
DEVICE bool kept_member(const Again& b, u32 place, u32& row, float& e) {
    row = 0;
    e = 0.0f;
    if (place >= b.end) return false;
    row = row_of(b.list, place);
    if (b.refused[row]) return false;
    e = numerator(b.rule, linked(b.rule, b.logits[row]), b.shift);
    return true;
}

/// How many of the bag's members are kept, the greatest g among them as ordered bits, and whether one is out of the domain.
DEVICE u32 look_at_kept(const Again& b, u32& best, u32& notice) {
    u32 kept = 0;
    best = notice = 0;
    for (u32 from = b.start; from < b.end; from += WARP) {
        const u32 place = from + lane_id();
        bool mine = false, outside = false;
        if (place < b.end) {
            const u32 row = row_of(b.list, place);
            mine = !b.refused[row];
            const float g = linked(b.rule, b.logits[row]);
            if (mine) best = max(best, ordered_bits(g));
            outside = mine && !in_domain(b.rule, g);
        }
        kept += (u32)__popc(__ballot_sync(FULL_WARP, mine));
        if (__any_sync(FULL_WARP, outside)) notice = OUT_OF_DOMAIN;
    }
    for (int d = WARP / 2; d > 0; d /= 2) best = max(best, __shfl_xor_sync(FULL_WARP, best, d));
    return kept;
}

/// T of a slice's columns and S over the kept members, whose items are cut anew.
template <class T>
DEVICE void sum_kept(const PoolArguments& a, const Again& b, u32 slice, float (&total)[T::PIECE], float& total_sum) {
    float acc[T::PIECE], sum = 0.0f;
    u32 rows = 0;
    total_sum = 0.0f;
#pragma unroll
    for (u32 j = 0; j < T::PIECE; j++) acc[j] = total[j] = 0.0f;
#pragma unroll 1
    for (u32 from = b.start; from < b.end; from += WARP) {
        u32 row;
        float e;
        const bool mine = kept_member(b, from + lane_id(), row, e);
        u32 kept = __ballot_sync(FULL_WARP, mine);
#pragma unroll 1
        while (kept) {
            float x[SETTLE_FLIGHT], h[SETTLE_FLIGHT][T::PIECE];
            const u32 some = min((u32)__popc(kept), (u32)SETTLE_FLIGHT);
            int of = 0;
#pragma unroll
            for (u32 u = 0; u < SETTLE_FLIGHT; u++) {
                // Beyond the last kept member: it again, which is in the cache.
                if (kept) of = __ffs((int)kept) - 1;
                kept &= kept - 1;
                x[u] = __shfl_sync(FULL_WARP, e, of);
                const u64 at = __shfl_sync(FULL_WARP, row, of);
                load_part<T, false>((const typename T::Element*)a.features + at * a.stride, slice, a.width, h[u]);
            }
#pragma unroll
            for (u32 u = 0; u < SETTLE_FLIGHT; u++) {
                if (u >= some) continue;
                if (rows == ROWS) {
                    total_sum = __fadd_rn(total_sum, sum);
                    sum = 0.0f;
#pragma unroll
                    for (u32 j = 0; j < T::PIECE; j++) {
                        total[j] = __fadd_rn(total[j], acc[j]);
                        acc[j] = 0.0f;
                    }
                    rows = 0;
                }
                sum = __fadd_rn(sum, x[u]);
#pragma unroll
                for (u32 j = 0; j < T::PIECE; j++) acc[j] = __fadd_rn(acc[j], __fmul_rn(x[u], h[u][j]));
                rows += 1;
            }
        }
    }
    total_sum = __fadd_rn(total_sum, sum);
#pragma unroll
    for (u32 j = 0; j < T::PIECE; j++) total[j] = __fadd_rn(total[j], acc[j]);
}

/// The pooled vector by all warps; S, which warp 0 has, and what this warp noticed.
template <class T>
DEVICE float pool_kept(const PoolArguments& a, const Again& b, float* vector, u32& notice) {
    float sum = 0.0f;
    notice = 0;
#pragma unroll 1
    for (u32 slice = threadIdx.x / WARP; slice < a.slices; slice += SETTLE_WARPS) {
        float total[T::PIECE];
        sum_kept<T>(a, b, slice, total, sum);
        bool in_range = is_finite(sum);
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) {
            const u32 c = column<T, false>(slice, j);
            if (c >= a.width) continue;
            in_range = in_range && is_finite(total[j]);
            vector[c] = __fdiv_rn(total[j], sum);
        }
        if (!in_range) notice |= UNIFORM | OUT_OF_DOMAIN;
        if (sum == 0.0f) notice |= UNIFORM;
    }
    return sum;
}

/// Weights of a bag's members, 0 for refused ones, and the sums of w^2 and -w ln w. One warp.
DEVICE void weigh_kept(const Again& b, float of_bag, float* weights, float& squares, float& entropy) {
    float square = 0.0f, part = 0.0f;
    u32 rows = 0;
    squares = entropy = 0.0f;
#pragma unroll 1
    for (u32 from = b.start; from < b.end; from += WARP) {
        u32 row;
        float e, w = 0.0f;
        const bool mine = kept_member(b, from + lane_id(), row, e);
        if (mine) w = __fdiv_rn(e, of_bag);
        if (from + lane_id() < b.end) weights[row] = w;
        const float own_square = __fmul_rn(w, w), own_part = w > 0.0f ? -__fmul_rn(w, ln_f32(w)) : 0.0f;
        u32 kept = __ballot_sync(FULL_WARP, mine);
#pragma unroll 1
        for (; kept; kept &= kept - 1) {
            if (rows == ROWS) {
                squares = __fadd_rn(squares, square);
                entropy = __fadd_rn(entropy, part);
                square = part = 0.0f;
                rows = 0;
            }
            const int of = __ffs((int)kept) - 1;
            square = __fadd_rn(square, __shfl_sync(FULL_WARP, own_square, of));
            part = __fadd_rn(part, __shfl_sync(FULL_WARP, own_part, of));
            rows += 1;
        }
    }
    squares = __fadd_rn(squares, square);
    entropy = __fadd_rn(entropy, part);
}

/// A bag that keeps no member.
DEVICE void settle_empty(const Again& b, u32 bag, u32 width, u32 flags, const Settled& out) {
    for (u32 p = b.start + threadIdx.x; p < b.end; p += SETTLE_THREADS) out.weights[row_of(b.list, p)] = 0.0f;
    for (u32 c = threadIdx.x; c < width; c += SETTLE_THREADS) out.pooled[(u64)bag * width + c] = 0.0f;
    if (threadIdx.x == 0) {
        out.sums[bag] = out.squares[bag] = out.entropy[bag] = 0.0f;
        out.flags[bag] = flags | EMPTY;
    }
}

/// A bag of which that was found; `b` holds its members.
template <class T>
DEVICE void settle_bag(const PoolArguments& a, Again b, u32 bag, u32 found, const Settled& out) {
    u32 best, notice;
    const u32 kept = look_at_kept(b, best, notice);
    u32 flags = found & REFUSED;
    if (kept == 0) {
        settle_empty(b, bag, a.width, flags, out);
        return;
    }
    float* vector = out.pooled + (u64)bag * a.width;
    b.shift = from_ordered_bits(best);
    float sum = 0.0f;
    flags |= found & REFUSED ? notice : found & (UNIFORM | OUT_OF_DOMAIN);
    // First without the refused rows, then, where no sum is left, with the numerator 1. One place in the code for both: with
    // two the compiler makes a function of it, whose call spills.
#pragma unroll 1
    for (u32 turn = 0; turn < 2; turn++) {
        if (turn == 0 ? !(found & REFUSED) : !(flags & UNIFORM)) continue;
        if (turn == 1) {
            b.rule.normalisation = ONE;
            b.rule.link = 0;
        }
        u32 mine;
        sum = pool_kept<T>(a, b, vector, mine);
        if (turn == 1) break;
        if (__syncthreads_or((int)(mine & UNIFORM))) flags |= UNIFORM;
        if (__syncthreads_or((int)(mine & OUT_OF_DOMAIN))) flags |= OUT_OF_DOMAIN;
    }
    if (threadIdx.x >= WARP) return;
    float squares, entropy;
    weigh_kept(b, sum, out.weights, squares, entropy);
    if (lane_id() == 0) {
        out.sums[bag] = sum;
        out.squares[bag] = squares;
        out.entropy[bag] = entropy;
        out.flags[bag] = flags;
    }
}

/// `noticed` and `refused` are the pass's. A block has at most as many bags as threads: each looks at one, then the block
/// takes those that are passed again one after the other.
template <class T>
DEVICE void settle(const PoolArguments& a, Again b, const u32* starts, u32 bags, const u32* noticed, const Settled& out) {
    const u32 own = blockIdx.x + threadIdx.x * gridDim.x;
    bool again = false;
    if (own < bags) {
        const u32 found = noticed[own];
        again = (found & (REFUSED | UNIFORM)) || starts[own] == starts[own + 1];
        if (!again) out.flags[own] = found & OUT_OF_DOMAIN;
    }
    if (!__syncthreads_or((int)again)) return;
    u32 looked = 0;
    for (u32 bag = blockIdx.x; bag < bags; bag += gridDim.x, looked++) {
        if (!__syncthreads_or((int)(again && threadIdx.x == looked))) continue;
        b.start = starts[bag];
        b.end = starts[bag + 1];
        settle_bag<T>(a, b, bag, noticed[bag], out);
    }
}

#define SETTLE(name, T)                                                                                                         \
    extern "C" __global__ void __launch_bounds__(SETTLE_THREADS, 2)                                                     \
        name(const void* __restrict__ features, u64 stride, u32 width, u32 slices, const float* __restrict__ logits,           \
             const u32* __restrict__ list, const u32* __restrict__ starts, u32 bags, Rule rule,                                \
             const u32* __restrict__ noticed, const u8* __restrict__ refused, float* weights, float* pooled, float* sums,      \
             float* squares, float* entropy, u32* flags) {                                                                     \
        const PoolArguments a = {features, stride, width, slices};                                                             \
        const Again b = {logits, list, refused, rule, 0.0f, 0, 0};                                                             \
        const Settled out = {weights, pooled, sums, squares, entropy, flags};                                                  \
        settle<T>(a, b, starts, bags, noticed, out);                                                                           \
    }
