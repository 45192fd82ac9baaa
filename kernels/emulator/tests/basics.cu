// The smallest kernel that needs shared memory and a barrier.
#include "device.cuh"

#define THREADS 128

/// Turns each block's row of 128 floats round; past the end of `in` stand zeros.
extern "C" __global__ void __launch_bounds__(THREADS) emu_reverse(const float* in, float* out, int n) {
    DYNAMIC_SHARED(shared);
    float* row = (float*)shared;
    const int t = threadIdx.x, i = blockIdx.x * THREADS + t;
    row[t] = i < n ? in[i] : 0.0f;
    __syncthreads();
    if (i < n) out[i] = row[THREADS - 1 - t];
}
