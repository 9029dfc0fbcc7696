/* Launches: the bookkeeping that monitors read, the block by priority, and the compute limit. */
#ifndef HAMI_LAUNCH_H
#define HAMI_LAUNCH_H

#include "hook.h"

/* What is about to be launched: a kernel, or a graph. */
struct work {
    CUfunction function;
    CUgraphExec graph;
    uint64_t blocks;
    uint64_t threads; /* in a block */
    uint32_t shared_bytes;
    CUstream stream;
    bool per_thread;
};

struct launch {
    struct sample *sample; /* null: not timed */
    int device;            /* index in the region; -1: not limited */
    uint64_t charged;
};

/* Returns when the launch may go to the driver. */
struct launch launch_begin(const struct work *work);
/* Takes the driver's answer; returns it. */
CUresult launch_end(const struct launch *launch, const struct work *work, CUresult answer);

#endif
