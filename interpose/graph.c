/* Graphs: limited like kernels, by the time one replay takes; and the memory their allocation nodes hold. */
#include "context.h"
#include "cost.h"
#include "launch.h"
#include "pool.h"

static void count_memory(CUresult rc)
{
    if (rc != CUDA_SUCCESS || process_phase() != PROCESS_READY || hook_inside > 0)
        return;
    struct context_place place = context_place();
    pool_refresh_graphs(place.driver, place.device);
}

static CUresult changed(CUresult rc, CUgraphExec graph)
{
    if (rc == CUDA_SUCCESS && process_phase() == PROCESS_READY)
        cost_invalidate(cost_of_graph(graph));
    return rc;
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream)
{
    NEED_CUDA(cuGraphLaunch);
    const struct work work = {.graph = graph, .stream = stream};
    struct launch launch = launch_begin(&work);
    CUresult rc = launch_end(&launch, &work, FORWARD(cuGraphLaunch(graph, stream)));
    count_memory(rc);
    return rc;
}

CUresult cuGraphLaunch_ptsz(CUgraphExec graph, CUstream stream)
{
    NEED_CUDA(cuGraphLaunch_ptsz);
    const struct work work = {.graph = graph, .stream = stream, .per_thread = true};
    struct launch launch = launch_begin(&work);
    CUresult rc = launch_end(&launch, &work, FORWARD(cuGraphLaunch_ptsz(graph, stream)));
    count_memory(rc);
    return rc;
}

CUresult cuGraphExecDestroy(CUgraphExec graph)
{
    NEED_CUDA(cuGraphExecDestroy);
    return changed(FORWARD(cuGraphExecDestroy(graph)), graph);
}

CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error, CUgraphExecUpdateResult *result)
{
    NEED_CUDA(cuGraphExecUpdate);
    return changed(FORWARD(cuGraphExecUpdate(exec, graph, error, result)), exec);
}

CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *result)
{
    NEED_CUDA(cuGraphExecUpdate_v2);
    return changed(FORWARD(cuGraphExecUpdate_v2(exec, graph, result)), exec);
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    NEED_CUDA(cuGraphExecKernelNodeSetParams);
    return changed(FORWARD(cuGraphExecKernelNodeSetParams(exec, node, params)), exec);
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params)
{
    NEED_CUDA(cuGraphExecKernelNodeSetParams_v2);
    return changed(FORWARD(cuGraphExecKernelNodeSetParams_v2(exec, node, params)), exec);
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    NEED_CUDA(cuDeviceGraphMemTrim);
    CUresult rc = FORWARD(cuDeviceGraphMemTrim(device));
    if (rc == CUDA_SUCCESS)
        pool_refresh_graphs(device, target_device(device).device);
    return rc;
}
