/*
 * MIG through NVML: the mode and MIG devices (nvml_mig.c), GPU instances (nvml_mig_gpu.c), compute instances
 * (nvml_mig_compute.c). Of compute instances only the one that takes the whole GPU instance is played, so a GPU instance
 * has at most one MIG device.
 */
#ifndef SIM_NVML_MIG_H
#define SIM_NVML_MIG_H

#include "nvml_sim.h"

#define MIB (1u << 20)
#define WHOLE_COMPUTE 0u /* id of a GPU instance's compute instance */

nvmlGpuInstance_t mig_gpu_handle(int i);

/* The instance behind a handle; -1 = none that exists. */
int mig_gpu_instance(nvmlGpuInstance_t handle);

/* ENTER_DEVICE() for what only a device in MIG mode answers. */
#define ENTER_MIG(handle)                                                                                              \
    ENTER_DEVICE(handle);                                                                                              \
    if (!mig_on(device))                                                                                               \
    return NVML_ERROR_NOT_SUPPORTED

/* The same for what a GPU instance answers. */
#define ENTER_GPU_INSTANCE(handle)                                                                                     \
    ENTER();                                                                                                           \
    int i = mig_gpu_instance(handle);                                                                                  \
    if (i < 0)                                                                                                         \
    return NVML_ERROR_INVALID_ARGUMENT

#endif
