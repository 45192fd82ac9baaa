// What NVRTC knows without a header, for g++: CUDA's words, its vector types, its intrinsics.
//
// `__shared__` variables are not emulated: kernels take DYNAMIC_SHARED, whose size the launch says and the emulator holds.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "thread.h"

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct float3 { float x, y, z; };
struct uint3 { unsigned x, y, z; };

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)
#define __restrict__ __restrict
// Tests look for the words below in the preprocessed text to find kernels, their cluster and their bounds.
#if !defined(WEIR_EMU_SCAN)
#define __global__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#endif

#define threadIdx (emu::running->thread)
#define blockIdx (emu::running->block)
#define blockDim (emu::running->block_size)
#define gridDim (emu::running->grid_size)
#define warpSize 32

#define WEIR_WHERE const emu::Where& where = emu::Where::current()

// ---- barriers, votes, shuffles ------------------------------------------------------------------------------------------

inline void __syncthreads(WEIR_WHERE) { emu::barrier(0, 0, false, emu::Sum::None, where); }
inline int __syncthreads_count(int yes, WEIR_WHERE) { return emu::barrier(0, 0, yes != 0, emu::Sum::Count, where); }
inline int __syncthreads_and(int yes, WEIR_WHERE) { return emu::barrier(0, 0, yes != 0, emu::Sum::And, where); }
inline int __syncthreads_or(int yes, WEIR_WHERE) { return emu::barrier(0, 0, yes != 0, emu::Sum::Or, where); }

inline void __syncwarp(unsigned mask = ~0u, WEIR_WHERE) { emu::sync_warp(mask, where); }
inline unsigned __ballot_sync(unsigned mask, int yes, WEIR_WHERE) { return emu::ballot(mask, yes != 0, "__ballot_sync", where); }
inline int __any_sync(unsigned mask, int yes, WEIR_WHERE) { return emu::ballot(mask, yes != 0, "__any_sync", where) != 0; }
inline int __all_sync(unsigned mask, int yes, WEIR_WHERE) { return emu::ballot(mask, yes == 0, "__all_sync", where) == 0; }

namespace emu {
/// Shuffles within parts of `width` lanes: a lane outside the part means the own value.
template <class T>
T shuffle_within(unsigned mask, T v, int source, int width, const char* operation, const Where& where) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    const int lane = (int)(running->linear % 32), first = lane / width * width;
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = shuffle(mask, bits, (unsigned)(source < first || source >= first + width ? lane : source), operation, where);
    memcpy(&v, &bits, sizeof v);
    return v;
}
inline int lane() { return (int)(running->linear % 32); }
}  // namespace emu

template <class T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32, WEIR_WHERE) {
    return emu::shuffle_within(mask, v, emu::lane() / width * width + (lane & (width - 1)), width, "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, WEIR_WHERE) {
    return emu::shuffle_within(mask, v, emu::lane() ^ with, width, "__shfl_xor_sync", where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, WEIR_WHERE) {
    return emu::shuffle_within(mask, v, emu::lane() - (int)by, width, "__shfl_up_sync", where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, WEIR_WHERE) {
    return emu::shuffle_within(mask, v, emu::lane() + (int)by, width, "__shfl_down_sync", where);
}

// ---- memory -------------------------------------------------------------------------------------------------------------

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T>
T __ldg(const T* p) { return *p; }

template <class T>
T atomicAdd(T* p, T v) {
    if constexpr (__is_same(T, float)) {
        // Only planted bugs add floats: the order of arrival decides the bits.
        unsigned seen = __atomic_load_n((unsigned*)p, __ATOMIC_SEQ_CST), wanted;
        float sum;
        do {
            memcpy(&sum, &seen, 4);
            const float total = sum + v;
            memcpy(&wanted, &total, 4);
        } while (!__atomic_compare_exchange_n((unsigned*)p, &seen, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
        return sum;
    } else {
        return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
    }
}
template <class T>
T atomicSub(T* p, T v) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); }
template <class T>
T atomicOr(T* p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
template <class T>
T atomicAnd(T* p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }
template <class T>
T atomicExch(T* p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
template <class T>
T atomicCAS(T* p, T seen, T wanted) {
    __atomic_compare_exchange_n(p, &seen, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return seen;
}
template <class T>
T atomicMax(T* p, T v) {
    T seen = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (seen < v && !__atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return seen;
}
template <class T>
T atomicMin(T* p, T v) {
    T seen = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (v < seen && !__atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return seen;
}

// ---- arithmetic ---------------------------------------------------------------------------------------------------------

inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline float __int_as_float(int u) { float f; memcpy(&f, &u, 4); return f; }
inline int __float_as_int(float f) { int u; memcpy(&u, &f, 4); return u; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
/// NaN gives 0 and what does not fit the nearest that does, as the machine does it.
inline int __float2int_rn(float a) { return !(a == a) ? 0 : a >= 2147483648.0f ? 2147483647 : a < -2147483648.0f ? (-2147483647 - 1) : (int)rintf(a); }
inline int __float2int_rz(float a) { return !(a == a) ? 0 : a >= 2147483648.0f ? 2147483647 : a < -2147483648.0f ? (-2147483647 - 1) : (int)a; }
inline float __int2float_rn(int a) { return (float)a; }
inline int __popc(unsigned u) { return __builtin_popcount(u); }
inline int __popcll(unsigned long long u) { return __builtin_popcountll(u); }
inline int __clz(int u) { return u ? __builtin_clz((unsigned)u) : 32; }
inline int __clzll(long long u) { return u ? __builtin_clzll((unsigned long long)u) : 64; }
inline int __ffs(int u) { return __builtin_ffs(u); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }

#define WEIR_MIN_MAX(T) \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
WEIR_MIN_MAX(int)
WEIR_MIN_MAX(unsigned)
WEIR_MIN_MAX(long)
WEIR_MIN_MAX(unsigned long)
WEIR_MIN_MAX(long long)
WEIR_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
using std::isfinite;
using std::isinf;
using std::isnan;
