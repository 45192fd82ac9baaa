// Threads of a block and a warp: barriers, votes, shuffles, the order of blocks.
#include "device.cuh"

#define THREADS 128

/// The sum of `in`, a block a row of 128: by shuffles within a warp, in the order of warps within a block, and in the order
/// of blocks by the block that comes last. `*count` is 0 before and after.
extern "C" __global__ void __launch_bounds__(THREADS) emu_total(const float* in, float* parts, u32* count, float* out) {
    DYNAMIC_SHARED(shared);
    float* warps = (float*)shared;
    const u32 t = threadIdx.x;
    float x = in[blockIdx.x * THREADS + t];
    for (int step = 16; step; step >>= 1) x = __fadd_rn(x, __shfl_xor_sync(FULL_WARP, x, step));
    if (lane_id() == 0) warps[t / 32] = x;
    __syncthreads();
    if (t != 0) return;
    float sum = 0.0f;
    for (int w = 0; w < THREADS / 32; w++) sum = __fadd_rn(sum, warps[w]);
    parts[blockIdx.x] = sum;
    __threadfence();
    if (atomicAdd(count, 1u) != gridDim.x - 1) return;
    float total = 0.0f;
    for (u32 b = 0; b < gridDim.x; b++) total = __fadd_rn(total, load_l2(parts + b));
    *out = total;
    *count = 0;
}

/// What each lane of a warp gets from seven collective operations, seven numbers a lane.
extern "C" __global__ void __launch_bounds__(32) emu_lanes(u32* out) {
    const u32 lane = lane_id(), v = 100 + lane;
    u32* mine = out + 7 * lane;
    mine[0] = __shfl_sync(FULL_WARP, v, 5);
    mine[1] = __shfl_up_sync(FULL_WARP, v, 3);
    mine[2] = __shfl_down_sync(FULL_WARP, v, 3);
    mine[3] = __shfl_xor_sync(FULL_WARP, v, 1, 8);
    mine[4] = __ballot_sync(FULL_WARP, lane % 3 == 0);
    mine[5] = lane < 16 ? __shfl_xor_sync(0x0000FFFFu, v, 15) : __shfl_xor_sync(0xFFFF0000u, v, 8);
    mine[6] = (u32)__syncthreads_count(lane % 5 == 0);
}

/// Warp 0 hands rows of 32 numbers to warp 1 through one buffer: barrier 1 says full, barrier 2 says empty.
extern "C" __global__ void __launch_bounds__(64) emu_hand_over(const u32* in, u32* out, int rows) {
    DYNAMIC_SHARED(shared);
    u32* row = (u32*)shared;
    const u32 lane = lane_id();
    if (threadIdx.x < 32) {
        for (int r = 0; r < rows; r++) {
            if (r > 0) named_barrier_sync(2, 64);
            row[lane] = in[32 * r + lane];
            named_barrier_sync(1, 64);
        }
    } else {
        for (int r = 0; r < rows; r++) {
            named_barrier_sync(1, 64);
            out[32 * r + lane] = row[31 - lane];
            if (r + 1 < rows) named_barrier_sync(2, 64);
        }
    }
}

/// f32 to f16 and bf16 and back.
extern "C" __global__ void __launch_bounds__(THREADS) emu_convert(const float* in, u16* f16, u16* bf16, float* f16_back, float* bf16_back, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    f16[i] = f32_to_f16(in[i]);
    bf16[i] = f32_to_bf16(in[i]);
    f16_back[i] = f16_to_f32(f16[i]);
    bf16_back[i] = bf16_to_f32(bf16[i]);
}

/// Copies 16 bytes a thread.
extern "C" __global__ void __launch_bounds__(THREADS) emu_wide(const u32* in, u32* out) {
    store16(out + 4 * threadIdx.x, load_stream16(in + 4 * threadIdx.x));
}
