// What a kernel may use of the machine: one function an idea, named as PTX names it.
//
// Kernels include this header and its neighbours alone, and none of them needs a CUDA header: NVRTC compiles them with no
// include folder on the user's machine. With WEIR_EMU defined, g++ takes the same kernels and the same names from
// emulator/primitives.h, where each function is written out for a CPU.
//
// Order: types, lanes, memory, conversions, cp.async, ldmatrix, mma.sync; then, for sm_90a, mbarrier, clusters, bulk
// copies, wgmma. Keep it when you add one, and add its emulated form.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

/// All lanes of a warp.
#define FULL_WARP 0xFFFFFFFFu

#if defined(WEIR_EMU)
#include "primitives.h"
#else

#define DEVICE static __device__ __forceinline__

/// `DYNAMIC_SHARED(name)` declares `char* name`, the block's dynamic shared memory, 128-byte aligned. In the kernel itself, with
/// the same name in all kernels of a file; functions get the pointer.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) char name[]

// ---- lanes --------------------------------------------------------------------------------------------------------------

/// The same number, of which the compiler knows nothing: what is made of it is made there, and not moved out of a loop.
DEVICE u32 opaque(u32 x) {
    asm volatile("" : "+r"(x));
    return x;
}

/// Place of this thread in its warp, 0..31. (%laneid)
DEVICE u32 lane_id() {
    u32 lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

/// Waits for `threads` threads (a multiple of 32) of the block at barrier `id` (1..15; 0 is __syncthreads). (bar.sync)
DEVICE void named_barrier_sync(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- memory -------------------------------------------------------------------------------------------------------------

/// The address that PTX instructions on shared memory want.
DEVICE u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

/// 16 bytes of read-only global memory that nobody reads again: past L1. `p` is 16-byte aligned.
/// (ld.global.nc.L1::no_allocate.v4)
DEVICE uint4 load_stream16(const void* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/// 16 bytes of global memory, kept in the caches. `p` is 16-byte aligned. (ld.global.v4)
DEVICE uint4 load16(const void* p) {
    return *(const uint4*)p;
}

/// Stores 16 bytes. `p` is 16-byte aligned. (st.v4)
DEVICE void store16(void* p, uint4 v) {
    *(uint4*)p = v;
}

/// Stores 16 bytes that nobody reads soon. `p` is 16-byte aligned, global. (st.global.cs.v4)
DEVICE void store_stream16(void* p, uint4 v) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/// What another block wrote, after its __threadfence: past L1, which is not coherent. (ld.global.cg)
DEVICE float load_l2(const float* p) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}

/// As above for 32 bits of any kind.
DEVICE u32 load_l2(const u32* p) {
    u32 v;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

/// As above for a byte.
DEVICE u8 load_l2(const u8* p) {
    u16 v;
    asm volatile("ld.global.cg.u8 %0, [%1];" : "=h"(v) : "l"(p) : "memory");
    return (u8)v;
}

/// A float of global memory, through L1, in its place among the other loads: the compiler moves it into no branch.
/// (ld.global)
DEVICE float load_one(const float* p) {
    float v;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}

/// Four of them. `p` is 16-byte aligned. (ld.global.v4)
DEVICE float4 load_four(const float* p) {
    float4 v;
    asm volatile("ld.global.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
    return v;
}

// ---- conversions --------------------------------------------------------------------------------------------------------

/// bf16 to f32, exact: it is the upper half.
DEVICE float bf16_to_f32(u16 v) {
    return __uint_as_float((u32)v << 16);
}

/// f32 to bf16, to nearest, ties to even; NaN stays a NaN. In integers, so that older architectures agree.
DEVICE u16 f32_to_bf16(float x) {
    u32 u = __float_as_uint(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (u16)((u >> 16) | 0x40u);
    return (u16)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

/// f16 to f32, exact. (cvt.f32.f16)
DEVICE float f16_to_f32(u16 v) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(v));
    return x;
}

/// f32 to f16, to nearest, ties to even. (cvt.rn.f16.f32)
DEVICE u16 f32_to_f16(float x) {
    u16 v;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(x));
    return v;
}

/// tanh within about 2^-11, one instruction; sm_75 and later. The emulator's is exact: not for `ordered-f32/1`.
/// (tanh.approx.f32)
DEVICE float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- cp.async: global to shared memory behind the thread's back, sm_80 and later -----------------------------------------

/// Starts a copy of 16 bytes, both 16-byte aligned; where `valid` is false it reads nothing and writes zeros.
/// (cp.async.cg.shared.global)
DEVICE void cp_async16(void* shared, const void* global, bool valid = true) {
    u32 bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}

/// Closes the group of the copies started since the last. (cp.async.commit_group)
DEVICE void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most `PENDING` of this thread's latest groups are under way; other threads' copies need a barrier after it.
/// (cp.async.wait_group)
template <int PENDING>
DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// ---- ldmatrix, mma.sync: a warp's matrix product, sm_80 and later --------------------------------------------------------

/// Four 8 x 8 matrices of 16-bit elements from shared memory: lanes 8m..8m+7 give the rows' addresses of matrix m (16-byte
/// aligned); register m of lane l holds elements 2(l%4), 2(l%4)+1 of row l/4. (ldmatrix.m8n8.x4)
DEVICE void ldmatrix_x4(u32* r, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// As ldmatrix_x4, but each matrix is transposed on the way. (ldmatrix.m8n8.x4.trans)
DEVICE void ldmatrix_x4_trans(u32* r, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// d (16 x 8, f32) += a (16 x 16, rows) * b (16 x 8, columns). Lane l, g = l/4, q = l%4:
/// d[0..2] row g, columns 2q, 2q+1; d[2..4] row g+8. a[0] row g, k 2q and 2q+1; a[1] row g+8; a[2], a[3] k + 8. b[0] k 2q,
/// 2q+1 of column g; b[1] k + 8. The lower half of a register is the smaller k. (mma.m16n8k16, bf16)
DEVICE void mma_m16n8k16_bf16(float* d, const u32* a, const u32* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The same for f16. (mma.m16n8k16, f16)
DEVICE void mma_m16n8k16_f16(float* d, const u32* a, const u32* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// d (16 x 8) += a (16 x 8, rows) * b (8 x 8, columns), operands f32 of which the upper 19 bits count. d as above; a[0] row g,
/// k q; a[1] row g+8; a[2], a[3] k + 4; b[0] k q of column g; b[1] k + 4. (mma.m16n8k8, tf32)
DEVICE void mma_m16n8k8_tf32(float* d, const u32* a, const u32* b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#if __CUDA_ARCH__ >= 900

// ---- mbarrier: a barrier in shared memory that counts arrivals and bytes, sm_90 -------------------------------------------

/// Sets a barrier (8 bytes of shared memory, 8-byte aligned) up for `arrivals` arrivals a phase. One thread, followed by
/// mbarrier_init_fence and a barrier of the block or cluster. (mbarrier.init)
DEVICE void mbarrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

/// Makes initialised barriers visible to the cluster and to bulk copies. (fence.mbarrier_init)
DEVICE void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Arrives once. (mbarrier.arrive)
DEVICE void mbarrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

/// Arrives once and makes the phase wait for `bytes` bytes of bulk copies too. (mbarrier.arrive.expect_tx)
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}

/// Arrives once at the barrier that lies at the same place in block `rank` of the cluster: to say that memory is free, and no
/// more. It publishes nothing: what would (release at the cluster's scope) is a fence of all memory in each warp and step. (mapa,
/// mbarrier.arrive)
DEVICE void mbarrier_arrive_remote(u64* barrier, u32 rank) {
    asm volatile("{\n .reg .b32 remote;\n mapa.shared::cluster.u32 remote, %0, %1;\n"
                 " mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(shared_address(barrier)),
                 "r"(rank)
                 : "memory");
}

/// Waits until the phase of this parity is complete: phase 0 has parity 0; a fresh barrier lets parity 1 through.
/// (mbarrier.try_wait.parity)
DEVICE void mbarrier_wait(u64* barrier, u32 parity) {
    asm volatile("{\n .reg .pred done;\n AGAIN:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 " @!done bra AGAIN;\n}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

// ---- clusters: blocks that run together and see each other's shared memory, sm_90 -----------------------------------------

/// Place of this block in its cluster. (%cluster_ctarank)
DEVICE u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/// First half of a barrier of all threads of the cluster. (barrier.cluster.arrive)
DEVICE void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

/// Second half. (barrier.cluster.wait)
DEVICE void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Both.
DEVICE void cluster_sync() {
    cluster_arrive();
    cluster_wait();
}

// ---- cp.async.bulk: a range of bytes at once, counted by an mbarrier, sm_90 -----------------------------------------------

/// Makes this thread's writes to shared memory visible to bulk copies and wgmma. (fence.proxy.async)
DEVICE void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Starts a copy of `bytes` (a multiple of 16; both ends 16-byte aligned) into this block's shared memory; `barrier` counts
/// the bytes. (cp.async.bulk)
DEVICE void bulk_copy(void* shared, const void* global, u32 bytes, u64* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

/// The same into every block of the cluster whose bit is set in `blocks`, at the same places; each block's barrier counts.
/// (cp.async.bulk, .multicast::cluster)
DEVICE void bulk_copy_multicast(void* shared, const void* global, u32 bytes, u64* barrier, u16 blocks) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier)), "h"(blocks)
        : "memory");
}

#endif  // sm_90

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// ---- wgmma: a warpgroup's matrix product, operand B (and A) from shared memory, sm_90a ------------------------------------

/// Gives registers back, so that others may take them. A whole warpgroup. (setmaxnreg.dec)
template <int REGISTERS>
DEVICE void registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/// Takes them. (setmaxnreg.inc)
template <int REGISTERS>
DEVICE void registers_increase() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/// Describes a K-major operand without swizzle, made of core matrices: 8 rows of 16 bytes, 128 bytes in a row. `next_k` bytes
/// lie between neighbours along k, `next_rows` between neighbours along m or n. Row r, element k of 16 bits stands at
/// (r/8) next_rows + (k/8) next_k + (r%8) 16 + (k%8) 2. All are multiples of 16. (matrix descriptor: start, LBO, SBO)
DEVICE u64 wgmma_descriptor(const void* shared, u32 next_k, u32 next_rows) {
    return (u64)((shared_address(shared) & 0x3FFFFu) >> 4) | ((u64)(next_k >> 4) << 16) | ((u64)(next_rows >> 4) << 32);
}

/// Orders the warpgroup's registers before its next products: once before each batch. (wgmma.fence)
DEVICE void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// Closes a batch. (wgmma.commit_group)
DEVICE void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most `PENDING` batches are under way; until then nobody may touch their accumulators or operands.
/// (wgmma.wait_group)
template <int PENDING>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/// After a wait for all batches, before the results are read: without it a compiler may move a read above the wait.
DEVICE void wgmma_results(float (&d)[128]) {
#pragma unroll
    for (u32 i = 0; i < 128; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define WEIR_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WEIR_D16(i) WEIR_D4(i), WEIR_D4(i + 4), WEIR_D4(i + 8), WEIR_D4(i + 12)
#define WEIR_D128 \
    WEIR_D16(0), WEIR_D16(16), WEIR_D16(32), WEIR_D16(48), WEIR_D16(64), WEIR_D16(80), WEIR_D16(96), WEIR_D16(112)
#define WEIR_NAMES128 \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31," \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63," \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95," \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}"
#define WEIR_WGMMA_A_REGISTERS(TYPE) \
    asm volatile("{\n .reg .pred add;\n setp.ne.b32 add, %133, 0;\n" \
                 " wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE " " WEIR_NAMES128 \
                 ", {%128,%129,%130,%131}, %132, add, 1, 1, 0;\n}" \
                 : WEIR_D128 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)accumulate))
#define WEIR_WGMMA_A_SHARED(TYPE) \
    asm volatile("{\n .reg .pred add;\n setp.ne.b32 add, %130, 0;\n" \
                 " wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE " " WEIR_NAMES128 \
                 ", %128, %129, add, 1, 1, 0, 0;\n}" \
                 : WEIR_D128 \
                 : "l"(a), "l"(b), "r"((int)accumulate))

/// d (64 x 256, f32) = a (64 x 16) * b (16 x 256), plus d where `accumulate`. Warp w of the group holds rows 16w..16w+15; lane
/// l, g = l/4, q = l%4: d[4j], d[4j+1] row g, columns 8j+2q, 8j+2q+1; d[4j+2], d[4j+3] row g+8. `a` as mma_m16n8k16's, by each
/// warp for its rows; `b` a descriptor, rows n. (wgmma.m64n256k16, bf16)
DEVICE void wgmma_m64n256k16_bf16(float (&d)[128], const u32 (&a)[4], u64 b, bool accumulate) {
    WEIR_WGMMA_A_REGISTERS("bf16");
}

/// The same with `a` by descriptor, 64 rows m.
DEVICE void wgmma_m64n256k16_bf16(float (&d)[128], u64 a, u64 b, bool accumulate) {
    WEIR_WGMMA_A_SHARED("bf16");
}

/// The same for f16. (wgmma.m64n256k16, f16)
DEVICE void wgmma_m64n256k16_f16(float (&d)[128], const u32 (&a)[4], u64 b, bool accumulate) {
    WEIR_WGMMA_A_REGISTERS("f16");
}

/// The same for f16 with `a` by descriptor.
DEVICE void wgmma_m64n256k16_f16(float (&d)[128], u64 a, u64 b, bool accumulate) {
    WEIR_WGMMA_A_SHARED("f16");
}

#endif  // sm_90a
#endif  // WEIR_EMU
