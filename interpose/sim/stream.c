/*
 * Streams, events, host functions. All streams of a process on one device feed one queue in order of submission, which
 * is a legal schedule where every kernel takes the whole device; so waiting for an event of the same device needs
 * nothing, and for one of another device the host waits at the call.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda_sim.h"
#include "graph.h"
#include "pool.h"
#include "timeline.h"

struct CUevent_st {
    struct object object;
    unsigned flags;
    int device;
    bool recorded;
    u64 number;      /* completes with this kernel */
    u64 when;        /* the clock at completion, 0 = not known yet */
    CUgraph capture; /* recorded in this capture */
    CUevent next;    /* of the device's events with when == 0 */
};

static u64 last_stream_id = 2;
static struct {
    unsigned generation;
    CUevent waiting;
    u64 oldest; /* lowest number among waiting */
} events[SIM_UNITS];

CUstream stream_of(CUstream handle)
{
    CUcontext context = context_current();
    if (!context)
        return NULL;
    if (!handle || handle == CU_STREAM_LEGACY)
        return &context->legacy;
    if (handle == CU_STREAM_PER_THREAD)
        return &context->per_thread;
    return object_is(handle, OBJECT_STREAM) ? handle : NULL;
}

static CUresult no_stream(void) { return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT; }

u64 stream_last(CUstream stream) { return stream->last; }

/* The stream goes on to kernel `number`; the legacy default stream comes after everything in blocking streams. */
static void advance(CUstream stream, u64 number)
{
    CUstream legacy = &stream->context->legacy;
    if (stream->last < number)
        stream->last = number;
    if (!(stream->flags & CU_STREAM_NON_BLOCKING) && legacy->last < number)
        legacy->last = number;
}

/* Learn the completion times of waiting events up to kernel `number`, whose places in the queue will be used again.
 * With `local` held. */
static void harvest(int device, u64 number)
{
    if (events[device].generation != state_generation()) {
        memset(&events[device], 0, sizeof events[device]);
        events[device].generation = state_generation();
    }
    if (!events[device].waiting || events[device].oldest > number)
        return;
    events[device].oldest = UINT64_MAX;
    for (CUevent *at = &events[device].waiting; *at;) {
        CUevent event = *at;
        if (event->number <= number && timeline_done(device, event->number, &event->when)) {
            if (!event->when)
                event->when = state_now();
            *at = event->next;
            continue;
        }
        if (event->number < events[device].oldest)
            events[device].oldest = event->number;
        at = &event->next;
    }
}

CUresult stream_work(CUstream stream, u64 work_ns)
{
    if (stream->capture)
        return graph_add(stream->capture, work_ns);
    if (!work_ns)
        return CUDA_SUCCESS;
    int device = stream->context->device;
    for (;;) {
        u64 wait_for;
        pthread_mutex_lock(&local);
        u64 next = timeline_last(device) + 1;
        if (next > SIM_DEPTH)
            harvest(device, next - SIM_DEPTH);
        u64 number = timeline_submit(device, work_ns, &wait_for);
        if (number)
            advance(stream, number);
        pthread_mutex_unlock(&local);
        if (number)
            return CUDA_SUCCESS;
        if (!wait_for)
            return CUDA_ERROR_OUT_OF_MEMORY;
        timeline_wait(device, wait_for);
    }
}

/* ---- host functions: one thread runs them in order, each when its place in the queue is reached */

struct hosted {
    struct hosted *next;
    CUstream stream;
    int device;
    u64 number;
    CUhostFn function;
    CUstreamCallback callback;
    void *data;
};
static struct {
    unsigned generation;
    struct hosted *first, **last;
    pthread_cond_t changed;
} host = {.changed = PTHREAD_COND_INITIALIZER};

static void *run_hosted(void *nothing)
{
    (void)nothing;
    pthread_mutex_lock(&local);
    for (;;) {
        while (!host.first)
            pthread_cond_wait(&host.changed, &local);
        struct hosted *job = host.first;
        pthread_mutex_unlock(&local);
        timeline_wait(job->device, job->number);
        if (job->callback)
            job->callback(job->stream, CUDA_SUCCESS, job->data);
        else
            job->function(job->data);
        pthread_mutex_lock(&local);
        host.first = job->next;
        if (!host.first)
            host.last = &host.first;
        job->stream->hosted_done++;
        free(job);
        pthread_cond_broadcast(&host.changed);
    }
    return NULL;
}

