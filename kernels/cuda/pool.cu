// (b) The weighted mean of each bag's feature vectors, in one pass over them, and its gradient.
//
//               one piece (16 bytes) a lane: 128 columns of f32, 256 of f16 and bf16
//   an item     ┌──────────┬──────────┬──────────┐
//   (128 rows)  │  warp 0  │  warp 1  │  warp 2  │ ...      each: e of 128 rows, 4 a lane, then row by row
//               └────┬─────┴────┬─────┴────┬─────┘          acc += e h, 8 rows' loads in flight, no shared memory
//                    ▼          ▼          ▼
//              partial sums of the bag's items, added in order by the last warp of each slice ──► z = T / S
//
// A component has one accumulator, multiply then add; so neither the number of multiprocessors nor the batch changes a bit.
// Slices of an item stand beside each other in the grid, so that a row is read whole. Where rows are not made of whole pieces
// (16-byte alignment) the kernels ending in `_scalar` read element by element. A row with a number that is none, or a feature
// of 1e18 or more, is found in the pass (`refused`, `noticed`); that bag is then passed again without it, and one without a
// sum with the numerator 1: settle.cuh.
//
// Backward: a warp takes four rows of an item, a stretch (32 pieces) at a time; g_i = <h_i, u> + dL/dw_i, and dh_i = w_i u.
// The order of the product is src/cpu/features.rs's: one accumulator a place of the stretch, a piece's ascending, then lanes
// by exclusive or with 16, 8, 4, 2, 1. The rest is (a)'s: weights.cu.
//
// Floor: the features' bytes once (twice backward) at the copy's bandwidth; partial sums are 3 % of them.
#include "features.cuh"
#include "settle.cuh"

#define THREADS 128
#define BACK_THREADS 256
/// Blocks of a multiprocessor that registers are shared among: as many as leave none to spill.
#define BACK_BLOCKS(WHOLE) (WHOLE ? 2 : 1)
#define BLOCKS(WHOLE) (WHOLE ? 6 : 4)
/// Rows whose loads are in flight.
#define FLIGHT 8
/// Items whose partial sums the merge reads at once, and words with which it has called them into L1.
///
/// A bag's items are merged by one warp a slice, whose registers hold 32 partial sums a lane beside the pass: four items of
/// 16-bit features. Four at a time out of L2 are 40 waits for the 157 items of 20,000 rows, as long as the pass itself. But a
/// word a lane is a sector a lane, and those are an item's slice (two items' of f32): 16 registers call 16 (32) items into L1 at
/// once, ten (five) waits for L2 in all, and what follows waits for L1 alone. More calls would cost the pass registers. Where
/// fewer than SEVERAL are left it is not worth it.
#define MERGE 4
#define CALLS 16
#define SEVERAL 8
/// Floats of a sector, the least that L1 takes.
#define SECTOR 8
/// Rows of a warp's step backward, and of a warp.
#define STEP 4
#define BACK_ROWS (ROWS / (BACK_THREADS / WARP))

/// Adds a whole item's rows: acc += e h, sum += e. `e` and `rows` hold the item's, four a lane. False where a feature of the
/// lane's columns must be refused.
template <class T, bool LIST>
DEVICE bool add_pieces(const PoolArguments& a, u32 slice, u32 first, u32 rows, float (&e)[EACH_LANE], u32 (&row)[EACH_LANE],
                       float (&acc)[T::PIECE], float& sum) {
    const u32 c = column<T, true>(slice, 0);
    // A lane without a column reads its row's first piece, so that no load is in a branch.
    const typename T::Element* base = (const typename T::Element*)a.features + (c < a.width ? c : 0);
    bool good = true;
#pragma unroll 1
    for (u32 from = 0; from < rows; from += WARP) {
#pragma unroll 1
        for (u32 p = 0; p < WARP && from + p < rows; p += FLIGHT) {
            uint4 v[FLIGHT];
            u32 at[FLIGHT];
#pragma unroll
            for (u32 u = 0; u < FLIGHT; u++) {
                // Beyond the last row: the last row again, which is in the cache.
                const u32 q = min(from + p + u, rows - 1) - from;
                at[u] = LIST ? __shfl_sync(FULL_WARP, row[0], (int)q) : first + from + q;
            }
#pragma unroll
            for (u32 u = 0; u < FLIGHT; u++) v[u] = load_stream16(base + at[u] * a.stride);
#pragma unroll
            for (u32 u = 0; u < FLIGHT; u++) {
                const float x = __shfl_sync(FULL_WARP, e[0], (int)(p + u));
                if (from + p + u < rows) {
                    float h[T::PIECE];
                    T::widen(v[u], h);
                    sum = __fadd_rn(sum, x);
                    good = good && fine(h);
#pragma unroll
                    for (u32 j = 0; j < T::PIECE; j++) acc[j] = __fadd_rn(acc[j], __fmul_rn(x, h[j]));
                }
            }
        }
        // The next 32 rows' come to the front.
#pragma unroll
        for (u32 k = 0; k + 1 < EACH_LANE; k++) {
            e[k] = e[k + 1];
            row[k] = row[k + 1];
        }
    }
    return good;
}

