/* Stream-ordered memory. A pool keeps what is freed, so what counts is what it has reserved from the device, as the driver
 * says; it is compared with what we counted whenever a pool may have grown, and when somebody needs the truth. */
#ifndef HAMI_POOL_H
#define HAMI_POOL_H

#include "process.h"

/* Held through every operation that may make a pool or the memory of graphs grow, driver call included: between asking
 * for their size and acting on the answer nobody else may change it. May be taken again by its holder. */
void pool_lock(void);
void pool_unlock(void);

/* Counts anew what this process's pools, and its graphs, have reserved. */
void pool_refresh(void);
/* Gives unused memory of this process's pools back to the device and counts anew. True if that freed anything. */
bool pool_trim(int device);
/* Forgets the pools, in the child of a fork. */
void pool_forget(void);

#endif
