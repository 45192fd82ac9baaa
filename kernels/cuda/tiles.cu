// (e) Tiles of bytes, NHWC, to a network's numbers, NCHW: byte * scale + shift, then one rounding.
//
//   48 bytes of 16 pixels:  rgbrgbrgb...  ──►  shared memory  ──►  r r r r ...   16 bytes of each plane at a time
//                                                                  g g g g ...
//                                                                  b b b b ...
//
// A unit is 16 pixels of a row. A warp takes 32 units, which need not lie in one row or tile: 96 loads of 16 bytes, in the
// order of the addresses, are staged in the warp's own shared memory; then each lane takes neighbouring pixels from there (4 or
// 8, three words that hit different banks in all lanes) and writes 16 bytes of each plane, again in the order of the
// addresses. Every load and store of full units thus fills its sectors. A flip takes a row's units and a unit's pixels from
// the end.
//
// Where an address or a stride is no multiple of 16 bytes, a width no multiple of 16 pixels or the pixels do not lie side by
// side, the second kernel takes four pixels a thread, a number at a time: the same numbers.
//
// Reads 3 bytes a pixel and writes 6 or 12, once.
#include "elements.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
/// Pixels of a unit, and its bytes.
#define UNIT 16
#define UNIT_BYTES 48
/// Pixels that a thread of the second kernel takes.
#define EACH 4

/// Per channel of the output.
struct Form {
    float scale[3];
    float shift[3];
};

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE u32 bits_of(u16 x) { return x; }

/// The number of a byte; never fused.
template <class T>
DEVICE typename T::Element number(u32 byte, float scale, float shift) {
    return T::of(__fadd_rn(__fmul_rn((float)byte, scale), shift));
}

/// 16 bytes of a plane, from the pixels in `words`: a channel's every third byte.
template <class T, int CHANNEL, bool FLIP>
DEVICE void write_plane(const u32* words, float scale, float shift, typename T::Element* to) {
    constexpr int PIXELS = T::PIECE, A_WORD = 4 / T::BYTES;
    u32 out[4] = {0, 0, 0, 0};
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        const int at = 3 * (FLIP ? PIXELS - 1 - p : p) + CHANNEL;
        const u32 bits = bits_of(number<T>((words[at / 4] >> (8 * (at % 4))) & 0xFFu, scale, shift));
        out[p / A_WORD] |= bits << (p % A_WORD * 16);
    }
    store16(to, make_uint4(out[0], out[1], out[2], out[3]));
}

template <class T, bool FLIP>
DEVICE void write_planes(const u32* words, u32 channels, const Form& form, typename T::Element* to, u64 plane) {
#pragma unroll
    for (int c = 0; c < 3; c++) {
        // The same branch for all threads: bytes are taken from registers at places known to the compiler.
        const u32 channel = (channels >> (8 * c)) & 0xFFu;
        if (channel == 0)
            write_plane<T, 0, FLIP>(words, form.scale[c], form.shift[c], to);
        else if (channel == 1)
            write_plane<T, 1, FLIP>(words, form.scale[c], form.shift[c], to);
        else
            write_plane<T, 2, FLIP>(words, form.scale[c], form.shift[c], to);
        to += plane;
    }
}

