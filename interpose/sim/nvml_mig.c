/*
 * MIG through NVML: the mode, GPU instances, compute instances, MIG devices. Of compute instances only the one that
 * takes the whole GPU instance is played, so a GPU instance has at most one MIG device.
 */
#include <stdio.h>
#include <string.h>

#include "nvml_sim.h"
#include "timeline.h"
#include "visible.h"

#define MIB (1u << 20)
#define WHOLE_COMPUTE 0u /* id of a GPU instance's compute instance */

/* NVML numbers profiles of instances of 1, 2, 3, 4, 7, 8, 6 slices from 0. */
static const unsigned COMPUTE_SLICES[] = {1, 2, 3, 4, 7, 8, 6};

/* The driver's ids of compute profiles by slices; shared with the numbers above where it has none of its own. */
static unsigned compute_id(unsigned slices)
{
    for (unsigned i = 0; i < sizeof COMPUTE_SLICES / sizeof *COMPUTE_SLICES; i++)
        if (COMPUTE_SLICES[i] == slices)
            return i;
    return UINT32_MAX;
}

/* ENTER_DEVICE() for what only a device in MIG mode answers. */
#define ENTER_MIG(handle)                                                                                              \
    ENTER_DEVICE(handle);                                                                                              \
    if (!mig_on(device))                                                                                               \
    return NVML_ERROR_NOT_SUPPORTED

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

/* ---- GPU instances */

static nvmlGpuInstance_t gpu_handle(int i) { return (nvmlGpuInstance_t)(void *)&sim->instances[i]; }

static nvmlComputeInstance_t compute_handle(int i) { return (nvmlComputeInstance_t)(void *)&sim->instances[i].compute; }

/* The instance behind a handle; -1 = none that exists. */
static int gpu_instance(nvmlGpuInstance_t handle)
{
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (handle == gpu_handle(i))
            return sim->instances[i].live ? i : -1;
    return -1;
}

static int compute_instance(nvmlComputeInstance_t handle)
{
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (handle == compute_handle(i))
            return sim->instances[i].live && sim->instances[i].compute ? i : -1;
    return -1;
}

#define ENTER_GPU_INSTANCE(handle)                                                                                     \
    ENTER();                                                                                                           \
    int i = gpu_instance(handle);                                                                                      \
    if (i < 0)                                                                                                         \
    return NVML_ERROR_INVALID_ARGUMENT

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
    *out = gpu_handle(made);
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
            out[(*count)++] = gpu_handle(i);
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
            *out = gpu_handle(i);
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

/* ---- compute instances */

/* Profile info of the one compute instance that is played. */
static nvmlReturn_t compute_info(int i, unsigned number, unsigned engines, nvmlComputeInstanceProfileInfo_t *out)
{
    const struct sim_profile *profile = mig_profile(&sim->instances[i]);
    if (number >= sizeof COMPUTE_SLICES / sizeof *COMPUTE_SLICES || COMPUTE_SLICES[number] != profile->slices ||
        engines != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (nvmlComputeInstanceProfileInfo_t){.id = compute_id(profile->slices),
                                              .sliceCount = profile->slices,
                                              .instanceCount = 1,
                                              .multiprocessorCount = profile->sm_count,
                                              .sharedCopyEngineCount = profile->slices,
                                              .sharedJpegCount = profile->media,
                                              .sharedOfaCount = profile->media};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t handle, unsigned int number,
                                                                  unsigned int engines,
                                                                  nvmlComputeInstanceProfileInfo_t *out)
{
    ENTER_GPU_INSTANCE(handle);
    return out ? compute_info(i, number, engines, out) : NVML_ERROR_INVALID_ARGUMENT;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t handle, unsigned int number,
                                                                   unsigned int engines,
                                                                   nvmlComputeInstanceProfileInfo_v2_t *out)
{
    ENTER_GPU_INSTANCE(handle);
    nvmlComputeInstanceProfileInfo_t told;
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    bool third = out->version == (3u << 24 | sizeof(nvmlComputeInstanceProfileInfo_v3_t));
    if (!third && out->version != (2u << 24 | sizeof *out))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t rc = compute_info(i, number, engines, &told);
    if (rc != NVML_SUCCESS)
        return rc;
    memcpy(&out->id, &told, sizeof told);
    snprintf(out->name, sizeof out->name, "MIG %.31s", mig_profile(&sim->instances[i])->name);
    if (third)
        ((nvmlComputeInstanceProfileInfo_v3_t *)(void *)out)->capabilities = 0;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t handle, unsigned int id,
                                                                        unsigned int *out)
{
    ENTER_GPU_INSTANCE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (id != compute_id(mig_profile(&sim->instances[i])->slices))
        return NVML_ERROR_NOT_SUPPORTED;
    *out = !sim->instances[i].compute;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstancePossiblePlacements(nvmlGpuInstance_t handle, unsigned int id,
                                                                         nvmlComputeInstancePlacement_t *out,
                                                                         unsigned int *count)
{
    ENTER_GPU_INSTANCE(handle);
    const struct sim_profile *profile = mig_profile(&sim->instances[i]);
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (id != compute_id(profile->slices))
        return NVML_ERROR_NOT_SUPPORTED;
    *count = 1;
    if (out)
        *out = (nvmlComputeInstancePlacement_t){.start = 0, .size = profile->slices};
    return NVML_SUCCESS;
}

static nvmlReturn_t create_compute(int i, unsigned id, nvmlComputeInstance_t *out)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (id != compute_id(mig_profile(&sim->instances[i])->slices))
        return NVML_ERROR_NOT_SUPPORTED;
    nvmlReturn_t rc = NVML_SUCCESS;
    state_lock();
    if (sim->instances[i].compute)
        rc = NVML_ERROR_INSUFFICIENT_RESOURCES;
    else
        __atomic_store_n(&sim->instances[i].compute, 1, __ATOMIC_RELEASE);
    state_unlock();
    *out = rc == NVML_SUCCESS ? compute_handle(i) : NULL;
    return rc;
}

SIM_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t handle, unsigned int id,
                                                          nvmlComputeInstance_t *out)
{
    ENTER_GPU_INSTANCE(handle);
    return create_compute(i, id, out);
}

