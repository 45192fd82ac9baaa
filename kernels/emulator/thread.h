// What a kernel sees of the emulator: where its thread stands, and what threads of a block or a warp do together. Light, since
// every kernel includes it; the machine's state is block.h's.
#pragma once
#include <cstddef>
#include <cstdint>

#include "report.h"

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emu {

/// Where a thread stands.
struct Place {
    dim3 thread, block, block_size, grid_size;
    unsigned linear = 0;     // thread of the block
    unsigned rank = 0;       // block of the cluster
    char* shared = nullptr;  // the block's dynamic shared memory: exact size, poisoned
};

/// The thread that runs on this OS thread; none outside a kernel.
extern thread_local Place* running;

/// Barrier `id` of `threads` threads (0: all that have not exited). The result is `sum` over them.
enum class Sum : uint8_t { None, Count, And, Or };
int barrier(unsigned id, unsigned threads, bool yes, Sum sum, const Where& where);

/// The bits that lane `source` of the warp shows.
uint64_t shuffle(uint32_t mask, uint64_t bits, unsigned source, const char* operation, const Where& where);
uint32_t ballot(uint32_t mask, bool yes, const char* operation, const Where& where);
void sync_warp(uint32_t mask, const Where& where);

}  // namespace emu
