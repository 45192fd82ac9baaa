// Items of bags, and sums over them in the contract's order: within an item of 128 members ascending, items ascending, from 0.
//
// A warp takes an item. Its lanes make what belongs to a member, four members a lane (member p stands in lane p % 32, word
// p / 32), and all of them add it up together, one member after the other, so that every lane has the sum.
#pragma once
#include "device.cuh"

/// Members of an item, at most.
#define ROWS 128
#define WARP 32
/// Members of an item that a lane makes.
#define EACH_LANE (ROWS / WARP)

/// At most ROWS members of a bag; src/bags.rs.
struct Item {
    u32 bag;
    /// Place of its first member in the list of members.
    u32 first;
    u32 rows;
    /// Place of the item in its bag.
    u32 slot;
};

/// The row of the member at `place`.
DEVICE u32 row_of(const u32* list, u32 place) {
    return list ? list[place] : place;
}

/// The sum over an item's members, in order.
DEVICE float item_sum(const float (&values)[EACH_LANE], u32 rows) {
    float sum = 0.0f;
#pragma unroll
    for (u32 k = 0; k < EACH_LANE; k++) {
        const u32 end = rows < k * WARP ? 0 : min(rows - k * WARP, (u32)WARP);
        for (u32 p = 0; p < end; p++) sum = __fadd_rn(sum, __shfl_sync(FULL_WARP, values[k], (int)p));
    }
    return sum;
}

/// The sum of items' sums, in order, which other blocks have written.
DEVICE float merged_sum(const float* sums, u32 items) {
    auto load = [&](u32 mine) { return mine < items ? load_l2(sums + mine) : 0.0f; };
    float total = 0.0f, next = load(lane_id());
    for (u32 from = 0; from < items; from += WARP) {
        const float value = next;
        // While these are added the next are under way.
        next = load(from + WARP + lane_id());
        const u32 end = min(items - from, (u32)WARP);
        for (u32 p = 0; p < end; p++) total = __fadd_rn(total, __shfl_sync(FULL_WARP, value, (int)p));
    }
    return total;
}

/// Whether this warp is the last of `warps` to come here, and sees what the others wrote before. The count is then 0 again.
DEVICE bool last_of(u32* count, u32 warps) {
    __threadfence();
    __syncwarp();
    u32 before = 0;
    if (lane_id() == 0) {
        // A lane's own fence orders its own writes. That the count says of the other lanes' writes too that they are done holds
        // by the memory model only where a fence of the lane that counts stands after the warp's barrier.
        __threadfence();
        before = atomicAdd(count, 1u);
        // And that what the count says holds for the other lanes' reads, only where a fence stands between it and a barrier.
        __threadfence();
        if (before == warps - 1) *count = 0;
    }
    __syncwarp();
    return __shfl_sync(FULL_WARP, before, 0) == warps - 1;
}
