// (c) on sm_80 and later: attention head, numerators and pool of an item of 128 rows by one block; the bag's last block
// merges and weighs.
//
//        rows h (128 x 32) ─┐  cp.async, three stages          128 x 256 sums in registers: unit l of V and of U in one thread
//                           ├──► mma.sync, eight warps ──► tanh * sigmoid * w ──► 128 logits ──► numerators
//   V, U (256 x 32 of each) ┘                                                          h again, out of L2 ──► total of the item
//
// No hidden unit leaves the registers. The rows come from device memory once: each chunk of 256 columns of the head, and then
// the pool, reads them again from L2, where 128 rows of all blocks have room. So neither width has a limit but memory's, and
// shared memory is the same for all: 92 KiB. The floor is the product: 4 D L operations a member.
//
// Warp (m, n) of 2 x 4 has rows 64 m.. and columns 32 n.. of V and the same of U, so that the gate needs no exchange.
// f32 features are split in two tf32 numbers and multiplied three times: 2^-22 of each product is left out.
//
// Needs: sm_80
#include "gated_product.cuh"

template <class T>
DEVICE void gated_pool(const Features& h, const char* matrix, const Head& head, const u32* list, const Item* items, Rule rule,
                       float* logits, float* totals, Part* parts, u8* refused, const Bags& bags, const Results& out) {
    DYNAMIC_SHARED(shared);
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const Item it = items[blockIdx.x];
    float sums[4][2] = {};
    product<T>(shared, h, matrix, head.chunks, list, it, m, n, [&](u32 chunk, float (&acc)[4][8][4]) {
        const float* bias = (const float*)head.bias + chunk * CHUNK;
        const float* weight = (const float*)head.weight + chunk * CHUNK;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                const u32 l = n * 32 + j * 8 + lane % 4 * 2 + e;
                const float v0 = bias[l], u0 = bias[HALF_CHUNK + l], w = weight[l], w2 = weight[HALF_CHUNK + l];
#pragma unroll
                for (u32 a = 0; a < 4; a++)
#pragma unroll
                    for (u32 y = 0; y < 2; y++)
                        sums[a][y] += unit<T>(acc[a][j][2 * y + e] + v0, acc[a][j + 4][2 * y + e] + u0, w, w2, head.gated);
            }
        }
    });
    // [row][warp n], then the logits, then what the pool wants.
    float* by_warp = (float*)shared;
    float* own = by_warp + 4 * ROWS;
#pragma unroll
    for (u32 a = 0; a < 4; a++) {
#pragma unroll
        for (u32 y = 0; y < 2; y++) {
            float x = sums[a][y];
            x += __shfl_xor_sync(FULL_WARP, x, 1);
            x += __shfl_xor_sync(FULL_WARP, x, 2);
            if (lane % 4 == 0) by_warp[(m * 64 + a * 16 + y * 8 + lane / 4) * 4 + n] = x;
        }
    }
    __syncthreads();
    if (t < ROWS) {
        const float* x = by_warp + t * 4;
        own[t] = ((x[0] + x[1]) + (x[2] + x[3])) + head.offset;
        if (t < it.rows) logits[row_of(list, it.first + t)] = own[t];
    }
    __syncthreads();
    const RowsOfItem<T> rows = {h, list, it.first};
    static_assert(5 * ROWS * 4 + WEIGH_SCRATCH <= SHARED_BYTES);
    pool_and_merge<T>(rows, h, list, it, blockIdx.x, rule, own, logits, (char*)(own + ROWS), THREADS, 1, totals, parts,
                      refused, bags, out);
}

/// A block an item; one block where there is no item.
#define GATED_POOL(name, T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                      \
        name(Features h, const char* __restrict__ matrix, Head head, const u32* __restrict__ list, const Item* __restrict__ items, \
             u32 item_count, Rule rule, float* logits, float* totals, Part* parts, u8* refused, Bags bags, Results out) {          \
        empty_bags(h.width, bags, out, THREADS);                                                                                  \
        if (blockIdx.x < item_count)                                                                                              \
            gated_pool<T>(h, matrix, head, list, items, rule, logits, totals, parts, refused, bags, out);                         \
    }

GATED_POOL(weir_gated_pool_mma_bf16, Bf16)
GATED_POOL(weir_gated_pool_mma_f16, F16)
GATED_POOL(weir_gated_pool_mma_f32, F32)
