// (c) on sm_80 and later: attention head, numerators and pool of an item of 128 rows by one block.
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
#include "gated.cuh"

#define THREADS 256
#define STAGES 3
/// Bytes of a row of a stage: 64 of numbers, 16 so that eight rows lie in different banks.
#define STEP_BYTES 64
#define PITCH (STEP_BYTES + 16)
#define STAGE_BYTES ((ROWS + CHUNK) * PITCH)
#define SHARED_BYTES (STAGES * STAGE_BYTES)

/// Starts the copy of step `k` of the rows and of the head's columns `column..` into a stage.
template <int KIND>
DEVICE void load_step(char* stage, const Features& h, const u32* list, const Item& it, const char* columns, u64 column_bytes,
                      u32 step) {
    constexpr u32 COUNT = Piece<KIND>::COUNT;
    const u32 t = threadIdx.x, part = t % 4;
#pragma unroll
    for (u32 j = 0; j < ROWS * 4 / THREADS; j++) {
        const u32 r = t / 4 + j * (THREADS / 4);
        const u32 c = (step * 4 + part) * COUNT;
        const bool in = r < it.rows;
        const u64 row = row_of(list, it.first + (in ? r : 0));
        char* to = stage + r * PITCH + part * 16;
        if (h.whole) {
            const bool valid = in && c < h.width;
            cp_async16(to, (const char*)h.address + row * h.pitch + (valid ? (u64)c * Piece<KIND>::BYTES : 0), valid);
        } else {
            store16(to, in ? load_piece<KIND>(h, row, c) : make_uint4(0, 0, 0, 0));
        }
    }
#pragma unroll
    for (u32 j = 0; j < CHUNK * 4 / THREADS; j++) {
        const u32 n = t / 4 + j * (THREADS / 4);
        cp_async16(stage + (ROWS + n) * PITCH + part * 16, columns + n * column_bytes + step * STEP_BYTES + part * 16);
    }
}

/// One step of k for the warp's 64 rows and 32 + 32 columns.
template <int KIND>
DEVICE void multiply_step(float (&acc)[4][8][4], const char* stage, u32 m, u32 n) {
    const u32 lane = lane_id();
    if constexpr (KIND == F32) {
        const u32 g = lane / 4, q = lane % 4;
#pragma unroll
        for (u32 k = 0; k < STEP_BYTES; k += 32) {
            u32 high[4][4], low[4][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const char* row = stage + (m * 64 + i * 16 + g) * PITCH + k + q * 4;
                const u32 a[4] = {*(const u32*)row, *(const u32*)(row + 8 * PITCH), *(const u32*)(row + 16),
                                  *(const u32*)(row + 8 * PITCH + 16)};
#pragma unroll
                for (u32 x = 0; x < 4; x++) {
                    high[i][x] = a[x] & 0xFFFFE000u;
                    low[i][x] = __float_as_uint(__fsub_rn(__uint_as_float(a[x]), __uint_as_float(high[i][x])));
                }
            }
#pragma unroll
            for (u32 j = 0; j < 8; j++) {
                const u32 column = (j / 4) * HALF_CHUNK + n * 32 + (j % 4) * 8 + g;
                const char* row = stage + (ROWS + column) * PITCH + k + q * 4;
                const u32 b[2] = {*(const u32*)row, *(const u32*)(row + 16)};
                u32 b_high[2], b_low[2];
#pragma unroll
                for (u32 x = 0; x < 2; x++) {
                    b_high[x] = b[x] & 0xFFFFE000u;
                    b_low[x] = __float_as_uint(__fsub_rn(__uint_as_float(b[x]), __uint_as_float(b_high[x])));
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    mma_m16n8k8_tf32(acc[i][j], low[i], b_high);
                    mma_m16n8k8_tf32(acc[i][j], high[i], b_low);
                    mma_m16n8k8_tf32(acc[i][j], high[i], b_high);
                }
            }
        }
    } else {
#pragma unroll
        for (u32 k = 0; k < STEP_BYTES; k += 32) {
            u32 a[4][4], b[4][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) ldmatrix_x4(a[i], stage + (m * 64 + i * 16 + lane % 16) * PITCH + k + lane / 16 * 16);
#pragma unroll
            for (u32 p = 0; p < 4; p++) {
                // Two tiles of 8 columns: lanes 0-7 and 8-15 give k and k + 8 of the first, the others those of the second.
                const u32 column = (p / 2) * HALF_CHUNK + n * 32 + (p % 2) * 16 + lane / 16 * 8 + lane % 8;
                ldmatrix_x4(b[p], stage + (ROWS + column) * PITCH + k + lane / 8 % 2 * 16);
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 8; j++) {
                    if constexpr (KIND == BF16)
                        mma_m16n8k16_bf16(acc[i][j], a[i], &b[j / 2][j % 2 * 2]);
                    else
                        mma_m16n8k16_f16(acc[i][j], a[i], &b[j / 2][j % 2 * 2]);
                }
            }
        }
    }
}

