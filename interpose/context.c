#include "context.h"

#include "cost.h"
#include "live.h"
#include "pool.h"
#include "process.h"

/* Raised whenever a context ends, because the driver may give its number to the next one. */
static uint32_t generation = 1;
static CUcontext primary[PROCESS_DEVICES];

static __thread struct {
    uint32_t generation;
    struct context_place place;
} current __attribute__((tls_model("initial-exec")));

struct context_place context_place(void)
{
    CUcontext context = NULL;
    const struct context_place nowhere = {.device = DEVICE_FREE, .driver = -1};
    if (!real.cuCtxGetCurrent || FORWARD(cuCtxGetCurrent(&context)) != CUDA_SUCCESS || !context)
        return nowhere;
    uint32_t now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
    if (current.generation == now && current.place.context == (uint64_t)(uintptr_t)context)
        return current.place;
    CUdevice device;
    if (!real.cuCtxGetDevice || FORWARD(cuCtxGetDevice(&device)) != CUDA_SUCCESS)
        return nowhere;
    struct context_place place = {.device = DEVICE_FREE, .driver = device, .context = (uint64_t)(uintptr_t)context};
    if (device >= 0 && device < PROCESS_DEVICES)
        place.device = process.index[device];
    current.generation = now;
    current.place = place;
    return place;
}

void context_forget(void)
{
    __atomic_add_fetch(&generation, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < PROCESS_DEVICES; i++)
        primary[i] = NULL;
}

static void refund(const struct live *entry)
{
    account_refund(&process.region, entry->device, entry->bytes);
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

static bool known(CUdevice device)
{
    return device >= 0 && device < PROCESS_DEVICES;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    NEED_CUDA(cuDevicePrimaryCtxRetain);
    CUresult rc = FORWARD(cuDevicePrimaryCtxRetain(context, device));
    if (rc == CUDA_SUCCESS && known(device))
        primary[device] = *context;
    return rc;
}

/* After a release or reset: the primary context may be gone now. */
static CUresult released(CUresult rc, CUdevice device)
{
    unsigned int flags;
    int active = 1;
    if (rc != CUDA_SUCCESS || !known(device) || !primary[device] || !real.cuDevicePrimaryCtxGetState)
        return rc;
    if (FORWARD(cuDevicePrimaryCtxGetState(device, &flags, &active)) == CUDA_SUCCESS && !active) {
        ended(primary[device]);
        primary[device] = NULL;
    }
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
    if (rc == CUDA_SUCCESS && known(device)) {
        ended(primary[device]);
        primary[device] = NULL;
    }
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
