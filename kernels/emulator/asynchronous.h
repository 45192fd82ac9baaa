// What goes on behind a thread's back: cp.async, mbarriers, bulk copies, the cluster's barrier, wgmma.
#pragma once
#include "thread.h"

namespace emu {

struct Block;
struct Cluster;
struct Thread;

void cp_async16(void* to, const void* from, bool valid, const Where& where);
void cp_async_commit();
void cp_async_wait(unsigned pending);

void mbarrier_init(void* barrier, uint32_t arrivals, const Where& where);
void mbarrier_arrive(void* barrier, int64_t bytes, const Where& where);
void mbarrier_arrive_remote(void* barrier, uint32_t rank, const Where& where);
void mbarrier_wait(void* barrier, uint32_t parity, const Where& where);

void bulk_copy(void* to, const void* from, uint32_t bytes, void* barrier, uint16_t blocks, const Where& where);
/// When nobody can go on otherwise: one of the copies under way, drawn by the seed. False if there is none.
bool complete_one_bulk_copy(Cluster& cluster);

void cluster_arrive(const Where& where);
void cluster_wait(const Where& where);
void cluster_exited(Cluster& cluster);

uint64_t wgmma_descriptor(const void* shared, uint32_t next_k, uint32_t next_rows, const Where& where);
void wgmma_fence();
void wgmma_commit(const Where& where);
void wgmma_wait(unsigned pending, const Where& where);
/// `a` is this lane's four registers, or null with `a_descriptor`.
void wgmma_m64n256k16(float* d, const uint32_t* a, uint64_t a_descriptor, uint64_t b, bool accumulate, bool f16, const Where& where);

/// A thread has returned, and a block's last thread has: nothing may be under way.
void finished(Thread& me);
void block_finished(Block& block);

}  // namespace emu
