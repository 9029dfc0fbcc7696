/* Which devices of the machine a process may see, and which instances of those in MIG mode. */
#ifndef SIM_VISIBLE_H
#define SIM_VISIBLE_H

#include "state.h"

/* Devices that NVIDIA_VISIBLE_DEVICES leaves, as the NVIDIA runtime reads it: indices into sim->devices in their order,
 * at most SIM_DEVICES of them; a named instance brings its device. Returns their number, or -1 where the runtime would
 * have put no driver at all. */
int visible_to_container(int *devices);

/* Whether an instance is among what the same variable leaves: named itself, or its device is. */
bool visible_instance(int unit);

/* The units CUDA enumerates, at most SIM_DEVICES: the above, further cut and reordered by CUDA_VISIBLE_DEVICES. The
 * driver shows a process one instance at most, and beside it nothing else. */
int visible_to_cuda(int *units);

#endif
