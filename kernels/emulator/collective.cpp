#include "collective.h"

#include <bit>

namespace emu {

static void complete(Rendezvous& r, Block& block, unsigned warp) {
    r.complete = true;
    for (unsigned i = 0; i < 32; i++)
        if (r.arrived >> i & 1) {
            Thread& other = block.threads[warp * 32 + i];
            if (other.waits == Waits::Warp) other.waits = Waits::Ready;
        }
}

Rendezvous* meet(uint32_t mask, const Slot& slot, const char* operation, bool aligned, const Where& where) {
    Thread& me = self();
    Warp& warp = me.home->warps[me.linear / 32];
    const unsigned lane = me.linear % 32;
    if (!(mask >> lane & 1)) report(where, "%s: the mask %08x leaves this lane (%u) out", operation, mask, lane);
    if (aligned && warp.alive != ~0u) report(where, "%s: a lane of the warp has exited, or the warp is not whole", operation);
    Rendezvous* r = nullptr;
    for (Rendezvous* open : warp.open)
        if (!open->complete && open->mask == mask && !(open->arrived >> lane & 1)) r = open;
    if (!r) {
        if (warp.spare.empty()) {
            r = new Rendezvous;
        } else {
            r = warp.spare.back();
            warp.spare.pop_back();
        }
        r->mask = mask;
        r->arrived = r->left = 0;
        r->complete = false;
        r->operation = operation;
        r->where = where;
        warp.open.push_back(r);
    }
    if (r->operation != operation && strcmp(r->operation, operation) != 0)
        report(where, "DIVERGENT warp: this lane does %s, another does %s at line %u", operation, r->operation, r->where.line());
    if (aligned && r->where.line() != where.line())
        report(where, "DIVERGENT warp: %s here, and in another lane at line %u", operation, r->where.line());
    r->slot[lane] = slot;
    r->arrived |= 1u << lane;
    const uint32_t wanted = mask & warp.alive;
    if ((r->arrived & wanted) == wanted) {
        complete(*r, *me.home, me.linear / 32);
    } else {
        while (!r->complete) suspend(Waits::Warp, where);
    }
    return r;
}

void leave(Rendezvous* r) {
    Thread& me = self();
    r->left |= 1u << me.linear % 32;
    if (r->left != r->arrived) return;
    Warp& warp = me.home->warps[me.linear / 32];
    std::erase(warp.open, r);
    warp.spare.push_back(r);
}

uint64_t shuffle(uint32_t mask, uint64_t bits, unsigned source, const char* operation, const Where& where) {
    Rendezvous* r = meet(mask, slot_of(bits), operation, false, where);
    if (!(r->arrived >> source & 1)) report(where, "%s reads lane %u, which takes no part", operation, source);
    const uint64_t result = from_slot<uint64_t>(r->slot[source]);
    leave(r);
    return result;
}

void sync_warp(uint32_t mask, const Where& where) {
    leave(meet(mask, Slot(), "__syncwarp", false, where));
}

uint32_t ballot(uint32_t mask, bool yes, const char* operation, const Where& where) {
    Rendezvous* r = meet(mask, slot_of((unsigned char)yes), operation, false, where);
    uint32_t votes = 0;
    for (unsigned i = 0; i < 32; i++)
        if ((r->arrived >> i & 1) && r->slot[i].bytes[0]) votes |= 1u << i;
    leave(r);
    return votes;
}

static int outcome(const NamedBarrier& b) {
    return b.sum == Sum::Count ? b.yes : b.sum == Sum::And ? b.yes == (int)b.arrived : b.yes > 0;
}

static void release(NamedBarrier& b, Block& block) {
    b.arrived = 0;
    for (Thread& other : block.threads)
        if (other.waits == Waits::Named && other.barrier == &b) other.waits = Waits::Ready;
}

int barrier(unsigned id, unsigned threads, bool yes, Sum sum, const Where& where) {
    Thread& me = self();
    Block& block = *me.home;
    if (id >= 16) report(where, "bar.sync: there is no barrier %u, only 0..15", id);
    if (threads % 32 != 0) report(where, "bar.sync: %u threads are not whole warps", threads);
    NamedBarrier& b = block.barriers[id];
    if (b.arrived == 0) {
        b.where = where;
        b.wanted = threads;
        b.yes = 0;
    } else if (b.where.line() != where.line() && id == 0) {
        report(where, "DIVERGENT __syncthreads: this thread is here, others wait at line %u", b.where.line());
    } else if (b.wanted != threads) {
        report(where, "bar.sync %u: this thread waits for %u threads, others for %u at line %u", id, threads, b.wanted,
               b.where.line());
    }
    b.yes += yes;
    b.arrived++;
    b.sum = sum;
    const unsigned wanted = threads ? threads : block.alive;
    if (b.arrived > wanted) report(where, "bar.sync %u: %u threads came, %u were said", id, b.arrived, wanted);
    if (b.arrived == wanted) {
        b.result = outcome(b);
        release(b, block);
        const int result = b.result;
        suspend(Waits::Ready, where);
        return result;
    }
    me.barrier = &b;
    suspend(Waits::Named, where);
    return b.result;
}

void exited(Thread& me) {
    Block& block = *me.home;
    Warp& warp = block.warps[me.linear / 32];
    warp.alive &= ~(1u << me.linear % 32);
    for (Rendezvous* r : warp.open)
        if (!r->complete && (r->arrived & r->mask & warp.alive) == (r->mask & warp.alive)) complete(*r, block, me.linear / 32);
    block.alive--;
    NamedBarrier& all = block.barriers[0];
    if (all.arrived > 0 && all.arrived == block.alive) {
        all.result = outcome(all);
        release(all, block);
    }
}

}  // namespace emu
