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
#include "gated_tiles.cuh"

/// Parts of a range that `layers` sums apart.
#define SPLITS 8
/// The place of a row that is refused, or beyond an item's last.
#define NONE 0xFFFFFFFFu

/// `places` gets each row of the item as a number of the array of features, or NONE.
template <class T>
DEVICE void hidden(const Features& h, const char* matrix, const Head& head, const u32* list, const Item* items, u32 first_item,
                   const float* slopes, const u8* refused, u32* places, float* dp, float* bias_parts, float* weight_parts) {
    DYNAMIC_SHARED(shared);
    float* da = (float*)(shared + SHARED_BYTES);
    const u32 t = threadIdx.x;
    // Chunks of the block: one, as it is launched; told so, the compiler moves what a step needs out of the loop and spills.
    const u32 chunks = head.chunks / gridDim.y, first_chunk = blockIdx.y * chunks, columns = head.chunks * CHUNK;
    const Item it = items[first_item + blockIdx.x];
    // In shared memory and not in registers, of which the product leaves none; its barriers come before who reads.
    if (t < ROWS) {
        const u32 row = row_of(list, it.first + (t < it.rows ? t : 0));
        const bool in = t < it.rows && !refused[row];
        da[t] = in ? slopes[row] : 0.0f;
        if (first_chunk == 0) places[(u64)blockIdx.x * ROWS + t] = in ? row : NONE;
    }
    const u32 steps = (h.width * T::BYTES + STEP_BYTES - 1) / STEP_BYTES;
    const char* own = matrix + (u64)first_chunk * CHUNK * steps * STEP_BYTES;
    product<T>(shared, h, own, chunks, list, it, t / WARP / 4, t / WARP % 4, [&](u32 place, float (&acc)[4][8][4]) {
        // Anew, so that nothing made of it takes a register in the product's loop, which leaves none: NVRTC 12.4 spilled.
        const u32 own_t = opaque(t), lane = own_t % WARP, m = own_t / WARP / 4, n = own_t / WARP % 4;
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
                        const float t_v = T::HALF ? tanh_approx(v) : tanh_f32(v);
                        float dv = 0.0f, du = 0.0f;
                        // A refused row's units may be no numbers: they are not multiplied by 0.
                        if (slope != 0.0f) {
                            const float upper = slope * w;
                            if (head.gated) {
                                const float s = T::HALF ? __fmaf_rn(0.5f, tanh_approx(0.5f * u), 0.5f) : sigmoid_f32(u);
                                dv = upper * s * (1.0f - t_v * t_v);
                                du = upper * t_v * s * (1.0f - s);
                                of_w = __fmaf_rn(slope, t_v * s, of_w);
                            } else {
                                const float t_u = T::HALF ? tanh_approx(u) : tanh_f32(u);
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

/// `places`: of the range's rows. `parts`: rows of whole tiles.
template <class T>
DEVICE void layers(const Features& h, const Item* items, u32 first_item, u32 item_count, const u32* places, const float* dp,
                   u32 columns, u32 again, float* parts) {
    typedef LayersStep<T> Step;
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
            constexpr u32 COUNT = T::PIECE, PIECES = TILE / COUNT;
            const u32 c = x0 + t % PIECES * COUNT;
#pragma unroll
            for (u32 k = 0; k < Step::DEPTH; k += THREADS / PIECES) {
                const u32 place = table[turn * ROWS + row + k + t / PIECES];
                const bool in = place != NONE;
                char* to = stage + Step::FEATURES + (k + t / PIECES) * Step::ROW + t % PIECES * 16;
                if (h.whole) {
                    const bool valid = in && c < h.width;
                    cp_async16(to, (const char*)h.address + (valid ? place * h.pitch + (u64)c * T::BYTES : 0), valid);
                } else {
                    store16(to, in ? load_piece<T>(h, place, c) : make_uint4(0, 0, 0, 0));
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
        multiply_layers<T>(acc, shared + i % LAYERS_STAGES * Step::BYTES, m, n);
    }
    cp_async_wait<0>();
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 y = 0; y < 2; y++)
#pragma unroll
            for (u32 p = 0; p < 2; p++) *(float4*)(part + layers_row(i, y) * pitch + p * 16) = neighbours(acc, i, y, p);
}

/// `matrix`: the head's columns as rows of f32, each of `pitch` (a multiple of 128) components.
template <class T>
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
        multiply_rows<T>(acc, shared + i % ROWS_STAGES * ROWS_STEP, m, n);
    }
    cp_async_wait<0>();
    const float* u = dz + (u64)it.bag * width;
    // Whether each row, of dL/dz and of the result, is made of whole fours, and where fours may be.
    const bool fours = width % 4 == 0 && (u64)dz % 16 == 0 && out_stride % 4 == 0 && (u64)out % (4 * T::BYTES) == 0;
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
                char* row = (char*)out + row_at[r] * out_stride * T::BYTES;
                const float4 sum = neighbours(acc, i, y, p);
                const float4 x = make_float4(__fmaf_rn(w, d.x, sum.x), __fmaf_rn(w, d.y, sum.y), __fmaf_rn(w, d.z, sum.z),
                                             __fmaf_rn(w, d.w, sum.w));
                if (fours) {
                    store_four<T>(row, f, x);
                    continue;
                }
                store_one<T>(row, f, x.x);
                if (f + 1 < width) store_one<T>(row, f + 1, x.y);
                if (f + 2 < width) store_one<T>(row, f + 2, x.z);
                if (f + 3 < width) store_one<T>(row, f + 3, x.w);
            }
    }
}

#define GATED_BACKWARD(type, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) weir_gated_hidden_##type(                                             \
        Features h, const char* __restrict__ matrix, Head head, const u32* __restrict__ list, const Item* __restrict__ items,      \
        u32 first_item, const float* __restrict__ slopes, const u8* __restrict__ refused, u32* places, float* dp,                  \
        float* bias_parts, float* weight_parts) {                                                                                  \
        hidden<T>(h, matrix, head, list, items, first_item, slopes, refused, places, dp, bias_parts, weight_parts);             \
    }                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) weir_gated_layers_##type(                                             \
        Features h, const Item* __restrict__ items, u32 first_item, u32 item_count, const u32* __restrict__ places,                \
        const float* __restrict__ dp, u32 columns, u32 again, float* parts) {                                                      \
        layers<T>(h, items, first_item, item_count, places, dp, columns, again, parts);                                         \
    }                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) weir_gated_rows_##type(                                               \
        u32 width, const u32* __restrict__ list, const Item* __restrict__ items, u32 first_item, const float* __restrict__ dp,     \
        u32 columns, const float* __restrict__ matrix, u32 pitch, const float* __restrict__ weights,                               \
        const float* __restrict__ dz, void* out, u64 out_stride) {                                                                 \
        rows<T>(width, list, items, first_item, dp, columns, matrix, pitch, weights, dz, out, out_stride);                      \
    }

GATED_BACKWARD(bf16, Bf16)
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
