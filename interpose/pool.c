#include "pool.h"

#include <pthread.h>
#include <string.h>

#include "context.h"
#include "graph_memory.h"
#include "log.h"

/* Pools grow in steps of at least this, and often of the second. */
#define STEP_BYTES (2ULL << 20)
#define CHUNK_BYTES (32ULL << 20)

enum { POOLS = 256 };

struct pool {
    CUmemoryPool handle; /* null: free entry */
    int device;          /* index in the region; DEVICE_FREE: not counted (host memory, another process's pool) */
    uint64_t counted;    /* bytes that stand in the ledger for it */
    bool mute;           /* did not say what it has when it was asked last */
};

static struct pool pools[POOLS];
/* By index in the region: what was allocated while the driver would not say which pool is current. */
static struct pool unnamed[REGION_DEVICES];
static int pools_end; /* entries from here on were never used; grows only */
/* Recursive, because an allocation that finds no room trims the pools. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void pool_lock(void)
{
    pthread_mutex_lock(&lock);
}

void pool_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* With `lock` held. Null when the table is full. */
static struct pool *entry_of(CUmemoryPool handle, int device, bool add)
{
    struct pool *vacant = NULL;
    for (int i = 0; i < pools_end; i++) {
        if (pools[i].handle == handle)
            return &pools[i];
        if (!pools[i].handle && !vacant)
            vacant = &pools[i];
    }
    if (!vacant && pools_end < POOLS)
        vacant = &pools[pools_end];
    if (!add || !vacant)
        return NULL;
    if (vacant == &pools[pools_end])
        __atomic_store_n(&pools_end, pools_end + 1, __ATOMIC_RELAXED);
    *vacant = (struct pool){.handle = handle, .device = device};
    return vacant;
}

static bool ask(struct pool *pool, CUmemPool_attribute which, uint64_t *value)
{
    pool->mute = !pool->handle || !real.cuMemPoolGetAttribute ||
                 FORWARD(cuMemPoolGetAttribute(pool->handle, which, value)) != CUDA_SUCCESS;
    return !pool->mute;
}

/* Moves the ledger from what was counted to what is. */
static void recount(int device, uint64_t *counted, uint64_t now)
{
    struct target target = {.device = device};
    if (now > *counted)
        target_force(&target, now - *counted);
    else
        target_refund(&target, *counted - now);
    *counted = now;
}

/* With `lock` held. What a pool has that cannot be asked stays counted until it can. */
static void refresh_entry(struct pool *pool)
{
    uint64_t reserved;
    if (pool->device >= 0 && ask(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved))
        recount(pool->device, &pool->counted, reserved);
}

void pool_refresh(void)
{
    if (__atomic_load_n(&pools_end, __ATOMIC_RELAXED) > 0) {
        pool_lock();
        for (int i = 0; i < pools_end; i++)
            if (pools[i].handle)
                refresh_entry(&pools[i]);
        pool_unlock();
    }
    graph_memory_refresh_all();
}

bool pool_trim(int device)
{
    uint64_t freed = 0;
    pool_lock();
    for (int i = 0; i < pools_end; i++) {
        struct pool *pool = &pools[i];
        if (!pool->handle || pool->device != device)
            continue;
        uint64_t before = pool->counted;
        if (real.cuMemPoolTrimTo && before > 0)
            FORWARD(cuMemPoolTrimTo(pool->handle, 0)); /* keeps what is in use */
        refresh_entry(pool);
        freed += before > pool->counted ? before - pool->counted : 0;
    }
    pool_unlock();
    return freed > 0;
}

void pool_forget(void)
{
    lock = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    memset(pools, 0, sizeof pools);
    memset(unnamed, 0, sizeof unnamed);
    pools_end = 0;
}

/* ---- allocation */

struct request {
    CUdeviceptr *address;
    size_t bytes;
    CUmemoryPool pool; /* null: the device's current one */
    CUstream stream;
    bool per_thread;
};

/* A stream that will not say is taken for one that does not: if the pool has not grown then, nothing is counted. */
static bool capturing(const struct request *r)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult rc = CUDA_SUCCESS;
    if (r->per_thread && real.cuStreamIsCapturing_ptsz)
        rc = FORWARD(cuStreamIsCapturing_ptsz(r->stream, &status));
    else if (real.cuStreamIsCapturing)
        rc = FORWARD(cuStreamIsCapturing(r->stream, &status));
    return rc == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

