// (c) backward, from dL/da that (b)'s backward has made: nothing but logits and weights is kept of the forward pass.
//
//   hidden    a block an item: the hidden units again (mma.sync), then dL/dp of their pre-activations p to a buffer of f32, and
//             the item's part of the biases' and of w's gradient
//   layers    a block 128 columns of the head by 128 components: dL/d(V, U) += dL/dp' h, items in ascending order
//   rows      a block an item by 128 components: dL/dh = w dL/dz + dL/dp (V, U)
//   fold      a block 32 columns: the range's parts of the biases' and of w's gradient onto those of the ranges before
//   gather    the parts of all splits, ascending
//
// Ranges of items go by, so that the buffers stay small, however many items there are. `layers` splits the items of a range SPLITS ways, always the same; no
// sum's order depends on the device. The two products multiply in tf32: features of 16 bits are exact in it and dL/dp keeps
// 2^-11; f32 is split in two numbers and multiplied three times.
//
// Needs: sm_80
#include "gated_product.cuh"

/// Parts of a range that `layers` sums apart.
#define SPLITS 8
/// A block's tile of `layers` and `rows`, and the depth of a step.
#define TILE 128
#define DEPTH 16
/// Floats from row to row of a tile in shared memory: neighbours along k in other banks.
#define ACROSS (TILE + 8)
#define ALONG (DEPTH + 4)

template <class T>
DEVICE void hidden(const Features& h, const char* matrix, const Head& head, const u32* list, const Item* items, u32 first_item,
                   const float* slopes, const u8* refused, float* dp, float* bias_parts, float* weight_parts) {
    DYNAMIC_SHARED(shared);
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const u32 item = first_item + blockIdx.x, columns = head.chunks * CHUNK;
    const Item it = items[item];
    float da[4][2];
#pragma unroll
    for (u32 a = 0; a < 4; a++)
#pragma unroll
        for (u32 y = 0; y < 2; y++) {
            const u32 r = m * 64 + a * 16 + y * 8 + lane / 4;
            const u32 row = r < it.rows ? row_of(list, it.first + r) : 0;
            da[a][y] = r < it.rows && !refused[row] ? slopes[row] : 0.0f;
        }
    product<T>(shared, h, matrix, head.chunks, list, it, m, n, [&](u32 chunk, float (&acc)[4][8][4]) {
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
                        const float v = acc[a][j][2 * y + e] + v0, u = acc[a][j + 4][2 * y + e] + u0;
                        const float t_v = T::HALF ? tanh_approx(v) : tanh_f32(v);
                        float dv = 0.0f, du = 0.0f;
                        // A refused row's units may be no numbers: they are not multiplied by 0.
                        if (da[a][y] != 0.0f) {
                            const float upper = da[a][y] * w;
                            if (head.gated) {
                                const float s = T::HALF ? __fmaf_rn(0.5f, tanh_approx(0.5f * u), 0.5f) : sigmoid_f32(u);
                                dv = upper * s * (1.0f - t_v * t_v);
                                du = upper * t_v * s * (1.0f - s);
                                of_w = __fmaf_rn(da[a][y], t_v * s, of_w);
                            } else {
                                const float t_u = T::HALF ? tanh_approx(u) : tanh_f32(u);
                                dv = upper * (1.0f - t_v * t_v);
                                du = da[a][y] * w2 * (1.0f - t_u * t_u);
                                of_w = __fmaf_rn(da[a][y], t_v, of_w);
                                of_w2 = __fmaf_rn(da[a][y], t_u, of_w2);
                            }
                        }
                        of_v += dv;
                        of_u += du;
                        const u32 r = m * 64 + a * 16 + y * 8 + lane / 4;
                        float* to = dp + ((u64)blockIdx.x * ROWS + r) * columns + chunk * CHUNK + l;
                        to[0] = dv;
                        to[HALF_CHUNK] = du;
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
        }
    });
}

/// One step of a product of tiles: acc (warp (m, n) of 2 x 4: 64 rows, 32 columns) += a (128 x 16) b (16 x 128). b lies along
/// its columns; `a_along`: a lies along k, else along its rows.
template <class T>
DEVICE void multiply_tiles(float (&acc)[4][4][4], const float* a_tile, bool a_along, const float* b_tile, u32 m, u32 n) {
    const u32 g = lane_id() / 4, q = lane_id() % 4;
    auto split = [](float x, u32& high, u32& low) {
        high = __float_as_uint(x) & 0xFFFFE000u;
        low = __float_as_uint(__fsub_rn(x, __uint_as_float(high)));
    };
    for (u32 k = 0; k < DEPTH; k += 8) {
        u32 high[4][4], low[4][4];
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 x = 0; x < 4; x++) {
                const u32 row = m * 64 + i * 16 + g + x % 2 * 8, at = k + q + x / 2 * 4;
                split(a_along ? a_tile[row * ALONG + at] : a_tile[at * ACROSS + row], high[i][x], low[i][x]);
            }
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 b_high[2], b_low[2];
#pragma unroll
            for (u32 x = 0; x < 2; x++) split(b_tile[(k + q + x * 4) * ACROSS + n * 32 + j * 8 + g], b_high[x], b_low[x]);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                if (!T::HALF) {
                    mma_m16n8k8_tf32(acc[i][j], low[i], b_high);
                    mma_m16n8k8_tf32(acc[i][j], high[i], b_low);
                }
                mma_m16n8k8_tf32(acc[i][j], high[i], b_high);
            }
        }
    }
}

