/* What NVML programs are told of memory: the container's part of the device. */
#include "nvml.h"

int nvml_limited_device(nvmlDevice_t device)
{
    char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    enum process_phase phase = process_attach();
    if ((phase != PROCESS_ATTACHED && phase != PROCESS_READY) || hook_inside > 0)
        return -1;
    hook_bind(LIBRARY_nvml, true);
    if (!real.nvmlDeviceGetUUID || FORWARD(nvmlDeviceGetUUID(device, uuid, sizeof uuid)) != NVML_SUCCESS)
        return -1;
    return region_find(&process.region, uuid);
}

static bool is_closed(void)
{
    return process_attach() == PROCESS_CLOSED && hook_inside == 0;
}

/* What the driver has answered becomes the container's part of it. */
static nvmlReturn_t show_part(nvmlReturn_t rc, nvmlDevice_t device, nvmlMemory_t *memory)
{
    if (rc != NVML_SUCCESS || !memory)
        return rc;
    int index = nvml_limited_device(device);
    if (index >= 0) {
        struct account_view driver = {.total = memory->total, .used = memory->used, .free = memory->free};
        struct account_view seen = process_view(index, &driver);
        *memory = (nvmlMemory_t){.total = seen.total, .free = seen.free, .used = seen.used};
    } else if (is_closed()) {
        memory->free = 0;
    }
    return rc;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    NEED_NVML(nvmlDeviceGetMemoryInfo);
    return show_part(FORWARD(nvmlDeviceGetMemoryInfo(device, memory)), device, memory);
}

/* On a device in confidential mode programs get protected memory and nothing else. */
nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, nvmlMemory_t *memory)
{
    NEED_NVML(nvmlDeviceGetConfComputeProtectedMemoryUsage);
    return show_part(FORWARD(nvmlDeviceGetConfComputeProtectedMemoryUsage(device, memory)), device, memory);
}

nvmlReturn_t nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t device, nvmlConfComputeMemSizeInfo_t *info)
{
    NEED_NVML(nvmlDeviceGetConfComputeMemSizeInfo);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetConfComputeMemSizeInfo(device, info));
    int index = rc == NVML_SUCCESS && info ? nvml_limited_device(device) : -1;
    uint64_t limit_kib = index >= 0 ? account_limit(&process.region, index) >> 10 : 0;
    if (limit_kib != 0 && limit_kib < info->protectedMemSizeKib)
        info->protectedMemSizeKib = limit_kib;
    return rc;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    NEED_NVML(nvmlDeviceGetMemoryInfo_v2);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetMemoryInfo_v2(device, memory));
    if (rc != NVML_SUCCESS || !memory)
        return rc;
    int index = nvml_limited_device(device);
    if (index >= 0) {
        struct account_view driver = {.total = memory->total, .used = memory->used, .free = memory->free};
        struct account_view seen = process_view(index, &driver);
        memory->total = seen.total;
        memory->free = seen.free;
        memory->used = seen.used;
        if (account_limit(&process.region, index) != 0)
            memory->reserved = 0; /* the driver's own part is not taken from this container's */
    } else if (is_closed()) {
        memory->free = 0;
    }
    return rc;
}
