/* Virtual memory management: reserved address ranges, physical memory, and mappings of one into the other. Physical
 * memory lives until its last handle is released and its last mapping is gone. */
#include <stdlib.h>

#include "arena.h"
#include "vmm.h"

#define GRAIN (2u << 20)

struct mapping {
    struct mapping *next;
    unsigned generation;
    CUdeviceptr at;
    u64 size;
    struct physical *physical;
};
static struct mapping *mappings;

struct physical *physical_of(CUmemGenericAllocationHandle handle)
{
    struct physical *physical = (struct physical *)(uintptr_t)handle;
    return object_is(physical, OBJECT_PHYSICAL) ? physical : NULL;
}

void physical_let_go(struct physical *physical)
{
    if (physical->handles || physical->mappings)
        return;
    if (physical->device >= 0)
        ledger_give(physical->device, KIND_VMM, physical->size);
    object_end(physical);
}

struct physical *physical_at(CUdeviceptr at)
{
    for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
        if (mapping->generation == state_generation() && at >= mapping->at && at < mapping->at + mapping->size)
            return mapping->physical;
    return NULL;
}

SIM_API CUresult cuMemAddressReserve(CUdeviceptr *out, size_t size, size_t alignment, CUdeviceptr wanted,
                                     unsigned long long flags)
{
    ENTER();
    (void)wanted; /* a hint only */
    if (!out || !size || size % GRAIN || flags || (alignment & (alignment - 1)))
        return CUDA_ERROR_INVALID_VALUE;
    struct block *block;
    pthread_mutex_lock(&local);
    u64 room = size < alignment ? alignment : size; /* a block is aligned to its own size */
    CUdeviceptr base = arena_take(room, &block);
    if (base) {
        block->kind = KIND_VMM;
        block->size = size;
        block->device = -1;
        *out = base;
    }
    pthread_mutex_unlock(&local);
    return base ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuMemAddressFree(CUdeviceptr at, size_t size)
{
    ENTER();
    CUdeviceptr base;
    CUresult rc = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(at, &base);
    bool mapped = false;
    for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
        mapped |= mapping->generation == state_generation() && mapping->at >= at && mapping->at < at + size;
    if (block && block->kind == KIND_VMM && base == at && block->size == size && !mapped) {
        arena_return(base);
        rc = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuMemGetAllocationGranularity(size_t *out, const CUmemAllocationProp *properties,
                                               CUmemAllocationGranularity_flags option)
{
    ENTER();
    (void)option;
    if (!out || !properties)
        return CUDA_ERROR_INVALID_VALUE;
    if (properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE && cuda_device(properties->location.id) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    *out = GRAIN;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t size, const CUmemAllocationProp *properties,
                             unsigned long long flags)
{
    ENTER();
    if (!out || !size || size % GRAIN || !properties || flags || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    int device = -1;
    if (properties->location.type == CU_MEM_LOCATION_TYPE_INVALID)
        return CUDA_ERROR_INVALID_VALUE;
    if (properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE && (device = cuda_device(properties->location.id)) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (device >= 0 && !ledger_take(device, KIND_VMM, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct physical *physical = object_new(sizeof *physical, OBJECT_PHYSICAL);
    if (!physical) {
        if (device >= 0)
            ledger_give(device, KIND_VMM, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    physical->device = device;
    physical->size = size;
    physical->properties = *properties;
    physical->handles = 1;
    *out = (CUmemGenericAllocationHandle)(uintptr_t)physical;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    ENTER();
    struct physical *physical = physical_of(handle);
    CUresult rc = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    if (physical && physical->handles) {
        physical->handles--;
        physical_let_go(physical);
        rc = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuMemMap(CUdeviceptr at, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                          unsigned long long flags)
{
    ENTER();
    struct physical *physical = physical_of(handle);
    if (!physical || !size || size % GRAIN || offset || flags || size != physical->size)
        return CUDA_ERROR_INVALID_VALUE;
    struct mapping *mapping = malloc(sizeof *mapping);
    if (!mapping)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUdeviceptr base;
    CUresult rc = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(at, &base);
    bool overlaps = false;
    for (struct mapping *other = mappings; other; other = other->next)
        overlaps |= other->generation == state_generation() && at < other->at + other->size && other->at < at + size;
    if (block && block->kind == KIND_VMM && at % GRAIN == 0 && at + size <= base + block->size && !overlaps) {
        *mapping = (struct mapping){
            .next = mappings, .generation = state_generation(), .at = at, .size = size, .physical = physical};
        mappings = mapping;
        physical->mappings++;
        block->device = physical->device;
        rc = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&local);
    if (rc != CUDA_SUCCESS)
        free(mapping);
    return rc;
}

/* The range must be made of whole mappings. */
SIM_API CUresult cuMemUnmap(CUdeviceptr at, size_t size)
{
    ENTER();
    pthread_mutex_lock(&local);
    u64 covered = 0;
    for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
        if (mapping->generation == state_generation() && mapping->at >= at && mapping->at + mapping->size <= at + size)
            covered += mapping->size;
    for (struct mapping **link = &mappings; covered == size && *link;) {
        struct mapping *mapping = *link;
        if (mapping->generation != state_generation() || mapping->at < at || mapping->at >= at + size) {
            link = &mapping->next;
            continue;
        }
        *link = mapping->next;
        mapping->physical->mappings--;
        physical_let_go(mapping->physical);
        free(mapping);
    }
    pthread_mutex_unlock(&local);
    return covered == size && size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Access rights are accepted for mapped ranges and not enforced. */
SIM_API CUresult cuMemSetAccess(CUdeviceptr at, size_t size, const CUmemAccessDesc *access, size_t count)
{
    ENTER();
    if (!size || !access || !count)
        return CUDA_ERROR_INVALID_VALUE;
    u64 covered = 0;
    pthread_mutex_lock(&local);
    for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
        if (mapping->generation == state_generation() && mapping->at >= at && mapping->at + mapping->size <= at + size)
            covered += mapping->size;
    pthread_mutex_unlock(&local);
    return covered == size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr at)
{
    ENTER();
    CUdeviceptr base;
    if (!flags || !location)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    bool known = arena_find(at, &base) != NULL;
    pthread_mutex_unlock(&local);
    *flags = known ? 3 : 0;
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *at)
{
    ENTER();
    pthread_mutex_lock(&local);
    struct physical *physical = out ? physical_at((CUdeviceptr)(uintptr_t)at) : NULL;
    if (physical) {
        physical->handles++;
        *out = (CUmemGenericAllocationHandle)(uintptr_t)physical;
    }
    pthread_mutex_unlock(&local);
    return physical ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *out, CUmemGenericAllocationHandle handle)
{
    ENTER();
    struct physical *physical = physical_of(handle);
    if (!physical || !out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = physical->properties;
    return CUDA_SUCCESS;
}
