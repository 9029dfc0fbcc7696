/* Graphs and their nodes, made by hand; memory nodes also by capture. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

#include "graph_memory.h"

CUgraph graph_new(void) { return object_new(sizeof(struct CUgraph_st), OBJECT_GRAPH); }

static CUgraphNode node_new(CUgraph graph, int type, u64 work)
{
    if (graph->count == graph->room) {
        size_t room = graph->room ? graph->room * 2 : 16;
        CUgraphNode *more = realloc(graph->nodes, room * sizeof *more);
        if (!more)
            return NULL;
        graph->nodes = more;
        graph->room = room;
    }
    CUgraphNode node = object_new(sizeof *node, OBJECT_NODE);
    if (!node)
        return NULL;
    node->graph = graph;
    node->type = type;
    node->work = work;
    node->position = (unsigned)graph->count;
    graph->nodes[graph->count++] = node;
    return node;
}

CUresult graph_add(CUgraph graph, u64 work_ns)
{
    pthread_mutex_lock(&local);
    CUgraphNode node = node_new(graph, NODE_KERNEL, work_ns);
    pthread_mutex_unlock(&local);
    return node ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- memory nodes */

/* With `local` held. */
static CUresult add_alloc(CUgraphNode *out, CUgraph graph, int device, CUDA_MEM_ALLOC_NODE_PARAMS *parameters)
{
    CUdeviceptr at = graph_memory_address(device, parameters->bytesize);
    CUgraphNode node = at ? node_new(graph, NODE_ALLOC, 0) : NULL;
    if (!node)
        return CUDA_ERROR_OUT_OF_MEMORY;
    parameters->dptr = at;
    node->alloc = *parameters;
    *out = node;
    return CUDA_SUCCESS;
}

static CUresult add_free(CUgraphNode *out, CUgraph graph, CUdeviceptr at)
{
    CUgraphNode node = node_new(graph, NODE_FREE, 0);
    if (!node)
        return CUDA_ERROR_OUT_OF_MEMORY;
    node->alloc.dptr = at;
    *out = node;
    return CUDA_SUCCESS;
}

CUresult graph_add_alloc(CUgraph graph, int device, u64 bytes, CUdeviceptr *at)
{
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                      .location = {CU_MEM_LOCATION_TYPE_DEVICE, cuda_ordinal(device)}},
        .bytesize = bytes};
    CUgraphNode node;
    if (!at || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    CUresult rc = add_alloc(&node, graph, device, &parameters);
    pthread_mutex_unlock(&local);
    if (rc == CUDA_SUCCESS)
        *at = parameters.dptr;
    return rc;
}

