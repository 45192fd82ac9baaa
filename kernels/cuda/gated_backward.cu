// (c) backward, from dL/da that (b)'s backward has made: nothing but logits and weights is kept of the forward pass.
//
//   hidden    a block an item by chunks of the head: the hidden units again (mma.sync), then dL/dp of their pre-activations p to
//             a buffer of f32, and the item's part of the biases' and of w's gradient
//   layers    a block 128 columns of the head by 128 components: dL/d(V, U) += dL/dp' h, items in ascending order
//   rows      a block an item by 128 components: dL/dh = w dL/dz + dL/dp (V, U)
//   fold      a block 32 columns: the range's parts of the biases' and of w's gradient onto those of the ranges before
//   gather    the parts of all splits, ascending
//
// Ranges of items go by, so that the buffers stay small, however many items there are. `layers` splits the items of a range
// SPLITS ways, always the same; no sum's order depends on the device. The two products multiply in tf32: features of 16 bits
// are exact in it and dL/dp keeps 2^-11; f32 is split in two numbers and multiplied three times.
//
// Both run as the forward product does: copies (cp.async) of the steps to come are under way while a step is multiplied, and
// two blocks share a multiprocessor. What limits them is then shared memory and L2, not latency: a warp's 64 x 32 sums take
// (64 + 32) x 8 numbers for 16 products of 16 x 8 x 8, and a block 2 x 128 numbers of L2 for 128 x 128 multiplications.
//
// Needs: sm_80
#include "gated_product.cuh"

/// Parts of a range that `layers` sums apart.
#define SPLITS 8
/// A block's tile of `layers` and `rows`.
#define TILE 128
/// Floats from row to row of a tile whose rows lie one after the other along k: the four that a warp reads at once lie eight banks
/// apart, each of eight words.
#define ACROSS (TILE + 8)
/// The place of a row that is refused, or beyond an item's last.
#define NONE 0xFFFFFFFFu

/// A step of `layers`: so many rows of dL/dp (f32) and of the features, as they are stored.
template <int KIND>
struct LayersStep {
    static constexpr u32 DEPTH = KIND == F32 ? 16 : 32;
    /// Bytes from row to row of the features, with ACROSS's reason.
    static constexpr u32 ROW = TILE * Piece<KIND>::BYTES + 32;
    /// Where the features begin.
    static constexpr u32 FEATURES = DEPTH * ACROSS * 4;
    static constexpr u32 BYTES = FEATURES + DEPTH * ROW;
};
#define LAYERS_STAGES 3

/// A step of `rows`: 128 rows by 16 columns of dL/dp, which lie along k, and 16 columns of the head by 128 components.
#define ROWS_DEPTH 16
#define ROWS_STAGES 4
#define ALONG (ROWS_DEPTH + 4)
#define ROWS_HEAD (TILE * ALONG * 4)
#define ROWS_STEP (ROWS_HEAD + ROWS_DEPTH * ACROSS * 4)

