#include "context.h"

#include "cost.h"
#include "live.h"
#include "managed.h"
#include "pool.h"
#include "process.h"

/* Raised whenever a context ends, because the driver may give its number to the next one. */
static uint32_t generation = 1;
static CUcontext primary[PROCESS_DEVICES];

static __thread struct {
    uint32_t generation;
    struct context_place place;
} current __attribute__((tls_model("initial-exec")));

static bool known(CUdevice device)
{
    return device >= 0 && device < PROCESS_DEVICES;
}

/* No context, or no driver: nothing can be allocated. But a driver that fails to say where we are may well allocate. */
__attribute__((noinline)) static struct context_place unplaced(CUresult answer)
{
    bool nowhere = answer == CUDA_SUCCESS || process_stopped(answer);
    return (struct context_place){.device = nowhere ? DEVICE_FREE : process_index(-1), .driver = -1};
}

struct context_place context_place(void)
{
    CUcontext context = NULL;
    CUresult rc = CUDA_ERROR_NOT_SUPPORTED;
    if (!real.cuCtxGetCurrent || (rc = FORWARD(cuCtxGetCurrent(&context))) != CUDA_SUCCESS || !context)
        return unplaced(rc);
    uint32_t now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
    if (current.generation == now && current.place.context == (uint64_t)(uintptr_t)context)
        return current.place;
    CUdevice device;
    struct context_place place = {.driver = -1, .context = (uint64_t)(uintptr_t)context};
    if (real.cuCtxGetDevice && FORWARD(cuCtxGetDevice(&device)) == CUDA_SUCCESS)
        place.driver = device;
    place.device = process_index(place.driver);
    if (known(place.driver) && process.index[place.driver] != DEVICE_UNKNOWN) {
        current.generation = now;
        current.place = place;
    }
    return place;
}

/* The null stream and the two special handles are the current context's. */
static bool may_be_elsewhere(const struct context_place *place, CUstream stream)
{
    return (process.device_count > 1 || place->driver < 0) && (uintptr_t)stream > (uintptr_t)CU_STREAM_PER_THREAD;
}

struct context_visit context_visit(CUstream stream, bool per_thread)
{
    struct context_visit visit = {.place = context_place()};
    CUcontext context = NULL;
    if (!may_be_elsewhere(&visit.place, stream) || !real.cuCtxPushCurrent_v2 || !real.cuCtxPopCurrent_v2)
        return visit;
    if (per_thread && real.cuStreamGetCtx_ptsz)
        FORWARD(cuStreamGetCtx_ptsz(stream, &context));
    else if (real.cuStreamGetCtx)
        FORWARD(cuStreamGetCtx(stream, &context));
    if (!context || (uint64_t)(uintptr_t)context == visit.place.context)
        return visit;
    visit.entered = FORWARD(cuCtxPushCurrent_v2(context)) == CUDA_SUCCESS;
    if (visit.entered)
        visit.place = context_place();
    return visit;
}

void context_leave(const struct context_visit *visit)
{
    CUcontext context;
    if (visit->entered)
        FORWARD(cuCtxPopCurrent_v2(&context));
}

void context_forget(void)
{
    __atomic_add_fetch(&generation, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < PROCESS_DEVICES; i++)
        primary[i] = NULL;
}

/* ---- ends */

static void refund(const struct live *entry)
{
    account_refund(&process.region, entry->device, entry->bytes);
    if (entry->kind == LIVE_LINEAR && entry->references == LIVE_SUBSTITUTE)
        managed_note(entry, false);
}

static void end_module(const struct live *entry)
{
    account_end_overhead(&process.region, entry->device, ACCOUNT_MODULE, entry->bytes);
}

/* The driver has freed what belonged to the context. Memory of cuMemCreate and of pools belongs to no context. */
static void ended(CUcontext context)
{
    if (!context || process_phase() != PROCESS_READY)
        return;
    uint64_t owner = (uint64_t)(uintptr_t)context;
    __atomic_add_fetch(&generation, 1, __ATOMIC_RELEASE);
    live_take_owned(LIVE_LINEAR, owner, refund);
    live_take_owned(LIVE_ARRAY, owner, refund);
    live_take_owned(LIVE_MODULE, owner, end_module);
    struct live entry;
    if (live_take(LIVE_CONTEXT, owner, &entry))
        account_end_overhead(&process.region, entry.device, ACCOUNT_CONTEXT, entry.bytes);
    cost_drop_context(context);
    pool_refresh();
}

CUresult cuCtxDestroy(CUcontext context)
{
    NEED_CUDA(cuCtxDestroy);
    CUresult rc = FORWARD(cuCtxDestroy(context));
    if (rc == CUDA_SUCCESS)
        ended(context);
    return rc;
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    NEED_CUDA(cuCtxDestroy_v2);
    CUresult rc = FORWARD(cuCtxDestroy_v2(context));
    if (rc == CUDA_SUCCESS)
        ended(context);
    return rc;
}

