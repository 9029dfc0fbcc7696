/* Which processes NVML programs are told of: the container's own, which are those in the region, by the number that they have
 * in the container. What they hold is what the region says; how busy they are is what the driver says of them. */
#include "nvml.h"

#include <string.h>

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
        int index = count ? nvml_limited_device(device) : -1;                                                               \
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

/* How the newest form names the three kinds above, and all. */
enum mode { MODE_COMPUTE, MODE_GRAPHICS, MODE_MPS, MODE_ALL };

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *list)
{
    NEED_NVML(nvmlDeviceGetRunningProcessDetailList);
    int index = list && list->version == nvmlProcessDetailList_v1 ? nvml_limited_device(device) : -1;
    if (index < 0)
        return FORWARD(nvmlDeviceGetRunningProcessDetailList(device, list));
    nvmlProcessDetailList_t question = {.version = list->version, .mode = list->mode};
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetRunningProcessDetailList(device, &question));
    if (rc != NVML_SUCCESS && rc != NVML_ERROR_INSUFFICIENT_SIZE)
        return rc;
    struct listed found[REGION_SLOTS];
    bool asked = list->mode == MODE_COMPUTE || list->mode == MODE_ALL;
    unsigned int have = asked ? list_processes(index, found) : 0;
    unsigned int room = list->procArray ? list->numProcArrayEntries : 0;
    list->numProcArrayEntries = have;
    if (room < have)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < have; i++)
        list->procArray[i] = (nvmlProcessDetail_v1_t)WITH_INSTANCES;
    return NVML_SUCCESS;
}

/* ---- how busy they are */

/* More samples than that the driver does not keep. */
enum { SAMPLES = 1024 };

/* The container's number of a process that the driver calls `pid`: it may use this namespace's numbers or the host's. 0: the
 * process is not of this container. */
static unsigned int own_pid(unsigned int pid)
{
    const struct region *region = &process.region;
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    for (int slot = 0; slot < slots && slot < REGION_SLOTS; slot++) {
        unsigned int inside = (unsigned int)__atomic_load_n(&region->ext->claims[slot].pid, __ATOMIC_RELAXED);
        unsigned int outside = (unsigned int)__atomic_load_n(&region->prefix->slots[slot].host_pid, __ATOMIC_RELAXED);
        if (inside != 0 && (pid == inside || pid == outside))
            return inside;
    }
    return 0;
}

/* Own samples of a device since a time (Unix microseconds), with the container's pids. */
static nvmlReturn_t own_samples(nvmlDevice_t device, unsigned long long since, nvmlProcessUtilizationSample_t *own,
                                unsigned int *count)
{
    nvmlProcessUtilizationSample_t all[SAMPLES];
    unsigned int have = SAMPLES;
    *count = 0;
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetProcessUtilization(device, all, &have, since));
    for (unsigned int i = 0; rc == NVML_SUCCESS && i < have; i++) {
        unsigned int pid = own_pid(all[i].pid);
        if (pid == 0)
            continue;
        own[*count] = all[i];
        own[(*count)++].pid = pid;
    }
    return rc;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                             unsigned int *count, unsigned long long since)
{
    NEED_NVML(nvmlDeviceGetProcessUtilization);
    if (!count || nvml_limited_device(device) < 0)
        return FORWARD(nvmlDeviceGetProcessUtilization(device, samples, count, since));
    nvmlProcessUtilizationSample_t own[SAMPLES];
    unsigned int have;
    nvmlReturn_t rc = own_samples(device, since, own, &have);
    if (rc != NVML_SUCCESS)
        return rc;
    if (have == 0)
        return NVML_ERROR_NOT_FOUND;
    unsigned int room = samples ? *count : 0;
    *count = have;
    if (room < have)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(samples, own, have * sizeof *own);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device, nvmlProcessesUtilizationInfo_t *info)
{
    NEED_NVML(nvmlDeviceGetProcessesUtilizationInfo);
    if (!info || info->version != nvmlProcessesUtilizationInfo_v1 || nvml_limited_device(device) < 0)
        return FORWARD(nvmlDeviceGetProcessesUtilizationInfo(device, info));
    nvmlProcessUtilizationInfo_v1_t all[SAMPLES];
    nvmlProcessesUtilizationInfo_t question = {.version = info->version,
                                               .processSamplesCount = SAMPLES,
                                               .lastSeenTimeStamp = info->lastSeenTimeStamp,
                                               .procUtilArray = all};
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetProcessesUtilizationInfo(device, &question));
    if (rc != NVML_SUCCESS)
        return rc;
    unsigned int have = 0;
    for (unsigned int i = 0; i < question.processSamplesCount; i++) {
        unsigned int pid = own_pid(all[i].pid);
        all[have] = all[i];
        all[have].pid = pid;
        have += pid != 0;
    }
    if (have == 0)
        return NVML_ERROR_NOT_FOUND;
    unsigned int room = info->procUtilArray ? info->processSamplesCount : 0;
    info->processSamplesCount = have;
    info->lastSeenTimeStamp = question.lastSeenTimeStamp;
    if (room < have)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(info->procUtilArray, all, have * sizeof *all);
    return NVML_SUCCESS;
}

