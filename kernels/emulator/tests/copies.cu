// Copies behind the threads' backs: cp.async by groups, bulk copies by mbarrier, multicast in a cluster.
#include "device.cuh"

#define STAGES 3
#define ROW 512

/// Copies rows of 512 bytes through a ring of three, each lane by way of its neighbour's 16 bytes.
extern "C" __global__ void __launch_bounds__(32) emu_pipeline(const u32* in, u32* out, int rows) {
    DYNAMIC_SHARED(shared);
    const u32 lane = threadIdx.x;
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < rows) cp_async16(shared + s * ROW + 16 * lane, in + 128 * s + 4 * lane);
        cp_async_commit();
    }
    for (int r = 0; r < rows; r++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        const int ahead = r + STAGES - 1;
        if (ahead < rows) cp_async16(shared + ahead % STAGES * ROW + 16 * lane, in + 128 * ahead + 4 * lane);
        cp_async_commit();
        const u32 other = (lane + 1) % 32;
        store16(out + 128 * r + 4 * other, load16(shared + r % STAGES * ROW + 16 * other));
    }
}

/// Copies rows of 512 bytes: warp 0 brings them by bulk copies, warp 1 takes them out.
extern "C" __global__ void __launch_bounds__(64) emu_bulk(const u32* in, u32* out, int rows) {
    DYNAMIC_SHARED(shared);
    u64* full = (u64*)(shared + 2 * ROW);
    u64* empty = full + 2;
    if (threadIdx.x == 0) {
        for (int s = 0; s < 2; s++) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        if (threadIdx.x == 0)
            for (int r = 0; r < rows; r++) {
                const int s = r % 2;
                mbarrier_wait(empty + s, (r / 2 + 1) & 1);
                mbarrier_arrive_expect(full + s, ROW);
                bulk_copy(shared + s * ROW, in + 128 * r, ROW, full + s);
            }
    } else {
        const u32 lane = lane_id();
        for (int r = 0; r < rows; r++) {
            const int s = r % 2;
            mbarrier_wait(full + s, (r / 2) & 1);
            store16(out + 128 * r + 4 * lane, load16(shared + s * ROW + 16 * lane));
            mbarrier_arrive(empty + s);
        }
    }
}

/// Two blocks copy rows of 512 bytes, each bringing half of a row to both; `out` holds each block's rows.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(32) emu_cluster(const u32* in, u32* out, int rows) {
    DYNAMIC_SHARED(shared);
    u64* full = (u64*)(shared + ROW);
    u64* empty = full + 1;
    const u32 rank = cluster_rank(), lane = threadIdx.x;
    if (lane == 0) {
        mbarrier_init(full, 1);
        mbarrier_init(empty, 2);
        mbarrier_init_fence();
    }
    cluster_sync();
    for (int r = 0; r < rows; r++) {
        if (lane == 0) {
            mbarrier_wait(empty, (r + 1) & 1);
            mbarrier_arrive_expect(full, ROW);
            bulk_copy_multicast(shared + rank * (ROW / 2), in + 128 * r + rank * 64, ROW / 2, full, 3);
        }
        mbarrier_wait(full, r & 1);
        store16(out + (rank * rows + r) * 128 + 4 * lane, load16(shared + 16 * lane));
        __syncwarp();
        if (lane < 2) mbarrier_arrive_remote(empty, lane);
    }
    cluster_sync();
}
