// The emulated machine's state: threads in warps in blocks in a cluster. One OS thread runs one cluster at a time.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "fiber.h"
#include "thread.h"

namespace emu {

struct Block;
struct Cluster;

/// What a thread waits for. `Ready` runs at its next turn.
enum class Waits : uint8_t { Ready, Warp, Named, MBarrier, Cluster, Done };

/// A copy of cp.async that may not have happened yet.
struct PendingCopy {
    char* to;
    const char* from;
    bool valid;
};

/// A product of wgmma that may not have happened yet.
struct PendingProduct {
    float* d;
    uint32_t a[2][8];  // rows g and g + 8 of this warp's A, 16 elements each, packed in pairs
    bool a_shared;
    uint64_t a_descriptor, b_descriptor;
    bool accumulate, f16;
};

/// Accumulators of products under way: what they hold, while the thread's own copy is poisoned.
struct HeldAccumulators {
    float value[128];
    unsigned products = 0;
};

struct Thread : Place {
    Context context;
    Block* home = nullptr;
    Waits waits = Waits::Ready;
    Where where;          // of the last wait
    const void* barrier = nullptr;  // of Waits::MBarrier
    uint32_t parity = 0;
    std::vector<PendingCopy> open_copies;
    std::deque<std::vector<PendingCopy>> copy_groups;
    bool fenced = false;
    std::vector<PendingProduct> open_products;
    std::deque<std::vector<PendingProduct>> product_groups;
    std::map<float*, HeldAccumulators> held;
    bool cluster_arrived = false;
    uint64_t cluster_phase = 0;
};

/// What one lane shows the others of its warp.
struct Slot {
    alignas(8) unsigned char bytes[64];
};

/// Lanes of a warp that do one collective operation together.
struct Rendezvous {
    uint32_t mask = 0, arrived = 0, left = 0;
    const char* operation = nullptr;
    Where where;
    bool complete = false;
    Slot slot[32];
};

struct Warp {
    uint32_t alive = 0;
    std::vector<Rendezvous*> open, spare;
    ~Warp() {
        for (Rendezvous* r : open) delete r;
        for (Rendezvous* r : spare) delete r;
    }
};

/// bar.sync with an id, or __syncthreads (id 0).
struct NamedBarrier {
    unsigned arrived = 0, wanted = 0;
    int yes = 0, result = 0;
    Sum sum = Sum::None;
    Where where;
};

/// The state of an mbarrier; its 8 bytes in shared memory hold only a mark.
struct MBarrier {
    uint32_t count = 0, pending = 0;
    int64_t bytes = 0;
    uint64_t phase = 0;
};

/// A bulk copy that has not happened yet.
struct PendingBulk {
    Block* block;  // that gets it
    char* to;
    const char* from;
    uint32_t bytes;
    char* barrier;
    Where where;
};

struct Block {
    Cluster* cluster = nullptr;
    dim3 index;
    unsigned rank = 0;    // in the cluster
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    unsigned alive = 0;
    NamedBarrier barriers[16];
    char* shared = nullptr;
    size_t shared_size = 0;
    std::map<const void*, MBarrier> mbarriers;
};

struct Launch;

struct Cluster {
    const Launch* launch = nullptr;
    std::vector<Block> blocks;
    Stacks stacks;
    Context scheduler;
    std::vector<PendingBulk> bulk;
    unsigned alive = 0;
    unsigned arrived = 0;
    uint64_t phase = 0;
    uint64_t random = 1;

    /// A number below `n`, of the seed.
    uint64_t draw(uint64_t n);
};

/// A kernel's launch. `body` runs once a thread.
struct Launch {
    const char* name = "";
    dim3 grid, block, cluster;
    size_t shared = 0;
    void (*body)(const void* arguments) = nullptr;
    const void* arguments = nullptr;
};

/// Runs all blocks of a launch to their end, in the order of the seed.
void run(const Launch& launch);

inline Thread& self() {
    return static_cast<Thread&>(*running);
}

/// Lets others run until `self().waits` is Ready again.
void suspend(Waits what, const Where& where);

}  // namespace emu