/* Percent of the device's time that the container's processes had, by the last sample of each. */
static unsigned int own_share(const nvmlProcessUtilizationSample_t *own, unsigned int count)
{
    unsigned int share = 0;
    for (unsigned int i = 0; i < count; i++) {
        bool last = true;
        for (unsigned int k = 0; k < count; k++)
            last = last && !(own[k].pid == own[i].pid && own[k].timeStamp > own[i].timeStamp);
        share += last ? own[i].smUtil : 0;
    }
    return share < 100 ? share : 100;
}

static bool has_part_of_time(nvmlDevice_t device)
{
    int index = nvml_limited_device(device);
    uint32_t cores = index < 0 ? 0 : __atomic_load_n(&process.region.ext->devices[index].cores, __ATOMIC_RELAXED);
    return cores > 0 && cores < 100;
}

/* A container with a part of the device's time sees what it uses of the device; one without sees the device as it is. */
static void show_own_share(nvmlDevice_t device, unsigned int *percent)
{
    if (!real.nvmlDeviceGetProcessUtilization || !has_part_of_time(device))
        return;
    nvmlProcessUtilizationSample_t own[SAMPLES];
    unsigned int count;
    nvmlReturn_t told = own_samples(device, (prim_unix_seconds() - 1) * 1000000, own, &count);
    if (told == NVML_SUCCESS || told == NVML_ERROR_NOT_FOUND)
        *percent = own_share(own, count);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    NEED_NVML(nvmlDeviceGetUtilizationRates);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetUtilizationRates(device, utilization));
    if (rc == NVML_SUCCESS)
        show_own_share(device, &utilization->gpu);
    return rc;
}

/* The same figure under another name. Further domains are engines that no limit is on. */
nvmlReturn_t nvmlDeviceGetDynamicPstatesInfo(nvmlDevice_t device, nvmlGpuDynamicPstatesInfo_t *info)
{
    NEED_NVML(nvmlDeviceGetDynamicPstatesInfo);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetDynamicPstatesInfo(device, info));
    if (rc == NVML_SUCCESS && info->utilization[0].bIsPresent)
        show_own_share(device, &info->utilization[0].percentage);
    return rc;
}

/* The past of that figure. The driver keeps it for all containers together, and programs know devices without it. */
nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type, unsigned long long since,
                                  nvmlValueType_t *value_type, unsigned int *count, nvmlSample_t *samples)
{
    NEED_NVML(nvmlDeviceGetSamples);
    if (type == NVML_GPU_UTILIZATION_SAMPLES && has_part_of_time(device))
        return NVML_ERROR_NOT_SUPPORTED;
    return FORWARD(nvmlDeviceGetSamples(device, type, since, value_type, count, samples));
}

/* ---- accounting: of processes that live; the driver remembers dead ones, of whom nobody can tell whose they were */

enum { ACCOUNTED = 4096 };

nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned int *count, unsigned int *pids)
{
    NEED_NVML(nvmlDeviceGetAccountingPids);
    if (!count || nvml_limited_device(device) < 0)
        return FORWARD(nvmlDeviceGetAccountingPids(device, count, pids));
    unsigned int all[ACCOUNTED];
    unsigned int total = ACCOUNTED, have = 0;
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetAccountingPids(device, &total, all));
    if (rc != NVML_SUCCESS)
        return rc;
    for (unsigned int i = 0; i < total; i++) {
        all[have] = own_pid(all[i]);
        have += all[have] != 0;
    }
    unsigned int room = pids ? *count : 0;
    *count = have;
    if (room < have)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(pids, all, have * sizeof *all);
    return NVML_SUCCESS;
}

/* Whether a process is of this container; `outside`: its number on the host, 0 if unknown. */
static bool is_own(unsigned int pid, unsigned int *outside)
{
    const struct region *region = &process.region;
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    for (int slot = 0; slot < slots && slot < REGION_SLOTS; slot++) {
        *outside = (unsigned int)__atomic_load_n(&region->prefix->slots[slot].host_pid, __ATOMIC_RELAXED);
        if (pid != 0 && (unsigned int)__atomic_load_n(&region->ext->claims[slot].pid, __ATOMIC_RELAXED) == pid)
            return true;
    }
    return false;
}

nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned int pid, nvmlAccountingStats_t *stats)
{
    NEED_NVML(nvmlDeviceGetAccountingStats);
    unsigned int outside = 0;
    if (nvml_limited_device(device) >= 0 && !is_own(pid, &outside))
        return NVML_ERROR_NOT_FOUND;
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetAccountingStats(device, pid, stats));
    if (rc == NVML_ERROR_NOT_FOUND && outside != 0)
        rc = FORWARD(nvmlDeviceGetAccountingStats(device, outside, stats));
    return rc;
}

nvmlReturn_t nvmlDeviceGetAccountingStats_v2(nvmlDevice_t device, nvmlAccountingStats_v2_t *stats)
{
    NEED_NVML(nvmlDeviceGetAccountingStats_v2);
    unsigned int outside = 0;
    if (stats && nvml_limited_device(device) >= 0 && !is_own(stats->pid, &outside))
        return NVML_ERROR_NOT_FOUND;
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetAccountingStats_v2(device, stats));
    if (rc == NVML_ERROR_NOT_FOUND && outside != 0) {
        unsigned int inside = stats->pid;
        stats->pid = outside;
        rc = FORWARD(nvmlDeviceGetAccountingStats_v2(device, stats));
        stats->pid = inside;
    }
    return rc;
}
