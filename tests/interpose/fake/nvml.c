/* NVML of that driver: its one device is in confidential mode, 1 GiB of it protected, and others use nearly all. */
#include <stdio.h>

#include "driver.h"

#define API __attribute__((visibility("default")))

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    (void)device;
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-000000000000");
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t device, nvmlConfComputeMemSizeInfo_t *info)
{
    (void)device;
    *info = (nvmlConfComputeMemSizeInfo_t){.protectedMemSizeKib = 1 << 20, .unprotectedMemSizeKib = 7};
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, nvmlMemory_t *memory)
{
    (void)device;
    *memory = (nvmlMemory_t){.total = 1 << 30, .used = 900 << 20, .free = 124 << 20};
    return NVML_SUCCESS;
}
