/* Which devices of the machine a process may see. */
#ifndef SIM_VISIBLE_H
#define SIM_VISIBLE_H

#include "state.h"

/* Devices that NVIDIA_VISIBLE_DEVICES leaves, as the NVIDIA runtime reads it: indices into sim->devices in their order,
 * at most SIM_DEVICES of them. Returns their number, or -1 where the runtime would have put no driver at all. */
int visible_to_container(int *devices);

/* The same, further cut and reordered by CUDA_VISIBLE_DEVICES as the CUDA driver reads it. */
int visible_to_cuda(int *devices);

#endif