static CUresult take_back(const struct request *r)
{
    CUresult rc = CUDA_ERROR_NOT_SUPPORTED;
    if (r->per_thread && real.cuMemFreeAsync_ptsz && real.cuStreamSynchronize_ptsz) {
        rc = FORWARD(cuMemFreeAsync_ptsz(*r->address, r->stream));
        if (rc == CUDA_SUCCESS)
            FORWARD(cuStreamSynchronize_ptsz(r->stream));
    } else if (real.cuMemFreeAsync && real.cuStreamSynchronize) {
        rc = FORWARD(cuMemFreeAsync(*r->address, r->stream));
        if (rc == CUDA_SUCCESS)
            FORWARD(cuStreamSynchronize(r->stream));
    }
    return rc;
}

static uint64_t round_up(uint64_t bytes, uint64_t step)
{
    return bytes > UINT64_MAX - step ? UINT64_MAX : (bytes + step - 1) / step * step;
}

/* How much the pool may have to grow for this request, at least; 0: it has room. One that will not say has none. */
static uint64_t growth(struct pool *pool, size_t bytes)
{
    uint64_t used;
    refresh_entry(pool);
    if (pool->mute || !ask(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used))
        return bytes;
    uint64_t idle = pool->counted > used ? pool->counted - used : 0;
    return bytes > idle ? bytes - idle : 0;
}

/* Reserves what the pool will probably take, or at least must take, and books it to the pool. Nobody corrects what is
 * booked for one that does not say, so that is the former. */
static bool reserve_growth(struct pool *pool, size_t bytes)
{
    const uint64_t steps[] = {CHUNK_BYTES, STEP_BYTES};
    for (int attempt = 0; attempt < 2; attempt++) {
        uint64_t need = growth(pool, bytes);
        if (need == 0)
            return true;
        for (int i = 0; i < (pool->mute ? 1 : 2); i++) {
            uint64_t reserved = round_up(need, steps[i]);
            if (account_charge(&process.region, pool->device, reserved, process_cap(pool->device))) {
                pool->counted += reserved;
                return true;
            }
        }
        if (!process_reclaim(pool->device))
            return false;
    }
    return false;
}

/* Makes what is booked exact, where the pool says. False: it has grown by more than there was room for. */
static bool settle_growth(struct pool *pool)
{
    uint64_t now;
    if (!ask(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &now))
        return true;
    if (now > pool->counted) {
        if (!account_charge(&process.region, pool->device, now - pool->counted, process_cap(pool->device)))
            return false;
        pool->counted = now;
    }
    recount(pool->device, &pool->counted, now);
    return true;
}

/* With `lock` held. */
static CUresult allocate(const struct request *r, struct pool *pool, CUresult (*forward)(const struct request *))
{
    refresh_entry(pool);
    uint64_t before = pool->counted;
    if (!reserve_growth(pool, r->bytes)) {
        account_refuse(&process.region, pool->device);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult rc = forward(r);
    bool settled = settle_growth(pool);
    if (pool->mute && rc != CUDA_SUCCESS)
        recount(pool->device, &pool->counted, before);
    if (settled || rc != CUDA_SUCCESS)
        return rc;
    if (take_back(r) != CUDA_SUCCESS) {
        refresh_entry(pool); /* cannot be undone: the program has its memory, and the ledger says so */
        return rc;
    }
    pool_trim(pool->device);
    account_refuse(&process.region, pool->device);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* With `lock` held. What was booked while nobody would name the pool is part of what it has reserved. */
static void name_at_last(struct pool *pool)
{
    if (pool->device < 0 || unnamed[pool->device].counted == 0)
        return;
    refresh_entry(pool);
    if (!pool->mute)
        recount(pool->device, &unnamed[pool->device].counted, 0);
}

/* With `lock` held: the device's current pool; null if there are more pools than are known here. */
static struct pool *current_pool(int device)
{
    CUmemoryPool handle = NULL;
    CUdevice driver = process_driver_device(device);
    if (driver < 0) /* one that was only supposed to be it */
        driver = context_place().driver;
    if (!real.cuDeviceGetMemPool || FORWARD(cuDeviceGetMemPool(&handle, driver)) != CUDA_SUCCESS || !handle) {
        unnamed[device].device = device;
        return &unnamed[device];
    }
    struct pool *pool = entry_of(handle, device, true);
    if (pool)
        name_at_last(pool);
    return pool;
}

static CUresult serve(const struct request *r, CUresult (*forward)(const struct request *))
{
    struct target target = target_stream(r->stream, r->per_thread);
    if (target.closed)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!r->address || target.device < 0 || capturing(r))
        return forward(r); /* what is captured becomes a node of a graph, and counts when that is launched */
    pool_lock();
    struct pool *pool = r->pool ? entry_of(r->pool, target.device, true) : current_pool(target.device);
    CUresult rc;
    if (pool && pool->device >= 0)
        rc = allocate(r, pool, forward);
    else
        rc = pool && pool->device == DEVICE_FREE ? forward(r) : CUDA_ERROR_OUT_OF_MEMORY;
    pool_unlock();
    return rc;
}

#define FORWARDER(symbol, ...)                                                                                         \
    static CUresult forward_##symbol(const struct request *r)                                                          \
    {                                                                                                                  \
        return FORWARD(symbol(__VA_ARGS__));                                                                           \
    }
FORWARDER(cuMemAllocAsync, r->address, r->bytes, r->stream)
FORWARDER(cuMemAllocAsync_ptsz, r->address, r->bytes, r->stream)
FORWARDER(cuMemAllocFromPoolAsync, r->address, r->bytes, r->pool, r->stream)
FORWARDER(cuMemAllocFromPoolAsync_ptsz, r->address, r->bytes, r->pool, r->stream)

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    NEED_CUDA(cuMemAllocAsync);
    struct request r = {.address = address, .bytes = bytes, .stream = stream};
    return serve(&r, forward_cuMemAllocAsync);
}

