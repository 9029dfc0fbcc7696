/*
 * Stream-ordered memory. A pool takes device memory in chunks of 32 MiB and keeps freed memory; what counts on the
 * device is what it has reserved. Order in the stream is not played: memory is usable at once and free at once.
 */
#include "pool.h"

#include "arena.h"
#include "graph.h"

#define CHUNK (32ull << 20)
#define ROUND 512u

struct CUmemPoolHandle_st {
    struct object object;
    int device; /* -1: in host memory, not accounted */
    bool is_default;
    bool imported;
    u64 reserved, reserved_high, used, used_high, threshold, max_size;
    int reuse[3];
    struct CUmemPoolHandle_st *next; /* of this process's pools */
};

static CUmemoryPool pools;
static unsigned pools_generation;
static struct {
    CUmemoryPool initial, current;
} of_device[SIM_UNITS];

static u64 chunks(u64 bytes) { return (bytes + CHUNK - 1) / CHUNK * CHUNK; }

/* With `local` held, like everything below that is not an entry point. */
static void refresh(void)
{
    if (pools_generation == state_generation())
        return;
    pools_generation = state_generation();
    pools = NULL;
    for (int d = 0; d < SIM_UNITS; d++)
        of_device[d].initial = of_device[d].current = NULL;
}

static CUmemoryPool pool_new(int device)
{
    CUmemoryPool pool = object_new(sizeof *pool, OBJECT_POOL);
    if (!pool)
        return NULL;
    pool->device = device;
    pool->reuse[0] = pool->reuse[1] = pool->reuse[2] = 1;
    pool->next = pools;
    pools = pool;
    return pool;
}

static CUmemoryPool default_pool(int device)
{
    refresh();
    if (!of_device[device].initial) {
        CUmemoryPool pool = pool_new(device);
        if (pool)
            pool->is_default = true;
        of_device[device].initial = of_device[device].current = pool;
    }
    return of_device[device].initial;
}

static CUmemoryPool current_pool(int device)
{
    default_pool(device);
    return of_device[device].current;
}

/* Shrink to what is in use, but not below `keep`. */
static void shrink(CUmemoryPool pool, u64 keep)
{
    u64 wanted = chunks(pool->used) > chunks(keep) ? chunks(pool->used) : chunks(keep);
    if (pool->reserved <= wanted)
        return;
    if (pool->device >= 0)
        ledger_give(pool->device, KIND_POOL, pool->reserved - wanted);
    pool->reserved = wanted;
}

void pools_release(int device)
{
    if (!__atomic_load_n(&pools, __ATOMIC_RELAXED))
        return;
    pthread_mutex_lock(&local);
    refresh();
    for (CUmemoryPool pool = pools; pool; pool = pool->next)
        if (pool->device == device && pool->reserved > pool->threshold)
            shrink(pool, pool->threshold);
    pthread_mutex_unlock(&local);
}

void pool_returned(CUmemoryPool pool, u64 cost) { pool->used -= cost; }

CUresult pool_import(CUmemoryPool *out)
{
    pthread_mutex_lock(&local);
    refresh();
    CUmemoryPool pool = pool_new(-1);
    if (pool)
        pool->imported = true;
    pthread_mutex_unlock(&local);
    *out = pool;
    return pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult take(CUdeviceptr *out, u64 size, CUmemoryPool pool)
{
    if (pool->imported)
        return CUDA_ERROR_INVALID_VALUE;
    u64 cost = (size + ROUND - 1) / ROUND * ROUND;
    if (!out || !size)
        return CUDA_ERROR_INVALID_VALUE;
    if (pool->max_size && pool->used + cost > pool->max_size)
        return CUDA_ERROR_OUT_OF_MEMORY;
    u64 wanted = chunks(pool->used + cost);
    if (wanted > pool->reserved) {
        if (pool->device >= 0 && !ledger_take(pool->device, KIND_POOL, wanted - pool->reserved))
            return CUDA_ERROR_OUT_OF_MEMORY;
        pool->reserved = wanted;
        if (pool->reserved_high < wanted)
            pool->reserved_high = wanted;
    }
    struct block *block;
    CUdeviceptr address = arena_take(size, &block);
    if (!address)
        return CUDA_ERROR_OUT_OF_MEMORY;
    block->cost = cost;
    block->pool = pool;
    block->kind = KIND_POOL;
    block->device = pool->device;
    pool->used += cost;
    if (pool->used_high < pool->used)
        pool->used_high = pool->used;
    *out = address;
    return CUDA_SUCCESS;
}

STREAM_CALL(cuMemAllocAsync, _ptsz, (CUdeviceptr * out, size_t size, CUstream stream), out, size, stream)
{
    CUstream on = stream_of(stream);
    if (!on)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (on->capture)
        return graph_add_alloc(on->capture, on->context->device, size, out);
    pthread_mutex_lock(&local);
    CUmemoryPool pool = current_pool(on->context->device);
    CUresult rc = pool ? take(out, size, pool) : CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&local);
    return rc;
}

