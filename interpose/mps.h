/* Whether MPS, to which a container was sent for its compute share, really holds a program of it. */
#ifndef HAMI_MPS_H
#define HAMI_MPS_H

#include <stdbool.h>
#include <stdint.h>

#include "driver.h"

/* True if this program is a client of MPS on `device`, up to `percent` of its multiprocessors. One that does not find the
 * daemon runs without it and is not told, and its share stands in its environment, which anybody in the container can
 * change: a program that was started without it, or with more, is the library's to hold. */
bool mps_holds(CUdevice device, uint32_t percent);

#endif
