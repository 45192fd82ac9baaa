#include "asynchronous.h"

#include <cstring>

#include "block.h"
#include "settings.h"

namespace emu {

// ---- cp.async -----------------------------------------------------------------------------------------------------------

static void happen(const PendingCopy& c) {
    if (c.valid)
        memcpy(c.to, c.from, 16);
    else
        memset(c.to, 0, 16);
}

static bool in_shared(const Block& block, const void* p, size_t bytes) {
    return (const char*)p >= block.shared && (const char*)p + bytes <= block.shared + block.shared_size;
}

static void check_shared(const Block& block, const void* p, size_t bytes, const char* what, const Where& where) {
    if (!in_shared(block, p, bytes))
        report(where, "SHARED MEMORY OVERRUN: %s at byte %td, %zu bytes, of a block's %zu", what, (const char*)p - block.shared,
               bytes, block.shared_size);
}

void cp_async16(void* to, const void* from, bool valid, const Where& where) {
    if ((uintptr_t)to % 16 || (valid && (uintptr_t)from % 16)) report(where, "MISALIGNED cp.async: both ends must be 16-byte aligned");
    check_shared(*self().home, to, 16, "cp.async", where);
    const PendingCopy copy{(char*)to, (const char*)from, valid};
    if (!settings().late) happen(copy);
    self().open_copies.push_back(copy);
}

void cp_async_commit() {
    self().copy_groups.push_back(std::move(self().open_copies));
    self().open_copies.clear();
}

void cp_async_wait(unsigned pending) {
    Thread& me = self();
    for (; me.copy_groups.size() > pending; me.copy_groups.pop_front())
        if (settings().late)
            for (const PendingCopy& copy : me.copy_groups.front()) happen(copy);
}

// ---- mbarrier -----------------------------------------------------------------------------------------------------------

static constexpr uint64_t MARK = 0x7765697262617272ull;

static MBarrier& find(Block& block, void* barrier, const char* what, const Where& where) {
    check_shared(block, barrier, 8, what, where);
    if ((uintptr_t)barrier % 8) report(where, "MISALIGNED mbarrier: 8-byte alignment is wanted");
    auto found = block.mbarriers.find(barrier);
    if (found == block.mbarriers.end()) report(where, "%s: no mbarrier was initialised here", what);
    uint64_t mark;
    memcpy(&mark, barrier, 8);
    if (mark != MARK) report(where, "%s: something wrote over the mbarrier", what);
    return found->second;
}

/// The phase that a wait on `parity` asks for is complete.
static bool passed(const MBarrier& b, uint32_t parity) {
    return (b.phase & 1) != parity;
}

static void settle(Block& block, void* barrier, MBarrier& b) {
    if (b.pending != 0 || b.bytes != 0) return;
    b.phase++;
    b.pending = b.count;
    for (Thread& t : block.threads)
        if (t.waits == Waits::MBarrier && t.barrier == barrier && passed(b, t.parity)) t.waits = Waits::Ready;
}

static void arrive(Block& block, void* barrier, int64_t bytes, const Where& where) {
    MBarrier& b = find(block, barrier, "mbarrier.arrive", where);
    if (b.pending == 0) report(where, "mbarrier.arrive: more than %u arrivals in phase %llu", b.count, (unsigned long long)b.phase);
    b.bytes += bytes;
    b.pending--;
    settle(block, barrier, b);
}

static Block& neighbour(uint32_t rank, const char* what, const Where& where) {
    Cluster& cluster = *self().home->cluster;
    if (rank >= cluster.blocks.size()) report(where, "%s: the cluster has %zu blocks, none is %u", what, cluster.blocks.size(), rank);
    Block& block = cluster.blocks[rank];
    if (block.alive == 0) report(where, "%s: block %u of the cluster has exited", what, rank);
    return block;
}

void mbarrier_init(void* barrier, uint32_t arrivals, const Where& where) {
    Block& block = *self().home;
    check_shared(block, barrier, 8, "mbarrier.init", where);
    if ((uintptr_t)barrier % 8) report(where, "MISALIGNED mbarrier: 8-byte alignment is wanted");
    if (arrivals == 0) report(where, "mbarrier.init: no arrivals");
    memcpy(barrier, &MARK, 8);
    MBarrier b;
    b.count = b.pending = arrivals;
    block.mbarriers[barrier] = b;
}

void mbarrier_arrive(void* barrier, int64_t bytes, const Where& where) {
    arrive(*self().home, barrier, bytes, where);
}

void mbarrier_arrive_remote(void* barrier, uint32_t rank, const Where& where) {
    Block& there = neighbour(rank, "mbarrier.arrive.cluster", where);
    arrive(there, there.shared + ((char*)barrier - self().home->shared), 0, where);
}

void mbarrier_wait(void* barrier, uint32_t parity, const Where& where) {
    Thread& me = self();
    if (parity > 1) report(where, "mbarrier.try_wait: a parity is 0 or 1, not %u", parity);
    if (passed(find(*me.home, barrier, "mbarrier.try_wait", where), parity)) return;
    me.barrier = barrier;
    me.parity = parity;
    suspend(Waits::MBarrier, where);
}

// ---- bulk copies --------------------------------------------------------------------------------------------------------

static void happen(const PendingBulk& c) {
    memcpy(c.to, c.from, c.bytes);
    MBarrier& b = find(*c.block, c.barrier, "cp.async.bulk", c.where);
    b.bytes -= c.bytes;
    settle(*c.block, c.barrier, b);
}

void bulk_copy(void* to, const void* from, uint32_t bytes, void* barrier, uint16_t blocks, const Where& where) {
    Block& mine = *self().home;
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16)
        report(where, "MISALIGNED cp.async.bulk: both ends and the size must be multiples of 16");
    for (uint32_t rank = 0; rank < 16; rank++) {
        if (!(blocks >> rank & 1)) continue;
        Block& block = neighbour(rank, "cp.async.bulk", where);
        PendingBulk copy{&block, block.shared + ((char*)to - mine.shared), (const char*)from, bytes,
                         block.shared + ((char*)barrier - mine.shared), where};
        check_shared(block, copy.to, bytes, "cp.async.bulk", where);
        find(block, copy.barrier, "cp.async.bulk", where);
        if (settings().late)
            mine.cluster->bulk.push_back(copy);
        else
            happen(copy);
    }
}

