/*
 * Device addresses of this process. One large range of address space is cut into classes of power-of-two blocks, so
 * that an address says its class and block without a search, and taking or returning one makes no system call.
 *
 * Behind the addresses is real, untouched memory: what a program copies to the device it can copy back. To keep a
 * simulated device from eating the host, only the first ARENA_CONTENT bytes written are kept; later writes go nowhere
 * and reads of them give whatever lies there. Managed memory is exempt, as the program writes it by itself.
 *
 * All functions are called with `local` held.
 */
#ifndef SIM_ARENA_H
#define SIM_ARENA_H

#include "cuda_sim.h"

#define ARENA_CONTENT (256u << 20)

struct block {
    u64 size;                 /* as asked; 0 = free */
    u64 cost;                 /* charged to the ledger or taken from the pool */
    u64 id;                   /* unique in this process */
    u64 dirty_from, dirty_to; /* offsets that were written */
    CUcontext context;
    CUmemoryPool pool;
    enum sim_kind kind; /* KIND_VMM: a reserved range */
    int device;
    bool live;          /* KIND_GRAPH: a run left it behind */
    u32 next_free; /* 1 + index */
};

/* Take a block for `size` bytes; 0 when there is no room for it. */
CUdeviceptr arena_take(u64 size, struct block **out);

/* The block that contains `address`, and the block's first address; NULL when none is taken there. */
struct block *arena_find(CUdeviceptr address, CUdeviceptr *base);

/* Return the block that starts at `base`; its content is gone. */
void arena_return(CUdeviceptr base);

/* Call `visit` for every taken block. `visit` may return that block. */
void arena_each(void (*visit)(CUdeviceptr base, struct block *block, void *data), void *data);

/* Where host code may write `bytes` bytes for the device range at `address`; NULL = nowhere, which is no error. */
void *arena_write(CUdeviceptr address, u64 bytes);
/* Where host code may read them; NULL = nothing is kept there. */
const void *arena_read(CUdeviceptr address, u64 bytes);

#endif
