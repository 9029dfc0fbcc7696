/* The node side's protection against the owner of a region's file. A container may cut its file at any moment, and touching a
 * page that is gone would kill the process (SIGBUS); the agent serves other containers, too. With the guard such a page, and
 * the rest of that mapping, become memory of its own: zeros, so nothing of that region is believed any more.
 *
 * Only for the node side: the library in a container never touches a program's signals. */
#ifndef HAMI_REGION_GUARD_H
#define HAMI_REGION_GUARD_H

#include <stdbool.h>

/* Guards every region that this process maps from now on. Once; true if it holds. Other faults go where they went before. */
bool region_guard_start(void);
/* True if the file behind this mapping was cut and the mapping is the process's own memory now. */
bool region_guard_lost(const void *at);

#endif
