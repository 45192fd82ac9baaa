// (c) on sm_90a: attention head, numerators and pool of an item of 128 rows by one block of a pair; the bag's last block
// merges and weighs.
//
//   warpgroup 2 (producer)                 ring of stages in shared memory              warpgroups 0, 1: 64 rows each
//   rows, 16-byte pieces   ──cp.async──►  rows    128 x 64   (16 KiB)  ──┐
//   head, half a tile each ──bulk, to──►  columns 256 x 64   (32 KiB)  ──┴─ wgmma ─► 64 x 256 sums in registers, then
//   block of the pair        both blocks                                             tanh * sigmoid * w, 128 units at once
//
// A chunk's columns are 128 units of V and the same of U, so that a thread has both pre-activations of a unit. The head is
// packed once as core matrices (8 columns of 16 bytes), so a stage's columns are one contiguous copy; each block of the pair
// fetches half of it for both, which halves what the head costs in L2. Up to RESIDENT steps of 64 components the rows stay in
// shared memory and are read once; wider ones come again from L2 for each further chunk and for the pool.
//
// An item, never the number of multiprocessors, says what is summed with what.
//
// Needs: sm_90a
#include "gated.cuh"

#define CONSUMERS 256
#define PRODUCERS 128
#define THREADS (CONSUMERS + PRODUCERS)
/// Components of a step.
#define STEP 64
/// From a row's piece of 8 components to its next: 16 bytes more than 128 rows take, so that the eight threads that write, and
/// in the pool read, a row's eight pieces hit different banks.
#define PIECE_PITCH (ROWS * 16 + 16)
#define ROWS_BYTES (STEP / 8 * PIECE_PITCH)
#define COLUMNS_BYTES (CHUNK * STEP * 2)
/// Stages where rows stay, and where they come with the columns.
#define RESIDENT_STAGES 3
#define STREAMED_STAGES 4
#define MOST_STAGES 4
/// Barriers, logits, and the rows' numbers in the matrix.
#define FIXED_BYTES (2 * MOST_STAGES * 8 + ROWS * 4 + ROWS * 4)
/// Of a stage's barrier "full": each producer after its pieces, and one that says how many bytes the bulk copies bring.
#define FULL_ARRIVALS (PRODUCERS + 1)
/// Of "empty": each warp of two warpgroups in each of two blocks, because a wait for products is the warp's own: the first
/// warp's says nothing of what the other three still read.
#define EMPTY_ARRIVALS (2 * CONSUMERS / WARP)

/// Rows of a step that the producers fetch at once, eight threads a row.
#define PRODUCER_ROWS (PRODUCERS / 8)

/// A row's piece of 8 components within a step's rows: core matrices of 8 rows of 16 bytes.
DEVICE u32 piece_place(u32 r, u32 piece) {
    return piece * PIECE_PITCH + r / 8 * 128 + r % 8 * 16;
}

/// An item's rows, which may lie in shared memory as well.
template <class T>
struct KeptRows {
    static constexpr bool MAY_BE_KEPT = true;
    RowsOfItem<T> global;
    const char* kept;
};

template <class T>
DEVICE u32 way_of(const KeptRows<T>& rows) {
    return rows.kept ? KEPT : way_of(rows.global);
}

template <u32 WAY, class T>
DEVICE uint4 piece_of(const KeptRows<T>& rows, u32 r, u32 c) {
    if constexpr (WAY == KEPT) return load16(rows.kept + c / STEP * ROWS_BYTES + piece_place(r, c % STEP / 8));
    return piece_of<WAY>(rows.global, r, c);
}

DEVICE void multiply(Bf16, float (&d)[128], u64 a, u64 b, bool accumulate) { wgmma_m64n256k16_bf16(d, a, b, accumulate); }
DEVICE void multiply(F16, float (&d)[128], u64 a, u64 b, bool accumulate) { wgmma_m64n256k16_f16(d, a, b, accumulate); }