/// `places` gets each row of the item as a number of the array of features, or NONE.
template <int KIND>
DEVICE void hidden(const Features& h, const char* matrix, const Head& head, const u32* list, const Item* items, u32 first_item,
                   const float* slopes, const u8* refused, u32* places, float* dp, float* bias_parts, float* weight_parts) {
    DYNAMIC_SHARED(shared);
    float* da = (float*)(shared + SHARED_BYTES);
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    // Chunks of the block.
    const u32 chunks = head.chunks / gridDim.y, first_chunk = blockIdx.y * chunks, columns = head.chunks * CHUNK;
    const Item it = items[first_item + blockIdx.x];
    // In shared memory and not in registers, of which the product leaves none; its barriers come before who reads.
    if (t < ROWS) {
        const u32 row = row_of(list, it.first + (t < it.rows ? t : 0));
        const bool in = t < it.rows && !refused[row];
        da[t] = in ? slopes[row] : 0.0f;
        if (first_chunk == 0) places[(u64)blockIdx.x * ROWS + t] = in ? row : NONE;
    }
    const u32 steps = (h.width * Piece<KIND>::BYTES + STEP_BYTES - 1) / STEP_BYTES;
    const char* own = matrix + (u64)first_chunk * CHUNK * steps * STEP_BYTES;
    product<KIND>(shared, h, own, chunks, list, it, m, n, [&](u32 place, float (&acc)[4][8][4]) {
        const u32 chunk = first_chunk + place;
        const float* bias = (const float*)head.bias + chunk * CHUNK;
        const float* weight = (const float*)head.weight + chunk * CHUNK;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                const u32 l = n * 32 + j * 8 + lane % 4 * 2 + e;
                const float v0 = bias[l], u0 = bias[HALF_CHUNK + l], w = weight[l], w2 = weight[HALF_CHUNK + l];
                float of_v = 0.0f, of_u = 0.0f, of_w = 0.0f, of_w2 = 0.0f;
#pragma unroll
                for (u32 a = 0; a < 4; a++)
#pragma unroll
                    for (u32 y = 0; y < 2; y++) {
                        const float slope = da[m * 64 + a * 16 + y * 8 + lane / 4];
                        const float v = acc[a][j][2 * y + e] + v0, u = acc[a][j + 4][2 * y + e] + u0;
                        const float t_v = KIND == F32 ? tanh_f32(v) : tanh_approx(v);
                        float dv = 0.0f, du = 0.0f;
                        // A refused row's units may be no numbers: they are not multiplied by 0.
                        if (slope != 0.0f) {
                            const float upper = slope * w;
                            if (head.gated) {
                                const float s = KIND == F32 ? sigmoid_f32(u) : __fmaf_rn(0.5f, tanh_approx(0.5f * u), 0.5f);
                                dv = upper * s * (1.0f - t_v * t_v);
                                du = upper * t_v * s * (1.0f - s);
                                of_w = __fmaf_rn(slope, t_v * s, of_w);
                            } else {
                                const float t_u = KIND == F32 ? tanh_f32(u) : tanh_approx(u);
                                dv = upper * (1.0f - t_v * t_v);
                                du = slope * w2 * (1.0f - t_u * t_u);
                                of_w = __fmaf_rn(slope, t_v, of_w);
                                of_w2 = __fmaf_rn(slope, t_u, of_w2);
                            }
                        }
                        of_v += dv;
                        of_u += du;
                        acc[a][j][2 * y + e] = dv;
                        acc[a][j + 4][2 * y + e] = du;
                    }
                for (int d = 4; d < WARP; d *= 2) {
                    of_v += __shfl_xor_sync(FULL_WARP, of_v, d);
                    of_u += __shfl_xor_sync(FULL_WARP, of_u, d);
                    of_w += __shfl_xor_sync(FULL_WARP, of_w, d);
                    of_w2 += __shfl_xor_sync(FULL_WARP, of_w2, d);
                }
                if (lane < 4) {
                    const u64 at = ((u64)blockIdx.x * 2 + m) * columns + chunk * CHUNK + l;
                    bias_parts[at] = of_v;
                    bias_parts[at + HALF_CHUNK] = of_u;
                    weight_parts[at] = of_w;
                    weight_parts[at + HALF_CHUNK] = of_w2;
                }
            }
            // Two columns at once, so that four lanes' stores fill a sector.
            const u32 l = n * 32 + j * 8 + lane % 4 * 2;
            float* to = dp + ((u64)blockIdx.x * ROWS + m * 64 + lane / 4) * columns + chunk * CHUNK + l;
#pragma unroll
            for (u32 a = 0; a < 4; a++)
#pragma unroll
                for (u32 y = 0; y < 2; y++) {
                    *(float2*)to = make_float2(acc[a][j][2 * y], acc[a][j][2 * y + 1]);
                    *(float2*)(to + HALF_CHUNK) = make_float2(acc[a][j + 4][2 * y], acc[a][j + 4][2 * y + 1]);
                    to += 8 * columns;
                }
        }
    });
}

/// A number in two of tf32: the upper 19 bits, and what is left of it.
DEVICE void split(float x, u32& high, u32& low) {
    high = __float_as_uint(x) & 0xFFFFE000u;
    low = __float_as_uint(__fsub_rn(x, __uint_as_float(high)));
}

