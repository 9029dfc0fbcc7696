/* Contexts: one primary a device, any number of others, a stack of current ones a thread. Each costs context_bytes. */
#include <string.h>

#include "cuda_sim.h"
#include "pool.h"
#include "mig.h"
#include "timeline.h"

#define STACK 64

static struct {
    struct CUctx_st *context; /* NULL = not active */
    unsigned flags;
} primary[SIM_UNITS];
static unsigned primary_generation;
static u64 last_id;

static __thread struct {
    unsigned generation, depth;
    CUcontext stack[STACK];
} thread;

static void thread_refresh(void)
{
    if (thread.generation != state_generation()) {
        thread.generation = state_generation();
        thread.depth = 0;
    }
}

CUcontext context_current(void)
{
    thread_refresh();
    CUcontext top = thread.depth ? thread.stack[thread.depth - 1] : NULL;
    return object_is(top, OBJECT_CONTEXT) ? top : NULL;
}

static void stream_start(struct CUstream_st *stream, CUcontext context, u64 id)
{
    stream->object.kind = OBJECT_STREAM;
    stream->object.generation = state_generation();
    stream->context = context;
    stream->id = id;
}

static CUcontext context_new(int device, unsigned flags)
{
    if (!ledger_take(device, KIND_CONTEXT, sim->devices[device].context_bytes))
        return NULL;
    CUcontext context = object_new(sizeof *context, OBJECT_CONTEXT);
    if (!context) {
        ledger_give(device, KIND_CONTEXT, sim->devices[device].context_bytes);
        return NULL;
    }
    context->device = device;
    context->flags = flags;
    context->api_version = 3020;
    context->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    context->limits[CU_LIMIT_STACK_SIZE] = 1024;
    context->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = 1u << 20;
    context->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = 8u << 20;
    stream_start(&context->legacy, context, 1);
    stream_start(&context->per_thread, context, 2);
    __atomic_add_fetch(&sim->processes[state_attach()].contexts[device], 1, __ATOMIC_RELAXED);
    return context;
}

static void context_end(CUcontext context)
{
    int device = context->device;
    timeline_wait(device, timeline_last(device));
    context_memory_drop(context);
    context_modules_drop(context);
    context_arrays_drop(context);
    context->legacy.object.kind = context->per_thread.object.kind = OBJECT_FREE;
    object_end(context);
    ledger_give(device, KIND_CONTEXT, sim->devices[device].context_bytes);
    __atomic_sub_fetch(&sim->processes[state_attach()].contexts[device], 1, __ATOMIC_RELAXED);
}

static void primary_refresh(void)
{
    if (primary_generation != state_generation()) {
        memset(primary, 0, sizeof primary);
        primary_generation = state_generation();
    }
}

SIM_API CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    if (fault_lost(unit_device(device)))
        return CUDA_ERROR_UNKNOWN;
    pthread_mutex_lock(&local);
    primary_refresh();
    CUcontext context = primary[device].context;
    if (!context) {
        context = context_new(device, primary[device].flags);
        if (context)
            context->primary = true;
        primary[device].context = context;
    }
    if (context)
        context->retains++;
    pthread_mutex_unlock(&local);
    *out = context;
    return context ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Give back one retain, or all of them for a reset. */
static CUresult primary_release(CUdevice dev, bool all)
{
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&local);
    primary_refresh();
    CUcontext context = primary[device].context, ending = NULL;
    if (context && (all || --context->retains == 0)) {
        ending = context;
        primary[device].context = NULL;
    }
    pthread_mutex_unlock(&local);
    if (ending)
        context_end(ending);
    return context || all ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    ENTER();
    return primary_release(dev, false);
}

SIM_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    ENTER();
    return primary_release(dev, false);
}

SIM_API CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    ENTER();
    return primary_release(dev, true);
}

SIM_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    ENTER();
    return primary_release(dev, true);
}

static CUresult primary_set_flags(CUdevice dev, unsigned flags)
{
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&local);
    primary_refresh();
    primary[device].flags = flags;
    if (primary[device].context)
        primary[device].context->flags = flags;
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    ENTER();
    return primary_set_flags(dev, flags);
}

SIM_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
    ENTER();
    return primary_set_flags(dev, flags);
}

SIM_API CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    primary_refresh();
    *flags = primary[device].flags;
    *active = primary[device].context != NULL;
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

