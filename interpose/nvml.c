/* What NVML programs are told: the container's part of the device, and the container's own processes.
 *
 * Needs the configuration and the region, but no slot and no CUDA driver: nvidia-smi has neither. Devices are matched by
 * UUID, asked each time, because a handle means nothing after a new nvmlInit.
 */
#include "process.h"

/* Index in the region of a device whose view is ours to give, or -1. */
static int limited_device(nvmlDevice_t device)
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

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    NEED_NVML(nvmlDeviceGetMemoryInfo);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetMemoryInfo(device, memory));
    if (rc != NVML_SUCCESS || !memory)
        return rc;
    int index = limited_device(device);
    if (index >= 0) {
        struct account_view driver = {.total = memory->total, .used = memory->used, .free = memory->free};
        struct account_view seen = process_view(index, &driver);
        *memory = (nvmlMemory_t){.total = seen.total, .free = seen.free, .used = seen.used};
    } else if (is_closed()) {
        memory->free = 0;
    }
    return rc;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    NEED_NVML(nvmlDeviceGetMemoryInfo_v2);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetMemoryInfo_v2(device, memory));
    if (rc != NVML_SUCCESS || !memory)
        return rc;
    int index = limited_device(device);
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

/* ---- processes: those in the region, by the number they have in this container */

struct listed {
    unsigned int pid;
    unsigned long long used;
};

static unsigned int list_processes(int device, struct listed found[REGION_SLOTS])
{
    unsigned int count = 0;
    const struct region *region = &process.region;
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    for (int slot = 0; slot < slots && slot < REGION_SLOTS; slot++) {
        int32_t pid = __atomic_load_n(&region->ext->claims[slot].pid, __ATOMIC_RELAXED);
        uint64_t used = __atomic_load_n(&region->prefix->slots[slot].memory[device].total, __ATOMIC_RELAXED);
        if (pid > 0 && used > 0)
            found[count++] = (struct listed){.pid = (unsigned int)pid, .used = used};
    }
    return count;
}

/* NVML's protocol: *count holds the room and becomes the number; too little room is an error that tells how much.
 * A program of the container shows up once: as a compute process, not also as a graphics or MPS client. */
enum listing { COMPUTE, NOTHING };
#define LIST_PROCESSES(symbol, type, fill, listing)                                                                             \
    nvmlReturn_t symbol(nvmlDevice_t device, unsigned int *count, type *infos)                                         \
    {                                                                                                                  \
        NEED_NVML(symbol);                                                                                             \
        int index = count ? limited_device(device) : -1;                                                               \
        if (index < 0)                                                                                                 \
            return FORWARD(symbol(device, count, infos));                                                              \
        unsigned int real_count = 0;                                                                                   \
        nvmlReturn_t rc = FORWARD(symbol(device, &real_count, NULL));                                                  \
        if (rc != NVML_SUCCESS && rc != NVML_ERROR_INSUFFICIENT_SIZE)                                                  \
            return rc;                                                                                                 \
        struct listed found[REGION_SLOTS];                                                                             \
        unsigned int have = (listing) == COMPUTE ? list_processes(index, found) : 0;                                  \
        unsigned int room = *count;                                                                                    \
        *count = have;                                                                                                 \
        if (room < have)                                                                                               \
            return NVML_ERROR_INSUFFICIENT_SIZE;                                                                       \
        if (have > 0 && !infos)                                                                                        \
            return NVML_ERROR_INVALID_ARGUMENT;                                                                        \
        for (unsigned int i = 0; i < have; i++)                                                                        \
            infos[i] = (type)fill;                                                                                     \
        return NVML_SUCCESS;                                                                                           \
    }

#define PLAIN {.pid = found[i].pid, .usedGpuMemory = found[i].used}
#define WITH_INSTANCES                                                                                                 \
    {.pid = found[i].pid,                                                                                              \
     .usedGpuMemory = found[i].used,                                                                                   \
     .gpuInstanceId = 0xffffffff,                                                                                      \
     .computeInstanceId = 0xffffffff}

LIST_PROCESSES(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t, PLAIN, COMPUTE)
LIST_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, WITH_INSTANCES, COMPUTE)
LIST_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t, WITH_INSTANCES, COMPUTE)
LIST_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t, PLAIN, NOTHING)
LIST_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t, WITH_INSTANCES, NOTHING)
LIST_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t, WITH_INSTANCES, NOTHING)
LIST_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t, PLAIN, NOTHING)
LIST_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, WITH_INSTANCES, NOTHING)
LIST_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t, WITH_INSTANCES, NOTHING)