/// The same element by element.
template <class T>
DEVICE bool add_elements(const PoolArguments& a, u32 slice, u32 rows, float (&e)[EACH_LANE], u32 (&row)[EACH_LANE],
                         float (&acc)[T::PIECE], float& sum) {
    bool good = true;
#pragma unroll 1
    for (u32 from = 0; from < rows; from += WARP) {
#pragma unroll 4
        for (u32 p = 0; p < WARP && from + p < rows; p++) {
            const float x = __shfl_sync(FULL_WARP, e[0], (int)p);
            const u32 at = __shfl_sync(FULL_WARP, row[0], (int)p);
            float h[T::PIECE];
            load_part<T, false>((const typename T::Element*)a.features + at * a.stride, slice, a.width, h);
            sum = __fadd_rn(sum, x);
            good = good && fine(h);
#pragma unroll
            for (u32 j = 0; j < T::PIECE; j++) acc[j] = __fadd_rn(acc[j], __fmul_rn(x, h[j]));
        }
#pragma unroll
        for (u32 k = 0; k + 1 < EACH_LANE; k++) {
            e[k] = e[k + 1];
            row[k] = row[k + 1];
        }
    }
    return good;
}

/// Finds the rows of an item that must be refused by this slice's columns. Rare, so it reads them again.
template <class T, bool WHOLE>
DEVICE void find_refused(const PoolArguments& a, u32 slice, const u32* list, const Item& it, u8* refused) {
    for (u32 p = 0; p < it.rows; p++) {
        const u32 row = row_of(list, it.first + p);
        float h[T::PIECE];
        load_part<T, WHOLE>((const typename T::Element*)a.features + row * a.stride, slice, a.width, h);
        const bool bad = __any_sync(FULL_WARP, !fine(h));
        if (bad && lane_id() == 0) refused[row] = 1;
    }
}

/// The sums of a bag's `items` items in order: `part` is the first one's, a lane's numbers four side by side, and `apart` floats
/// lie between them. False where one is found that is no number: then neither is the sum. After `last_of`, whose fence leaves
/// nothing older in L1.
template <class T>
DEVICE bool merge(const float* part, u64 apart, u32 items, float (&acc)[T::PIECE]) {
    constexpr u32 FOURS = T::PIECE / 4, LANES = WARP * T::PIECE / SECTOR, CALLED = CALLS * (WARP / LANES);
    const u32 lane = lane_id();
    bool good = true;
#pragma unroll
    for (u32 j = 0; j < T::PIECE; j++) acc[j] = 0.0f;
#pragma unroll 1
    for (u32 from = 0; from < items; from += CALLED) {
        if (items - from >= SEVERAL) {
            float x[CALLS];
#pragma unroll
            for (u32 c = 0; c < CALLS; c++) {
                // Beyond the last item: the last again, here and below, so that no load is in a branch.
                const u32 k = min(from + c * (WARP / LANES) + lane / LANES, items - 1);
                x[c] = load_one(part + k * apart + lane % LANES * SECTOR);
            }
            // That they are of use keeps the compiler from leaving the loads out.
#pragma unroll
            for (u32 c = 0; c < CALLS; c++) good = good && is_finite(x[c]);
        }
        const u32 end = min(items - from, CALLED) + from;
#pragma unroll 1
        for (u32 k = from; k < end; k += MERGE) {
            float4 v[MERGE][FOURS];
#pragma unroll
            for (u32 m = 0; m < MERGE; m++)
#pragma unroll
                for (u32 j = 0; j < FOURS; j++)
                    v[m][j] = load_four(part + min(k + m, items - 1) * apart + (j * WARP + lane) * 4);
#pragma unroll
            for (u32 m = 0; m < MERGE; m++)
#pragma unroll
                for (u32 j = 0; j < FOURS; j++)
                    if (k + m < items) {
                        acc[4 * j] = __fadd_rn(acc[4 * j], v[m][j].x);
                        acc[4 * j + 1] = __fadd_rn(acc[4 * j + 1], v[m][j].y);
                        acc[4 * j + 2] = __fadd_rn(acc[4 * j + 2], v[m][j].z);
                        acc[4 * j + 3] = __fadd_rn(acc[4 * j + 3], v[m][j].w);
                    }
        }
    }
    return good;
}

