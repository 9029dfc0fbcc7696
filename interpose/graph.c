/* Graphs: limited like kernels, by the time one replay takes; and the memory their allocation nodes hold. */
#include "context.h"
#include "cost.h"
#include "graph_memory.h"
#include "launch.h"

static void count_memory(CUresult rc)
{
    if (rc != CUDA_SUCCESS || process_phase() != PROCESS_READY || hook_inside > 0)
        return;
    struct context_place place = context_place();
    graph_memory_refresh(place.driver, place.device);
}

static CUresult changed(CUresult rc, CUgraphExec graph)
{
    if (rc == CUDA_SUCCESS && process_phase() == PROCESS_READY)
        cost_invalidate(cost_of_graph(graph));
    return rc;
}

/* Waits for its turn first, so that nothing is held meanwhile. */
#define LAUNCHED(call)                                                                                                 \
    struct launch launch = launch_begin(&work);                                                                        \
    struct graph_run run;                                                                                              \
    if (!graph_memory_begin(graph, &run))                                                                              \
        return launch_end(&launch, &work, CUDA_ERROR_OUT_OF_MEMORY);                                                   \
    CUresult rc = launch_end(&launch, &work, graph_memory_done(&run, FORWARD(call)));                                  \
    count_memory(rc);                                                                                                  \
    return rc

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream)
{
    NEED_CUDA(cuGraphLaunch);
    const struct work work = {.graph = graph, .stream = stream};
    LAUNCHED(cuGraphLaunch(graph, stream));
}

CUresult cuGraphLaunch_ptsz(CUgraphExec graph, CUstream stream)
{
    NEED_CUDA(cuGraphLaunch_ptsz);
    const struct work work = {.graph = graph, .stream = stream, .per_thread = true};
    LAUNCHED(cuGraphLaunch_ptsz(graph, stream));
}

/* The driver may take a graph's memory as soon as it is uploaded. */
#define UPLOADED(call)                                                                                                 \
    struct graph_run run;                                                                                              \
    if (!graph_memory_begin(graph, &run))                                                                              \
        return CUDA_ERROR_OUT_OF_MEMORY;                                                                               \
    return graph_memory_done(&run, FORWARD(call))

CUresult cuGraphUpload(CUgraphExec graph, CUstream stream)
{
    NEED_CUDA(cuGraphUpload);
    UPLOADED(cuGraphUpload(graph, stream));
}

CUresult cuGraphUpload_ptsz(CUgraphExec graph, CUstream stream)
{
    NEED_CUDA(cuGraphUpload_ptsz);
    UPLOADED(cuGraphUpload_ptsz(graph, stream));
}

static CUresult made(CUresult rc, const CUgraphExec *exec, CUgraph graph, cuuint64_t flags)
{
    if (rc == CUDA_SUCCESS)
        graph_memory_note(*exec, graph, (flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH) != 0);
    return rc;
}

CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log, size_t bytes)
{
    NEED_CUDA(cuGraphInstantiate);
    return made(FORWARD(cuGraphInstantiate(exec, graph, error, log, bytes)), exec, graph, 0);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log, size_t bytes)
{
    NEED_CUDA(cuGraphInstantiate_v2);
    return made(FORWARD(cuGraphInstantiate_v2(exec, graph, error, log, bytes)), exec, graph, 0);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    NEED_CUDA(cuGraphInstantiateWithFlags);
    return made(FORWARD(cuGraphInstantiateWithFlags(exec, graph, flags)), exec, graph, flags);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    NEED_CUDA(cuGraphInstantiateWithParams);
    CUresult rc = FORWARD(cuGraphInstantiateWithParams(exec, graph, params));
    return made(rc, exec, graph, rc == CUDA_SUCCESS ? params->flags : 0);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    NEED_CUDA(cuGraphInstantiateWithParams_ptsz);
    CUresult rc = FORWARD(cuGraphInstantiateWithParams_ptsz(exec, graph, params));
    return made(rc, exec, graph, rc == CUDA_SUCCESS ? params->flags : 0);
}

CUresult cuGraphExecDestroy(CUgraphExec graph)
{
    NEED_CUDA(cuGraphExecDestroy);
    graph_memory_drop(graph); /* before the driver may give the number to the next one */
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

CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child)
{
    NEED_CUDA(cuGraphExecChildGraphNodeSetParams);
    return changed(FORWARD(cuGraphExecChildGraphNodeSetParams(exec, node, child)), exec);
}

CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *params)
{
    NEED_CUDA(cuGraphExecNodeSetParams);
    return changed(FORWARD(cuGraphExecNodeSetParams(exec, node, params)), exec);
}

CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
    NEED_CUDA(cuGraphNodeSetEnabled);
    return changed(FORWARD(cuGraphNodeSetEnabled(exec, node, enabled)), exec);
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    NEED_CUDA(cuDeviceGraphMemTrim);
    CUresult rc = FORWARD(cuDeviceGraphMemTrim(device));
    if (rc == CUDA_SUCCESS)
        graph_memory_refresh(device, target_device(device).device);
    return rc;
}
