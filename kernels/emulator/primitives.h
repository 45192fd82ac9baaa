// device.cuh's primitives on a CPU: the same names, in the same order.
#pragma once
#include "asynchronous.h"
#include "language.h"
#include "matrix.h"
#include "numbers.h"

#define DEVICE static inline
#define DYNAMIC_SHARED(name) char* name = emu::running->shared

// ---- lanes --------------------------------------------------------------------------------------------------------------

DEVICE u32 opaque(u32 x) { return x; }
DEVICE u32 lane_id() { return emu::running->linear % 32; }
DEVICE void named_barrier_sync(u32 id, u32 threads, WEIR_WHERE) { emu::barrier(id, threads, false, emu::Sum::None, where); }

// ---- memory -------------------------------------------------------------------------------------------------------------

DEVICE uint4 load16(const void* p, WEIR_WHERE) {
    if ((uintptr_t)p % 16) emu::report(where, "MISALIGNED load of 16 bytes at %p", p);
    uint4 v;
    memcpy(&v, p, 16);
    return v;
}
DEVICE uint4 load_stream16(const void* p, WEIR_WHERE) { return load16(p, where); }
DEVICE void store16(void* p, uint4 v, WEIR_WHERE) {
    if ((uintptr_t)p % 16) emu::report(where, "MISALIGNED store of 16 bytes at %p", p);
    memcpy(p, &v, 16);
}
DEVICE void store_stream16(void* p, uint4 v, WEIR_WHERE) { store16(p, v, where); }
DEVICE float load_one(const float* p) { return *p; }
DEVICE float4 load_four(const float* p, WEIR_WHERE) {
    if ((uintptr_t)p % 16) emu::report(where, "MISALIGNED load of 16 bytes at %p", p);
    float4 v;
    memcpy(&v, p, 16);
    return v;
}
DEVICE float load_l2(const float* p) { return emu::float_of(__atomic_load_n((const u32*)p, __ATOMIC_SEQ_CST)); }
DEVICE u32 load_l2(const u32* p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
DEVICE u8 load_l2(const u8* p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

// ---- conversions --------------------------------------------------------------------------------------------------------

DEVICE float bf16_to_f32(u16 v) { return emu::from_bf16(v); }
DEVICE u16 f32_to_bf16(float x) { return emu::to_bf16(x); }
DEVICE float f16_to_f32(u16 v) { return emu::from_f16(v); }
DEVICE u16 f32_to_f16(float x) { return emu::to_f16(x); }
// The instruction is off by up to 2^-11 of the result: here by a part of that which hangs on x alone.
DEVICE float tanh_approx(float x) {
    u32 bits;
    __builtin_memcpy(&bits, &x, 4);
    bits = (bits ^ bits >> 15) * 0x2c1b3c6du;
    bits = (bits ^ bits >> 12) * 0x297a2d39u;
    const float part = (float)(int)((bits ^ bits >> 15) & 0xffffu) / 32767.5f - 1.0f;
    const float off = tanhf(x) * (1.0f + part * 0x1p-11f);
    return off > 1.0f ? 1.0f : off < -1.0f ? -1.0f : off;
}

// ---- cp.async -----------------------------------------------------------------------------------------------------------

DEVICE void cp_async16(void* shared, const void* global, bool valid = true, WEIR_WHERE) { emu::cp_async16(shared, global, valid, where); }
DEVICE void cp_async_commit() { emu::cp_async_commit(); }
template <int PENDING>
DEVICE void cp_async_wait() { emu::cp_async_wait(PENDING); }

// ---- ldmatrix, mma.sync -------------------------------------------------------------------------------------------------

DEVICE void ldmatrix_x4(u32* r, const void* row, WEIR_WHERE) { emu::ldmatrix_x4(r, row, false, where); }
DEVICE void ldmatrix_x4_trans(u32* r, const void* row, WEIR_WHERE) { emu::ldmatrix_x4(r, row, true, where); }
DEVICE void mma_m16n8k16_bf16(float* d, const u32* a, const u32* b, WEIR_WHERE) { emu::mma_m16n8k16(d, a, b, false, where); }
DEVICE void mma_m16n8k16_f16(float* d, const u32* a, const u32* b, WEIR_WHERE) { emu::mma_m16n8k16(d, a, b, true, where); }
DEVICE void mma_m16n8k8_tf32(float* d, const u32* a, const u32* b, WEIR_WHERE) { emu::mma_m16n8k8_tf32(d, a, b, where); }

// ---- mbarrier -----------------------------------------------------------------------------------------------------------

DEVICE void mbarrier_init(u64* barrier, u32 arrivals, WEIR_WHERE) { emu::mbarrier_init(barrier, arrivals, where); }
DEVICE void mbarrier_init_fence() {}
DEVICE void mbarrier_arrive(u64* barrier, WEIR_WHERE) { emu::mbarrier_arrive(barrier, 0, where); }
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes, WEIR_WHERE) { emu::mbarrier_arrive(barrier, bytes, where); }
DEVICE void mbarrier_arrive_remote(u64* barrier, u32 rank, WEIR_WHERE) { emu::mbarrier_arrive_remote(barrier, rank, where); }
DEVICE void mbarrier_wait(u64* barrier, u32 parity, WEIR_WHERE) { emu::mbarrier_wait(barrier, parity, where); }

// ---- clusters -----------------------------------------------------------------------------------------------------------

DEVICE u32 cluster_rank() { return emu::running->rank; }
DEVICE void cluster_arrive(WEIR_WHERE) { emu::cluster_arrive(where); }
DEVICE void cluster_wait(WEIR_WHERE) { emu::cluster_wait(where); }
DEVICE void cluster_sync(WEIR_WHERE) {
    emu::cluster_arrive(where);
    emu::cluster_wait(where);
}

// ---- cp.async.bulk ------------------------------------------------------------------------------------------------------

DEVICE void fence_proxy_async() {}
DEVICE void bulk_copy(void* shared, const void* global, u32 bytes, u64* barrier, WEIR_WHERE) {
    emu::bulk_copy(shared, global, bytes, barrier, (u16)(1u << emu::running->rank), where);
}
DEVICE void bulk_copy_multicast(void* shared, const void* global, u32 bytes, u64* barrier, u16 blocks, WEIR_WHERE) {
    emu::bulk_copy(shared, global, bytes, barrier, blocks, where);
}

// ---- wgmma --------------------------------------------------------------------------------------------------------------

template <int REGISTERS>
DEVICE void registers_decrease() { static_assert(REGISTERS >= 24 && REGISTERS <= 256 && REGISTERS % 8 == 0); }
template <int REGISTERS>
DEVICE void registers_increase() { static_assert(REGISTERS >= 24 && REGISTERS <= 256 && REGISTERS % 8 == 0); }
DEVICE u64 wgmma_descriptor(const void* shared, u32 next_k, u32 next_rows, WEIR_WHERE) {
    return emu::wgmma_descriptor(shared, next_k, next_rows, where);
}
DEVICE void wgmma_fence() { emu::wgmma_fence(); }
DEVICE void wgmma_commit(WEIR_WHERE) { emu::wgmma_commit(where); }
template <int PENDING>
DEVICE void wgmma_wait(WEIR_WHERE) { emu::wgmma_wait(PENDING, where); }
DEVICE void wgmma_results(float (&)[128]) {}
DEVICE void wgmma_m64n256k16_bf16(float (&d)[128], const u32 (&a)[4], u64 b, bool accumulate, WEIR_WHERE) {
    emu::wgmma_m64n256k16(d, a, 0, b, accumulate, false, where);
}
DEVICE void wgmma_m64n256k16_bf16(float (&d)[128], u64 a, u64 b, bool accumulate, WEIR_WHERE) {
    emu::wgmma_m64n256k16(d, nullptr, a, b, accumulate, false, where);
}
DEVICE void wgmma_m64n256k16_f16(float (&d)[128], const u32 (&a)[4], u64 b, bool accumulate, WEIR_WHERE) {
    emu::wgmma_m64n256k16(d, a, 0, b, accumulate, true, where);
}
DEVICE void wgmma_m64n256k16_f16(float (&d)[128], u64 a, u64 b, bool accumulate, WEIR_WHERE) {
    emu::wgmma_m64n256k16(d, nullptr, a, b, accumulate, true, where);
}
