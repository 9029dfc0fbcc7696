#include "nvml_mig.h"

#include "visible.h"

/* ---- the mode */

SIM_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned int *current, unsigned int *pending)
{
    ENTER_DEVICE(handle);
    if (!current || !pending)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!sim->devices[device].mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    *current = sim->mig_current[device];
    *pending = sim->mig_pending[device];
    return NVML_SUCCESS;
}

/* With the lock held. */
static bool has_instances(int device)
{
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (sim->instances[i].live && sim->instances[i].device == (u32)device)
            return true;
    return false;
}

/* The device resets itself to change its mode, which takes an idle one without instances; else the mode stays pending
 * until somebody asks again. */
SIM_API nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t handle, unsigned int mode, nvmlReturn_t *activation)
{
    ENTER_DEVICE(handle);
    if (!activation || mode > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!sim->devices[device].mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    state_lock();
    sim->mig_pending[device] = mode;
    *activation = NVML_SUCCESS;
    if (mode != sim->mig_current[device]) {
        if (ledger_busy(device) || has_instances(device))
            *activation = NVML_ERROR_IN_USE;
        else
            __atomic_store_n(&sim->mig_current[device], mode, __ATOMIC_RELEASE);
    }
    state_unlock();
    return NVML_SUCCESS;
}

/* ---- MIG devices */

SIM_API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_UNIT(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = unit_is_instance(unit);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_DEVICE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = 0;
    for (int i = 0; mig_on(device) && i < SIM_PROFILES; i++)
        if (sim->profiles[device * SIM_PROFILES + i].most > *out)
            *out = sim->profiles[device * SIM_PROFILES + i].most;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned int index, nvmlDevice_t *out)
{
    ENTER_MIG(handle);
    int units[SIM_INSTANCES];
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    int count = unit_instances(device, units);
    for (int i = 0; i < count; i++)
        if (visible_instance(units[i]) && !index--) {
            *out = nvml_handle(units[i]);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

SIM_API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle, nvmlDevice_t *out)
{
    ENTER_UNIT(handle);
    if (!out || !unit_is_instance(unit))
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = nvml_handle(unit_device(unit));
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_UNIT(handle);
    if (!out || !unit_is_instance(unit))
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = sim->instances[unit - SIM_DEVICES].id;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_UNIT(handle);
    if (!out || !unit_is_instance(unit))
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = WHOLE_COMPUTE;
    return NVML_SUCCESS;
}

static nvmlReturn_t attributes(int unit, nvmlDeviceAttributes_t *out)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!unit_is_instance(unit))
        return NVML_ERROR_NOT_SUPPORTED;
    const struct sim_profile *profile = mig_profile(&sim->instances[unit - SIM_DEVICES]);
    *out = (nvmlDeviceAttributes_t){.multiprocessorCount = profile->sm_count,
                                    .sharedCopyEngineCount = profile->slices,
                                    .sharedJpegCount = profile->media,
                                    .sharedOfaCount = profile->media,
                                    .gpuInstanceSliceCount = profile->slices,
                                    .computeInstanceSliceCount = profile->slices,
                                    .memorySizeMB = profile->memory_bytes / MIB};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t handle, nvmlDeviceAttributes_t *out)
{
    ENTER_UNIT(handle);
    return attributes(unit, out);
}

SIM_API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t handle, nvmlDeviceAttributes_t *out)
{
    ENTER_UNIT(handle);
    return attributes(unit, out);
}
