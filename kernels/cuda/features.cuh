// Feature vectors of f32, f16 and bf16 as warps read them: by slices of a piece (16 bytes) a lane, whole or element by element.
#pragma once
#include "bags.cuh"
#include "elements.cuh"
#include "rule.cuh"

/// Column of a lane's element j within its slice: a piece's lie side by side; elements read one by one are lanes apart.
template <class T, bool WHOLE>
DEVICE u32 column(u32 slice, u32 j) {
    const u32 first = slice * WARP * T::PIECE;
    return WHOLE ? first + lane_id() * T::PIECE + j : first + j * WARP + lane_id();
}

/// Whether no value of a row's piece must be refused.
template <u32 N>
DEVICE bool fine(const float (&h)[N]) {
    bool fine = true;
#pragma unroll
    for (u32 j = 0; j < N; j++) fine = fine && magnitude(h[j]) < FEATURE_LIMIT;
    return fine;
}

/// A lane's part of a row: its piece, or its elements; 0 beyond the last column.
template <class T, bool WHOLE>
DEVICE void load_part(const typename T::Element* row, u32 slice, u32 width, float (&h)[T::PIECE]) {
    if (WHOLE) {
        const u32 c = column<T, WHOLE>(slice, 0);
        T::widen(c < width ? load_stream16(row + c) : make_uint4(0, 0, 0, 0), h);
    } else {
#pragma unroll
        for (u32 j = 0; j < T::PIECE; j++) {
            const u32 c = column<T, WHOLE>(slice, j);
            h[j] = c < width ? T::one(row[c]) : 0.0f;
        }
    }
}

struct PoolArguments {
    const void* features;
    /// Elements from row to row.
    u64 stride;
    u32 width;
    u32 slices;
};