/// Four components of a row as f32, zeros beyond its end.
template <class T>
DEVICE float4 four(const Features& h, u64 row, u32 c) {
    float x[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++) x[k] = c + k < h.width ? feature<T>(h, row, c + k) : 0.0f;
    return make_float4(x[0], x[1], x[2], x[3]);
}

template <class T>
DEVICE void layers(const Features& h, const u32* list, const Item* items, u32 first_item, u32 item_count, const u8* refused,
                   const float* dp, u32 columns, u32 again, float* parts) {
    DYNAMIC_SHARED(shared);
    float* a_tile = (float*)shared;
    float* b_tile = a_tile + DEPTH * ACROSS;
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const u32 c0 = blockIdx.x * TILE, x0 = blockIdx.y * TILE;
    float* part = parts + (u64)blockIdx.z * columns * h.width;
    // Element (row, column) of the tile that a thread's sum belongs to.
    auto place = [&](u32 i, u32 j, u32 x, u32& c, u32& f) {
        c = c0 + m * 64 + i * 16 + x / 2 * 8 + lane / 4;
        f = x0 + n * 32 + j * 8 + lane % 4 * 2 + x % 2;
    };
    float acc[4][4][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++)
#pragma unroll
            for (u32 x = 0; x < 4; x++) {
                u32 c, f;
                place(i, j, x, c, f);
                acc[i][j][x] = again && f < h.width ? part[(u64)c * h.width + f] : 0.0f;
            }
    for (u32 local = blockIdx.z; local < item_count; local += SPLITS) {
        const Item it = items[first_item + local];
        for (u32 r0 = 0; r0 < it.rows; r0 += DEPTH) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                const u32 k = t / 32 + half * 8, at = t % 32 * 4, r = r0 + k;
                const float4 a = *(const float4*)(dp + ((u64)local * ROWS + r) * columns + c0 + at);
                *(float4*)(a_tile + k * ACROSS + at) = a;
                float4 b = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (r < it.rows) {
                    const u32 row = row_of(list, it.first + r);
                    if (!refused[row]) b = four<T>(h, row, x0 + at);
                }
                *(float4*)(b_tile + k * ACROSS + at) = b;
            }
            __syncthreads();
            multiply_tiles<T>(acc, a_tile, false, b_tile, m, n);
            __syncthreads();
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++)
#pragma unroll
            for (u32 x = 0; x < 4; x++) {
                u32 c, f;
                place(i, j, x, c, f);
                if (f < h.width) part[(u64)c * h.width + f] = acc[i][j][x];
            }
}

/// `matrix`: the head's columns as rows of f32, each of `pitch` (a multiple of 128) components.
template <class T>
DEVICE void rows(u32 width, const u32* list, const Item* items, u32 first_item, const float* dp, u32 columns, const float* matrix,
                 u32 pitch, const float* weights, const float* dz, void* out, u64 out_stride) {
    DYNAMIC_SHARED(shared);
    float* a_tile = (float*)shared;
    float* b_tile = a_tile + TILE * ALONG;
    const u32 t = threadIdx.x, lane = lane_id(), m = t / WARP / 4, n = t / WARP % 4;
    const u32 x0 = blockIdx.y * TILE;
    const Item it = items[first_item + blockIdx.x];
    float acc[4][4][4] = {};
    for (u32 c = 0; c < columns; c += DEPTH) {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 r = t / 4 + half * 64, along = t % 4 * 4;
            *(float4*)(a_tile + r * ALONG + along) =
                *(const float4*)(dp + ((u64)blockIdx.x * ROWS + r) * columns + c + along);
            const u32 k = t / 32 + half * 8, at = t % 32 * 4;
            *(float4*)(b_tile + k * ACROSS + at) = *(const float4*)(matrix + (u64)(c + k) * pitch + x0 + at);
        }
        __syncthreads();
        multiply_tiles<T>(acc, a_tile, true, b_tile, m, n);
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 y = 0; y < 2; y++) {
            const u32 r = m * 64 + i * 16 + y * 8 + lane / 4;
            if (r >= it.rows) continue;
            const u32 row = row_of(list, it.first + r);
            const float w = weights[row];
#pragma unroll
            for (u32 j = 0; j < 4; j++)
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    const u32 f = x0 + n * 32 + j * 8 + lane % 4 * 2 + e;
                    if (f >= width) continue;
                    const float x = __fmaf_rn(w, dz[(u64)it.bag * width + f], acc[i][j][2 * y + e]);
                    ((typename T::Element*)out)[row * out_stride + f] = T::of(x);
                }
        }
}

#define GATED_BACKWARD(type, T)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) weir_gated_hidden_##type(                                             \
        Features h, const char* __restrict__ matrix, Head head, const u32* __restrict__ list, const Item* __restrict__ items,      \
        u32 first_item, const float* __restrict__ slopes, const u8* __restrict__ refused, float* dp, float* bias_parts,            \
        float* weight_parts) {                                                                                                     \
        hidden<T>(h, matrix, head, list, items, first_item, slopes, refused, dp, bias_parts, weight_parts);                     \
    }                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) weir_gated_layers_##type(                                                \
        Features h, const u32* __restrict__ list, const Item* __restrict__ items, u32 first_item, u32 item_count,                  \
        const u8* __restrict__ refused, const float* __restrict__ dp, u32 columns, u32 again, float* parts) {                      \
        layers<T>(h, list, items, first_item, item_count, refused, dp, columns, again, parts);                                  \
    }                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) weir_gated_rows_##type(                                                  \
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
        float sum = 0.0f;
        for (u32 s = 0; s < SPLITS; s++) sum += parts[((u64)s * columns + column) * width + f];
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
