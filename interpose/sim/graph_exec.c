/* Executable graphs: instantiation, launch, and edits of single nodes. */
#include <stdlib.h>

#include "graph.h"
#include "graph_memory.h"

/* What a node of an executable graph does. */
struct piece {
    u64 ns;
    bool disabled;
};

struct CUgraphExec_st {
    struct object object;
    struct piece *works;
    size_t count;
    u64 flags;
    struct graph_memory memory;
};

/* With `local` held. */
static bool add_memory(struct graph_memory *memory, CUgraph graph)
{
    bool valid = true;
    for (size_t i = 0; i < graph->count && valid; i++) {
        CUgraphNode node = graph->nodes[i];
        if (node->type == NODE_ALLOC)
            valid = graph_memory_alloc(memory, node->alloc.dptr);
        else if (node->type == NODE_FREE)
            valid = graph_memory_free(memory, node->alloc.dptr);
        else if (node->type == NODE_GRAPH)
            valid = add_memory(memory, node->child);
    }
    return valid;
}

static CUresult load(CUgraphExec exec, CUgraph graph)
{
    struct graph_memory memory = {.device = -1};
    pthread_mutex_lock(&local);
    bool valid = add_memory(&memory, graph);
    graph_memory_end(valid ? &exec->memory : &memory);
    if (valid)
        exec->memory = memory;
    pthread_mutex_unlock(&local);
    if (!valid)
        return CUDA_ERROR_INVALID_VALUE;
    struct piece *works = calloc(graph->count ? graph->count : 1, sizeof *works);
    if (!works)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < graph->count; i++)
        works[i].ns = graph->nodes[i]->work;
    free(exec->works);
    exec->works = works;
    exec->count = graph->count;
    return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *out, CUgraph graph, u64 flags)
{
    if (!out || !object_is(graph, OBJECT_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    CUgraphExec exec = object_new(sizeof *exec, OBJECT_EXEC);
    CUresult rc = exec ? load(exec, graph) : CUDA_ERROR_OUT_OF_MEMORY;
    if (rc == CUDA_SUCCESS) {
        exec->flags = flags;
        exec->memory.auto_free = flags & 1;
        *out = exec;
    } else if (exec) {
        object_end(exec);
    }
    return rc;
}

SIM_API CUresult cuGraphInstantiate(CUgraphExec *out, CUgraph graph, CUgraphNode *error, char *log, size_t size)
{
    ENTER();
    if (error)
        *error = NULL;
    if (log && size)
        *log = 0;
    return instantiate(out, graph, 0);
}

SIM_API CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error, char *log, size_t size)
{
    ENTER();
    if (error)
        *error = NULL;
    if (log && size)
        *log = 0;
    return instantiate(out, graph, 0);
}

SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
    ENTER();
    return instantiate(out, graph, flags);
}

static CUresult with_parameters(CUgraphExec *out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *parameters)
{
    if (!parameters)
        return CUDA_ERROR_INVALID_VALUE;
    parameters->hErrNode_out = NULL;
    parameters->result_out = 0;
    return instantiate(out, graph, parameters->flags);
}

PLAIN_TWINS(cuGraphInstantiateWithParams, _ptsz,
            (CUgraphExec * out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *parameters), out, graph, parameters)
{
    return with_parameters(out, graph, parameters);
}

