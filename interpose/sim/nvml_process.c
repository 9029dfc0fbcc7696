/* Who uses a device: memory and device time of each process, with pids as the calling process's namespace shows them.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "mps.h"
#include "nvml_sim.h"
#include "timeline.h"

/* Kinds of programs; nothing here draws. */
enum mode { MODE_COMPUTE, MODE_GRAPHICS, MODE_MPS, MODE_ALL };

struct user {
    unsigned pid;
    u64 memory;
    int queue; /* -1 = never launched anything */
    int unit;
};

/* Live processes of a mode with a context on `unit` that are visible from here, appended to the `count` in `out`. Returns
 * how many these are then. With the lock held. */
static unsigned users(int unit, enum mode mode, struct user *out, unsigned count)
{
    for (int p = 0; p < (int)sim->process_high; p++) {
        const struct sim_process *process = &sim->processes[p];
        u64 memory = 0;
        for (int k = 0; k < SIM_KINDS; k++)
            memory += process->memory[unit * SIM_KINDS + k];
        if (!process->live || (!memory && !process->contexts[unit]) || count == SIM_PROCESSES)
            continue;
        if (mode != MODE_ALL && mode != (mps_holds(process, unit) ? MODE_MPS : MODE_COMPUTE))
            continue;
        int pid = state_pid(p);
        if (pid > 0)
            out[count++] = (struct user){(unsigned)pid, memory, (int)process->queue[unit] - 1, unit};
    }
    return count;
}

/* Those of a unit; of a device, also those on its instances. */
static unsigned list(int unit, enum mode mode, struct user *out)
{
    int instances[SIM_INSTANCES];
    state_reap();
    state_lock();
    unsigned count = users(unit, mode, out, 0);
    int all = unit_is_instance(unit) ? 0 : unit_instances(unit, instances);
    for (int i = 0; i < all; i++)
        count = users(instances[i], mode, out, count);
    state_unlock();
    return count;
}

nvmlReturn_t nvml_room(unsigned *count, unsigned have, const void *buffer)
{
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned offered = buffer ? *count : 0;
    *count = have;
    return have > offered ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

#define NO_INSTANCE UINT32_MAX

static unsigned instance_id(const struct user *user)
{
    return unit_is_instance(user->unit) ? sim->instances[user->unit - SIM_DEVICES].id : NO_INSTANCE;
}

#define LIST_V1(name, mode)                                                                                            \
    SIM_API nvmlReturn_t name(nvmlDevice_t handle, unsigned int *count, nvmlProcessInfo_v1_t *out)                     \
    {                                                                                                                  \
        ENTER_UNIT(handle);                                                                                            \
        struct user found[SIM_PROCESSES];                                                                              \
        nvmlReturn_t rc = nvml_room(count, list(unit, mode, found), out);                                              \
        for (unsigned i = 0; rc == NVML_SUCCESS && i < *count; i++)                                                    \
            out[i] = (nvmlProcessInfo_v1_t){.pid = found[i].pid, .usedGpuMemory = found[i].memory};                    \
        return rc;                                                                                                     \
    }
#define LIST_V2(name, mode)                                                                                            \
    SIM_API nvmlReturn_t name(nvmlDevice_t handle, unsigned int *count, nvmlProcessInfo_v2_t *out)                     \
    {                                                                                                                  \
        ENTER_UNIT(handle);                                                                                            \
        struct user found[SIM_PROCESSES];                                                                              \
        nvmlReturn_t rc = nvml_room(count, list(unit, mode, found), out);                                              \
        for (unsigned i = 0; rc == NVML_SUCCESS && i < *count; i++)                                                    \
            out[i] = (nvmlProcessInfo_v2_t){.pid = found[i].pid,                                                       \
                                            .usedGpuMemory = found[i].memory,                                          \
                                            .gpuInstanceId = instance_id(&found[i]),                                   \
                                            .computeInstanceId =                                                       \
                                                unit_is_instance(found[i].unit) ? 0 : NO_INSTANCE};                    \
        return rc;                                                                                                     \
    }
/* Clients of MPS are listed apart, as the driver does. */
LIST_V1(nvmlDeviceGetComputeRunningProcesses, MODE_COMPUTE)
LIST_V2(nvmlDeviceGetComputeRunningProcesses_v2, MODE_COMPUTE)
LIST_V2(nvmlDeviceGetComputeRunningProcesses_v3, MODE_COMPUTE)
LIST_V1(nvmlDeviceGetMPSComputeRunningProcesses, MODE_MPS)
LIST_V2(nvmlDeviceGetMPSComputeRunningProcesses_v2, MODE_MPS)
LIST_V2(nvmlDeviceGetMPSComputeRunningProcesses_v3, MODE_MPS)
LIST_V1(nvmlDeviceGetGraphicsRunningProcesses, MODE_GRAPHICS)
LIST_V2(nvmlDeviceGetGraphicsRunningProcesses_v2, MODE_GRAPHICS)
LIST_V2(nvmlDeviceGetGraphicsRunningProcesses_v3, MODE_GRAPHICS)

SIM_API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *out, unsigned int length)
{
    ENTER();
    nvmlReturn_t rc = NVML_ERROR_NOT_FOUND;
    if (!out || !length)
        return NVML_ERROR_INVALID_ARGUMENT;
    state_lock();
    for (int p = 0; p < (int)sim->process_high; p++)
        if (sim->processes[p].live && state_pid(p) == (int)pid) {
            snprintf(out, length, "%s", sim->processes[p].name);
            rc = NVML_SUCCESS;
        }
    state_unlock();
    return rc;
}