/// `partials` holds WARP * PIECE sums an item and slice, `partial_sums` one; `count` (0 before and after) counts a bag's items
/// a slice; `noticed` and `refused` are 0 before.
template <class T, bool WHOLE, bool LIST>
DEVICE void pool_item(const PoolArguments& a, const float* logits, const u32* list, const Item* items, u32 item_count,
                      const u32* first, const Rule& rule, const u32* greatest, float* partials, float* partial_sums, u32* count,
                      float* pooled, float* sums, u32* noticed, u8* refused) {
    const u32 unit = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    const u32 item = unit / a.slices, slice = unit % a.slices;
    if (item >= item_count) return;
    const Item it = items[item];
    const float shift = from_ordered_bits(greatest[it.bag]);
    float e[EACH_LANE] = {};
    u32 row[EACH_LANE] = {};
    u32 notice = 0;
    // Not unrolled, as the rules are long: each turn moves the others to the front.
#pragma unroll 1
    for (u32 from = 0; from < ROWS; from += WARP) {
        const u32 p = from + lane_id();
        const bool valid = p < it.rows;
        const u32 at = row_of(list, it.first + (valid ? p : 0));
        const float logit = logits[at];
        const float g = linked(rule, logit);
#pragma unroll
        for (u32 k = 0; k + 1 < EACH_LANE; k++) {
            e[k] = e[k + 1];
            row[k] = row[k + 1];
        }
        e[EACH_LANE - 1] = numerator(rule, g, shift);
        row[EACH_LANE - 1] = at;
        if (valid && !in_domain(rule, g)) notice |= OUT_OF_DOMAIN;
        if (valid && !is_finite(logit)) {
            notice |= REFUSED;
            if (slice == 0) refused[at] = 1;
        }
    }
    float acc[T::PIECE], sum = 0.0f;
#pragma unroll
    for (u32 j = 0; j < T::PIECE; j++) acc[j] = 0.0f;
    const bool good = WHOLE ? add_pieces<T, LIST>(a, slice, it.first, it.rows, e, row, acc, sum)
                            : add_elements<T>(a, slice, it.rows, e, row, acc, sum);
    if (__any_sync(FULL_WARP, !good)) {
        notice |= REFUSED;
        find_refused<T, WHOLE>(a, slice, list, it, refused);
    }
    const u32 from = first[it.bag], of = first[it.bag + 1] - from;
    float total_sum = __fadd_rn(0.0f, sum);
    bool all_good = true;
    if (of == 1) {
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) acc[j] = __fadd_rn(0.0f, acc[j]);
    } else {
        // Four numbers of each lane side by side, so that a warp's stores and loads are whole lines.
        constexpr u32 FOURS = T::PIECE / 4, LENGTH = WARP * T::PIECE;
        float4* own = (float4*)(partials + ((u64)item * a.slices + slice) * LENGTH) + lane_id();
#pragma unroll
        for (u32 j = 0; j < FOURS; j++) own[j * WARP] = make_float4(acc[4 * j], acc[4 * j + 1], acc[4 * j + 2], acc[4 * j + 3]);
        float* own_sums = partial_sums + (u64)slice * item_count;
        if (lane_id() == 0) own_sums[item] = sum;
        if (notice) atomicOr(noticed + it.bag, notice);
        notice = 0;
        if (!last_of(count + (u64)it.bag * a.slices + slice, of)) return;
        all_good = merge<T>(partials + ((u64)from * a.slices + slice) * LENGTH, (u64)a.slices * LENGTH, of, acc);
        total_sum = merged_sum(own_sums + from, of);
    }
    bool in_range = is_finite(total_sum) && all_good;
#pragma unroll
    for (u32 j = 0; j < T::PIECE; j++) {
        const u32 c = column<T, WHOLE>(slice, j);
        if (c >= a.width) continue;
        in_range = in_range && is_finite(acc[j]);
        pooled[(u64)it.bag * a.width + c] = __fdiv_rn(acc[j], total_sum);
    }
    if (!in_range) notice |= UNIFORM | OUT_OF_DOMAIN;
    if (total_sum == 0.0f) notice |= UNIFORM;
    if (notice) atomicOr(noticed + it.bag, notice);
    if (slice == 0 && lane_id() == 0) sums[it.bag] = total_sum;
}

