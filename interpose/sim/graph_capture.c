/* Graphs made of what is submitted to streams. */
#include "graph.h"

static u64 last_capture;

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