CUresult graph_add_free(CUgraph graph, CUdeviceptr at)
{
    CUgraphNode node;
    pthread_mutex_lock(&local);
    CUresult rc = add_free(&node, graph, at);
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                        CUDA_MEM_ALLOC_NODE_PARAMS *parameters)
{
    ENTER();
    if (!out || !object_is(graph, OBJECT_GRAPH) || (count && !dependencies) || !parameters || !parameters->bytesize ||
        parameters->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    int device = cuda_device(parameters->poolProps.location.id);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&local);
    CUresult rc = add_alloc(out, graph, device, parameters);
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                       CUdeviceptr at)
{
    ENTER();
    if (!out || !object_is(graph, OBJECT_GRAPH) || (count && !dependencies) || !at)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    CUresult rc = add_free(out, graph, at);
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *out)
{
    ENTER();
    if (!object_is(node, OBJECT_NODE) || node->type != NODE_ALLOC || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = node->alloc;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *out)
{
    ENTER();
    if (!object_is(node, OBJECT_NODE) || node->type != NODE_FREE || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = node->alloc.dptr;
    return CUDA_SUCCESS;
}

/* ---- graphs made by hand */

SIM_API CUresult cuGraphCreate(CUgraph *out, unsigned int flags)
{
    ENTER();
    if (!out || flags)
        return CUDA_ERROR_INVALID_VALUE;
    *out = graph_new();
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuGraphDestroy(CUgraph graph)
{
    ENTER();
    if (!object_is(graph, OBJECT_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    for (size_t i = 0; i < graph->count; i++)
        object_end(graph->nodes[i]);
    free(graph->nodes);
    object_end(graph);
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

u64 graph_kernel_work(const struct CUDA_KERNEL_NODE_PARAMS_v2_st *kernel)
{
    CUfunction function = kernel->func ? kernel->func : (CUfunction)kernel->kern;
    return object_is(function, OBJECT_FUNCTION)
               ? function_work(function, (u64)kernel->gridDimX * kernel->gridDimY * kernel->gridDimZ,
                               (u64)kernel->blockDimX * kernel->blockDimY * kernel->blockDimZ)
               : 0;
}

static CUresult add_node(CUgraphNode *out, CUgraph graph, int type, const struct CUDA_KERNEL_NODE_PARAMS_v2_st *kernel)
{
    if (!out || !object_is(graph, OBJECT_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    CUgraphNode node = node_new(graph, type, kernel ? graph_kernel_work(kernel) : 0);
    if (node && kernel)
        node->kernel = *kernel;
    pthread_mutex_unlock(&local);
    if (!node)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = node;
    return CUDA_SUCCESS;
}

struct CUDA_KERNEL_NODE_PARAMS_v2_st graph_widened(const CUDA_KERNEL_NODE_PARAMS_v1 *kernel)
{
    struct CUDA_KERNEL_NODE_PARAMS_v2_st wide = {0};
    memcpy(&wide, kernel, sizeof *kernel);
    return wide;
}

SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                      const CUDA_KERNEL_NODE_PARAMS_v1 *kernel)
{
    ENTER();
    if (!kernel || (count && !dependencies))
        return CUDA_ERROR_INVALID_VALUE;
    struct CUDA_KERNEL_NODE_PARAMS_v2_st wide = graph_widened(kernel);
    return add_node(out, graph, NODE_KERNEL, &wide);
}

SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                         const CUDA_KERNEL_NODE_PARAMS *kernel)
{
    ENTER();
    if (!kernel || (count && !dependencies))
        return CUDA_ERROR_INVALID_VALUE;
    return add_node(out, graph, NODE_KERNEL, kernel);
}

SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count)
{
    ENTER();
    if (count && !dependencies)
        return CUDA_ERROR_INVALID_VALUE;
    return add_node(out, graph, NODE_EMPTY, NULL);
}

u64 graph_work(CUgraph graph)
{
    u64 total = 0;
    for (size_t i = 0; i < graph->count; i++)
        total += graph->nodes[i]->work;
    return total;
}

/* The driver takes a copy of the child; here it must stay as it is. */
SIM_API CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                                          size_t count, CUgraph child)
{
    ENTER();
    if ((count && !dependencies) || !object_is(child, OBJECT_GRAPH) || child == graph)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = add_node(out, graph, NODE_GRAPH, NULL);
    if (rc != CUDA_SUCCESS)
        return rc;
    (*out)->child = child;
    (*out)->work = graph_work(child);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *out)
{
    ENTER();
    if (!object_is(node, OBJECT_NODE) || node->type != NODE_GRAPH || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = node->child;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    ENTER();
    if (!object_is(node, OBJECT_NODE) || !type)
        return CUDA_ERROR_INVALID_VALUE;
    *type = node->type;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    ENTER();
    if (!object_is(graph, OBJECT_GRAPH) || !count)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; nodes && i < *count; i++)
        nodes[i] = i < graph->count ? graph->nodes[i] : NULL;
    if (!nodes || *count > graph->count)
        *count = graph->count;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *out)
{
    ENTER();
    if (!object_is(node, OBJECT_NODE) || node->type != NODE_KERNEL || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = node->kernel;
    return CUDA_SUCCESS;
}