/// acc += a b of one 16 x 8 tile by eight of k.
template <int KIND>
DEVICE void multiply_tile(float (&acc)[4], const u32 (&high)[4], const u32 (&low)[4], const u32 (&b_high)[2], const u32 (&b_low)[2]) {
    if (KIND == F32) {
        mma_m16n8k8_tf32(acc, low, b_high);
        mma_m16n8k8_tf32(acc, high, b_low);
    }
    mma_m16n8k8_tf32(acc, high, b_high);
}

/// Component of a warp's 32 to which column `c` of a tile's product belongs, in tile j: neighbours lie in two tiles, so that a
/// lane reads two at once and its sums of two tiles are four neighbours, which it stores at once.
///
/// acc[i][2 p + e][2 y + z] is the component 16 p + 4 (lane % 4) + 2 z + e.
DEVICE u32 component(u32 j, u32 c) {
    return j / 2 * 16 + c * 2 + j % 2;
}

/// Those four neighbours, of row y of tile i.
DEVICE float4 neighbours(const float (&acc)[4][4][4], u32 i, u32 y, u32 p) {
    return make_float4(acc[i][2 * p][2 * y], acc[i][2 * p + 1][2 * y], acc[i][2 * p][2 * y + 1], acc[i][2 * p + 1][2 * y + 1]);
}

/// Row of `layers`' tile to which row y of a warp's tile i belongs: a lane reads four neighbours at once.
DEVICE u32 layers_row(u32 i, u32 y) {
    return i / 2 * 32 + lane_id() / 4 * 4 + i % 2 * 2 + y;
}

/// One step of `layers`: acc (warp (m, n) of 2 x 4: 64 columns of the head, 32 components) += dL/dp' h.
template <int KIND>
DEVICE void multiply_layers(float (&acc)[4][4][4], const char* stage, u32 m, u32 n) {
    typedef LayersStep<KIND> Step;
    const u32 g = lane_id() / 4, q = lane_id() % 4;
    const float* a_tile = (const float*)stage + q * ACROSS + m * 64 + g * 4;
    const char* b_tile = stage + Step::FEATURES + q * Step::ROW + (n * 32 + component(0, g)) * Piece<KIND>::BYTES;
#pragma unroll
    for (u32 k = 0; k < Step::DEPTH; k += 8) {
        u32 b_high[4][2], b_low[4][2];
#pragma unroll
        for (u32 x = 0; x < 2; x++)
#pragma unroll
            for (u32 p = 0; p < 2; p++) {
                const char* from = b_tile + (k + x * 4) * Step::ROW + component(2 * p, 0) * Piece<KIND>::BYTES;
                float2 v;
                if constexpr (KIND == F32) {
                    v = *(const float2*)from;
                } else {
                    const u32 both = *(const u32*)from;
                    v = make_float2(widened<KIND>((u16)(both & 0xFFFFu)), widened<KIND>((u16)(both >> 16)));
                }
                split(v.x, b_high[2 * p][x], b_low[2 * p][x]);
                split(v.y, b_high[2 * p + 1][x], b_low[2 * p + 1][x]);
            }
#pragma unroll
        for (u32 pair = 0; pair < 2; pair++) {
            u32 high[2][4], low[2][4];
#pragma unroll
            for (u32 x = 0; x < 2; x++) {
                const float4 v = *(const float4*)(a_tile + (k + x * 4) * ACROSS + pair * 32);
                split(v.x, high[0][2 * x], low[0][2 * x]);
                split(v.y, high[0][2 * x + 1], low[0][2 * x + 1]);
                split(v.z, high[1][2 * x], low[1][2 * x]);
                split(v.w, high[1][2 * x + 1], low[1][2 * x + 1]);
            }
#pragma unroll
            for (u32 i = 0; i < 2; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) multiply_tile<KIND>(acc[pair * 2 + i][j], high[i], low[i], b_high[j], b_low[j]);
        }
    }
}

