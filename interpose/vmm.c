/* Physical memory by handle. It lives while its handle is held or it is mapped anywhere: creations, retains and mappings
 * are references of one entry, and the last one to go gives the charge back. */
#include "vmm.h"

/* Mappings under one unmap whose references are given up before the driver acts; more are given up after it. */
enum { AT_ONCE = 64 };

static bool counting(void)
{
    return process_phase() == PROCESS_READY && hook_inside == 0;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                     unsigned long long flags)
{
    NEED_CUDA(cuMemCreate);
    bool on_device = prop && prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    struct target target = on_device ? target_device(prop->location.id) : (struct target){.device = -1};
    if (!target_charge(&target, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuMemCreate(handle, bytes, prop, flags));
    if (rc != CUDA_SUCCESS)
        target_refund(&target, bytes);
    else if (target.device >= 0)
        live_add((struct live){.kind = LIVE_PHYSICAL,
                               .key = *handle,
                               .bytes = bytes,
                               .references = 1,
                               .device = (int16_t)target.device});
    return rc;
}

struct vmm_dropped vmm_drop(uint64_t handle)
{
    struct vmm_dropped dropped = {.left = -1};
    if (counting())
        dropped.left = live_refer(LIVE_PHYSICAL, handle, -1, &dropped.entry);
    return dropped;
}

void vmm_settle(CUresult rc, struct vmm_dropped *dropped)
{
    struct live entry;
    if (dropped->left == 0 && rc == CUDA_SUCCESS) {
        account_refund(&process.region, dropped->entry.device, dropped->entry.bytes);
    } else if (dropped->left == 0) {
        dropped->entry.references = 1;
        live_add(dropped->entry);
    } else if (dropped->left > 0 && rc != CUDA_SUCCESS) {
        live_refer(LIVE_PHYSICAL, dropped->entry.key, 1, &entry);
    }
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    NEED_CUDA(cuMemRelease);
    struct vmm_dropped dropped = vmm_drop(handle);
    CUresult rc = FORWARD(cuMemRelease(handle));
    vmm_settle(rc, &dropped);
    return rc;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    NEED_CUDA(cuMemRetainAllocationHandle);
    CUresult rc = FORWARD(cuMemRetainAllocationHandle(handle, address));
    struct live entry;
    if (rc == CUDA_SUCCESS && counting())
        live_refer(LIVE_PHYSICAL, *handle, 1, &entry);
    return rc;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    NEED_CUDA(cuMemMap);
    CUresult rc = FORWARD(cuMemMap(address, bytes, offset, handle, flags));
    struct live entry;
    if (rc == CUDA_SUCCESS && counting() && live_refer(LIVE_PHYSICAL, handle, 1, &entry) > 0)
        live_add((struct live){
            .kind = LIVE_MAPPING, .key = address, .bytes = bytes, .owner = handle, .device = entry.device});
    return rc;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    NEED_CUDA(cuMemUnmap);
    struct live mapping[AT_ONCE];
    struct vmm_dropped dropped[AT_ONCE];
    int count = 0;
    CUdeviceptr at = address;
    CUdeviceptr end = address + bytes;
    for (; counting() && at < end && count < AT_ONCE && live_take(LIVE_MAPPING, at, &mapping[count]); count++) {
        dropped[count] = vmm_drop(mapping[count].owner);
        at += mapping[count].bytes;
    }
    CUresult rc = FORWARD(cuMemUnmap(address, bytes));
    for (int i = 0; i < count; i++) {
        vmm_settle(rc, &dropped[i]);
        if (rc != CUDA_SUCCESS)
            live_add(mapping[i]);
    }
    while (count == AT_ONCE && rc == CUDA_SUCCESS && at < end && live_take(LIVE_MAPPING, at, &mapping[0])) {
        dropped[0] = vmm_drop(mapping[0].owner);
        vmm_settle(rc, &dropped[0]);
        at += mapping[0].bytes;
    }
    return rc;
}

/* ---- tiles of sparse arrays */

static bool memory_is_limited(void)
{
    if (!counting())
        return false;
    uint64_t devices = __atomic_load_n(&process.region.prefix->count, __ATOMIC_RELAXED);
    for (uint64_t i = 0; i < devices && i < REGION_DEVICES; i++)
        if (account_limit(&process.region, (int)i) != 0)
            return true;
    return false;
}

/* A tile keeps its memory after the handle is released, and which tile another mapping replaces only the driver knows.
 * As that memory cannot be counted, containers with a limit are told what drivers without sparse arrays say. */
CUresult cuMemMapArrayAsync(CUarrayMapInfo *list, unsigned int count, CUstream stream)
{
    NEED_CUDA(cuMemMapArrayAsync);
    return memory_is_limited() ? CUDA_ERROR_NOT_SUPPORTED : FORWARD(cuMemMapArrayAsync(list, count, stream));
}

CUresult cuMemMapArrayAsync_ptsz(CUarrayMapInfo *list, unsigned int count, CUstream stream)
{
    NEED_CUDA(cuMemMapArrayAsync_ptsz);
    return memory_is_limited() ? CUDA_ERROR_NOT_SUPPORTED : FORWARD(cuMemMapArrayAsync_ptsz(list, count, stream));
}
