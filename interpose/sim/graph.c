/*
 * Graphs, as far as device time is concerned: a graph is a list of pieces of work, an executable graph the list at the
 * time of instantiation, a launch one piece of work of the list's total. Edges and copies are not played; memory nodes
 * are, in the order in which they were added (graph_memory.h).
 */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

#include "graph_memory.h"

#define JOINED 32

/* The driver's numbers. */
enum node_type { NODE_KERNEL = 0, NODE_GRAPH = 4, NODE_EMPTY = 5, NODE_ALLOC = 10, NODE_FREE = 11 };

struct CUgraphNode_st {
    struct object object;
    CUgraph graph;
    int type;          /* enum node_type */
    unsigned position; /* among the graph's nodes */
    u64 work;
    struct CUDA_KERNEL_NODE_PARAMS_v2_st kernel;
    CUDA_MEM_ALLOC_NODE_PARAMS alloc; /* of a free node, the address alone */
    CUgraph child;
};

struct CUgraph_st {
    struct object object;
    CUgraphNode *nodes;
    size_t count, room;
    CUstream joined[JOINED]; /* streams that take part in the capture, the origin first */
    unsigned joined_count;
    u64 capture_id;
};

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

static u64 last_capture;

static CUgraph graph_new(void) { return object_new(sizeof(struct CUgraph_st), OBJECT_GRAPH); }

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

CUresult graph_join(CUgraph graph, CUstream stream)
{
    if (stream->capture == graph)
        return CUDA_SUCCESS;
    if (stream->capture)
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    if (graph->joined_count == JOINED)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    graph->joined[graph->joined_count++] = stream;
    stream->capture = graph;
    return CUDA_SUCCESS;
}

/* ---- capture */

static CUresult begin(CUstream handle, CUgraph graph)
{
    CUstream stream = stream_of(handle);
    if (!stream)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (stream == &stream->context->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (!graph && !(graph = graph_new()))
        return CUDA_ERROR_OUT_OF_MEMORY;
    graph->capture_id = __atomic_add_fetch(&last_capture, 1, __ATOMIC_RELAXED);
    return graph_join(graph, stream);
}

STREAM_CALL(cuStreamBeginCapture, _ptsz, (CUstream stream), stream) { return begin(stream, NULL); }

STREAM_CALL(cuStreamBeginCapture_v2, _ptsz, (CUstream stream, CUstreamCaptureMode mode), stream, mode)
{
    return (unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED ? CUDA_ERROR_INVALID_VALUE : begin(stream, NULL);
}

STREAM_CALL(cuStreamBeginCaptureToGraph, _ptsz,
            (CUstream stream, CUgraph graph, const CUgraphNode *dependencies, const CUgraphEdgeData *edges,
             size_t count, CUstreamCaptureMode mode),
            stream, graph, dependencies, edges, count, mode)
{
    (void)edges;
    if (!object_is(graph, OBJECT_GRAPH) || (count && !dependencies) || (unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    return begin(stream, graph);
}

STREAM_CALL(cuStreamEndCapture, _ptsz, (CUstream stream, CUgraph *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    CUgraph graph = on->capture;
    if (!graph)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (graph->joined[0] != on)
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    for (unsigned i = 0; i < graph->joined_count; i++)
        graph->joined[i]->capture = NULL;
    graph->joined_count = 0;
    *out = graph;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamIsCapturing, _ptsz, (CUstream stream, CUstreamCaptureStatus *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = on->capture ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

static CUresult capture_info(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
                             const CUgraphNode **dependencies, size_t *count)
{
    CUstream stream = stream_of(handle);
    if (!stream)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    *status = stream->capture ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    if (!stream->capture)
        return CUDA_SUCCESS;
    CUgraph into = stream->capture;
    if (id)
        *id = into->capture_id;
    if (graph)
        *graph = into;
    if (dependencies)
        *dependencies = into->count ? &into->nodes[into->count - 1] : NULL;
    if (count)
        *count = into->count ? 1 : 0;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamGetCaptureInfo, _ptsz, (CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id), stream,
            status, id)
{
    return capture_info(stream, status, id, NULL, NULL, NULL);
}

STREAM_CALL(cuStreamGetCaptureInfo_v2, _ptsz,
            (CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
             const CUgraphNode **dependencies, size_t *count),
            stream, status, id, graph, dependencies, count)
{
    return capture_info(stream, status, id, graph, dependencies, count);
}

STREAM_CALL(cuStreamGetCaptureInfo_v3, _ptsz,
            (CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
             const CUgraphNode **dependencies, const CUgraphEdgeData **edges, size_t *count),
            stream, status, id, graph, dependencies, edges, count)
{
    if (edges)
        *edges = NULL;
    return capture_info(stream, status, id, graph, dependencies, count);
}

static __thread CUstreamCaptureMode thread_mode;

SIM_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    ENTER();
    if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
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

static u64 kernel_work(const struct CUDA_KERNEL_NODE_PARAMS_v2_st *kernel)
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
    CUgraphNode node = node_new(graph, type, kernel ? kernel_work(kernel) : 0);
    if (node && kernel)
        node->kernel = *kernel;
    pthread_mutex_unlock(&local);
    if (!node)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = node;
    return CUDA_SUCCESS;
}

/* The first form of the parameters lacks the last two members. */
static struct CUDA_KERNEL_NODE_PARAMS_v2_st widened(const CUDA_KERNEL_NODE_PARAMS_v1 *kernel)
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
    struct CUDA_KERNEL_NODE_PARAMS_v2_st wide = widened(kernel);
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

static u64 work_of(CUgraph graph)
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
    (*out)->work = work_of(child);
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

/* ---- executable graphs */

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
    piece->ns = kernel_work(kernel);
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
    piece->ns = work_of(child);
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
    struct CUDA_KERNEL_NODE_PARAMS_v2_st wide = widened(kernel);
    return set_kernel(exec, node, &wide);
}

SIM_API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                                   const CUDA_KERNEL_NODE_PARAMS *kernel)
{
    ENTER();
    return kernel ? set_kernel(exec, node, kernel) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *out)
{
    ENTER();
    if (!object_is(node, OBJECT_NODE) || node->type != 0 || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = node->kernel;
    return CUDA_SUCCESS;
}
