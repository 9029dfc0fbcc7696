/* Linear, pitched and managed memory, host memory, and what pointers are. Costs are rounded to 512 bytes. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "graph_memory.h"
#include "cgroup.h"
#include "mps.h"
#include "pool.h"

#define ROUND 512u

static u64 rounded(u64 size) { return (size + ROUND - 1) / ROUND * ROUND; }

static CUresult take(CUdeviceptr *out, u64 size, enum sim_kind kind)
{
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || !size)
        return CUDA_ERROR_INVALID_VALUE;
    u64 cost = rounded(size);
    if (kind == KIND_MANAGED)
        cost = ledger_take_some(context->device, kind, cost); /* the rest stands in host memory, for good */
    else if (size > sim->devices[context->device].memory_bytes || !ledger_take(context->device, kind, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct block *block;
    pthread_mutex_lock(&local);
    CUdeviceptr address = arena_take(size, &block);
    if (address) {
        block->cost = cost;
        block->context = context;
        block->kind = kind;
        block->device = context->device;
        if (kind == KIND_MANAGED)
            block->dirty_to = size;
    }
    pthread_mutex_unlock(&local);
    if (!address) {
        ledger_give(context->device, kind, cost);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = address;
    return CUDA_SUCCESS;
}

CUresult memory_free(CUdeviceptr address)
{
    if (!address)
        return CUDA_SUCCESS;
    CUdeviceptr base;
    pthread_mutex_lock(&local);
    struct block *found = arena_find(address, &base);
    if (found && found->kind == KIND_GRAPH) {
        bool freed = graph_memory_release(address);
        pthread_mutex_unlock(&local);
        return freed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
    if (!found || base != address || found->kind == KIND_VMM) {
        pthread_mutex_unlock(&local);
        return CUDA_ERROR_INVALID_VALUE;
    }
    struct block block = *found;
    arena_return(base);
    if (block.pool)
        pool_returned(block.pool, block.cost);
    pthread_mutex_unlock(&local);
    if (!block.pool)
        ledger_give(block.device, block.kind, block.cost);
    return CUDA_SUCCESS;
}

static void drop_of_context(CUdeviceptr base, struct block *block, void *context)
{
    if (block->context != context)
        return;
    ledger_give(block->device, block->kind, block->cost);
    arena_return(base);
}

void context_memory_drop(CUcontext context)
{
    pthread_mutex_lock(&local);
    arena_each(drop_of_context, context);
    pthread_mutex_unlock(&local);
}

SIM_API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t size)
{
    ENTER();
    return take(out, size, KIND_LINEAR);
}

/* The 32-bit interface cannot carry a 64-bit device's addresses. */
SIM_API CUresult cuMemAlloc(CUdeviceptr_v1 *out, unsigned int size)
{
    ENTER();
    (void)size;
    return out ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemAllocManaged(CUdeviceptr *out, size_t size, unsigned int flags)
{
    ENTER();
    if (flags != 1 && flags != 2) /* attach global, attach host */
        return CUDA_ERROR_INVALID_VALUE;
    return take(out, size, KIND_MANAGED);
}

SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height, unsigned int element)
{
    ENTER();
    if (!pitch || !width || !height || (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    size_t bytes, row = rounded(width);
    if (__builtin_mul_overflow(row, height, &bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = take(out, bytes, KIND_LINEAR);
    if (rc == CUDA_SUCCESS)
        *pitch = row;
    return rc;
}

SIM_API CUresult cuMemFree_v2(CUdeviceptr address)
{
    ENTER();
    return context_current() ? memory_free(address) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuMemFree(CUdeviceptr_v1 address)
{
    ENTER();
    return address ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* As the driver: without a current context there is no answer; either pointer may be missing. What MPS leaves a client is
 * shown as free, beside the whole device as total. */
SIM_API CUresult cuMemGetInfo_v2(size_t *free_out, size_t *total_out)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!free_out && !total_out)
        return CUDA_ERROR_INVALID_VALUE;
    u64 total = sim->devices[context->device].memory_bytes, used = ledger_used(context->device);
    cgroup_view(context->device, &total, &used);
    u64 pinned = mps_room_left(context->device), left = total - used;
    if (free_out)
        *free_out = pinned < left ? pinned : left;
    if (total_out)
        *total_out = total;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetInfo(unsigned int *free_out, unsigned int *total_out)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!free_out || !total_out)
        return CUDA_ERROR_INVALID_VALUE;
    u64 total = sim->devices[context->device].memory_bytes, left = total - ledger_used(context->device);
    *free_out = left > UINT32_MAX ? UINT32_MAX : (unsigned)left;
    *total_out = total > UINT32_MAX ? UINT32_MAX : (unsigned)total;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base_out, size_t *size, CUdeviceptr address)
{
    ENTER();
    CUdeviceptr base;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(address, &base);
    if (block && base_out)
        *base_out = base;
    if (block && size)
        *size = block->size;
    pthread_mutex_unlock(&local);
    return block ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* ---- host memory: never the device's business beyond being known as such */

struct host_block {
    struct host_block *next;
    char *at;
    size_t size;
    unsigned flags;
    bool registered; /* the program's own memory */
};
static struct host_block *host_blocks;

static struct host_block **host_find(const void *address)
{
    struct host_block **at = &host_blocks;
    for (; *at; at = &(*at)->next)
        if ((const char *)address >= (*at)->at && (const char *)address < (*at)->at + (*at)->size)
            break;
    return at;
}

static CUresult host_add(void *at, size_t size, unsigned flags, bool registered)
{
    struct host_block *block = malloc(sizeof *block);
    if (!block)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *block = (struct host_block){.at = at, .size = size, .flags = flags, .registered = registered};
    pthread_mutex_lock(&local);
    block->next = host_blocks;
    host_blocks = block;
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

static CUresult host_alloc(void **out, size_t size, unsigned flags)
{
    if (!context_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    void *at = NULL;
    if (!out || !size)
        return CUDA_ERROR_INVALID_VALUE;
    if (posix_memalign(&at, 4096, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = host_add(at, size, flags, false);
    if (rc == CUDA_SUCCESS)
        *out = at;
    else
        free(at);
    return rc;
}

static CUresult host_remove(void *address, bool registered)
{
    pthread_mutex_lock(&local);
    struct host_block **at = host_find(address), *block = *at;
    bool ours = block && block->at == address && block->registered == registered;
    if (ours)
        *at = block->next;
    pthread_mutex_unlock(&local);
    if (!ours)
        return registered ? CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED : CUDA_ERROR_INVALID_VALUE;
    if (!registered)
        free(block->at);
    free(block);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAllocHost_v2(void **out, size_t size)
{
    ENTER();
    return host_alloc(out, size, 0);
}

SIM_API CUresult cuMemAllocHost(void **out, unsigned int size)
{
    ENTER();
    return host_alloc(out, size, 0);
}

SIM_API CUresult cuMemHostAlloc(void **out, size_t size, unsigned int flags)
{
    ENTER();
    return host_alloc(out, size, flags);
}

SIM_API CUresult cuMemFreeHost(void *address)
{
    ENTER();
    return host_remove(address, false);
}

static CUresult host_register(void *address, size_t size, unsigned flags)
{
    if (!address || !size)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    bool known = *host_find(address) != NULL;
    pthread_mutex_unlock(&local);
    return known ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED : host_add(address, size, flags, true);
}

SIM_API CUresult cuMemHostRegister(void *address, size_t size, unsigned int flags)
{
    ENTER();
    return host_register(address, size, flags);
}

SIM_API CUresult cuMemHostRegister_v2(void *address, size_t size, unsigned int flags)
{
    ENTER();
    return host_register(address, size, flags);
}

SIM_API CUresult cuMemHostUnregister(void *address)
{
    ENTER();
    return host_remove(address, true);
}

SIM_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *address, unsigned int flags)
{
    ENTER();
    (void)flags;
    pthread_mutex_lock(&local);
    bool known = *host_find(address) != NULL;
    pthread_mutex_unlock(&local);
    if (!known || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUdeviceptr)(uintptr_t)address;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemHostGetFlags(unsigned int *flags, void *address)
{
    ENTER();
    pthread_mutex_lock(&local);
    struct host_block *block = *host_find(address);
    if (block && flags)
        *flags = block->flags;
    pthread_mutex_unlock(&local);
    return block && flags ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- pointer attributes */

static CUresult device_attribute(void *out, CUpointer_attribute attribute, CUdeviceptr address, CUdeviceptr base,
                                 const struct block *block)
{
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)out = block->context; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned *)out = CU_MEMORYTYPE_DEVICE; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)out = address; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (block->kind != KIND_MANAGED)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)out = (void *)(uintptr_t)address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: *(unsigned *)out = 0; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID: *(unsigned long long *)out = block->id; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned *)out = block->kind == KIND_MANAGED; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)out = cuda_ordinal(block->device); return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: *(unsigned *)out = 0; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(CUdeviceptr *)out = base; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *(size_t *)out = block->size; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED: *(unsigned *)out = 1; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: *(unsigned long long *)out = 0; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: *(CUmemoryPool *)out = block->pool; return CUDA_SUCCESS;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
}

static CUresult host_attribute(void *out, CUpointer_attribute attribute, CUdeviceptr address)
{
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned *)out = CU_MEMORYTYPE_HOST; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)out = address; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER: *(void **)out = (void *)(uintptr_t)address; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned *)out = 0; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED: *(unsigned *)out = 1; return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult pointer_attribute(void *out, CUpointer_attribute attribute, CUdeviceptr address)
{
    CUdeviceptr base;
    CUresult rc = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(address, &base);
    if (block)
        rc = device_attribute(out, attribute, address, base, block);
    else if (*host_find((void *)(uintptr_t)address))
        rc = host_attribute(out, attribute, address);
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuPointerGetAttribute(void *out, CUpointer_attribute attribute, CUdeviceptr address)
{
    ENTER();
    return out ? pointer_attribute(out, attribute, address) : CUDA_ERROR_INVALID_VALUE;
}

/* Unlike the single form this one succeeds for unknown pointers and says so with zeros. */
SIM_API CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **out,
                                        CUdeviceptr address)
{
    ENTER();
    if (!attributes || !out)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        if (pointer_attribute(out[i], attributes[i], address) == CUDA_SUCCESS)
            continue;
        if ((int)attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
            *(int *)out[i] = -2;
        else
            memset(out[i], 0, sizeof(unsigned));
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
    ENTER();
    CUdeviceptr base;
    pthread_mutex_lock(&local);
    bool known = arena_find(address, &base) != NULL;
    pthread_mutex_unlock(&local);
    return known && value && (int)attribute == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS ? CUDA_SUCCESS
                                                                                : CUDA_ERROR_INVALID_VALUE;
}
