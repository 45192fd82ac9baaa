#include "matrix.h"

#include "collective.h"
#include "numbers.h"

namespace emu {

void ldmatrix_x4(uint32_t* r, const void* row, bool transposed, const Where& where) {
    const Block& block = *self().home;
    if ((uintptr_t)row % 16) report(where, "MISALIGNED ldmatrix: a row's address must be 16-byte aligned");
    if ((const char*)row < block.shared || (const char*)row + 16 > block.shared + block.shared_size)
        report(where, "SHARED MEMORY OVERRUN: ldmatrix reads byte %td of a block's %zu", (const char*)row - block.shared,
               block.shared_size);
    Rendezvous* all = meet(~0u, slot_of((const char*)row), "ldmatrix", true, where);
    const unsigned lane = self().linear % 32;
    auto element = [&](unsigned matrix, unsigned i, unsigned j) {
        uint16_t v;
        memcpy(&v, from_slot<const char*>(all->slot[matrix * 8 + i]) + 2 * j, 2);
        return (uint32_t)v;
    };
    const unsigned i = lane / 4, j = lane % 4 * 2;
    for (unsigned m = 0; m < 4; m++)
        r[m] = transposed ? element(m, j, i) | element(m, j + 1, i) << 16 : element(m, i, j) | element(m, i, j + 1) << 16;
    leave(all);
}

struct Operands {
    uint32_t a[4], b[2];
};

static Operands operands(const uint32_t* a, const uint32_t* b) {
    return {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
}

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, bool f16, const Where& where) {
    Rendezvous* all = meet(~0u, slot_of(operands(a, b)), "mma.m16n8k16", true, where);
    const unsigned lane = self().linear % 32, g = lane / 4, q = lane % 4;
    float rows[2][16], columns[2][16];
    for (unsigned k = 0; k < 16; k++) {
        const unsigned at = (k % 8) / 2, upper = k / 8, half = k % 2 * 16;
        const Operands left = from_slot<Operands>(all->slot[g * 4 + at]);
        for (unsigned r = 0; r < 2; r++) rows[r][k] = from_16((uint16_t)(left.a[r + 2 * upper] >> half), f16);
        for (unsigned c = 0; c < 2; c++) {
            const Operands right = from_slot<Operands>(all->slot[(2 * q + c) * 4 + at]);
            columns[c][k] = from_16((uint16_t)(right.b[upper] >> half), f16);
        }
    }
    for (unsigned r = 0; r < 2; r++)
        for (unsigned c = 0; c < 2; c++) {
            float sum = d[2 * r + c];
            for (unsigned k = 0; k < 16; k++) sum += rows[r][k] * columns[c][k];
            d[2 * r + c] = sum;
        }
    leave(all);
}

void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const Where& where) {
    Rendezvous* all = meet(~0u, slot_of(operands(a, b)), "mma.m16n8k8.tf32", true, where);
    const unsigned lane = self().linear % 32, g = lane / 4, q = lane % 4;
    auto seen = [](uint32_t v) { return float_of(v & 0xFFFFE000u); };
    for (unsigned r = 0; r < 2; r++)
        for (unsigned c = 0; c < 2; c++) {
            float sum = d[2 * r + c];
            for (unsigned k = 0; k < 8; k++) {
                const Operands left = from_slot<Operands>(all->slot[g * 4 + k % 4]);
                const Operands right = from_slot<Operands>(all->slot[(2 * q + c) * 4 + k % 4]);
                sum += seen(left.a[r + 2 * (k / 4)]) * seen(right.b[k / 4]);
            }
            d[2 * r + c] = sum;
        }
    leave(all);
}

}  // namespace emu
