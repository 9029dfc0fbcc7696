/* A driver whose functions do next to nothing, so that what a call takes more with the interposer is the interposer.
 * Built as libcuda.so.1 and as libnvidia-ml.so.1. */
#include <stdlib.h>
#include <string.h>

#include "driver.h"

#define API __attribute__((visibility("default")))

static CUdeviceptr next_address = 1 << 20;
static struct CUctx_st {
    int device;
} context;

API CUresult cuInit(unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
API CUresult cuDeviceGetCount(int *count) { return *count = 1, CUDA_SUCCESS; }
API CUresult cuDeviceGet(CUdevice *device, int ordinal) { return *device = ordinal, CUDA_SUCCESS; }
API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) { return memset(uuid, device, sizeof *uuid), CUDA_SUCCESS; }
API CUresult cuCtxGetCurrent(CUcontext *current) { return *current = &context, CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice *device) { return *device = 0, CUDA_SUCCESS; }
API CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) { return *address = next_address += bytes, CUDA_SUCCESS; }
API CUresult cuMemFree_v2(CUdeviceptr address) { return address ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
API CUresult cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = *total = (size_t)80 << 30, CUDA_SUCCESS; }

API CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                            unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params,
                            void **extra)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)stream, (void)params, (void)extra;
    return f ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    (void)stream;
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}

/* Events answer at once, and every kernel takes 5 us. */
API CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    (void)flags;
    return *event = (CUevent)(void *)&context, CUDA_SUCCESS;
}
API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    (void)event, (void)stream;
    return CUDA_SUCCESS;
}
API CUresult cuEventQuery(CUevent event) { return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    (void)start, (void)end;
    return *ms = 0.000001f, CUDA_SUCCESS; /* 1 ns: the bucket never empties */
}

API CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult *status)
{
    (void)version, (void)flags;
    *function = strcmp(name, "cuMemAlloc") == 0 ? (void *)cuMemAlloc_v2
                : strcmp(name, "cuInit") == 0   ? (void *)cuInit
                                                : NULL;
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    (void)device;
    strncpy(uuid, "GPU-00000000-0000-0000-0000-000000000000", length);
    return NVML_SUCCESS;
}
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    (void)device;
    *memory = (nvmlMemory_t){.total = 80ULL << 30, .free = 80ULL << 30};
    return NVML_SUCCESS;
}
