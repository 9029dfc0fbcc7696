#ifndef SIM_POOL_H
#define SIM_POOL_H

#include "cuda_sim.h"

/* Take back `cost` bytes of a block that came from `pool`. With `local` held. */
void pool_returned(CUmemoryPool pool, u64 cost);

/* A pool of another process: memory of it can be opened, not allocated. */
CUresult pool_import(CUmemoryPool *out);

/* What a synchronization does: pools give unused chunks above their release threshold back to the device. */
void pools_release(int device);

/* Free a device address of any kind but a reserved range. */
CUresult memory_free(CUdeviceptr address);

#endif
