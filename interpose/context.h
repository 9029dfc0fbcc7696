/* Contexts: which one is current, on which device, and what ends with one. */
#ifndef HAMI_CONTEXT_H
#define HAMI_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "hook.h"

struct context_place {
    int device;      /* index in the region, or DEVICE_* (process.h); DEVICE_FREE without a context */
    CUdevice driver; /* the driver's number; -1 = no context */
    uint64_t context;
};

/* Of the calling thread. One driver call while the context stays the same. For a process that is ready. */
struct context_place context_place(void);

/* What goes to a stream happens where the stream is, whatever context is current. Makes the stream's context the current
 * one until context_leave, if it may be on another device. */
struct context_visit {
    struct context_place place;
    bool entered;
};
struct context_visit context_visit(CUstream stream, bool per_thread);
void context_leave(const struct context_visit *visit);
/* Forgets the contexts, in the child of a fork. */
void context_forget(void);

#endif