template <int KIND>
DEVICE void gated_pool(const Features& h, const char* matrix, const Head& head, const u32* list, const Item* items, Rule rule,
                       float* logits, float* totals, Part* parts, u8* refused) {
    DYNAMIC_SHARED(shared);
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const Item it = items[blockIdx.x];
    const u32 steps = (h.width * Piece<KIND>::BYTES + STEP_BYTES - 1) / STEP_BYTES;
    const u64 column_bytes = (u64)steps * STEP_BYTES;
    const u32 all = steps * head.chunks;
    auto load = [&](u32 i) {
        if (i < all) {
            const char* columns = matrix + (u64)(i / steps) * CHUNK * column_bytes;
            load_step<KIND>(shared + i % STAGES * STAGE_BYTES, h, list, it, columns, column_bytes, i % steps);
        }
        cp_async_commit();
    };
    for (u32 i = 0; i < STAGES - 1; i++) load(i);
    float sums[4][2] = {};
    float acc[4][8][4];
    for (u32 i = 0; i < all; i++) {
        if (i % steps == 0) {
#pragma unroll
            for (u32 a = 0; a < 4; a++)
#pragma unroll
                for (u32 b = 0; b < 8; b++)
#pragma unroll
                    for (u32 c = 0; c < 4; c++) acc[a][b][c] = 0.0f;
        }
        cp_async_wait<STAGES - 2>();
        // All copies of this step are there, and nobody reads the stage that the next copy takes.
        __syncthreads();
        load(i + STAGES - 1);
        multiply_step<KIND>(acc, shared + i % STAGES * STAGE_BYTES, m, n);
        if (i % steps == steps - 1) {
            const u32 chunk = i / steps;
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
                            sums[a][y] += unit<KIND>(acc[a][j][2 * y + e] + v0, acc[a][j + 4][2 * y + e] + u0, w, w2, head.gated);
                }
            }
        }
    }
    cp_async_wait<0>();
    __syncthreads();
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
    auto piece_of = [&](u32 r, u32 c) { return load_piece<KIND>(h, row_of(list, it.first + r), c); };
    pool_item<KIND>(piece_of, h, it, blockIdx.x, rule, own, (char*)(own + ROWS), THREADS, 1, totals, parts, refused);
}

#define GATED_POOL(name, kind)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                      \
        name(Features h, const char* __restrict__ matrix, Head head, const u32* __restrict__ list, const Item* __restrict__ items, \
             Rule rule, float* logits, float* totals, Part* parts, u8* refused) {                                                 \
        gated_pool<kind>(h, matrix, head, list, items, rule, logits, totals, parts, refused);                                     \
    }

GATED_POOL(weir_gated_pool_mma_bf16, BF16)
GATED_POOL(weir_gated_pool_mma_f16, F16)
GATED_POOL(weir_gated_pool_mma_f32, F32)