static CUresult push(CUcontext context)
{
    thread_refresh();
    if (!object_is(context, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (thread.depth == STACK)
        return CUDA_ERROR_OUT_OF_MEMORY;
    thread.stack[thread.depth++] = context;
    return CUDA_SUCCESS;
}

static CUresult create(CUcontext *out, unsigned flags, CUdevice dev, unsigned api_version)
{
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    if (fault_lost(unit_device(device)))
        return CUDA_ERROR_UNKNOWN;
    CUcontext context = context_new(device, flags);
    if (!context)
        return CUDA_ERROR_OUT_OF_MEMORY;
    context->api_version = api_version;
    CUresult rc = push(context);
    if (rc != CUDA_SUCCESS)
        context_end(context);
    else
        *out = context;
    return rc;
}

SIM_API CUresult cuCtxCreate(CUcontext *out, unsigned int flags, CUdevice dev)
{
    ENTER();
    return create(out, flags, dev, 3010);
}

SIM_API CUresult cuCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice dev)
{
    ENTER();
    return create(out, flags, dev, 3020);
}

/* Execution affinity is accepted and has no effect, as without MPS. */
SIM_API CUresult cuCtxCreate_v3(CUcontext *out, CUexecAffinityParam *affinities, int count, unsigned int flags,
                                CUdevice dev)
{
    ENTER();
    if (count && !affinities)
        return CUDA_ERROR_INVALID_VALUE;
    return create(out, flags, dev, 3020);
}

SIM_API CUresult cuCtxCreate_v4(CUcontext *out, CUctxCreateParams *parameters, unsigned int flags, CUdevice dev)
{
    ENTER();
    (void)parameters;
    return create(out, flags, dev, 3020);
}

static CUresult destroy(CUcontext context)
{
    if (!object_is(context, OBJECT_CONTEXT) || context->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context_current() == context)
        thread.depth--;
    context_end(context);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxDestroy(CUcontext context)
{
    ENTER();
    return destroy(context);
}

SIM_API CUresult cuCtxDestroy_v2(CUcontext context)
{
    ENTER();
    return destroy(context);
}

SIM_API CUresult cuCtxPushCurrent(CUcontext context)
{
    ENTER();
    return push(context);
}

SIM_API CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    ENTER();
    return push(context);
}

static CUresult pop(CUcontext *out)
{
    thread_refresh();
    if (!thread.depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    thread.depth--;
    if (out)
        *out = thread.stack[thread.depth];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxPopCurrent(CUcontext *out)
{
    ENTER();
    return pop(out);
}

SIM_API CUresult cuCtxPopCurrent_v2(CUcontext *out)
{
    ENTER();
    return pop(out);
}

SIM_API CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER();
    thread_refresh();
    if (context && !object_is(context, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (thread.depth)
        thread.depth--;
    return context ? push(context) : CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetCurrent(CUcontext *out)
{
    ENTER();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = context_current();
    return CUDA_SUCCESS;
}

static CUresult device_of(CUcontext context, CUdevice *dev)
{
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    if (!object_is(context, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    *dev = cuda_ordinal(context->device);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *dev)
{
    ENTER();
    return device_of(context_current(), dev);
}

SIM_API CUresult cuCtxGetDevice_v2(CUdevice *dev, CUcontext context)
{
    ENTER();
    return device_of(context ? context : context_current(), dev);
}

SIM_API CUresult cuCtxGetFlags(unsigned int *flags)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = context->flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetFlags(unsigned int flags)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    context->flags = flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    ENTER();
    context = context ? context : context_current();
    if (!object_is(context, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = context->id;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetApiVersion(CUcontext context, unsigned int *version)
{
    ENTER();
    context = context ? context : context_current();
    if (!object_is(context, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = context->api_version;
    return CUDA_SUCCESS;
}

static CUresult synchronize(CUcontext context)
{
    if (!object_is(context, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    timeline_wait(context->device, timeline_last(context->device));
    pools_release(context->device);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSynchronize(void)
{
    ENTER();
    return synchronize(context_current());
}

SIM_API CUresult cuCtxSynchronize_v2(CUcontext context)
{
    ENTER();
    return synchronize(context ? context : context_current());
}

SIM_API CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if ((unsigned)limit >= CU_LIMIT_MAX)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = context->limits[limit];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if ((unsigned)limit >= CU_LIMIT_MAX)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    context->limits[limit] = value;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetCacheConfig(CUfunc_cache *config)
{
    ENTER();
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
    ENTER();
    (void)config;
    return context_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER();
    if (!context_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    ENTER();
    CUcontext context = context_current();
    if (!context || !object_is(peer, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (context->device == peer->device)
        return CUDA_ERROR_INVALID_DEVICE;
    if (context->peers & 1ull << peer->device)
        return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    context->peers |= 1ull << peer->device;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    ENTER();
    CUcontext context = context_current();
    if (!context || !object_is(peer, OBJECT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!(context->peers & 1ull << peer->device))
        return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    context->peers &= ~(1ull << peer->device);
    return CUDA_SUCCESS;
}