/* ---- what a context takes: counted once, by an estimate, however often it is retained */

struct admission {
    struct target target;
    uint64_t bytes; /* counted for a context that may come */
};

/* False: with strict accounting there is no room for another context. */
static bool admit(CUdevice device, struct admission *admission)
{
    *admission = (struct admission){.target = target_device(device)};
    int index = admission->target.device;
    if (index < 0)
        return true;
    admission->bytes = account_context_bytes(&process.region, index);
    return account_add_overhead(&process.region, index, ACCOUNT_CONTEXT, admission->bytes, process_cap(index));
}

static void withdraw(const struct admission *admission)
{
    if (admission->bytes)
        account_end_overhead(&process.region, admission->target.device, ACCOUNT_CONTEXT, admission->bytes);
}

/* Two threads may both have made way for the one primary context. */
static void settle(CUresult rc, CUcontext context, const struct admission *admission)
{
    struct live entry = {.kind = LIVE_CONTEXT,
                         .key = (uint64_t)(uintptr_t)context,
                         .bytes = admission->bytes,
                         .device = (int16_t)admission->target.device};
    if (rc != CUDA_SUCCESS || (admission->bytes && !live_add_new(entry)))
        withdraw(admission);
}

static CUresult created(CUresult rc, CUcontext *context, const struct admission *admission)
{
    settle(rc, rc == CUDA_SUCCESS ? *context : NULL, admission);
    return rc;
}

#define CREATE(function, device, call)                                                                                 \
    do {                                                                                                               \
        NEED_CUDA(function);                                                                                           \
        struct admission admission;                                                                                    \
        if (!context)                                                                                                  \
            return FORWARD(call);                                                                                      \
        if (!admit(device, &admission))                                                                                \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                           \
        return created(FORWARD(call), context, &admission);                                                            \
    } while (0)

CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device)
{
    CREATE(cuCtxCreate, device, cuCtxCreate(context, flags, device));
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    CREATE(cuCtxCreate_v2, device, cuCtxCreate_v2(context, flags, device));
}

CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *affinities, int count, unsigned int flags,
                        CUdevice device)
{
    CREATE(cuCtxCreate_v3, device, cuCtxCreate_v3(context, affinities, count, flags, device));
}

CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *parameters, unsigned int flags, CUdevice device)
{
    CREATE(cuCtxCreate_v4, device, cuCtxCreate_v4(context, parameters, flags, device));
}

/* ---- primary contexts */

static bool is_active(CUdevice device)
{
    unsigned int flags;
    int active = 0;
    return real.cuDevicePrimaryCtxGetState &&
           FORWARD(cuDevicePrimaryCtxGetState(device, &flags, &active)) == CUDA_SUCCESS && active;
}

static void note_primary(CUdevice device, CUcontext context)
{
    if (known(device))
        __atomic_store_n(&primary[device], context, __ATOMIC_RELEASE);
}

static CUcontext take_primary(CUdevice device)
{
    return known(device) ? __atomic_exchange_n(&primary[device], NULL, __ATOMIC_ACQ_REL) : NULL;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    NEED_CUDA(cuDevicePrimaryCtxRetain);
    struct admission admission = {.target.device = DEVICE_FREE};
    if (context && !is_active(device) && !admit(device, &admission))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuDevicePrimaryCtxRetain(context, device));
    settle(rc, rc == CUDA_SUCCESS ? *context : NULL, &admission);
    if (rc == CUDA_SUCCESS)
        note_primary(device, *context);
    return rc;
}

/* After a release or reset: the primary context may be gone now. */
static CUresult released(CUresult rc, CUdevice device)
{
    if (rc == CUDA_SUCCESS && known(device) && !is_active(device))
        ended(take_primary(device));
    return rc;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    NEED_CUDA(cuDevicePrimaryCtxRelease);
    return released(FORWARD(cuDevicePrimaryCtxRelease(device)), device);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    NEED_CUDA(cuDevicePrimaryCtxRelease_v2);
    return released(FORWARD(cuDevicePrimaryCtxRelease_v2(device)), device);
}

/* A reset frees everything of the context even while others retain it. */
static CUresult reset(CUresult rc, CUdevice device)
{
    if (rc == CUDA_SUCCESS)
        ended(take_primary(device));
    return rc;
}

CUresult cuDevicePrimaryCtxReset(CUdevice device)
{
    NEED_CUDA(cuDevicePrimaryCtxReset);
    return reset(FORWARD(cuDevicePrimaryCtxReset(device)), device);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    NEED_CUDA(cuDevicePrimaryCtxReset_v2);
    return reset(FORWARD(cuDevicePrimaryCtxReset_v2(device)), device);
}