CUresult cuMemAllocAsync_ptsz(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    NEED_CUDA(cuMemAllocAsync_ptsz);
    struct request r = {.address = address, .bytes = bytes, .stream = stream, .per_thread = true};
    return serve(&r, forward_cuMemAllocAsync_ptsz);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    NEED_CUDA(cuMemAllocFromPoolAsync);
    struct request r = {.address = address, .bytes = bytes, .pool = pool, .stream = stream};
    return serve(&r, forward_cuMemAllocFromPoolAsync);
}

CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    NEED_CUDA(cuMemAllocFromPoolAsync_ptsz);
    struct request r = {.address = address, .bytes = bytes, .pool = pool, .stream = stream, .per_thread = true};
    return serve(&r, forward_cuMemAllocFromPoolAsync_ptsz);
}

/* ---- pools come and go */

static bool counting(void)
{
    return process_phase() == PROCESS_READY && hook_inside == 0;
}

static void note(CUmemoryPool pool, int device)
{
    if (!counting())
        return;
    pool_lock();
    struct pool *entry = entry_of(pool, device, true);
    if (entry)
        entry->device = device;
    else
        log_line(LOG_WARNING, "more than %d memory pools: one cannot be used", POOLS);
    pool_unlock();
}

CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
    NEED_CUDA(cuMemPoolCreate);
    CUresult rc = FORWARD(cuMemPoolCreate(pool, props));
    if (rc == CUDA_SUCCESS) {
        bool on_device = props->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
        struct target target = on_device ? target_device(props->location.id) : (struct target){.device = DEVICE_FREE};
        note(*pool, target.closed ? DEVICE_FORBIDDEN : target.device);
    }
    return rc;
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool, void *handle, CUmemAllocationHandleType type,
                                            unsigned long long flags)
{
    NEED_CUDA(cuMemPoolImportFromShareableHandle);
    CUresult rc = FORWARD(cuMemPoolImportFromShareableHandle(pool, handle, type, flags));
    if (rc == CUDA_SUCCESS)
        note(*pool, DEVICE_FREE); /* its memory is counted where it was made */
    return rc;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    NEED_CUDA(cuMemPoolDestroy);
    if (!counting() || !pool)
        return FORWARD(cuMemPoolDestroy(pool));
    pool_lock();
    struct pool *entry = entry_of(pool, -1, false);
    CUresult rc = FORWARD(cuMemPoolDestroy(pool));
    if (entry && rc == CUDA_SUCCESS) {
        recount(entry->device, &entry->counted, 0);
        entry->handle = NULL;
    }
    pool_unlock();
    return rc;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    NEED_CUDA(cuMemPoolTrimTo);
    CUresult rc = FORWARD(cuMemPoolTrimTo(pool, keep));
    if (rc == CUDA_SUCCESS && counting()) {
        pool_lock();
        struct pool *entry = pool ? entry_of(pool, -1, false) : NULL;
        if (entry)
            refresh_entry(entry);
        pool_unlock();
    }
    return rc;
}
