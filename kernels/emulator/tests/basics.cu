// Small kernels that each use one thing of the machine: what the emulator is held against.
#include "device.cuh"

#define THREADS 128

/// Sums `n` floats in order of arrival at a shared table: right only with its barrier.
extern "C" __global__ void __launch_bounds__(THREADS) emu_reverse(const float* in, float* out, int n) {
    DYNAMIC_SHARED(shared);
    float* row = (float*)shared;
    const int t = threadIdx.x, i = blockIdx.x * THREADS + t;
    row[t] = i < n ? in[i] : 0.0f;
    __syncthreads();
    if (i < n) out[i] = row[THREADS - 1 - t];
}