static CUresult add_hosted(CUstream handle, CUhostFn function, CUstreamCallback callback, void *data)
{
    CUstream stream = stream_of(handle);
    if (!stream)
        return no_stream();
    if (!function && !callback)
        return CUDA_ERROR_INVALID_VALUE;
    if (stream->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    struct hosted *job = calloc(1, sizeof *job);
    if (!job)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *job = (struct hosted){.stream = stream,
                           .device = stream->context->device,
                           .number = stream_last(stream),
                           .function = function,
                           .callback = callback,
                           .data = data};
    pthread_mutex_lock(&local);
    CUresult rc = CUDA_SUCCESS;
    if (host.generation != state_generation()) {
        pthread_t thread;
        host.first = NULL;
        host.last = &host.first;
        pthread_cond_init(&host.changed, NULL);
        if (pthread_create(&thread, NULL, run_hosted, NULL) == 0) {
            pthread_detach(thread);
            host.generation = state_generation();
        } else {
            rc = CUDA_ERROR_OPERATING_SYSTEM;
        }
    }
    if (rc == CUDA_SUCCESS) {
        *host.last = job;
        host.last = &job->next;
        stream->hosted++;
        pthread_cond_broadcast(&host.changed);
    } else {
        free(job);
    }
    pthread_mutex_unlock(&local);
    return rc;
}

STREAM_CALL(cuLaunchHostFunc, _ptsz, (CUstream stream, CUhostFn function, void *data), stream, function, data)
{
    return add_hosted(stream, function, NULL, data);
}

STREAM_CALL(cuStreamAddCallback, _ptsz, (CUstream stream, CUstreamCallback callback, void *data, unsigned int flags),
            stream, callback, data, flags)
{
    return flags ? CUDA_ERROR_INVALID_VALUE : add_hosted(stream, NULL, callback, data);
}

/* ---- streams */

static CUresult create(CUstream *out, unsigned flags, int priority)
{
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || flags > CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    CUstream stream = object_new(sizeof *stream, OBJECT_STREAM);
    if (!stream)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stream->context = context;
    stream->flags = flags;
    stream->priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    stream->id = __atomic_add_fetch(&last_stream_id, 1, __ATOMIC_RELAXED);
    *out = stream;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamCreate(CUstream *out, unsigned int flags)
{
    ENTER();
    return create(out, flags, 0);
}

SIM_API CUresult cuStreamCreateWithPriority(CUstream *out, unsigned int flags, int priority)
{
    ENTER();
    return create(out, flags, priority);
}

/* Work in the stream goes on; only the handle ends. */
static CUresult destroy(CUstream stream)
{
    if (!object_is(stream, OBJECT_STREAM) || stream == &stream->context->legacy ||
        stream == &stream->context->per_thread)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&local);
    while (stream->hosted_done < stream->hosted) /* its host functions still use it */
        pthread_cond_wait(&host.changed, &local);
    pthread_mutex_unlock(&local);
    object_end(stream);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamDestroy(CUstream stream)
{
    ENTER();
    return destroy(stream);
}

SIM_API CUresult cuStreamDestroy_v2(CUstream stream)
{
    ENTER();
    return destroy(stream);
}

STREAM_CALL(cuStreamSynchronize, _ptsz, (CUstream stream), stream)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (on->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    timeline_wait(on->context->device, stream_last(on));
    pthread_mutex_lock(&local);
    while (on->hosted_done < on->hosted)
        pthread_cond_wait(&host.changed, &local);
    pthread_mutex_unlock(&local);
    pools_release(on->context->device);
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamQuery, _ptsz, (CUstream stream), stream)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (on->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    bool done = timeline_done(on->context->device, stream_last(on), NULL);
    return done && on->hosted_done == on->hosted ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

STREAM_CALL(cuStreamGetCtx, _ptsz, (CUstream stream, CUcontext *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = on->context;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamGetCtx_v2, _ptsz, (CUstream stream, CUcontext *out, CUgreenCtx *green), stream, out, green)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!out || !green)
        return CUDA_ERROR_INVALID_VALUE;
    *out = on->context;
    *green = NULL;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamGetFlags, _ptsz, (CUstream stream, unsigned int *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = on->flags;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamGetPriority, _ptsz, (CUstream stream, int *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = on->priority;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamGetId, _ptsz, (CUstream stream, unsigned long long *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = on->id;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuStreamGetDevice, _ptsz, (CUstream stream, CUdevice *out), stream, out)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = cuda_ordinal(on->context->device);
    return CUDA_SUCCESS;
}

/* ---- events */

SIM_API CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    CUevent event = object_new(sizeof *event, OBJECT_EVENT);
    if (!event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    event->flags = flags;
    event->device = context->device;
    *out = event;
    return CUDA_SUCCESS;
}

/* Forget that `event` waits. With `local` held. */
static void unwait(CUevent event)
{
    harvest(event->device, 0);
    for (CUevent *at = &events[event->device].waiting; *at; at = &(*at)->next)
        if (*at == event) {
            *at = event->next;
            break;
        }
}

static CUresult event_destroy(CUevent event)
{
    if (!object_is(event, OBJECT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&local);
    if (event->recorded && !event->when)
        unwait(event);
    object_end(event);
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventDestroy(CUevent event)
{
    ENTER();
    return event_destroy(event);
}

SIM_API CUresult cuEventDestroy_v2(CUevent event)
{
    ENTER();
    return event_destroy(event);
}

static CUresult record(CUevent event, CUstream handle)
{
    CUstream stream = stream_of(handle);
    if (!stream)
        return no_stream();
    if (!object_is(event, OBJECT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    int device = stream->context->device;
    if (event->device != device)
        return CUDA_ERROR_INVALID_HANDLE;
    event->capture = stream->capture;
    if (stream->capture)
        return CUDA_SUCCESS;
    pthread_mutex_lock(&local);
    harvest(device, 0);
    if (event->recorded && !event->when)
        unwait(event);
    event->recorded = true;
    event->number = stream_last(stream);
    event->when = timeline_done(device, event->number, NULL) ? state_now() : 0;
    if (!event->when) {
        event->next = events[device].waiting;
        if (!event->next || event->number < events[device].oldest)
            events[device].oldest = event->number;
        events[device].waiting = event;
    }
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

STREAM_CALL(cuEventRecord, _ptsz, (CUevent event, CUstream stream), event, stream) { return record(event, stream); }

STREAM_CALL(cuEventRecordWithFlags, _ptsz, (CUevent event, CUstream stream, unsigned int flags), event, stream, flags)
{
    return flags > 1 ? CUDA_ERROR_INVALID_VALUE : record(event, stream);
}

/* True when the event has happened, or was never recorded; its time is then in event->when. */
static bool happened(CUevent event)
{
    pthread_mutex_lock(&local);
    if (event->recorded && !event->when && timeline_done(event->device, event->number, NULL))
        harvest(event->device, event->number);
    bool done = !event->recorded || event->when;
    pthread_mutex_unlock(&local);
    return done;
}

SIM_API CUresult cuEventQuery(CUevent event)
{
    ENTER();
    if (!object_is(event, OBJECT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    return happened(event) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

SIM_API CUresult cuEventSynchronize(CUevent event)
{
    ENTER();
    if (!object_is(event, OBJECT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    if (event->recorded && !event->when)
        timeline_wait(event->device, event->number);
    pools_release(event->device);
    return CUDA_SUCCESS;
}

static CUresult elapsed(float *out, CUevent start, CUevent end)
{
    if (!object_is(start, OBJECT_EVENT) || !object_is(end, OBJECT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    if (!start->recorded || !end->recorded || (start->flags | end->flags) & CU_EVENT_DISABLE_TIMING ||
        start->device != end->device)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!happened(start) || !happened(end))
        return CUDA_ERROR_NOT_READY;
    *out = (float)((double)(i64)(end->when - start->when) / 1e6);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventElapsedTime(float *out, CUevent start, CUevent end)
{
    ENTER();
    return elapsed(out, start, end);
}

SIM_API CUresult cuEventElapsedTime_v2(float *out, CUevent start, CUevent end)
{
    ENTER();
    return elapsed(out, start, end);
}

STREAM_CALL(cuStreamWaitEvent, _ptsz, (CUstream stream, CUevent event, unsigned int flags), stream, event, flags)
{
    CUstream on = stream_of(stream);
    if (!on)
        return no_stream();
    if (!object_is(event, OBJECT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (event->capture)
        return graph_join(event->capture, on);
    if (!event->recorded || event->when)
        return CUDA_SUCCESS;
    if (event->device != on->context->device)
        timeline_wait(event->device, event->number);
    else
        advance(on, event->number);
    return CUDA_SUCCESS;
}
