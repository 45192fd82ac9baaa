// wgmma.m64n256k16: each warp of a warpgroup makes its own 16 rows. Operands in shared memory are found through their
// descriptor; they are read, and accumulators written, when wgmma_wait says so (late) or at once. Accumulators of products
// under way are poisoned, so that whoever reads them early sees NaN.
#include <algorithm>

#include "asynchronous.h"
#include "collective.h"
#include "numbers.h"
#include "settings.h"

namespace emu {

uint64_t wgmma_descriptor(const void* shared, uint32_t next_k, uint32_t next_rows, const Where& where) {
    const Block& block = *self().home;
    const ptrdiff_t start = (const char*)shared - block.shared;
    if (start < 0 || (size_t)start >= block.shared_size)
        report(where, "wgmma descriptor: the operand starts at byte %td of a block's %zu", start, block.shared_size);
    if (start % 16 || next_k % 16 || next_rows % 16) report(where, "MISALIGNED wgmma descriptor: multiples of 16 bytes are wanted");
    if (next_k >= 1u << 18 || next_rows >= 1u << 18) report(where, "wgmma descriptor: a stride does not fit into 14 bits of 16 bytes");
    return (uint64_t)(start & 0x3FFFF) >> 4 | (uint64_t)(next_k >> 4) << 16 | (uint64_t)(next_rows >> 4) << 32;
}

/// The 16 elements along k of a row of an operand in core matrices.
static void read_row(const Block& block, uint64_t descriptor, unsigned row, bool f16, float* k, const Where& where) {
    if (descriptor >> 49) report(where, "wgmma descriptor: swizzle and base offset are not emulated (bits 49 and up are set)");
    const size_t start = (descriptor & 0x3FFF) << 4, next_k = (descriptor >> 16 & 0x3FFF) << 4, next_rows = (descriptor >> 32 & 0x3FFF) << 4;
    for (unsigned half = 0; half < 2; half++) {
        const size_t at = start + row / 8 * next_rows + half * next_k + row % 8 * 16;
        if (at + 16 > block.shared_size)
            report(where, "SHARED MEMORY OVERRUN: wgmma reads byte %zu of a block's %zu (row %u of an operand)", at, block.shared_size, row);
        uint16_t v[8];
        memcpy(v, block.shared + at, 16);
        for (unsigned i = 0; i < 8; i++) k[half * 8 + i] = from_16(v[i], f16);
    }
}

static void multiply(const Thread& me, const PendingProduct& p, float* d, const Where& where) {
    const unsigned lane = me.linear % 32, g = lane / 4, q = lane % 4, warp = me.linear / 32 % 4;
    float rows[2][16];
    for (unsigned r = 0; r < 2; r++) {
        if (p.a_shared) {
            read_row(*me.home, p.a_descriptor, warp * 16 + g + 8 * r, p.f16, rows[r], where);
        } else {
            for (unsigned k = 0; k < 16; k++) rows[r][k] = from_16((uint16_t)(p.a[r][k / 2] >> (k % 2 * 16)), p.f16);
        }
    }
    for (unsigned j = 0; j < 32; j++)
        for (unsigned c = 0; c < 2; c++) {
            float column[16];
            read_row(*me.home, p.b_descriptor, 8 * j + 2 * q + c, p.f16, column, where);
            for (unsigned r = 0; r < 2; r++) {
                float& sum = d[4 * j + 2 * r + c];
                float s = p.accumulate ? sum : 0.0f;
                for (unsigned k = 0; k < 16; k++) s += rows[r][k] * column[k];
                sum = s;
            }
        }
}

void wgmma_fence() {
    self().fenced = true;
}

void wgmma_m64n256k16(float* d, const uint32_t* a, uint64_t a_descriptor, uint64_t b, bool accumulate, bool f16, const Where& where) {
    Thread& me = self();
    if (!me.fenced) report(where, "wgmma: no wgmma_fence before this batch of products");
    if (me.home->threads.size() < (me.linear / 128 + 1) * 128) report(where, "wgmma: the warpgroup is not whole");
    PendingProduct p;
    memset(&p, 0, sizeof p);
    p.d = d;
    p.a_shared = !a;
    p.a_descriptor = a_descriptor;
    p.b_descriptor = b;
    p.accumulate = accumulate;
    p.f16 = f16;
    struct A {
        uint32_t a[4];
        uint64_t b;
        bool accumulate;
    } mine{{0, 0, 0, 0}, b, accumulate};
    if (a) memcpy(mine.a, a, sizeof mine.a);
    Rendezvous* all = meet(~0u, slot_of(mine), "wgmma", true, where);
    for (unsigned lane = 0; lane < 32; lane++) {
        const A other = from_slot<A>(all->slot[lane]);
        if (other.b != b || other.accumulate != accumulate) report(where, "wgmma: lanes of a warp give different descriptors or predicates");
    }
    const unsigned g = me.linear % 32 / 4;
    for (unsigned r = 0; r < 2; r++)
        for (unsigned pair = 0; pair < 8; pair++) p.a[r][pair] = from_slot<A>(all->slot[g * 4 + pair % 4]).a[r + 2 * (pair / 4)];
    leave(all);
    HeldAccumulators& held = me.held[d];
    if (held.products++ == 0) {
        memcpy(held.value, d, sizeof held.value);
        memset(d, 0xFF, sizeof held.value);
    }
    if (!settings().late) multiply(me, p, held.value, where);
    me.open_products.push_back(p);
}

void wgmma_commit(const Where&) {
    Thread& me = self();
    me.product_groups.push_back(std::move(me.open_products));
    me.open_products.clear();
    me.fenced = false;
}

void wgmma_wait(unsigned pending, const Where& where) {
    Thread& me = self();
    for (; me.product_groups.size() > pending; me.product_groups.pop_front())
        for (const PendingProduct& p : me.product_groups.front()) {
            HeldAccumulators& held = me.held.at(p.d);
            if (settings().late) multiply(me, p, held.value, where);
            if (--held.products == 0) {
                memcpy(p.d, held.value, sizeof held.value);
                me.held.erase(p.d);
            }
        }
}

}  // namespace emu
