/* MIG: profiles of GPU instances, and the instances. */
#include <stdio.h>
#include <string.h>

#include "nvml_mig.h"

/* ---- profiles of GPU instances */

/* Index of the device's profile with this NVML number or, `by_id`, with this id of the driver; -1 = none. */
static int find_profile(int device, unsigned wanted, bool by_id)
{
    for (int i = 0; i < SIM_PROFILES; i++) {
        const struct sim_profile *profile = &sim->profiles[device * SIM_PROFILES + i];
        if (profile->memory_bytes && (by_id ? profile->id : profile->number) == wanted)
            return i;
    }
    return -1;
}

/* Engines are told as far as they follow the slices. */
static nvmlGpuInstanceProfileInfo_t profile_info(const struct sim_profile *profile)
{
    return (nvmlGpuInstanceProfileInfo_t){.id = profile->id,
                                          .sliceCount = profile->slices,
                                          .instanceCount = profile->most,
                                          .multiprocessorCount = profile->sm_count,
                                          .copyEngineCount = profile->slices,
                                          .jpegCount = profile->media,
                                          .ofaCount = profile->media,
                                          .memorySizeMB = profile->memory_bytes / MIB};
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t handle, unsigned int number,
                                                         nvmlGpuInstanceProfileInfo_t *out)
{
    ENTER_MIG(handle);
    int profile = find_profile(device, number, false);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (profile < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *out = profile_info(&sim->profiles[device * SIM_PROFILES + profile]);
    return NVML_SUCCESS;
}

/* The caller's version says which structure is at `out`. */
static nvmlReturn_t versioned_profile(int device, int index, void *out)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned version = *(const unsigned *)out;
    bool second = version == (2u << 24 | sizeof(nvmlGpuInstanceProfileInfo_v2_t));
    if (!second && version != (3u << 24 | sizeof(nvmlGpuInstanceProfileInfo_v3_t)))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (index < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    const struct sim_profile *profile = &sim->profiles[device * SIM_PROFILES + index];
    nvmlGpuInstanceProfileInfo_t told = profile_info(profile);
    char name[96];
    snprintf(name, sizeof name, "MIG %.31s", profile->name);
    if (second) {
        nvmlGpuInstanceProfileInfo_v2_t *info = out;
        memcpy(&info->id, &told.id, offsetof(nvmlGpuInstanceProfileInfo_t, memorySizeMB));
        info->memorySizeMB = told.memorySizeMB;
        memcpy(info->name, name, sizeof name);
    } else {
        nvmlGpuInstanceProfileInfo_v3_t *info = out;
        info->id = told.id;
        memcpy(&info->sliceCount, &told.sliceCount,
               offsetof(nvmlGpuInstanceProfileInfo_t, memorySizeMB) -
                   offsetof(nvmlGpuInstanceProfileInfo_t, sliceCount));
        info->memorySizeMB = told.memorySizeMB;
        memcpy(info->name, name, sizeof name);
        info->capabilities = 0;
    }
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t handle, unsigned int number,
                                                          nvmlGpuInstanceProfileInfo_v2_t *out)
{
    ENTER_MIG(handle);
    return versioned_profile(device, find_profile(device, number, false), out);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t handle, unsigned int id,
                                                              nvmlGpuInstanceProfileInfo_v2_t *out)
{
    ENTER_MIG(handle);
    return versioned_profile(device, find_profile(device, id, true), out);
}

static nvmlReturn_t placements(int device, unsigned id, nvmlGpuInstancePlacement_t *out, unsigned *count)
{
    int index = find_profile(device, id, true);
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (index < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    const struct sim_profile *profile = &sim->profiles[device * SIM_PROFILES + index];
    /* A buffer must be large enough; the caller does not say how large it is. */
    *count = (unsigned)__builtin_popcount(profile->starts);
    unsigned found = 0;
    for (unsigned start = 0; out && start < 32; start++)
        if (profile->starts & 1u << start)
            out[found++] = (nvmlGpuInstancePlacement_t){.start = start, .size = profile->size};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements(nvmlDevice_t handle, unsigned int id,
                                                                nvmlGpuInstancePlacement_t *out, unsigned int *count)
{
    ENTER_MIG(handle);
    return placements(device, id, out, count);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t handle, unsigned int id,
                                                                   nvmlGpuInstancePlacement_t *out, unsigned int *count)
{
    ENTER_MIG(handle);
    return placements(device, id, out, count);
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t handle, unsigned int id, unsigned int *out)
{
    ENTER_MIG(handle);
    int profile = find_profile(device, id, true);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (profile < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    state_lock();
    *out = mig_room(device, (u32)profile, NULL);
    state_unlock();
    return NVML_SUCCESS;
}

/* ---- the instances */

nvmlGpuInstance_t mig_gpu_handle(int i) { return (nvmlGpuInstance_t)(void *)&sim->instances[i]; }

int mig_gpu_instance(nvmlGpuInstance_t handle)
{
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (handle == mig_gpu_handle(i))
            return sim->instances[i].live ? i : -1;
    return -1;
}

static nvmlReturn_t create(int device, unsigned id, const nvmlGpuInstancePlacement_t *at, nvmlGpuInstance_t *out)
{
    int profile = find_profile(device, id, true);
    u32 start = at ? at->start : 0;
    if (!out || (profile >= 0 && at && at->size != sim->profiles[device * SIM_PROFILES + profile].size))
        return NVML_ERROR_INVALID_ARGUMENT;
    if (profile < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    state_lock();
    if (!at)
        mig_room(device, (u32)profile, &start);
    int made = mig_fits(device, (u32)profile, start) ? mig_make(device, (u32)profile, start) : -1;
    state_unlock();
    if (made < 0)
        return NVML_ERROR_INSUFFICIENT_RESOURCES;
    *out = mig_gpu_handle(made);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t handle, unsigned int id, nvmlGpuInstance_t *out)
{
    ENTER_MIG(handle);
    return create(device, id, NULL, out);
}

SIM_API nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t handle, unsigned int id,
                                                              const nvmlGpuInstancePlacement_t *placement,
                                                              nvmlGpuInstance_t *out)
{
    ENTER_MIG(handle);
    return placement ? create(device, id, placement, out) : NVML_ERROR_INVALID_ARGUMENT;
}

SIM_API nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t handle)
{
    ENTER_GPU_INSTANCE(handle);
    nvmlReturn_t rc = NVML_SUCCESS;
    state_lock();
    if (sim->instances[i].compute)
        rc = NVML_ERROR_IN_USE;
    else
        __atomic_store_n(&sim->instances[i].live, 0, __ATOMIC_RELEASE);
    state_unlock();
    return rc;
}

/* All of one profile, as NVML lists them. */
SIM_API nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t handle, unsigned int id, nvmlGpuInstance_t *out,
                                               unsigned int *count)
{
    ENTER_MIG(handle);
    int profile = find_profile(device, id, true);
    if (!out || !count)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (profile < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *count = 0;
    state_lock();
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (sim->instances[i].live && sim->instances[i].device == (u32)device &&
            sim->instances[i].profile == (u32)profile)
            out[(*count)++] = mig_gpu_handle(i);
    state_unlock();
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t handle, unsigned int id, nvmlGpuInstance_t *out)
{
    ENTER_MIG(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (sim->instances[i].live && sim->instances[i].device == (u32)device && sim->instances[i].id == id) {
            *out = mig_gpu_handle(i);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t handle, nvmlGpuInstanceInfo_t *out)
{
    ENTER_GPU_INSTANCE(handle);
    const struct sim_instance *instance = &sim->instances[i];
    const struct sim_profile *profile = mig_profile(instance);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = (nvmlGpuInstanceInfo_t){.device = nvml_handle((int)instance->device),
                                   .id = instance->id,
                                   .profileId = profile->id,
                                   .placement = {.start = instance->start, .size = profile->size}};
    return NVML_SUCCESS;
}
