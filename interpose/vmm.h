/* References to physical memory: what holds it besides its handle. */
#ifndef HAMI_VMM_H
#define HAMI_VMM_H

#include "live.h"
#include "process.h"

/* A reference given up before the driver gives it up: afterwards it may hand the number out again. */
struct vmm_dropped {
    int64_t left; /* -1: not ours */
    struct live entry;
};
struct vmm_dropped vmm_drop(uint64_t handle);
/* The driver has answered: the last reference gives the charge back; a refusal takes it up again. */
void vmm_settle(CUresult rc, struct vmm_dropped *dropped);

#endif
