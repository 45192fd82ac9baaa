// A block's product for (c): an item's rows by the head's columns, through stages of shared memory and mma.sync. Used forward
// and, to make the hidden units again, backward.
#pragma once
#include "gated.cuh"

#define THREADS 256
#define STAGES 3
/// Bytes of a row of a stage: 64 of numbers, 16 so that eight rows lie in different banks.
#define STEP_BYTES 64
#define PITCH (STEP_BYTES + 16)
#define STAGE_BYTES ((ROWS + CHUNK) * PITCH)
#define SHARED_BYTES (STAGES * STAGE_BYTES)

/// Starts the copy of step `k` of the rows and of the head's columns `column..` into a stage.
template <class T>
DEVICE void load_step(char* stage, const Features& h, const u32* list, const Item& it, const char* columns, u64 column_bytes,
                      u32 step) {
    constexpr u32 COUNT = T::PIECE;
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
            cp_async16(to, (const char*)h.address + row * h.pitch + (valid ? (u64)c * T::BYTES : 0), valid);
        } else {
            store16(to, in ? load_piece<T>(h, row, c) : make_uint4(0, 0, 0, 0));
        }
    }
#pragma unroll
    for (u32 j = 0; j < CHUNK * 4 / THREADS; j++) {
        const u32 n = t / 4 + j * (THREADS / 4);
        cp_async16(stage + (ROWS + n) * PITCH + part * 16, columns + n * column_bytes + step * STEP_BYTES + part * 16);
    }
}

DEVICE void mma_m16n8k16(Bf16, float* d, const u32* a, const u32* b) { mma_m16n8k16_bf16(d, a, b); }
DEVICE void mma_m16n8k16(F16, float* d, const u32* a, const u32* b) { mma_m16n8k16_f16(d, a, b); }

/// One step of k for the warp's 64 rows and 32 + 32 columns.
template <class T>
DEVICE void multiply_step(float (&acc)[4][8][4], const char* stage, u32 m, u32 n) {
    const u32 lane = lane_id();
    if constexpr (!T::HALF) {
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
                for (u32 j = 0; j < 8; j++) mma_m16n8k16(T(), acc[i][j], a[i], &b[j / 2][j % 2 * 2]);
            }
        }
    }
}

/// All sums of the item's rows: chunk by chunk of the head, `done(chunk, acc)` when those of a chunk are complete. acc[a][j][x]:
/// row 64 m + 16 a + 8 (x / 2) + lane / 4; column 32 n + 8 j + 2 (lane % 4) + x % 2 of V, and with j - 4 of U.
template <class T, class Done>
DEVICE void product(char* shared, const Features& h, const char* matrix, u32 chunks, const u32* list, const Item& it, u32 m, u32 n,
                    Done done) {
    const u32 steps = (h.width * T::BYTES + STEP_BYTES - 1) / STEP_BYTES;
    const u64 column_bytes = (u64)steps * STEP_BYTES;
    const u32 all = steps * chunks;
    auto load = [&](u32 i) {
        if (i < all) {
            const char* columns = matrix + (u64)(i / steps) * CHUNK * column_bytes;
            load_step<T>(shared + i % STAGES * STAGE_BYTES, h, list, it, columns, column_bytes, i % steps);
        }
        cp_async_commit();
    };
    for (u32 i = 0; i < STAGES - 1; i++) load(i);
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
        multiply_step<T>(acc, shared + i % STAGES * STAGE_BYTES, m, n);
        if (i % steps == steps - 1) done(i / steps, acc);
    }
    cp_async_wait<0>();
    __syncthreads();
}
