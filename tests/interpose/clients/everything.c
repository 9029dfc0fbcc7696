/* Uses every kind of memory, work and object once, whatever fails, and says what each call answered:
 *
 *     everything [ROUNDS]
 *
 * One JSON line, [["call", result], ...]; then it waits for a line, with all still held that it could not give back, and
 * ends. A call that the driver does not have counts as result -1. What follows a failed call gets null handles, so that
 * the driver answers the same each time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver_more.h"

#define MIB ((size_t)1 << 20)

extern CUresult cuCtxSetCurrent(CUcontext context);
extern CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device);
extern CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
extern CUresult cuModuleUnload(CUmodule module);
extern CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
extern CUresult cuStreamDestroy_v2(CUstream stream);
extern CUresult cuMemAddressReserve(CUdeviceptr *at, size_t size, size_t align, CUdeviceptr hint, unsigned long long f);
extern CUresult cuMemAddressFree(CUdeviceptr at, size_t size);
extern CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode);
extern CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph);
extern CUresult cuGraphDestroy(CUgraph graph);
extern CUresult cuEventDestroy_v2(CUevent event);
extern CUresult cuEventSynchronize(CUevent event);
extern CUresult cuCtxSynchronize(void);

static void *driver;
static const char *separator = "[";

static int say(const char *name, int result)
{
    printf("%s[\"%s\", %d]", separator, name, result);
    separator = ", ";
    return result;
}

#define HAS(name) dlsym(driver, #name)
#define TRY(name, ...) say(#name, HAS(name) ? (int)((__typeof__(&name))HAS(name))(__VA_ARGS__) : -1)

static void linear(void)
{
    CUdeviceptr at[4] = {0};
    size_t pitch = 0, free = 0, total = 0;
    TRY(cuMemAlloc_v2, &at[0], 10 * MIB);
    TRY(cuMemAllocPitch_v2, &at[1], &pitch, 1000, 1000, 4);
    TRY(cuMemAllocManaged, &at[2], 5 * MIB, 1);
    TRY(cuMemGetInfo_v2, &free, &total);
    TRY(cuMemFree_v2, at[0]);
    TRY(cuMemFree_v2, at[1]);
    TRY(cuMemFree_v2, at[2]);
    TRY(cuMemFree_v2, 0x1234);
}

static void pooled(CUstream stream)
{
    CUdeviceptr at[3] = {0};
    CUmemoryPool pool = NULL;
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    TRY(cuMemAllocAsync, &at[0], 10 * MIB, stream);
    TRY(cuMemPoolCreate, &pool, &props);
    TRY(cuMemAllocFromPoolAsync, &at[1], 40 * MIB, pool, stream);
    TRY(cuMemAllocAsync_ptsz, &at[2], 3 * MIB, NULL);
    for (int i = 0; i < 2; i++)
        if (at[i])
            TRY(cuMemFreeAsync, at[i], stream);
    if (at[2])
        TRY(cuMemFree_v2, at[2]);
    TRY(cuStreamSynchronize, stream);
    TRY(cuMemPoolTrimTo, pool, 0);
    TRY(cuMemPoolDestroy, pool);
}

static void physical(void)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle handle = 0, again = 0;
    CUdeviceptr at = 0;
    TRY(cuMemCreate, &handle, 20 * MIB, &prop, 0);
    TRY(cuMemAddressReserve, &at, 20 * MIB, 0, 0, 0);
    int mapped = TRY(cuMemMap, at, 20 * MIB, 0, handle, 0);
    if (TRY(cuMemRetainAllocationHandle, &again, (void *)(uintptr_t)at) == 0)
        TRY(cuMemRelease, again);
    TRY(cuMemRelease, handle);
    if (mapped == 0)
        TRY(cuMemUnmap, at, 20 * MIB);
    TRY(cuMemAddressFree, at, 20 * MIB);
}

static void arrays(void)
{
    CUDA_ARRAY_DESCRIPTOR flat = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUDA_ARRAY3D_DESCRIPTOR deep = {
        .Width = 256, .Height = 256, .Depth = 4, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUarray a = NULL, b = NULL;
    CUmipmappedArray mip = NULL;
    TRY(cuArrayCreate_v2, &a, &flat);
    TRY(cuArray3DCreate_v2, &b, &deep);
    TRY(cuMipmappedArrayCreate, &mip, &deep, 3);
    TRY(cuArrayDestroy, a);
    TRY(cuArrayDestroy, b);
    TRY(cuMipmappedArrayDestroy, mip);
}

static void work(CUstream stream)
{
    CUmodule module = NULL;
    CUfunction function = NULL;
    CUevent start = NULL, end = NULL;
    float ms = 0;
    TRY(cuModuleLoadData, &module, "sim_ns_20000");
    TRY(cuModuleGetFunction, &function, module, "sim_ns_20000");
    TRY(cuEventCreate, &start, 0);
    TRY(cuEventCreate, &end, 0);
    TRY(cuEventRecord, start, stream);
    for (int i = 0; i < 5; i++)
        TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
    TRY(cuLaunchKernel_ptsz, function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    CUlaunchConfig shape = {.gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    shape.hStream = stream;
    TRY(cuLaunchKernelEx, &shape, function, NULL, NULL);
    TRY(cuLaunchCooperativeKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, NULL);
    TRY(cuEventRecord, end, stream);
    TRY(cuEventSynchronize, end);
    TRY(cuEventElapsedTime, &ms, start, end);
    TRY(cuStreamBeginCapture_v2, stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    TRY(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    TRY(cuStreamEndCapture, stream, &graph);
    TRY(cuGraphInstantiateWithFlags, &exec, graph, 0);
    for (int i = 0; i < 3; i++)
        TRY(cuGraphLaunch, exec, stream);
    TRY(cuStreamSynchronize, stream);
    TRY(cuGraphExecDestroy, exec);
    TRY(cuGraphDestroy, graph);
    TRY(cuDeviceGraphMemTrim, 0);
    TRY(cuEventDestroy_v2, start);
    TRY(cuEventDestroy_v2, end);
    TRY(cuModuleUnload, module);
}

static void one_round(void)
{
    CUcontext primary = NULL, own = NULL;
    CUstream stream = NULL;
    size_t bytes = 0;
    TRY(cuDeviceTotalMem_v2, &bytes, 0);
    TRY(cuDevicePrimaryCtxRetain, &primary, 0);
    TRY(cuCtxSetCurrent, primary);
    TRY(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    linear();
    pooled(stream);
    physical();
    arrays();
    work(stream);
    TRY(cuStreamDestroy_v2, stream);
    if (TRY(cuCtxCreate_v2, &own, 0, 0) == 0) {
        CUdeviceptr left;
        TRY(cuMemAlloc_v2, &left, 7 * MIB); /* ends with its context */
        TRY(cuCtxDestroy_v2, own);
    }
    TRY(cuCtxSetCurrent, primary);
    TRY(cuCtxSynchronize);
    TRY(cuDevicePrimaryCtxRelease_v2, 0);
}

int main(int count, char **words)
{
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver)
        return 1;
    TRY(cuInit, 0);
    for (int i = 0; i < (count > 1 ? atoi(words[1]) : 1); i++)
        one_round();
    printf("]\n");
    fflush(stdout);
    getchar();
    return 0;
}
