// (d) The m highest and the m lowest members of each bag, in one pass over the scores.
//
//   scores ──► slices of 4096 members, a block each ──► m and m sorted keys ──► rows       (a bag of one slice)
//                                                              └────► merged slice by slice ──► rows   (a longer bag)
//
// A member's key is 64 bits, the smaller the better: the score's rank above its row in the bag. No two are equal, so what is
// selected does not depend on slices, blocks or threads. The lowest are the best by the complements of the keys.
//
// A block holds its slice's ranks in registers, 16 a thread. The m-th rank is found bit by bit from the first in which the
// slice's ranks differ: each step counts the ranks up to a bound (16 comparisons a thread, five shuffles, one barrier), and the
// first bound with exactly m below it ends the search. Ranks equal to the bound are told apart by their places in the same way.
// Only then are the selected keys made, gathered in shared memory in any order, and sorted (bitonic network). No order of the
// scores is bad, and nothing is added but integers.
//
// Reads 4 bytes a member (8 where rows are masked) once; writes 4 (m + m) bytes a bag.
#include "device.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
/// Members of a slice.
#define SLICE 4096
#define EACH (SLICE / THREADS)
/// The most of an end.
#define LIMIT 1024
/// Up to so many members are sorted without a search.
#define FEW 256
/// No key, no rank: behind all.
#define NO_KEY 0xFFFFFFFFFFFFFFFFull
#define NO_RANK 0xFFFFFFFFu
/// Ranks of the infinities: those of NaNs lie outside.
#define FIRST_RANK 0x007FFFFFu
#define LAST_RANK 0xFF800000u

struct Slice {
    u32 bag;
    /// Place of its first member in the list of members.
    u32 first;
    u32 members;
    /// Its place among the slices that are merged; NO_RANK: it is its bag's only one.
    u32 slot;
};

struct Merge {
    u32 bag;
    /// Slots of the bag's slices.
    u32 first;
    u32 slots;
    u32 members;
};

/// Rank of a score: descending in the total order, so of two zeros the positive one is first.
DEVICE u32 rank_of(float score) {
    const u32 bits = __float_as_uint(score);
    return (bits ^ ((u32)((i32)bits >> 31) >> 1)) ^ 0x7FFFFFFFu;
}

/// The sum of `mine` over the block, in all threads. `turn` alternates between two rows of `sums`, so that one barrier is
/// enough: who writes a row has passed the barrier after all reads of it.
DEVICE u32 block_sum(u32 mine, u32* sums, u32& turn) {
    for (int d = 16; d > 0; d /= 2) mine += __shfl_xor_sync(FULL_WARP, mine, d);
    u32* row = sums + (turn++ & 1) * WARPS;
    if (lane_id() == 0) row[threadIdx.x / 32] = mine;
    __syncthreads();
    u32 sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += row[w];
    return sum;
}

/// Compares and exchanges the pairs of one step of a bitonic network, then waits for what the next step reads. Pairs up to 32
/// apart lie in the 64 keys of one warp.
DEVICE void network_step(u64* keys, u32 size, u32 block, u32 apart, u32 next_apart) {
    for (u32 i = threadIdx.x; i < size / 2; i += THREADS) {
        const u32 low = 2 * i - (i & (apart - 1));
        const u64 a = keys[low], b = keys[low + apart];
        if ((a > b) == ((low & block) == 0)) {
            keys[low] = b;
            keys[low + apart] = a;
        }
    }
    if (apart > 32 || next_apart > 32)
        __syncthreads();
    else
        __syncwarp();
}

/// Sorts `size` keys, a power of two, ascending. All threads have seen them before and see them after.
DEVICE void sort_keys(u64* keys, u32 size) {
    for (u32 block = 2; block <= size; block *= 2)
        for (u32 apart = block / 2; apart > 0; apart /= 2) network_step(keys, size, block, apart, apart > 1 ? apart / 2 : block);
    __syncthreads();
}

/// The smallest power of two that is no less than `n`, which is at least 1.
DEVICE u32 power_of_two(u32 n) {
    return n <= 1 ? 1u : 1u << (32 - __clz((int)(n - 1)));
}

/// Rows of one end of a bag from its sorted keys: the highest first to last, the lowest last to first.
DEVICE void write_rows(i32* rows, u32 width, const u64* keys, u32 chosen, u32 flip) {
    for (u32 j = threadIdx.x; j < width; j += THREADS) {
        const u32 at = flip ? chosen - 1 - j : j;
        rows[j] = j < chosen ? (i32)((u32)keys[at] ^ flip) : -1;
    }
}

/// How many of each end a bag of `members` numbers gives.
DEVICE u32 chosen_of(u32 members, u32 highest, u32 lowest, u32 flip) {
    const u32 top = min(members, highest);
    return flip ? min(members - top, lowest) : top;
}