/// `places`: of the range's rows. `parts`: rows of whole tiles.
template <int KIND>
DEVICE void layers(const Features& h, const Item* items, u32 first_item, u32 item_count, const u32* places, const float* dp,
                   u32 columns, u32 again, float* parts) {
    typedef LayersStep<KIND> Step;
    DYNAMIC_SHARED(shared);
    // The places of the rows of the item that is copied and of the next, in turns.
    u32* table = (u32*)(shared + LAYERS_STAGES * Step::BYTES);
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const u32 c0 = blockIdx.x * TILE, x0 = blockIdx.y * TILE;

    // An item's places are fetched two items ahead and laid into the table one item ahead, so that no copy waits for them.
    auto rows_of = [&](u32 item) { return item < item_count ? items[first_item + item].rows : 0; };
    auto place_of = [&](u32 item) { return t < ROWS && item < item_count ? places[(u64)item * ROWS + t] : NONE; };
    u32 item = blockIdx.z, row = 0, turn = 0, copied = 0;
    u32 rows = rows_of(item), next_rows = 0;
    if (t < ROWS) table[t] = place_of(item);
    u32 fetched_rows = rows_of(item + SPLITS), fetched_place = place_of(item + SPLITS);
    auto copy = [&](u32 i) {
        if (item < item_count) {
            char* stage = shared + i % LAYERS_STAGES * Step::BYTES;
            if (row == 0) {
                next_rows = fetched_rows;
                if (t < ROWS) table[(turn ^ 1) * ROWS + t] = fetched_place;
                fetched_rows = rows_of(item + 2 * SPLITS);
                fetched_place = place_of(item + 2 * SPLITS);
            }
            // Rows beyond the item's last are there, and zeros.
            const float* from = dp + ((u64)item * ROWS + row + t / 32) * columns + c0 + t % 32 * 4;
#pragma unroll
            for (u32 k = 0; k < Step::DEPTH; k += THREADS / 32)
                cp_async16(stage + ((k + t / 32) * ACROSS + t % 32 * 4) * 4, from + (u64)k * columns);
            constexpr u32 COUNT = Piece<KIND>::COUNT, PIECES = TILE / COUNT;
            const u32 c = x0 + t % PIECES * COUNT;
#pragma unroll
            for (u32 k = 0; k < Step::DEPTH; k += THREADS / PIECES) {
                const u32 place = table[turn * ROWS + row + k + t / PIECES];
                const bool in = place != NONE;
                char* to = stage + Step::FEATURES + (k + t / PIECES) * Step::ROW + t % PIECES * 16;
                if (h.whole) {
                    const bool valid = in && c < h.width;
                    cp_async16(to, (const char*)h.address + (valid ? place * h.pitch + (u64)c * Piece<KIND>::BYTES : 0), valid);
                } else {
                    store16(to, in ? load_piece<KIND>(h, place, c) : make_uint4(0, 0, 0, 0));
                }
            }
            copied++;
            row += Step::DEPTH;
            if (row >= rows) {
                row = 0;
                item += SPLITS;
                rows = next_rows;
                turn ^= 1;
            }
        }
        cp_async_commit();
    };
    for (u32 i = 0; i < LAYERS_STAGES - 1; i++) {
        // An item may be one step.
        __syncthreads();
        copy(i);
    }

    const u64 pitch = gridDim.y * TILE;
    float* part = parts + ((u64)blockIdx.z * columns + c0 + m * 64) * pitch + x0 + n * 32 + lane % 4 * 4;
    float acc[4][4][4] = {};
    if (again) {
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 y = 0; y < 2; y++)
#pragma unroll
                for (u32 p = 0; p < 2; p++) {
                    const float4 v = *(const float4*)(part + layers_row(i, y) * pitch + p * 16);
                    acc[i][2 * p][2 * y] = v.x;
                    acc[i][2 * p + 1][2 * y] = v.y;
                    acc[i][2 * p][2 * y + 1] = v.z;
                    acc[i][2 * p + 1][2 * y + 1] = v.w;
                }
    }
    for (u32 i = 0; i < copied; i++) {
        cp_async_wait<LAYERS_STAGES - 2>();
        // All copies of this step are there, and nobody reads the stage that the next copy takes.
        __syncthreads();
        copy(i + LAYERS_STAGES - 1);
        multiply_layers<KIND>(acc, shared + i % LAYERS_STAGES * Step::BYTES, m, n);
    }
    cp_async_wait<0>();
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 y = 0; y < 2; y++)
#pragma unroll
            for (u32 p = 0; p < 2; p++) *(float4*)(part + layers_row(i, y) * pitch + p * 16) = neighbours(acc, i, y, p);
}

