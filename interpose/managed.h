/* More memory than the device has, where a grant allows that: what no longer fits stands in the host's and moves to the device
 * by pages, as managed memory does. Only linear memory of a certain size can; everything else is refused by the driver. */
#ifndef HAMI_MANAGED_H
#define HAMI_MANAGED_H

#include "live.h"
#include "process.h"

/* Called when the driver has no room for linear memory: a substitute, or CUDA_ERROR_OUT_OF_MEMORY. */
CUresult managed_alloc(const struct target *target, CUdeviceptr *address, size_t bytes);
/* A substitute was put into the table of what is held, or has been taken out. */
void managed_note(const struct live *entry, bool held);
/* Forgets them, in the child of a fork. */
void managed_forget(void);

#endif