/// Whether member `i` of this thread stands at place `last` of the slice or before it, counted from the end where `flip`.
DEVICE bool within(int i, u32 last, u32 flip) {
    // One comparison with a constant for each i: places are not kept in registers.
    const u32 from = flip ? SLICE - 1 - min(last, SLICE - 1u) : 0;
    return threadIdx.x - from + i * THREADS <= min(last, SLICE - 1u);
}

/// Selects and sorts the `wanted` best keys of the slice and returns how many stand in `keys`: fewer where it has fewer, and all
/// where they are FEW. `ranks` lie between `least` and `greatest`, or are NO_RANK. `flip` is 0 for the highest; for the lowest it
/// is all ones, and ranks are complements.
DEVICE u32 select_end(const u32 (&ranks)[EACH], u32 members, u32 least, u32 greatest, u32 wanted, u32 flip, const Slice& slice,
                      const u32* list, u32 base, u64* keys, u32* sums, u32* gathered, u32& turn) {
    // Selected are ranks below `bound`, and those equal to it up to place `last`.
    u32 bound = NO_RANK - 1, last = SLICE;
    if (members > wanted && members > FEW) {
        const u32 differ = least ^ greatest;
        u32 below = 0;
        bool exact = false;
        u32 bit = differ ? 1u << (31 - __clz((int)differ)) : 0;
        bound = bit ? least & ~(2 * bit - 1) : least;
        for (; bit > 0 && !exact; bit /= 2) {
            const u32 test = bound | (bit - 1);
            u32 mine = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) mine += ranks[i] <= test;
            const u32 count = block_sum(mine, sums, turn);
            if (count == wanted) {
                exact = true;
                bound = test;
            } else if (count < wanted) {
                below = count;
                bound |= bit;
            }
        }
        if (!exact) {
            last = 0;
            for (u32 step = SLICE / 2; step > 0; step /= 2) {
                const u32 test = last | (step - 1);
                u32 mine = 0;
#pragma unroll
                for (int i = 0; i < EACH; i++) mine += ranks[i] == bound && within(i, test, flip);
                if (below + block_sum(mine, sums, turn) < wanted) last |= step;
            }
        }
    }
    u32 chosen = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) chosen |= (u32)(ranks[i] < bound || (ranks[i] == bound && within(i, last, flip))) << i;
    if (threadIdx.x == 0) *gathered = 0;
    __syncthreads();
    if (chosen) {
        u32 to = atomicAdd(gathered, (u32)__popc(chosen));
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (chosen & (1u << i)) keys[to++] = ((u64)ranks[i] << 32) | ((threadIdx.x + i * THREADS) ^ flip);
    }
    __syncthreads();
    const u32 count = *gathered, size = power_of_two(count);
    for (u32 j = count + threadIdx.x; j < size; j += THREADS) keys[j] = NO_KEY;
    __syncthreads();
    sort_keys(keys, size);
    // Rows ascend with places, so they take their places only now, when few are left.
    for (u32 j = threadIdx.x; j < count; j += THREADS) {
        const u64 key = keys[j];
        const u32 place = slice.first + ((u32)key ^ flip);
        keys[j] = (key & 0xFFFFFFFF00000000ull) | (((list ? list[place] : place) - base) ^ flip);
    }
    __syncthreads();
    return count;
}

/// A block a slice. `list` gives the rows of the members, null: all rows are. `offsets` are those of the bags' rows. A bag of
/// one slice is done with; the others' slices leave `highest` + `lowest` keys in `slots` and their NaNs in `slot_nans`.
extern "C" __global__ void __launch_bounds__(THREADS, 3) weir_top_k_slices(
    const float* __restrict__ scores, const u32* __restrict__ list, const u32* __restrict__ offsets,
    const Slice* __restrict__ slices, u32 highest, u32 lowest, i32* __restrict__ high_rows, i32* __restrict__ low_rows,
    u32* __restrict__ nans, u64* __restrict__ slots, u32* __restrict__ slot_nans) {
    DYNAMIC_SHARED(shared);
    u64* keys = (u64*)shared;
    u32* sums = (u32*)(keys + LIMIT);
    u32* gathered = sums + 2 * WARPS;
    u32 turn = 0;

    const Slice slice = slices[blockIdx.x];
    const u32 base = offsets[slice.bag];
    // First the rows, then the scores, then their ranks: each step's loads are under way together.
    u32 ranks[EACH];
    if (list) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const u32 place = threadIdx.x + i * THREADS;
            ranks[i] = place < slice.members ? list[slice.first + place] : 0;
        }
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++) ranks[i] = slice.first + threadIdx.x + i * THREADS;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        ranks[i] = threadIdx.x + i * THREADS < slice.members ? rank_of(scores[ranks[i]]) : NO_RANK;
    u32 mine = 0, least = NO_RANK, greatest = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (ranks[i] >= FIRST_RANK && ranks[i] <= LAST_RANK) {
            least = min(least, ranks[i]);
            greatest = max(greatest, ranks[i]);
            mine += 1;
        } else {
            ranks[i] = NO_RANK;
        }
    }
    const u32 members = block_sum(mine, sums, turn);
    // The two rows of sums hold the warps' least and greatest for a moment.
    for (int d = 16; d > 0; d /= 2) {
        least = min(least, __shfl_xor_sync(FULL_WARP, least, d));
        greatest = max(greatest, __shfl_xor_sync(FULL_WARP, greatest, d));
    }
    __syncthreads();
    if (lane_id() == 0) {
        sums[threadIdx.x / 32] = least;
        sums[WARPS + threadIdx.x / 32] = greatest;
    }
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        least = min(least, sums[w]);
        greatest = max(greatest, sums[WARPS + w]);
    }
    __syncthreads();

    const bool alone = slice.slot == NO_RANK;
    if (threadIdx.x == 0) (alone ? nans + slice.bag : slot_nans + slice.slot)[0] = slice.members - members;