STREAM_CALL(cuGraphUpload, _ptsz, (CUgraphExec exec, CUstream stream), exec, stream)
{
    return object_is(exec, OBJECT_EXEC) && stream_of(stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

STREAM_CALL(cuGraphLaunch, _ptsz, (CUgraphExec exec, CUstream stream), exec, stream)
{
    CUstream on = stream_of(stream);
    if (!object_is(exec, OBJECT_EXEC) || !on)
        return CUDA_ERROR_INVALID_VALUE;
    u64 total = 0;
    for (size_t i = 0; i < exec->count; i++)
        total += exec->works[i].disabled ? 0 : exec->works[i].ns;
    pthread_mutex_lock(&local);
    CUresult rc = graph_memory_run(&exec->memory);
    pthread_mutex_unlock(&local);
    return rc == CUDA_SUCCESS ? stream_work(on, total) : rc;
}

SIM_API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    ENTER();
    if (!object_is(exec, OBJECT_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    free(exec->works);
    pthread_mutex_lock(&local);
    graph_memory_end(&exec->memory);
    pthread_mutex_unlock(&local);
    object_end(exec);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphExecGetFlags(CUgraphExec exec, cuuint64_t *flags)
{
    ENTER();
    if (!object_is(exec, OBJECT_EXEC) || !flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = exec->flags;
    return CUDA_SUCCESS;
}

static CUresult update(CUgraphExec exec, CUgraph graph, int *result)
{
    if (!object_is(exec, OBJECT_EXEC) || !object_is(graph, OBJECT_GRAPH) || !result)
        return CUDA_ERROR_INVALID_VALUE;
    *result = exec->count == graph->count ? CU_GRAPH_EXEC_UPDATE_SUCCESS : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    return *result ? CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE : load(exec, graph);
}

SIM_API CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error, CUgraphExecUpdateResult *result)
{
    ENTER();
    int answer = 0;
    CUresult rc = update(exec, graph, result ? &answer : NULL);
    if (error)
        *error = NULL;
    if (result)
        *result = (CUgraphExecUpdateResult)answer;
    return rc;
}

/* The result structure starts with the result; nodes that failed follow and stay as they are. */
SIM_API CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info)
{
    ENTER();
    return update(exec, graph, (int *)(void *)info);
}

/* The piece of a node, or null if there is none. */
static struct piece *piece_of(CUgraphExec exec, CUgraphNode node)
{
    bool known = object_is(exec, OBJECT_EXEC) && object_is(node, OBJECT_NODE) && node->position < exec->count;
    return known ? &exec->works[node->position] : NULL;
}

static CUresult set_kernel(CUgraphExec exec, CUgraphNode node, const struct CUDA_KERNEL_NODE_PARAMS_v2_st *kernel)
{
    struct piece *piece = piece_of(exec, node);
    if (!piece)
        return CUDA_ERROR_INVALID_VALUE;
    piece->ns = graph_kernel_work(kernel);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
    ENTER();
    struct piece *piece = piece_of(exec, node);
    if (!piece || node->type != NODE_KERNEL)
        return CUDA_ERROR_INVALID_VALUE;
    piece->disabled = enabled == 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int *enabled)
{
    ENTER();
    const struct piece *piece = piece_of(exec, node);
    if (!piece || !enabled)
        return CUDA_ERROR_INVALID_VALUE;
    *enabled = !piece->disabled;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child)
{
    ENTER();
    struct piece *piece = piece_of(exec, node);
    if (!piece || node->type != NODE_GRAPH || !object_is(child, OBJECT_GRAPH) || child->count != node->child->count)
        return CUDA_ERROR_INVALID_VALUE;
    piece->ns = graph_work(child);
    return CUDA_SUCCESS;
}

/* Of the kinds of nodes only kernels are played here. */
SIM_API CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *params)
{
    ENTER();
    if (!params || !object_is(node, OBJECT_NODE) || node->type != (int)params->type || node->type != NODE_KERNEL)
        return CUDA_ERROR_INVALID_VALUE;
    return set_kernel(exec, node, &params->kernel);
}

SIM_API CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_KERNEL_NODE_PARAMS_v1 *kernel)
{
    ENTER();
    if (!kernel)
        return CUDA_ERROR_INVALID_VALUE;
    struct CUDA_KERNEL_NODE_PARAMS_v2_st wide = graph_widened(kernel);
    return set_kernel(exec, node, &wide);
}

SIM_API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                                   const CUDA_KERNEL_NODE_PARAMS *kernel)
{
    ENTER();
    return kernel ? set_kernel(exec, node, kernel) : CUDA_ERROR_INVALID_VALUE;
}
