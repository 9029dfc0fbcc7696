/* Memory that graphs allocate: reserved before the run that takes it, refused beyond the limit, and counted by what the
 * driver says it holds. */
#include "driven.h"

extern CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
extern CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                       CUDA_MEM_ALLOC_NODE_PARAMS *params);
extern CUresult cuGraphAddMemFreeNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                      CUdeviceptr at);
extern CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                         CUgraph child);
extern CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
extern CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode);
extern CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph);

static CUdeviceptr add_alloc(CUgraph graph, int device, size_t mib)
{
    CUgraphNode node;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                       .location = {CU_MEM_LOCATION_TYPE_DEVICE, device}},
                                         .bytesize = mib * MIB};
    OK(CU(cuGraphAddMemAllocNode)(&node, graph, NULL, 0, &params));
    return params.dptr;
}

static CUgraphExec executable(CUgraph graph, unsigned long long flags)
{
    CUgraphExec exec;
    OK(CU(cuGraphInstantiateWithFlags)(&exec, graph, flags));
    return exec;
}

/* What a graph frees itself is there for the next run, and for others once somebody needs it. */
static void check_one_that_frees(void)
{
    CUgraph graph;
    CUgraphNode node;
    OK(CU(cuGraphCreate)(&graph, 0));
    CUdeviceptr at = add_alloc(graph, 0, 60);
    OK(CU(cuGraphAddMemFreeNode)(&node, graph, NULL, 0, at));
    CUgraphExec exec = executable(graph, 0);
    CHECK_EQUAL(counted(0), 0);
    OK(CU(cuGraphUpload)(exec, NULL));
    for (int i = 0; i < 3; i++) {
        OK(CU(cuGraphLaunch)(exec, NULL));
        CHECK_EQUAL(counted(0), 60);
    }
    CUdeviceptr a;
    OK(CU(cuMemAlloc_v2)(&a, 50 * MIB)); /* the device keeps 60 without need, which go first */
    CHECK_EQUAL(counted(0), 50);
    CHECK_EQUAL(CU(cuGraphLaunch)(exec, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(CU(cuGraphUpload)(exec, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(counted(0), 50);
    OK(CU(cuMemFree_v2)(a));
    OK(CU(cuGraphLaunch)(exec, NULL));
    OK(CU(cuDeviceGraphMemTrim)(0));
    CHECK_EQUAL(counted(0), 0);
    OK(CU(cuGraphExecDestroy)(exec));
}

/* What it leaves behind stays, until it is freed or the next run begins. */
static void check_one_that_keeps(void)
{
    CUgraph graph;
    OK(CU(cuGraphCreate)(&graph, 0));
    CUdeviceptr at = add_alloc(graph, 0, 70);
    CUgraphExec once = executable(graph, 0), again = executable(graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    OK(CU(cuGraphLaunch)(once, NULL));
    CHECK(CU(cuGraphLaunch)(once, NULL) != CUDA_SUCCESS);
    OK(CU(cuDeviceGraphMemTrim)(0));
    CHECK_EQUAL(counted(0), 70);
    OK(CU(cuMemFree_v2)(at));
    OK(CU(cuGraphLaunch)(again, NULL));
    OK(CU(cuGraphLaunch)(again, NULL)); /* fits, because the last run's memory ends */
    CHECK_EQUAL(counted(0), 70);
    OK(CU(cuMemFreeAsync)(at, NULL));
    CHECK_EQUAL(free_mib(), 30);
    OK(CU(cuDeviceGraphMemTrim)(0));
    CHECK_EQUAL(free_mib(), 100);
    OK(CU(cuGraphExecDestroy)(once));
    OK(CU(cuGraphExecDestroy)(again));
}

/* Nodes that come from captured calls, and nodes of graphs in graphs, on the device where they are. */
static void check_captured_and_nested(void)
{
    CUstream stream;
    CUgraph graph, outer;
    CUgraphNode node;
    CUdeviceptr at;
    OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
    OK(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(CU(cuMemAllocAsync)(&at, 120 * MIB, stream)); /* describes only */
    OK(CU(cuMemFreeAsync)(at, stream));
    OK(CU(cuStreamEndCapture)(stream, &graph));
    CHECK_EQUAL(counted(0), 0);
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {0};
    CUgraphExec exec;
    OK(CU(cuGraphInstantiateWithParams)(&exec, graph, &params));
    CHECK_EQUAL(CU(cuGraphLaunch)(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(CU(cuGraphLaunch_ptsz)(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(counted(0), 0);

    OK(CU(cuGraphCreate)(&outer, 0));
    OK(CU(cuGraphAddChildGraphNode)(&node, outer, NULL, 0, graph));
    CHECK_EQUAL(CU(cuGraphLaunch)(executable(outer, 0), stream), CUDA_ERROR_OUT_OF_MEMORY);

    OK(CU(cuGraphCreate)(&outer, 0));
    add_alloc(outer, 1, 150); /* a device without a limit, from a context of the other */
    OK(CU(cuGraphLaunch)(executable(outer, 0), stream));
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(counted(1), 150);
}

int main(void)
{
    use_device(0);
    check_one_that_frees();
    check_one_that_keeps();
    check_captured_and_nested();
    return 0;
}
