// Matrix products by warp and by warpgroup.
#include "device.cuh"

/// out (16 x 8) = a (16 x 16, rows) * b (8 x 16, rows of columns).
template <bool F16>
DEVICE void warp_product(char* shared, const u16* a, const u16* b, float* out) {
    u16* rows = (u16*)shared;
    u16* columns = rows + 16 * 24;
    const u32 lane = lane_id();
    for (u32 i = lane; i < 256; i += 32) rows[i / 16 * 24 + i % 16] = a[i];
    // ldmatrix_x4 takes four matrices: here b's two and those once more.
    for (u32 i = lane; i < 128; i += 32) columns[i / 16 * 24 + i % 16] = b[i];
    __syncthreads();
    u32 A[4], B[4];
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    ldmatrix_x4(A, rows + (lane & 15) * 24 + (lane >> 4) * 8);
    ldmatrix_x4(B, columns + (lane & 7) * 24 + ((lane >> 3) & 1) * 8);
    if (F16)
        mma_m16n8k16_f16(d, A, B);
    else
        mma_m16n8k16_bf16(d, A, B);
    for (u32 e = 0; e < 4; e++) out[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = d[e];
}

extern "C" __global__ void __launch_bounds__(32) emu_mma_bf16(const u16* a, const u16* b, float* out) {
    DYNAMIC_SHARED(shared);
    warp_product<false>(shared, a, b, out);
}

extern "C" __global__ void __launch_bounds__(32) emu_mma_f16(const u16* a, const u16* b, float* out) {
    DYNAMIC_SHARED(shared);
    warp_product<true>(shared, a, b, out);
}

/// out (16 x 8) = a (16 x 8, rows) * b (8 x 8, rows of columns), tf32.
extern "C" __global__ void __launch_bounds__(32) emu_mma_tf32(const u32* a, const u32* b, float* out) {
    const u32 lane = lane_id(), g = lane / 4, q = lane % 4;
    const u32 A[4] = {a[g * 8 + q], a[(g + 8) * 8 + q], a[g * 8 + q + 4], a[(g + 8) * 8 + q + 4]};
    const u32 B[2] = {b[g * 8 + q], b[g * 8 + q + 4]};
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_m16n8k8_tf32(d, A, B);
    for (u32 e = 0; e < 4; e++) out[(g + e / 2 * 8) * 8 + q * 2 + e % 2] = d[e];
}

/// out[c][r] = in[r][c] of 8 x 8 matrices of 16 bits, four in a row.
extern "C" __global__ void __launch_bounds__(32) emu_transpose(const u16* in, u16* out) {
    DYNAMIC_SHARED(shared);
    u16* m = (u16*)shared;
    const u32 lane = lane_id();
    for (u32 i = lane; i < 256; i += 32) m[i] = in[i];
    __syncthreads();
    u32 r[4];
    ldmatrix_x4_trans(r, m + lane * 8);
    for (u32 k = 0; k < 4; k++)
        for (u32 half = 0; half < 2; half++) out[k * 64 + lane / 4 * 8 + lane % 4 * 2 + half] = (u16)(r[k] >> (16 * half));
}

#if defined(WEIR_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define DEPTH 32
#define A_ROW (DEPTH + 8)
#define B_STEP (256 * 16 * 2)

/// out (64 x 256) = a (64 x 32, rows) * b (256 x 32, rows of columns), by one warpgroup: a from registers, b in core matrices.
extern "C" __global__ void __launch_bounds__(128) emu_wgmma_registers(const u16* a, const u16* b, float* out) {
    DYNAMIC_SHARED(shared);
    u16* B = (u16*)shared;
    u16* A = B + 256 * DEPTH;
    const u32 t = threadIdx.x, lane = lane_id(), warp = t / 32;
    for (u32 i = t; i < 256 * DEPTH; i += 128) {
        const u32 n = i / DEPTH, k = i % DEPTH;
        B[k / 8 * 2048 + n * 8 + k % 8] = b[i];
    }
    for (u32 i = t; i < 64 * DEPTH; i += 128) A[i / DEPTH * A_ROW + i % DEPTH] = a[i];
    fence_proxy_async();
    __syncthreads();
    float d[128];
    u32 registers[DEPTH / 16][4];
    for (u32 s = 0; s < DEPTH / 16; s++) ldmatrix_x4(registers[s], A + (warp * 16 + (lane & 15)) * A_ROW + s * 16 + (lane >> 4) * 8);
    wgmma_fence();
    for (u32 s = 0; s < DEPTH / 16; s++)
        wgmma_m64n256k16_bf16(d, registers[s], wgmma_descriptor(B + s * B_STEP / 2, 4096, 128), s > 0);
    wgmma_commit();
    wgmma_wait<0>();
    for (u32 i = 0; i < 128; i++) {
        const u32 row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        out[row * 256 + column] = d[i];
    }
}

/// The same in f16 with a by descriptor.
extern "C" __global__ void __launch_bounds__(128) emu_wgmma_shared(const u16* a, const u16* b, float* out) {
    DYNAMIC_SHARED(shared);
    u16* B = (u16*)shared;
    u16* A = B + 256 * DEPTH;
    const u32 t = threadIdx.x, lane = lane_id(), warp = t / 32;
    for (u32 i = t; i < 256 * DEPTH; i += 128) {
        const u32 n = i / DEPTH, k = i % DEPTH;
        B[k / 8 * 2048 + n * 8 + k % 8] = b[i];
    }
    for (u32 i = t; i < 64 * DEPTH; i += 128) {
        const u32 m = i / DEPTH, k = i % DEPTH;
        A[k / 8 * 512 + m * 8 + k % 8] = a[i];
    }
    fence_proxy_async();
    __syncthreads();
    float d[128];
    wgmma_fence();
    for (u32 s = 0; s < DEPTH / 16; s++)
        wgmma_m64n256k16_f16(d, wgmma_descriptor(A + s * 1024, 1024, 128), wgmma_descriptor(B + s * B_STEP / 2, 4096, 128), s > 0);
    wgmma_commit();
    wgmma_wait<0>();
    for (u32 i = 0; i < 128; i++) {
        const u32 row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        out[row * 256 + column] = d[i];
    }
}

#endif
