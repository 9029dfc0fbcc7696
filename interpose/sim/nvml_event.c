/* Events: the Xid errors that the machine's description foretells. Each set sees each of them once. */
#include <stdlib.h>

#include "nvml_sim.h"

struct nvmlEventSet_st {
    bool watched[SIM_DEVICES];
    bool delivered[SIM_FAULTS];
};

SIM_API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
    ENTER();
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = calloc(1, sizeof **out);
    return *out ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

SIM_API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    ENTER();
    if (!set)
        return NVML_ERROR_INVALID_ARGUMENT;
    free(set);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t handle, unsigned long long *out)
{
    ENTER_DEVICE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = nvmlEventTypeXidCriticalError;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t handle, unsigned long long types, nvmlEventSet_t set)
{
    ENTER_DEVICE(handle);
    if (!set)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (types & ~nvmlEventTypeXidCriticalError)
        return NVML_ERROR_NOT_SUPPORTED;
    set->watched[device] |= types != 0;
    return NVML_SUCCESS;
}

/* The next Xid not yet delivered to `set`, or NULL; *when gets its time. */
static struct sim_fault *next_xid(nvmlEventSet_t set, u64 *when)
{
    struct sim_fault *next = NULL;
    for (u32 i = 0; i < sim->fault_count; i++) {
        struct sim_fault *fault = &sim->faults[i];
        if (!fault->xid || set->delivered[i] || !set->watched[fault->device])
            continue;
        u64 due = sim->born_ns + fault->after_ns;
        if (!next || due < *when) {
            next = fault;
            *when = due;
        }
    }
    return next;
}

static nvmlReturn_t wait(nvmlEventSet_t set, nvmlEventData_t *out, unsigned timeout_ms)
{
    if (!set || !out)
        return NVML_ERROR_INVALID_ARGUMENT;
    u64 when = 0, end = state_now() + (u64)timeout_ms * 1000000u;
    struct sim_fault *fault = next_xid(set, &when);
    if (!fault || when > end) {
        state_sleep_until(end);
        return NVML_ERROR_TIMEOUT;
    }
    state_sleep_until(when);
    set->delivered[fault - sim->faults] = true;
    *out = (nvmlEventData_t){.device = nvml_handle((int)fault->device),
                             .eventType = nvmlEventTypeXidCriticalError,
                             .eventData = fault->xid,
                             .gpuInstanceId = UINT32_MAX,
                             .computeInstanceId = UINT32_MAX};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int timeout_ms)
{
    ENTER();
    return wait(set, out, timeout_ms);
}

SIM_API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int timeout_ms)
{
    ENTER();
    return wait(set, out, timeout_ms);
}
