#include "mps.h"

#include <stdlib.h>

#include "hook.h"

/* Drivers that do not know the question leave it to the environment. */
static bool is_client(CUdevice device)
{
    int enabled = 0;
    if (real.cuDeviceGetAttribute &&
        FORWARD(cuDeviceGetAttribute(&enabled, CU_DEVICE_ATTRIBUTE_MPS_ENABLED, device)) == CUDA_SUCCESS)
        return enabled != 0;
    return getenv("CUDA_MPS_PIPE_DIRECTORY") != NULL;
}

bool mps_holds(CUdevice device, uint32_t percent)
{
    const char *share = getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    double most = share ? strtod(share, NULL) : 0;
    return most > 0 && most <= percent && is_client(device);
}