STREAM_CALL(cuMemAllocFromPoolAsync, _ptsz, (CUdeviceptr * out, size_t size, CUmemoryPool pool, CUstream stream), out,
            size, pool, stream)
{
    CUstream on = stream_of(stream);
    if (!on)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (!object_is(pool, OBJECT_POOL))
        return CUDA_ERROR_INVALID_VALUE;
    if (on->capture)
        return pool->device < 0 ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
                                : graph_add_alloc(on->capture, pool->device, size, out);
    pthread_mutex_lock(&local);
    CUresult rc = take(out, size, pool);
    pthread_mutex_unlock(&local);
    return rc;
}

STREAM_CALL(cuMemFreeAsync, _ptsz, (CUdeviceptr address, CUstream stream), address, stream)
{
    CUstream on = stream_of(stream);
    if (!on)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    return on->capture ? graph_add_free(on->capture, address) : memory_free(address);
}

SIM_API CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *properties)
{
    ENTER();
    if (!out || !properties)
        return CUDA_ERROR_INVALID_VALUE;
    int device = -1;
    if (properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE && (device = cuda_device(properties->location.id)) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (properties->location.type == CU_MEM_LOCATION_TYPE_INVALID)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    refresh();
    CUmemoryPool pool = pool_new(device);
    if (pool)
        pool->max_size = properties->maxSize;
    pthread_mutex_unlock(&local);
    if (!pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = pool;
    return CUDA_SUCCESS;
}

static void orphan(CUdeviceptr base, struct block *block, void *pool)
{
    if (block->pool == pool)
        arena_return(base);
}

/* Ends the pool and the allocations still in it (the driver waits for their frees; programs that rely on that leak here
 * nothing but addresses). */
SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    ENTER();
    if (!object_is(pool, OBJECT_POOL) || pool->is_default)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    arena_each(orphan, pool);
    pool->used = 0;
    shrink(pool, 0);
    for (CUmemoryPool *at = &pools; *at; at = &(*at)->next)
        if (*at == pool) {
            *at = pool->next;
            break;
        }
    if (pool->device >= 0 && of_device[pool->device].current == pool)
        of_device[pool->device].current = of_device[pool->device].initial;
    object_end(pool);
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    ENTER();
    if (!object_is(pool, OBJECT_POOL))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    shrink(pool, keep);
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    ENTER();
    if (!object_is(pool, OBJECT_POOL) || !value)
        return CUDA_ERROR_INVALID_VALUE;
    switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: *(int *)value = pool->reuse[attribute - 1]; break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: *(u64 *)value = pool->threshold; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: *(u64 *)value = pool->reserved; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: *(u64 *)value = pool->reserved_high; break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *(u64 *)value = pool->used; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *(u64 *)value = pool->used_high; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    ENTER();
    if (!object_is(pool, OBJECT_POOL) || !value)
        return CUDA_ERROR_INVALID_VALUE;
    switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: pool->reuse[attribute - 1] = *(int *)value; break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: pool->threshold = *(u64 *)value; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: pool->reserved_high = pool->reserved; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: pool->used_high = pool->used; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

/* Every device may reach every pool. */
SIM_API CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *access, size_t count)
{
    ENTER();
    return object_is(pool, OBJECT_POOL) && (access || !count) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool, CUmemLocation *location)
{
    ENTER();
    if (!object_is(pool, OBJECT_POOL) || !flags || !location)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = 3; /* read and write */
    return CUDA_SUCCESS;
}

static CUresult device_pool(CUmemoryPool *out, CUdevice dev, CUmemoryPool (*which)(int))
{
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    *out = which(device);
    pthread_mutex_unlock(&local);
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *out, CUdevice dev)
{
    ENTER();
    return device_pool(out, dev, current_pool);
}

SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *out, CUdevice dev)
{
    ENTER();
    return device_pool(out, dev, default_pool);
}

static CUresult set_pool(CUdevice dev, CUmemoryPool pool)
{
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!object_is(pool, OBJECT_POOL) || pool->device != device)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    default_pool(device);
    of_device[device].current = pool;
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool)
{
    ENTER();
    return set_pool(dev, pool);
}

/* The location forms of CUDA 13: devices only. */
SIM_API CUresult cuMemGetDefaultMemPool(CUmemoryPool *out, CUmemLocation *location, CUmemAllocationType type)
{
    ENTER();
    if (!location || type != CU_MEM_ALLOCATION_TYPE_PINNED || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_NOT_SUPPORTED;
    return device_pool(out, location->id, default_pool);
}

SIM_API CUresult cuMemGetMemPool(CUmemoryPool *out, CUmemLocation *location, CUmemAllocationType type)
{
    ENTER();
    if (!location || type != CU_MEM_ALLOCATION_TYPE_PINNED || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_NOT_SUPPORTED;
    return device_pool(out, location->id, current_pool);
}

SIM_API CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    ENTER();
    if (!location || type != CU_MEM_ALLOCATION_TYPE_PINNED || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_NOT_SUPPORTED;
    return set_pool(location->id, pool);
}
