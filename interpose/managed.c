#include "managed.h"

#include "context.h"

/* Smaller pieces are often what many small objects are cut from; moving them by pages costs more than they free. */
#define LEAST_BYTES (2ULL << 20)

static int substitutes; /* held by this process; atomic */

/* High priority never waits for pages, so its memory is the device's or none. */
static bool allowed(const struct target *target, size_t bytes)
{
    const struct config *config = &process.config;
    return config->oversubscribe && config->plan.priority > 0 && target->device >= 0 && bytes >= LEAST_BYTES &&
           real.cuMemAllocManaged && hook_inside == 0;
}

/* Without this, the whole allocation would be taken from the device at once. */
static bool can_move_by_pages(CUdevice device)
{
    int able = 0;
    return real.cuDeviceGetAttribute &&
           FORWARD(cuDeviceGetAttribute(&able, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, device)) == CUDA_SUCCESS &&
           able;
}

CUresult managed_alloc(const struct target *target, CUdeviceptr *address, size_t bytes)
{
    if (!allowed(target, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUdevice device = context_place().driver;
    if (!can_move_by_pages(device) ||
        FORWARD(cuMemAllocManaged(address, bytes, CU_MEM_ATTACH_GLOBAL)) != CUDA_SUCCESS)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (real.cuMemAdvise) /* a hint: it works without, only slower */
        FORWARD(cuMemAdvise(*address, bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device));
    return CUDA_SUCCESS;
}

void managed_note(const struct live *entry, bool held)
{
    account_swap(&process.region, entry->device, held ? (int64_t)entry->bytes : -(int64_t)entry->bytes);
    __atomic_add_fetch(&substitutes, held ? 1 : -1, __ATOMIC_RELAXED);
}

void managed_forget(void)
{
    __atomic_store_n(&substitutes, 0, __ATOMIC_RELAXED);
}

/* ---- what programs see of it: the device memory that they asked for */

static bool is_substitute(CUdeviceptr at)
{
    CUdeviceptr base;
    size_t bytes;
    struct live entry;
    return __atomic_load_n(&substitutes, __ATOMIC_RELAXED) > 0 && process_phase() == PROCESS_READY && hook_inside == 0 &&
           real.cuMemGetAddressRange_v2 && FORWARD(cuMemGetAddressRange_v2(&base, &bytes, at)) == CUDA_SUCCESS &&
           live_find(LIVE_LINEAR, base, &entry) && entry.references == LIVE_SUBSTITUTE;
}

static void correct(CUpointer_attribute attribute, void *value)
{
    if (attribute == CU_POINTER_ATTRIBUTE_IS_MANAGED)
        *(unsigned int *)value = 0;
    else if (attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
        *(unsigned int *)value = CU_MEMORYTYPE_DEVICE;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr at)
{
    NEED_CUDA(cuPointerGetAttribute);
    CUresult rc = FORWARD(cuPointerGetAttribute(value, attribute, at));
    if (rc == CUDA_SUCCESS && is_substitute(at))
        correct(attribute, value);
    return rc;
}

CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **values, CUdeviceptr at)
{
    NEED_CUDA(cuPointerGetAttributes);
    CUresult rc = FORWARD(cuPointerGetAttributes(count, attributes, values, at));
    if (rc == CUDA_SUCCESS && is_substitute(at))
        for (unsigned int i = 0; i < count; i++)
            correct(attributes[i], values[i]);
    return rc;
}