/// One step of `rows`: acc (warp (m, n) of 2 x 4: 64 rows, 32 components) += dL/dp (V, U).
template <int KIND>
DEVICE void multiply_rows(float (&acc)[4][4][4], const char* stage, u32 m, u32 n) {
    const u32 lane = lane_id(), q = lane % 4;
    const float* a_tile = (const float*)stage + (m * 64 + lane % 16) * ALONG + lane / 16 * 4;
    const float* b_tile = (const float*)(stage + ROWS_HEAD) + q * ACROSS + n * 32 + component(0, lane / 4);
    // Of f32 two tiles at a time, and the rows read twice: all four would not leave enough registers for two blocks.
    constexpr u32 PAIRS = KIND == F32 ? 1 : 2;
#pragma unroll
    for (u32 k = 0; k < ROWS_DEPTH; k += 8)
#pragma unroll
        for (u32 first = 0; first < 2; first += PAIRS) {
            u32 b_high[2 * PAIRS][2], b_low[2 * PAIRS][2];
#pragma unroll
            for (u32 x = 0; x < 2; x++)
#pragma unroll
                for (u32 p = 0; p < PAIRS; p++) {
                    const float2 v = *(const float2*)(b_tile + (k + x * 4) * ACROSS + component(2 * (first + p), 0));
                    split(v.x, b_high[2 * p][x], b_low[2 * p][x]);
                    split(v.y, b_high[2 * p + 1][x], b_low[2 * p + 1][x]);
                }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                // Four words are as long as eight numbers of 16 bits: the lanes get the words that the product wants of them.
                u32 a[4], high[4], low[4];
                ldmatrix_x4(a, a_tile + i * 16 * ALONG + k);
#pragma unroll
                for (u32 x = 0; x < 4; x++) split(__uint_as_float(a[x]), high[x], low[x]);
#pragma unroll
                for (u32 j = 0; j < 2 * PAIRS; j++)
                    multiply_tile<KIND>(acc[i][2 * first + j], high, low, b_high[j], b_low[j]);
            }
        }
}

/// Stores four components of a row that begin at a multiple of four.
template <int KIND>
DEVICE void store_four(void* row, u32 f, const float4& x) {
    if constexpr (KIND == F32) {
        *(float4*)((float*)row + f) = x;
    } else {
        auto half = [](float v) { return (u32)(KIND == BF16 ? f32_to_bf16(v) : f32_to_f16(v)); };
        *(uint2*)((u16*)row + f) = make_uint2(half(x.x) | half(x.y) << 16, half(x.z) | half(x.w) << 16);
    }
}

template <int KIND>
DEVICE void store_one(void* row, u32 f, float x) {
    if constexpr (KIND == F32) ((float*)row)[f] = x;
    else if constexpr (KIND == BF16) ((u16*)row)[f] = f32_to_bf16(x);
    else ((u16*)row)[f] = f32_to_f16(x);
}

