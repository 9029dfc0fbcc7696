/* Physical memory behind handles, for those who share it. */
#ifndef SIM_VMM_H
#define SIM_VMM_H

#include "cuda_sim.h"

struct physical {
    struct object object;
    int device; /* -1: not accounted here: host memory, or another process's */
    u64 size;
    CUmemAllocationProp properties;
    unsigned handles, mappings; /* mappings: into addresses, and into multicast objects */
};

/* NULL = not a handle. */
struct physical *physical_of(CUmemGenericAllocationHandle handle);
/* The memory mapped at an address; NULL = none. With `local` held. */
struct physical *physical_at(CUdeviceptr at);
/* Ends the memory if nothing holds it. With `local` held. */
void physical_let_go(struct physical *physical);

#endif