SIM_API nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(nvmlGpuInstance_t handle, unsigned int id,
                                                                       const nvmlComputeInstancePlacement_t *placement,
                                                                       nvmlComputeInstance_t *out)
{
    ENTER_GPU_INSTANCE(handle);
    if (!placement || placement->start || placement->size != mig_profile(&sim->instances[i])->slices)
        return NVML_ERROR_INVALID_ARGUMENT;
    return create_compute(i, id, out);
}

SIM_API nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t handle)
{
    ENTER();
    int i = compute_instance(handle);
    if (i < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t rc = NVML_SUCCESS;
    state_lock();
    if (ledger_busy(SIM_DEVICES + i)) {
        rc = NVML_ERROR_IN_USE;
    } else {
        __atomic_store_n(&sim->instances[i].compute, 0, __ATOMIC_RELEASE);
        timeline_clear(SIM_DEVICES + i);
    }
    state_unlock();
    return rc;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t handle, unsigned int id,
                                                        nvmlComputeInstance_t *out, unsigned int *count)
{
    ENTER_GPU_INSTANCE(handle);
    if (!out || !count)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (id != compute_id(mig_profile(&sim->instances[i])->slices))
        return NVML_ERROR_NOT_SUPPORTED;
    *count = sim->instances[i].compute;
    if (*count)
        *out = compute_handle(i);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t handle, unsigned int id,
                                                           nvmlComputeInstance_t *out)
{
    ENTER_GPU_INSTANCE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (id != WHOLE_COMPUTE || !sim->instances[i].compute)
        return NVML_ERROR_NOT_FOUND;
    *out = compute_handle(i);
    return NVML_SUCCESS;
}

static nvmlReturn_t get_compute(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *out, size_t written)
{
    int i = compute_instance(handle);
    if (i < 0 || !out)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned slices = mig_profile(&sim->instances[i])->slices;
    nvmlComputeInstanceInfo_t info = {.device = nvml_handle((int)sim->instances[i].device),
                                      .gpuInstance = gpu_handle(i),
                                      .id = WHOLE_COMPUTE,
                                      .profileId = compute_id(slices),
                                      .placement = {.start = 0, .size = slices}};
    memcpy(out, &info, written);
    return NVML_SUCCESS;
}

/* The old form ends before the placement. */
SIM_API nvmlReturn_t nvmlComputeInstanceGetInfo(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *out)
{
    ENTER();
    return get_compute(handle, out, offsetof(nvmlComputeInstanceInfo_t, placement));
}

SIM_API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *out)
{
    ENTER();
    return get_compute(handle, out, sizeof *out);
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
