/* MIG: compute instances. */
#include <stdio.h>
#include <string.h>

#include "nvml_mig.h"
#include "timeline.h"

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

static nvmlComputeInstance_t compute_handle(int i) { return (nvmlComputeInstance_t)(void *)&sim->instances[i].compute; }

/* The GPU instance of the one behind a handle; -1 = none that exists. */
static int compute_instance(nvmlComputeInstance_t handle)
{
    for (int i = 0; i < SIM_INSTANCES; i++)
        if (handle == compute_handle(i))
            return sim->instances[i].live && sim->instances[i].compute ? i : -1;
    return -1;
}

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
                                      .gpuInstance = mig_gpu_handle(i),
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