/// `matrix`: the head's columns as rows of f32, each of `pitch` (a multiple of 128) components.
template <int KIND>
DEVICE void rows(u32 width, const u32* list, const Item* items, u32 first_item, const float* dp, u32 columns, const float* matrix,
                 u32 pitch, const float* weights, const float* dz, void* out, u64 out_stride) {
    DYNAMIC_SHARED(shared);
    u32* row_at = (u32*)(shared + ROWS_STAGES * ROWS_STEP);
    float* weight_at = (float*)row_at + ROWS;
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const u32 x0 = blockIdx.y * TILE;
    const Item it = items[first_item + blockIdx.x];
    const float* a_from = dp + ((u64)blockIdx.x * ROWS + t / 4) * columns + t % 4 * 4;
    const float* b_from = matrix + (u64)(t / 32) * pitch + x0 + t % 32 * 4;
    auto copy = [&](u32 i) {
        const u32 c = i * ROWS_DEPTH;
        if (c < columns) {
            char* stage = shared + i % ROWS_STAGES * ROWS_STEP;
#pragma unroll
            for (u32 r = 0; r < TILE; r += THREADS / 4)
                cp_async16(stage + ((r + t / 4) * ALONG + t % 4 * 4) * 4, a_from + (u64)r * columns + c);
#pragma unroll
            for (u32 k = 0; k < ROWS_DEPTH; k += THREADS / 32)
                cp_async16(stage + ROWS_HEAD + ((k + t / 32) * ACROSS + t % 32 * 4) * 4, b_from + (u64)(c + k) * pitch);
        }
        cp_async_commit();
    };
    for (u32 i = 0; i < ROWS_STAGES - 1; i++) copy(i);
    // At once and not row by row at the end.
    if (t < ROWS) {
        const u32 row = row_of(list, it.first + min(t, it.rows - 1));
        row_at[t] = row;
        weight_at[t] = weights[row];
    }
    float acc[4][4][4] = {};
    for (u32 i = 0; i < columns / ROWS_DEPTH; i++) {
        cp_async_wait<ROWS_STAGES - 2>();
        // As in `layers`.
        __syncthreads();
        copy(i + ROWS_STAGES - 1);
        multiply_rows<KIND>(acc, shared + i % ROWS_STAGES * ROWS_STEP, m, n);
    }
    cp_async_wait<0>();
    const float* u = dz + (u64)it.bag * width;
    // Whether each row, of dL/dz and of the result, is made of whole fours, and where fours may be.
    const bool fours = width % 4 == 0 && (u64)dz % 16 == 0 && out_stride % 4 == 0 && (u64)out % (4 * Piece<KIND>::BYTES) == 0;
#pragma unroll
    for (u32 p = 0; p < 2; p++) {
        const u32 f = x0 + n * 32 + p * 16 + lane % 4 * 4;
        if (f >= width) continue;
        float4 d = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (fours) {
            d = *(const float4*)(u + f);
        } else {
            d.x = u[f];
            if (f + 1 < width) d.y = u[f + 1];
            if (f + 2 < width) d.z = u[f + 2];
            if (f + 3 < width) d.w = u[f + 3];
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 y = 0; y < 2; y++) {
                const u32 r = m * 64 + i * 16 + y * 8 + lane / 4;
                if (r >= it.rows) continue;
                const float w = weight_at[r];
                char* row = (char*)out + row_at[r] * out_stride * Piece<KIND>::BYTES;
                const float4 sum = neighbours(acc, i, y, p);
                const float4 x = make_float4(__fmaf_rn(w, d.x, sum.x), __fmaf_rn(w, d.y, sum.y), __fmaf_rn(w, d.z, sum.z),
                                             __fmaf_rn(w, d.w, sum.w));
                if (fours) {
                    store_four<KIND>(row, f, x);
                    continue;
                }
                store_one<KIND>(row, f, x.x);
                if (f + 1 < width) store_one<KIND>(row, f + 1, x.y);
                if (f + 2 < width) store_one<KIND>(row, f + 2, x.z);
                if (f + 3 < width) store_one<KIND>(row, f + 3, x.w);
            }
    }
}

#define GATED_BACKWARD(type, kind)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) weir_gated_hidden_##type(                                             \
        Features h, const char* __restrict__ matrix, Head head, const u32* __restrict__ list, const Item* __restrict__ items,      \
        u32 first_item, const float* __restrict__ slopes, const u8* __restrict__ refused, u32* places, float* dp,                  \
        float* bias_parts, float* weight_parts) {                                                                                  \
        hidden<kind>(h, matrix, head, list, items, first_item, slopes, refused, places, dp, bias_parts, weight_parts);             \
    }                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) weir_gated_layers_##type(                                             \
        Features h, const Item* __restrict__ items, u32 first_item, u32 item_count, const u32* __restrict__ places,                \
        const float* __restrict__ dp, u32 columns, u32 again, float* parts) {                                                      \
        layers<kind>(h, items, first_item, item_count, places, dp, columns, again, parts);                                         \
    }                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) weir_gated_rows_##type(                                               \
        u32 width, const u32* __restrict__ list, const Item* __restrict__ items, u32 first_item, const float* __restrict__ dp,     \
        u32 columns, const float* __restrict__ matrix, u32 pitch, const float* __restrict__ weights,                               \
        const float* __restrict__ dz, void* out, u64 out_stride) {                                                                 \
        rows<kind>(width, list, items, first_item, dp, columns, matrix, pitch, weights, dz, out, out_stride);                      \
    }