#define POOL(name, T, WHOLE, LIST)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS(WHOLE))                                                \
        name(const void* __restrict__ features, u64 stride, u32 width, u32 slices, const float* __restrict__ logits,           \
             const u32* __restrict__ list, const Item* __restrict__ items, u32 item_count, const u32* __restrict__ first,      \
             Rule rule, const u32* __restrict__ greatest, float* partials, float* partial_sums, u32* count, float* pooled,     \
             float* sums, u32* noticed, u8* refused) {                                                                         \
        const PoolArguments a = {features, stride, width, slices};                                                             \
        pool_item<T, WHOLE, LIST>(a, logits, list, items, item_count, first, rule, greatest, partials, partial_sums, count,    \
                                  pooled, sums, noticed, refused);                                                             \
    }

POOL(weir_pool_f32, F32, true, false)
POOL(weir_pool_f16, F16, true, false)
POOL(weir_pool_bf16, Bf16, true, false)
POOL(weir_pool_f32_list, F32, true, true)
POOL(weir_pool_f16_list, F16, true, true)
POOL(weir_pool_bf16_list, Bf16, true, true)
POOL(weir_pool_f32_scalar, F32, false, true)
POOL(weir_pool_f16_scalar, F16, false, true)
POOL(weir_pool_bf16_scalar, Bf16, false, true)

SETTLE(weir_settle_f32, F32)
SETTLE(weir_settle_f16, F16)
SETTLE(weir_settle_bf16, Bf16)

// ---- backward -----------------------------------------------------------------------------------------------------------

/// A lane's piece of a stretch, whichever way it is read; 0 beyond the last column.
template <class T, bool WHOLE>
DEVICE void load_piece(const typename T::Element* row, u32 c, u32 width, float (&h)[T::PIECE]) {
    if (WHOLE) {
        T::widen(c < width ? load_stream16(row + c) : make_uint4(0, 0, 0, 0), h);
    } else {
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) h[j] = c + j < width ? T::one(row[c + j]) : 0.0f;
    }
}

/// Stores w u of a piece; zeros where `zero`.
template <class T, bool WHOLE>
DEVICE void store_piece(typename T::Element* row, u32 c, u32 width, float w, const float (&u)[T::PIECE], bool zero) {
    float d[T::PIECE];
#pragma unroll
    for (u32 j = 0; j < T::PIECE; j++) d[j] = zero ? 0.0f : __fmul_rn(w, u[j]);
    if (WHOLE) {
        if (c < width) store_stream16(row + c, T::narrow(d));
    } else {
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++)
            if (c + j < width) row[c + j] = T::of(d[j]);
    }
}

/// STEP rows of a bag: `along` gets g, `refused` whether the row does not count, `out` (or null) dh.
template <class T, bool WHOLE>
DEVICE void back_rows(const PoolArguments& a, const u32* list, u32 place, u32 rows, const float* logits, const float* weights,
                      const float* vector, const float* direct, float* along, u8* refused, void* out, u64 out_stride) {
    typedef typename T::Element Element;
    u32 row[STEP];
    float w[STEP];
    bool good[STEP];
#pragma unroll
    for (u32 r = 0; r < STEP; r++) {
        row[r] = row_of(list, place + min(r, rows - 1));
        w[r] = weights[row[r]];
        good[r] = is_finite(logits[row[r]]);
    }
    float acc[STEP][T::PIECE];
#pragma unroll
    for (u32 r = 0; r < STEP; r++)
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) acc[r][j] = 0.0f;
#pragma unroll 1
    for (u32 from = 0; from < a.width; from += WARP * T::PIECE) {
        const u32 c = from + lane_id() * T::PIECE;
        float u[T::PIECE];
        float h[STEP][T::PIECE];
#pragma unroll
        for (u32 r = 0; r < STEP; r++) load_piece<T, WHOLE>((const Element*)a.features + row[r] * a.stride, c, a.width, h[r]);
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) u[j] = c + j < a.width ? vector[c + j] : 0.0f;
#pragma unroll
        for (u32 r = 0; r < STEP; r++) {
            good[r] = good[r] && fine(h[r]);
#pragma unroll
            for (u32 j = 0; j < T::PIECE; j++)
                if (c + j < a.width) acc[r][j] = __fadd_rn(acc[r][j], __fmul_rn(h[r][j], u[j]));
            if (out && r < rows) store_piece<T, WHOLE>((Element*)out + row[r] * out_stride, c, a.width, w[r], u, false);
        }
    }