/* What to add to the machine's clock to get Unix time, the clock of samples. */
static i64 unix_offset_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (i64)now.tv_sec * 1000000000 + now.tv_nsec - (i64)state_now();
}

struct share {
    unsigned pid, percent;
    u64 at_us;
};

/* Each process's share of the device's time since `last_seen_us` (Unix time), or over the last second. Returns how many. */
static unsigned shares(int device, unsigned long long last_seen_us, struct share out[SIM_PROCESSES])
{
    struct user found[SIM_PROCESSES];
    i64 offset = unix_offset_ns();
    i64 asked = (i64)last_seen_us * 1000 - offset;
    unsigned kept = 0;
    state_reap();
    state_lock();
    timeline_settle(device);
    u64 now = sim->timelines[device].clock_ns;
    u64 since = asked > 0 && (u64)asked < now ? (u64)asked : now > 1000000000u ? now - 1000000000u : 0;
    unsigned all = users(device, MODE_ALL, found, 0);
    for (unsigned i = 0; i < all; i++)
        if (found[i].queue >= 0)
            out[kept++] = (struct share){.pid = found[i].pid,
                                         .percent = timeline_share_percent(found[i].queue, since),
                                         .at_us = (u64)((i64)now + offset) / 1000};
    state_unlock();
    return kept;
}

SIM_API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t handle, nvmlProcessUtilizationSample_t *out,
                                                     unsigned int *count, unsigned long long last_seen_us)
{
    ENTER_DEVICE(handle);
    struct share found[SIM_PROCESSES];
    unsigned have = shares(device, last_seen_us, found);
    if (!have)
        return NVML_ERROR_NOT_FOUND;
    nvmlReturn_t rc = nvml_room(count, have, out);
    for (unsigned i = 0; rc == NVML_SUCCESS && i < have; i++)
        out[i] = (nvmlProcessUtilizationSample_t){
            .pid = found[i].pid, .timeStamp = found[i].at_us, .smUtil = found[i].percent};
    return rc;
}

SIM_API nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t handle, nvmlProcessesUtilizationInfo_t *info)
{
    ENTER_DEVICE(handle);
    if (!info)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (info->version != nvmlProcessesUtilizationInfo_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    struct share found[SIM_PROCESSES];
    unsigned have = shares(device, info->lastSeenTimeStamp, found);
    if (!have)
        return NVML_ERROR_NOT_FOUND;
    nvmlReturn_t rc = nvml_room(&info->processSamplesCount, have, info->procUtilArray);
    for (unsigned i = 0; rc == NVML_SUCCESS && i < have; i++)
        info->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){
            .pid = found[i].pid, .timeStamp = found[i].at_us, .smUtil = found[i].percent};
    return rc;
}

SIM_API nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t handle, nvmlProcessDetailList_t *out)
{
    ENTER_UNIT(handle);
    if (!out || out->mode > MODE_ALL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != nvmlProcessDetailList_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    struct user found[SIM_PROCESSES];
    unsigned have = list(unit, (enum mode)out->mode, found);
    nvmlReturn_t rc = nvml_room(&out->numProcArrayEntries, have, out->procArray);
    for (unsigned i = 0; rc == NVML_SUCCESS && i < out->numProcArrayEntries; i++)
        out->procArray[i] = (nvmlProcessDetail_v1_t){
            .pid = found[i].pid,
            .usedGpuMemory = found[i].memory,
            .gpuInstanceId = instance_id(&found[i]),
            .computeInstanceId = unit_is_instance(found[i].unit) ? 0 : NO_INSTANCE};
    return rc;
}

/* Accounting remembers no process that has ended. */
SIM_API nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t handle, unsigned int *count, unsigned int *pids)
{
    ENTER_DEVICE(handle);
    struct user found[SIM_PROCESSES];
    nvmlReturn_t rc = nvml_room(count, list(device, MODE_ALL, found), pids);
    for (unsigned i = 0; rc == NVML_SUCCESS && i < *count; i++)
        pids[i] = found[i].pid;
    return rc;
}

SIM_API nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t handle, unsigned int pid, nvmlAccountingStats_t *out)
{
    ENTER_DEVICE(handle);
    struct user found[SIM_PROCESSES];
    unsigned have = list(device, MODE_ALL, found);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < have; i++)
        if (found[i].pid == pid) {
            *out = (nvmlAccountingStats_t){.maxMemoryUsage = found[i].memory, .isRunning = 1};
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

SIM_API nvmlReturn_t nvmlDeviceGetAccountingMode(nvmlDevice_t handle, nvmlEnableState_t *mode)
{
    ENTER_DEVICE(handle);
    (void)device;
    if (!mode)
        return NVML_ERROR_INVALID_ARGUMENT;
    *mode = 1; /* enabled */
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetAccountingBufferSize(nvmlDevice_t handle, unsigned int *count)
{
    ENTER_DEVICE(handle);
    (void)device;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = SIM_PROCESSES;
    return NVML_SUCCESS;
}