bool complete_one_bulk_copy(Cluster& cluster) {
    if (cluster.bulk.empty()) return false;
    const size_t i = settings().seed ? cluster.draw(cluster.bulk.size()) : 0;
    const PendingBulk copy = cluster.bulk[i];
    cluster.bulk.erase(cluster.bulk.begin() + i);
    happen(copy);
    return true;
}

// ---- the cluster's barrier ----------------------------------------------------------------------------------------------

static void settle(Cluster& cluster) {
    if (cluster.arrived == 0 || cluster.arrived < cluster.alive) return;
    cluster.arrived = 0;
    cluster.phase++;
    for (Block& block : cluster.blocks)
        for (Thread& t : block.threads)
            if (t.waits == Waits::Cluster) t.waits = Waits::Ready;
}

void cluster_arrive(const Where& where) {
    Thread& me = self();
    Cluster& cluster = *me.home->cluster;
    if (me.cluster_arrived) report(where, "barrier.cluster.arrive: this thread has arrived and not waited");
    me.cluster_arrived = true;
    me.cluster_phase = cluster.phase;
    cluster.arrived++;
    settle(cluster);
}

void cluster_wait(const Where& where) {
    Thread& me = self();
    if (!me.cluster_arrived) report(where, "barrier.cluster.wait: this thread has not arrived");
    me.cluster_arrived = false;
    if (me.home->cluster->phase == me.cluster_phase) suspend(Waits::Cluster, where);
}

void cluster_exited(Cluster& cluster) {
    settle(cluster);
}

// ---- ends ---------------------------------------------------------------------------------------------------------------

void finished(Thread& me) {
    if (!me.open_copies.empty()) report("cp.async: this thread exits with copies that no commit_group closed");
    if (!me.open_products.empty() || !me.product_groups.empty()) report("wgmma: this thread exits without waiting for its products");
    if (me.cluster_arrived) report("barrier.cluster: this thread exits between arrive and wait");
}

void block_finished(Block& block) {
    for (const PendingBulk& copy : block.cluster->bulk)
        if (copy.block == &block) report(copy.where, "cp.async.bulk: the block exits before the copy was waited for");
}

}  // namespace emu
