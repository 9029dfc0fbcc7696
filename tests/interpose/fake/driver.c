/* A driver that differs from the simulated one where it matters: it lacks most functions, answers look-ups with an inner
 * entry that no symbol names, knows an ABI newer than our table, its graphs hold memory, and it has sparse arrays. */
#include <string.h>

#include "driver.h"

#define API __attribute__((visibility("default")))

static struct CUctx_st {
    int device;
} context;
static CUdeviceptr next_address = 1 << 20;
static uint64_t graph_memory;

API CUresult cuInit(unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
API CUresult cuDeviceGetCount(int *count) { return *count = 1, CUDA_SUCCESS; }
API CUresult cuDeviceGet(CUdevice *device, int ordinal) { return *device = ordinal, CUDA_SUCCESS; }
API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) { return memset(uuid, device, sizeof *uuid), CUDA_SUCCESS; }
API CUresult cuCtxGetCurrent(CUcontext *current) { return *current = &context, CUDA_SUCCESS; }
API CUresult cuCtxGetDevice(CUdevice *device) { return *device = 0, CUDA_SUCCESS; }
API CUresult cuMemFree_v2(CUdeviceptr address) { return address ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

static CUresult inner_alloc(CUdeviceptr *address, size_t bytes)
{
    return *address = next_address += bytes, CUDA_SUCCESS;
}

API CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) { return inner_alloc(address, bytes); }

/* Not in any header yet: same name, another signature. */
API CUresult cuMemAlloc_v9(CUdeviceptr *address, size_t bytes, int hint);
API CUresult cuMemAlloc_v9(CUdeviceptr *address, size_t bytes, int hint)
{
    return hint ? CUDA_ERROR_NOT_SUPPORTED : inner_alloc(address, bytes);
}

API CUresult cuMemMapArrayAsync(CUarrayMapInfo *list, unsigned int count, CUstream stream)
{
    (void)list, (void)count, (void)stream;
    return CUDA_SUCCESS;
}

/* The first replay of a graph takes memory and keeps it. */
API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    (void)stream;
    graph_memory = (uint64_t)(uintptr_t)exec << 20;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void *value)
{
    (void)device;
    *(uint64_t *)value = attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT ? graph_memory : 0;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    (void)device;
    graph_memory = 0;
    return CUDA_SUCCESS;
}

API CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult *status)
{
    (void)flags, (void)status;
    *function = NULL;
    if (strcmp(name, "cuMemAlloc") == 0)
        *function = version >= 99000 ? (void *)cuMemAlloc_v9 : (void *)inner_alloc;
    return CUDA_SUCCESS;
}
