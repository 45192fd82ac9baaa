// ldmatrix and mma.sync, lane by lane from PTX's fragment layouts, so that a kernel's layout error shows.
#pragma once
#include "thread.h"

namespace emu {

void ldmatrix_x4(uint32_t* r, const void* row, bool transposed, const Where& where);
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, bool f16, const Where& where);
void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const Where& where);

}  // namespace emu