GATED_BACKWARD(bf16, BF16)
GATED_BACKWARD(f16, F16)
GATED_BACKWARD(f32, F32)

/// Columns of a block of `fold`; its warps take every eighth part.
#define FOLD_COLUMNS WARP

/// Adds a range's `count` parts of a column: each warp its own ascending, the warps' ascending, and that to what the ranges
/// before have left. blockIdx.y: the biases', or w's.
extern "C" __global__ void __launch_bounds__(THREADS)
    weir_gated_fold(const float* __restrict__ bias_parts, const float* __restrict__ weight_parts, u32 count, u32 columns,
                    float* bias_sums, float* weight_sums) {
    DYNAMIC_SHARED(folded);
    float* of_warps = (float*)folded;
    const u32 warp = threadIdx.x / WARP, column = blockIdx.x * FOLD_COLUMNS + lane_id();
    const float* parts = (blockIdx.y ? weight_parts : bias_parts) + column;
    float sum = 0.0f;
#pragma unroll 8
    for (u32 k = warp; k < count; k += THREADS / WARP) sum += parts[(u64)k * columns];
    of_warps[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0) return;
    for (u32 w = 1; w < THREADS / WARP; w++) sum += of_warps[w * WARP + lane_id()];
    float* to = (blockIdx.y ? weight_sums : bias_sums) + column;
    *to += sum;
}

/// The gradients, summed over splits. `units`: hidden units; columns of V and U as in the head's chunks. A block
/// takes 256 components of one column, and the first of each column also what belongs to the unit. The last row of blocks sums
/// dL/da of all members, `places` of them.
DEVICE void gather(const float* parts, const float* bias_sums, const float* weight_sums, u32 columns, u32 width, u32 units, u32 gated,
                   const float* slopes, const u8* refused, const u32* list, u32 places, float* value,
                   float* value_bias, float* gate, float* gate_bias, float* weight, float* bias) {
    DYNAMIC_SHARED(shared);
    float* words = (float*)shared;
    const u32 t = threadIdx.x, column = blockIdx.x;
    if (column == columns) {
        if (blockIdx.y != 0) return;
        float sum = 0.0f;
        for (u32 place = t; place < places; place += THREADS) {
            const u32 row = row_of(list, place);
            if (!refused[row]) sum += slopes[row];
        }
        words[t] = sum;
        __syncthreads();
        if (t == 0) {
            float total = 0.0f;
            for (u32 k = 0; k < THREADS; k++) total += words[k];
            bias[0] = total;
        }
        return;
    }
    const bool of_gate = gated && column % CHUNK >= HALF_CHUNK;
    const u32 unit = gated ? column / CHUNK * HALF_CHUNK + column % HALF_CHUNK : column;
    if (unit >= units) return;
    const u32 f = blockIdx.y * THREADS + t;
    if (f < width) {
        const u64 pitch = (u64)((width + TILE - 1) / TILE) * TILE;
        float sum = 0.0f;
#pragma unroll
        for (u32 s = 0; s < SPLITS; s++) sum += parts[((u64)s * columns + column) * pitch + f];
        (of_gate ? gate : value)[(u64)unit * width + f] = sum;
    }
    if (blockIdx.y != 0) return;
    if (t == 0) (of_gate ? gate_bias : value_bias)[unit] = bias_sums[column];
    if (t == 1 && !of_gate) weight[unit] = weight_sums[column];
}

extern "C" __global__ void __launch_bounds__(THREADS)
    weir_gated_gather(const float* __restrict__ parts, const float* __restrict__ bias_sums, const float* __restrict__ weight_sums,
                      u32 columns, u32 width, u32 units, u32 gated, const float* __restrict__ slopes,
                      const u8* __restrict__ refused, const u32* __restrict__ list, u32 places, float* value, float* value_bias,
                      float* gate, float* gate_bias, float* weight, float* bias) {
    gather(parts, bias_sums, weight_sums, columns, width, units, gated, slopes, refused, list, places, value, value_bias, gate,
           gate_bias, weight, bias);
}
