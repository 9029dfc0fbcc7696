/* Contexts: which one is current, on which device, and what ends with one. */
#ifndef HAMI_CONTEXT_H
#define HAMI_CONTEXT_H

#include <stdint.h>

#include "hook.h"

struct context_place {
    int device;      /* index in the region, or DEVICE_* (process.h); DEVICE_FREE without a context */
    CUdevice driver; /* the driver's number; -1 = no context */
    uint64_t context;
};

/* Of the calling thread. One driver call while the context stays the same. For a process that is ready. */
struct context_place context_place(void);
/* Forgets the contexts, in the child of a fork. */
void context_forget(void);

#endif