template <class T>
DEVICE void gated_pool(const Features& h, const char* matrix, const Head& head, const u32* list, const Item* items, u32 item_count,
                       Rule rule, float* logits, float* totals, Part* parts, u8* refused, const Bags& bags, const Results& out,
                       u32 resident) {
    DYNAMIC_SHARED(shared);
    const u32 t = threadIdx.x, item = blockIdx.x, rank = cluster_rank();
    const u32 steps = (h.width + STEP - 1) / STEP, all = steps * head.chunks;
    const u32 stages = resident ? RESIDENT_STAGES : STREAMED_STAGES;
    const u32 stage_bytes = COLUMNS_BYTES + (resident ? 0 : ROWS_BYTES);
    u64* full = (u64*)shared;
    u64* empty = full + MOST_STAGES;
    float* own = (float*)(empty + MOST_STAGES);
    u32* numbers = (u32*)(own + ROWS);
    char* ring = shared + (FIXED_BYTES + 127) / 128 * 128;
    char* kept_rows = ring + stages * stage_bytes;
    // The pair's second block may have no item: it still fetches its half of the head.
    Item it = {0, 0, 0, 0};
    if (item < item_count) it = items[item];
    auto columns_of = [&](u32 i) { return ring + i % stages * stage_bytes; };
    auto rows_of = [&](u32 i) { return resident ? kept_rows + i % steps * ROWS_BYTES : columns_of(i) + COLUMNS_BYTES; };
    if (t == 0) {
        for (u32 s = 0; s < stages; s++) {
            mbarrier_init(full + s, FULL_ARRIVALS);
            mbarrier_init(empty + s, EMPTY_ARRIVALS);
        }
        mbarrier_init_fence();
    }
    // Read here once: a masked bag's list would else be waited for in each step. Beyond the last row: the first, which is not read.
    if (t < ROWS) numbers[t] = (u32)row_of(list, it.first + (t < it.rows ? t : 0));
    cluster_sync();

    if (t >= CONSUMERS) {
        registers_decrease<40>();
        const u32 p = t - CONSUMERS, piece = p % 8, first = p / 8;
        // The step whose pieces are there: wgmma, which reads behind the threads' backs, must see them.
        auto arrived = [&](u32 i) {
            fence_proxy_async();
            mbarrier_arrive(full + i % stages);
        };
        for (u32 i = 0; i < all; i++) {
            const u32 s = i % stages;
            if (i >= stages) mbarrier_wait(empty + s, (i / stages - 1) & 1);
            if (p == 0) {
                mbarrier_arrive_expect(full + s, COLUMNS_BYTES);
                const u32 half = rank * (COLUMNS_BYTES / 2);
                bulk_copy_multicast(columns_of(i) + half, matrix + (u64)i * COLUMNS_BYTES + half, COLUMNS_BYTES / 2, full + s, 3);
            }
            if (!resident || i < steps) {
                char* to = rows_of(i) + piece_place(first, piece);
                const u32 c = i % steps * STEP + piece * 8;
                static_assert(PRODUCER_ROWS % 8 == 0);
                if (h.whole) {
                    const char* from = (const char*)h.address + (u64)c * 2;
#pragma unroll
                    for (u32 j = 0; j < ROWS / PRODUCER_ROWS; j++) {
                        const u32 r = first + j * PRODUCER_ROWS;
                        const bool valid = r < it.rows && c < h.width;
                        cp_async16(to + j * (PRODUCER_ROWS * 16), valid ? from + numbers[r] * h.pitch : (const char*)h.address, valid);
                    }
                } else {
#pragma unroll 1
                    for (u32 r = first; r < ROWS; r += PRODUCER_ROWS, to += PRODUCER_ROWS * 16)
                        store16(to, r < it.rows ? load_piece<T>(h, numbers[r], c) : make_uint4(0, 0, 0, 0));
                }
            }
            cp_async_commit();
            // Steps in flight behind this one. With three stages a second would wait for itself: a stage is freed when the
            // step after its own is there.
            if (resident) {
                cp_async_wait<1>();
                if (i >= 1) arrived(i - 1);
            } else {
                cp_async_wait<2>();
                if (i >= 2) arrived(i - 2);
            }
        }
        cp_async_wait<0>();
        if (!resident && all >= 2) arrived(all - 2);
        arrived(all - 1);
        cluster_arrive();
    } else {
        registers_increase<232>();
        const u32 group = t / 128, lane = lane_id(), warp = t % 128 / WARP;
        float d[128];
        float sums[2] = {0.0f, 0.0f};
        auto release = [&](u32 i) {
            if (lane < 2) mbarrier_arrive_remote(empty + i % stages, lane);
        };
        for (u32 chunk = 0; chunk < head.chunks; chunk++) {
            auto step = [&](u32 i, bool first) {
                mbarrier_wait(full + i % stages, (i / stages) & 1);
                const char* rows = rows_of(i) + group * (64 / 8 * 128);
                const char* columns = columns_of(i);
                wgmma_fence();
#pragma unroll
                for (u32 x = 0; x < STEP / 16; x++)
                    multiply(T(), d, wgmma_descriptor(rows + x * 2 * PIECE_PITCH, PIECE_PITCH, 128),
                             wgmma_descriptor(columns + x * 2 * CHUNK * 16, CHUNK * 16, 128), !first || x > 0);
                wgmma_commit();
            };
            // Apart from the others: where the loop itself asks which step is the first, NVRTC 12.4 waits after each product
            // (C7515).
            step(chunk * steps, true);
            for (u32 i = chunk * steps + 1; i < (chunk + 1) * steps; i++) {
                step(i, false);
                wgmma_wait<1>();
                release(i - 1);
            }
            wgmma_wait<0>();
            wgmma_results(d);
            release(chunk * steps + steps - 1);
            const float* bias = (const float*)head.bias + chunk * CHUNK;
            const float* weight = (const float*)head.weight + chunk * CHUNK;
#pragma unroll
            for (u32 j = 0; j < 16; j++) {
                const u32 l = j * 8 + lane % 4 * 2;
                const float2 v0 = *(const float2*)(bias + l), u0 = *(const float2*)(bias + HALF_CHUNK + l);
                const float2 w = *(const float2*)(weight + l), w2 = *(const float2*)(weight + HALF_CHUNK + l);
#pragma unroll
                for (u32 y = 0; y < 2; y++) {
                    const u32 v = 4 * j + 2 * y, u = 64 + v;
                    sums[y] += unit<T>(d[v] + v0.x, d[u] + u0.x, w.x, w2.x, head.gated);
                    sums[y] += unit<T>(d[v + 1] + v0.y, d[u + 1] + u0.y, w.y, w2.y, head.gated);
                }
            }
        }
#pragma unroll
        for (u32 y = 0; y < 2; y++) {
            float x = sums[y];
            x += __shfl_xor_sync(FULL_WARP, x, 1);
            x += __shfl_xor_sync(FULL_WARP, x, 2);
            const u32 r = group * 64 + warp * 16 + y * 8 + lane / 4;
            if (lane % 4 == 0) {
                own[r] = x + head.offset;
                if (r < it.rows) logits[numbers[r]] = own[r];
            }
        }
        // This block's part in the pair is done. All copies into the ring have been waited for: it is the pool's now.
        cluster_arrive();
        named_barrier_sync(1, CONSUMERS);
        if (it.rows > 0) {
            const KeptRows<T> rows = {{h, list, it.first}, resident ? kept_rows : nullptr};
            static_assert(WEIGH_SCRATCH <= RESIDENT_STAGES * COLUMNS_BYTES);
            pool_and_merge<T>(rows, h, list, it, item, rule, own, logits, ring, CONSUMERS, 1, totals, parts, refused, bags,
                              out);
        }
    }
    // Nobody arrives at the barriers of a block that has gone.
    cluster_wait();
}

/// A block an item, one more where they are odd in number, and a pair where there is none. Empty bags come before the roles
/// part: behind them the producers have no registers for it.
#define GATED_POOL(name, T)                                                                                                        \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(THREADS, 1)                                             \
        name(Features h, const char* __restrict__ matrix, Head head, const u32* __restrict__ list, const Item* __restrict__ items, \
             u32 item_count, Rule rule, float* logits, float* totals, Part* parts, u8* refused, Bags bags, Results out,            \
             u32 resident) {                                                                                                       \
        empty_bags(h.width, bags, out, THREADS);                                                                                   \
        if (item_count > 0)                                                                                                        \
            gated_pool<T>(h, matrix, head, list, items, item_count, rule, logits, totals, parts, refused, bags, out, resident);    \
    }

GATED_POOL(weir_gated_pool_wgmma_bf16, Bf16)
GATED_POOL(weir_gated_pool_wgmma_f16, F16)