#pragma unroll 1
    for (u32 end = 0; end < 2; end++) {
        const u32 flip = end ? ~0u : 0u, wanted = end ? lowest : highest;
        if (end) {
            const u32 first = ~greatest;
            greatest = ~least;
            least = first;
#pragma unroll
            for (int i = 0; i < EACH; i++) ranks[i] = ranks[i] == NO_RANK ? NO_RANK : ~ranks[i];
        }
        if (wanted == 0) continue;
        const u32 count =
            select_end(ranks, members, least, greatest, wanted, flip, slice, list, base, keys, sums, gathered, turn);
        if (alone) {
            i32* rows = (end ? low_rows : high_rows) + (u64)slice.bag * wanted;
            write_rows(rows, wanted, keys, chosen_of(members, highest, lowest, flip), flip);
        } else {
            u64* to = slots + (u64)slice.slot * (highest + lowest) + (end ? highest : 0);
            for (u32 j = threadIdx.x; j < wanted; j += THREADS) to[j] = j < count ? keys[j] : NO_KEY;
        }
        __syncthreads();
    }
}

/// A block for each bag of several slices (x) and each end (y). The best so far and a slice's, both sorted: the smaller of each
/// pair, one list read backwards, are the best of both, and half a network sorts them.
extern "C" __global__ void __launch_bounds__(THREADS) weir_top_k_merge(
    const Merge* __restrict__ merges, const u64* __restrict__ slots, const u32* __restrict__ slot_nans, u32 highest, u32 lowest,
    i32* __restrict__ high_rows, i32* __restrict__ low_rows, u32* __restrict__ nans) {
    DYNAMIC_SHARED(shared);
    u64* keys = (u64*)shared;
    u32* sums = (u32*)(keys + LIMIT);
    u32 turn = 0;

    const Merge merge = merges[blockIdx.x];
    const u32 flip = blockIdx.y ? ~0u : 0u, wanted = flip ? lowest : highest;
    u32 mine = 0;
    for (u32 s = threadIdx.x; s < merge.slots; s += THREADS) mine += slot_nans[merge.first + s];
    const u32 refused = block_sum(mine, sums, turn);
    if (threadIdx.x == 0 && flip == 0) nans[merge.bag] = refused;
    if (wanted == 0) return;

    const u32 size = power_of_two(wanted), stride = highest + lowest;
    const u64* from = slots + (u64)merge.first * stride + (flip ? highest : 0);
    for (u32 j = threadIdx.x; j < size; j += THREADS) keys[j] = j < wanted ? from[j] : NO_KEY;
    __syncthreads();
    for (u32 s = 1; s < merge.slots; s++) {
        const u64* next = from + (u64)s * stride;
        // Most slices of a long bag have nothing that is better than the last of the best.
        if (next[0] >= keys[wanted - 1]) continue;
        __syncthreads();
        for (u32 j = threadIdx.x; j < wanted; j += THREADS) {
            const u64 other = next[j];
            const u32 at = size - 1 - j;
            if (other < keys[at]) keys[at] = other;
        }
        __syncthreads();
        for (u32 apart = size / 2; apart > 0; apart /= 2) network_step(keys, size, size, apart, apart / 2);
        __syncthreads();
    }
    i32* rows = (flip ? low_rows : high_rows) + (u64)merge.bag * wanted;
    write_rows(rows, wanted, keys, chosen_of(merge.members - refused, highest, lowest, flip), flip);
}
