/* What NVML programs are told. Needs the configuration and the region, but no slot and no CUDA driver: nvidia-smi has neither.
 * Devices are matched by UUID, asked each time, because a handle means nothing after a new nvmlInit. */
#ifndef HAMI_NVML_H
#define HAMI_NVML_H

#include "process.h"

/* Index in the region of a device whose view is ours to give, or -1. */
int nvml_limited_device(nvmlDevice_t device);

#endif