/// `units` units of `row_units` a row and `tile_units` a tile. Strides of the source in bytes, of the planes in numbers.
template <class T>
DEVICE void tiles_of_units(const u8* __restrict__ from, typename T::Element* __restrict__ to, u32 units, u32 row_units,
                           u32 tile_units, u64 from_tile, u64 from_row, u64 to_tile, u64 to_plane, u64 to_row, Form form,
                           u32 channels, u32 flip) {
    DYNAMIC_SHARED(shared);
    constexpr u32 PIXELS = T::PIECE, GROUPS = UNIT / PIXELS;
    char* staged = shared + threadIdx.x / 32 * (32 * UNIT_BYTES);
    const u32 lane = lane_id(), first = (blockIdx.x * WARPS + threadIdx.x / 32) * 32;
    if (first >= units) return;
    const u32 here = min(units - first, 32u);

    // Each lane knows where one unit lies and tells the others.
    const u32 unit = first + min(lane, here - 1);
    const u32 tile = unit / tile_units, rest = unit - tile * tile_units;
    const u32 row = rest / row_units, column = rest - row * row_units;
    const u64 source = tile * from_tile + row * from_row + (flip ? row_units - 1 - column : column) * UNIT_BYTES;
    const u64 target = tile * to_tile + row * to_row + column * UNIT;

    uint4 loaded[3];
#pragma unroll
    for (int i = 0; i < 3; i++) {
        const u32 vector = lane + 32 * i, of = vector / 3;
        const u64 at = __shfl_sync(FULL_WARP, source, (int)of);
        if (of < here) loaded[i] = load_stream16(from + at + 16 * (vector - 3 * of));
    }
#pragma unroll
    for (int i = 0; i < 3; i++) {
        const u32 vector = lane + 32 * i;
        if (vector / 3 < here) store16(staged + 16 * vector, loaded[i]);
    }
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < GROUPS; i++) {
        const u32 group = lane + 32 * i, of = group / GROUPS, place = group % GROUPS;
        const u64 at = __shfl_sync(FULL_WARP, target, (int)of);
        if (of >= here) continue;
        const u32 taken = flip ? GROUPS - 1 - place : place;
        const char* group_at = staged + of * UNIT_BYTES + taken * PIXELS * 3;
        u32 words[PIXELS * 3 / 4];
        // Steps of 12 bytes from lane to lane with 4 loaded, or of 24 with 8: no two lanes meet in a bank.
#pragma unroll
        for (u32 w = 0; w < 3; w++) {
            if constexpr (PIXELS == 8) {
                const uint2 two = ((const uint2*)group_at)[w];
                words[2 * w] = two.x;
                words[2 * w + 1] = two.y;
            } else {
                words[w] = ((const u32*)group_at)[w];
            }
        }
        typename T::Element* target_at = to + at + place * PIXELS;
        if (flip)
            write_planes<T, true>(words, channels, form, target_at, to_plane);
        else
            write_planes<T, false>(words, channels, form, target_at, to_plane);
    }
}

/// `pixels` pixels of `width` a row and `tile_pixels` a tile, lying anyhow; strides as above.
template <class T>
DEVICE void tiles_of_pixels(const u8* __restrict__ from, typename T::Element* __restrict__ to, u32 pixels, u32 width,
                            u32 tile_pixels, u64 from_tile, u64 from_row, u64 from_pixel, u64 from_channel, u64 to_tile,
                            u64 to_plane, u64 to_row, u64 to_pixel, Form form, u32 channels, u32 flip) {
    const u64 first = (u64)blockIdx.x * (THREADS * EACH) + threadIdx.x;
    u32 bytes[EACH][3];
    u64 target[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const u32 pixel = (u32)min(first + i * THREADS, (u64)pixels - 1);
        const u32 tile = pixel / tile_pixels, rest = pixel - tile * tile_pixels;
        const u32 row = rest / width, x = rest - row * width;
        const u8* source = from + tile * from_tile + row * from_row + (flip ? width - 1 - x : x) * from_pixel;
        target[i] = tile * to_tile + row * to_row + x * to_pixel;
#pragma unroll
        for (int c = 0; c < 3; c++) bytes[i][c] = source[((channels >> (8 * c)) & 0xFFu) * from_channel];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (first + i * THREADS >= pixels) return;
#pragma unroll
        for (int c = 0; c < 3; c++) to[target[i] + c * to_plane] = number<T>(bytes[i][c], form.scale[c], form.shift[c]);
    }
}

#define KERNELS(NAME, T) \
    extern "C" __global__ void __launch_bounds__(THREADS) weir_tiles_units_##NAME( \
        const u8* __restrict__ from, T::Element* __restrict__ to, u32 units, u32 row_units, u32 tile_units, u64 from_tile, \
        u64 from_row, u64 to_tile, u64 to_plane, u64 to_row, Form form, u32 channels, u32 flip) { \
        tiles_of_units<T>(from, to, units, row_units, tile_units, from_tile, from_row, to_tile, to_plane, to_row, form, channels, \
                          flip); \
    } \
    extern "C" __global__ void __launch_bounds__(THREADS) weir_tiles_pixels_##NAME( \
        const u8* __restrict__ from, T::Element* __restrict__ to, u32 pixels, u32 width, u32 tile_pixels, u64 from_tile, \
        u64 from_row, u64 from_pixel, u64 from_channel, u64 to_tile, u64 to_plane, u64 to_row, u64 to_pixel, Form form, \
        u32 channels, u32 flip) { \
        tiles_of_pixels<T>(from, to, pixels, width, tile_pixels, from_tile, from_row, from_pixel, from_channel, to_tile, to_plane, \
                           to_row, to_pixel, form, channels, flip); \
    }

KERNELS(f32, F32)
KERNELS(f16, F16)
KERNELS(bf16, Bf16)