#pragma unroll
    for (u32 r = 0; r < STEP; r++) {
        float sum = acc[r][0];
#pragma unroll
        for (u32 j = 1; j < T::PIECE; j++) sum = __fadd_rn(sum, acc[r][j]);
#pragma unroll
        for (int d = WARP / 2; d > 0; d /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(FULL_WARP, sum, d));
        const bool bad = __any_sync(FULL_WARP, !good[r]);
        if (r >= rows) continue;
        if (lane_id() == 0) {
            refused[row[r]] = bad;
            along[row[r]] = bad ? 0.0f : direct ? __fadd_rn(sum, direct[row[r]]) : sum;
        }
        if (bad && out) {
            const float none[T::PIECE] = {};
            for (u32 c = lane_id() * T::PIECE; c < a.width; c += WARP * T::PIECE)
                store_piece<T, WHOLE>((Element*)out + row[r] * out_stride, c, a.width, 0.0f, none, true);
        }
    }
}

/// A block takes an item, a warp 16 rows of it.
template <class T, bool WHOLE>
DEVICE void back_item(const PoolArguments& a, const float* logits, const u32* list, const Item* items, const float* weights,
                      const float* vectors, const float* direct, float* along, u8* refused, void* out, u64 out_stride) {
    const Item it = items[blockIdx.x];
    const u32 from = threadIdx.x / WARP * BACK_ROWS, end = min(from + BACK_ROWS, it.rows);
    for (u32 p = from; p < end; p += STEP)
        back_rows<T, WHOLE>(a, list, it.first + p, end - p, logits, weights, vectors + (u64)it.bag * a.width, direct, along,
                            refused, out, out_stride);
}

#define BACK(name, T, WHOLE)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(BACK_THREADS, BACK_BLOCKS(WHOLE))                                      \
        name(const void* __restrict__ features, u64 stride, u32 width, const float* __restrict__ logits,                       \
             const u32* __restrict__ list, const Item* __restrict__ items, const float* __restrict__ weights,                  \
             const float* __restrict__ vectors, const float* __restrict__ direct, float* along, u8* refused, void* out,        \
             u64 out_stride) {                                                                                                 \
        const PoolArguments a = {features, stride, width, 1};                                                                  \
        back_item<T, WHOLE>(a, logits, list, items, weights, vectors, direct, along, refused, out, out_stride);                \
    }

BACK(weir_pool_backward_f32, F32, true)
BACK(weir_pool_backward_f16, F16, true)
BACK(weir_pool_backward_bf16, Bf16, true)
BACK(weir_pool_backward_f32_scalar, F32, false)
BACK(weir_pool_backward_f16_scalar, F16, false)
BACK(weir_pool_backward_bf16_scalar, Bf16, false)

/// Zeros in `bytes` bytes (an even number) of each row that is not among the `members` of the ascending `list`. A lane looks for a
/// row; what its warp finds missing, all lanes clear.
extern "C" __global__ void __launch_bounds__(BACK_THREADS)
    weir_clear_rows(u8* out, u64 pitch, u64 bytes, u32 rows, const u32* __restrict__ list, u32 members) {
    const u32 lane = lane_id(), apart = gridDim.x * BACK_THREADS;
    const bool whole = ((u64)out | pitch | bytes) % 16 == 0;
    // Before a row as many members come as it has rows before it, but for those that are missing.
    const u32 missing = rows - members;
    for (u64 first = (u64)blockIdx.x * BACK_THREADS + threadIdx.x / WARP * WARP; first < rows; first += apart) {
        const u32 row = (u32)first + lane;
        u32 high = min(row, members), low = row > missing ? min(row - missing, high) : 0;
        while (low < high) {
            const u32 middle = low + (high - low) / 2;
            if (list[middle] < row) low = middle + 1;
            else high = middle;
        }
        const bool cleared = row < rows && (low >= members || list[low] != row);
        for (u32 left = __ballot_sync(FULL_WARP, cleared); left; left &= left - 1) {
            u8* to = out + (first + __ffs((int)left) - 1) * pitch;
            if (whole)
                for (u64 at = lane * 16; at < bytes; at += WARP * 16) store16(to + at, make_uint4(0, 0, 0, 0));
            else
                for (u64 at = lane * 2; at < bytes; at += WARP * 2) *(u16*)(to + at) = 0;
        }
    }
}
