/* Stream-ordered memory. A pool keeps what is freed, so what counts is what it has reserved from the device, as the driver
 * says; it is compared with what we counted whenever a pool may have grown, and when somebody needs the truth. */
#ifndef HAMI_POOL_H
#define HAMI_POOL_H

#include "process.h"

/* Counts anew what this process's pools, and its graphs, have reserved. */
void pool_refresh(void);
/* Gives unused memory of this process's pools back to the device and counts anew. True if that freed anything. */
bool pool_trim(int device);
/* After something that may have changed the memory that graphs hold on a device. */
void pool_refresh_graphs(CUdevice driver, int device);
/* Forgets the pools, in the child of a fork. */
void pool_forget(void);

#endif
