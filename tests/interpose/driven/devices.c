/* Several devices in one program: what is taken counts where it is, whatever context happens to be current. */
#include <pthread.h>

#include "driven.h"

extern CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
extern CUresult cuCtxSetCurrent(CUcontext context);
extern CUresult cuCtxGetCurrent(CUcontext *context);
extern CUresult cuModuleLoadData(CUmodule *module, const void *image);
extern CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
extern CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
extern CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                       CUDA_MEM_ALLOC_NODE_PARAMS *params);

static CUcontext a, b; /* of device 0, which may hold 100 MiB, and device 1, which may hold 50 */

/* With nothing on the stack of contexts. */
static CUcontext alone(int device)
{
    CUcontext context = use_device(device), popped;
    OK(CU(cuCtxPopCurrent_v2)(&popped));
    CHECK(popped == context);
    return context;
}

static void be_in(CUcontext context)
{
    OK(CU(cuCtxSetCurrent)(context));
}

static void check_current_is(CUcontext context)
{
    CUcontext current;
    OK(CU(cuCtxGetCurrent)(&current));
    CHECK(current == context);
}

static void check_linear(void)
{
    CUdeviceptr on_a, on_b, more;
    be_in(a);
    OK(CU(cuMemAlloc_v2)(&on_a, 80 * MIB));
    be_in(b);
    OK(CU(cuMemAlloc_v2)(&on_b, 40 * MIB));
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&more, 20 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(free_mib(), 10);
    be_in(a);
    CHECK_EQUAL(free_mib(), 20);
    OK(CU(cuMemFree_v2)(on_b)); /* from the other device's context */
    CHECK_EQUAL(counted(1), 0);
    CHECK_EQUAL(counted(0), 80);
    OK(CU(cuMemFree_v2)(on_a));
    CHECK_EQUAL(counted(0), 0);
}

/* A stream's memory comes from the stream's device. */
static void check_streams(void)
{
    CUstream of_b;
    CUdeviceptr at, more;
    CUmemoryPool pool;
    be_in(b);
    OK(CU(cuStreamCreate)(&of_b, 0));
    be_in(a);
    OK(CU(cuMemAllocAsync)(&at, 20 * MIB, of_b));
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(counted(1), 32);
    CHECK_EQUAL(CU(cuMemAllocAsync)(&more, 60 * MIB, of_b), CUDA_ERROR_OUT_OF_MEMORY);
    check_current_is(a);
    be_in(NULL);
    CUresult rc = CU(cuMemAllocAsync)(&more, 60 * MIB, of_b);
    CHECK(rc == CUDA_ERROR_OUT_OF_MEMORY || rc == CUDA_ERROR_INVALID_CONTEXT);
    check_current_is(NULL);
    be_in(a);
    OK(CU(cuMemFreeAsync)(at, of_b));
    OK(CU(cuStreamSynchronize)(of_b));
    OK(CU(cuDeviceGetDefaultMemPool)(&pool, 1));
    OK(CU(cuMemPoolTrimTo)(pool, 0));
    CHECK_EQUAL(counted(1), 0);
    OK(CU(cuMemAllocFromPoolAsync)(&at, 20 * MIB, pool, NULL)); /* a pool's comes from the pool's */
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(counted(1), 32);
    OK(CU(cuMemFreeAsync)(at, NULL));
    OK(CU(cuStreamSynchronize)(NULL));
    OK(CU(cuMemPoolTrimTo)(pool, 0));
    CHECK_EQUAL(counted(1), 0);
}

static uint64_t charged_ns(int device)
{
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    uint64_t ns = region.ext->devices[device].charged_ns;
    region_close(&region);
    return ns;
}

/* A kernel runs on the device of its stream. */
static void check_launches(void)
{
    CUmodule module;
    CUfunction function;
    CUstream of_b;
    be_in(b);
    OK(CU(cuStreamCreate)(&of_b, 0));
    OK(CU(cuModuleLoadData)(&module, "sim_ns_1000000"));
    OK(CU(cuModuleGetFunction)(&function, module, "sim_ns_1000000"));
    be_in(a);
    uint64_t before_a = charged_ns(0), before_b = charged_ns(1);
    for (int i = 0; i < 20; i++) {
        OK(CU(cuLaunchKernel)(function, 1, 1, 1, 1, 1, 1, 0, of_b, NULL, NULL));
        OK(CU(cuStreamSynchronize)(of_b));
        check_current_is(a);
    }
    CHECK_EQUAL(charged_ns(0), before_a);
    CHECK(charged_ns(1) - before_b > 10000000);
}

static void check_graph_memory(void)
{
    CUgraph graph;
    CUgraphNode node;
    CUgraphExec exec;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                       .location = {CU_MEM_LOCATION_TYPE_DEVICE, 1}},
                                         .bytesize = 40 * MIB};
    be_in(a);
    OK(CU(cuGraphCreate)(&graph, 0));
    OK(CU(cuGraphAddMemAllocNode)(&node, graph, NULL, 0, &params));
    OK(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0));
    OK(CU(cuGraphLaunch)(exec, NULL));
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(counted(1), 40);
    OK(CU(cuMemFree_v2)(params.dptr));
    OK(CU(cuDeviceGraphMemTrim)(1));
    CHECK_EQUAL(counted(1), 0);
}

static void *take_twice(void *context)
{
    int device = context == b;
    CUdeviceptr at;
    be_in(context);
    for (int i = 0; i < 400; i++) {
        OK(CU(cuMemAlloc_v2)(&at, (device ? 45 : 95) * MIB));
        OK(CU(cuMemFree_v2)(at));
    }
    return NULL;
}

static void check_threads(void)
{
    pthread_t on_a, on_b;
    CHECK(pthread_create(&on_a, NULL, take_twice, a) == 0 && pthread_create(&on_b, NULL, take_twice, b) == 0);
    pthread_join(on_a, NULL);
    pthread_join(on_b, NULL);
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(counted(1), 0);
}

static void check_reset(void)
{
    CUdeviceptr at;
    be_in(a);
    OK(CU(cuMemAlloc_v2)(&at, 30 * MIB));
    be_in(b);
    OK(CU(cuMemAlloc_v2)(&at, 30 * MIB));
    OK(CU(cuDevicePrimaryCtxReset_v2)(1));
    CHECK_EQUAL(counted(1), 0);
    CHECK_EQUAL(counted(0), 30);
}

int main(void)
{
    setenv("CUDA_DEVICE_MEMORY_LIMIT_1", "50m", 1);
    setenv("CUDA_DEVICE_SM_LIMIT", "50", 1);
    setenv("GPU_CORE_UTILIZATION_POLICY", "FORCE", 1);
    a = alone(0);
    b = alone(1);
    check_linear();
    check_streams();
    check_launches();
    check_graph_memory();
    check_threads();
    check_reset();
    return 0;
}
