/* Multicast objects take no memory; what is bound to them stays alive, also after its handle and its mappings are gone. A
 * binding that is not undone before its object ends keeps its charge until the process ends. */
#include "vmm.h"

/* Of a binding: the object, where in it, and the device (index in the region), whose parts lie side by side. */
static uint64_t key_of(CUmemGenericAllocationHandle multicast, uint64_t at, int device)
{
    return (multicast ^ at * 0x9e3779b97f4a7c15ULL) + (uint64_t)device;
}

static bool counting(void)
{
    return process_phase() == PROCESS_READY && hook_inside == 0;
}

static CUresult bound(CUresult rc, CUmemGenericAllocationHandle multicast, size_t at,
                      CUmemGenericAllocationHandle memory, size_t size)
{
    struct live entry;
    if (rc == CUDA_SUCCESS && counting() && live_refer(LIVE_PHYSICAL, memory, 1, &entry) > 0)
        live_add((struct live){.kind = LIVE_BINDING,
                               .key = key_of(multicast, at, entry.device),
                               .bytes = size,
                               .owner = memory,
                               .device = entry.device});
    return rc;
}

/* The handle behind an address; 0 = none. Asking for it holds it, which is undone at once. */
static CUmemGenericAllocationHandle handle_at(CUdeviceptr at)
{
    CUmemGenericAllocationHandle handle = 0;
    if (!real.cuMemRetainAllocationHandle || !real.cuMemRelease ||
        FORWARD(cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)at)) != CUDA_SUCCESS)
        return 0;
    FORWARD(cuMemRelease(handle));
    return handle;
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle multicast, size_t at, CUmemGenericAllocationHandle memory,
                            size_t offset, size_t size, unsigned long long flags)
{
    NEED_CUDA(cuMulticastBindMem);
    return bound(FORWARD(cuMulticastBindMem(multicast, at, memory, offset, size, flags)), multicast, at, memory, size);
}

CUresult cuMulticastBindMem_v2(CUmemGenericAllocationHandle multicast, CUdevice dev, size_t at,
                               CUmemGenericAllocationHandle memory, size_t offset, size_t size,
                               unsigned long long flags)
{
    NEED_CUDA(cuMulticastBindMem_v2);
    return bound(FORWARD(cuMulticastBindMem_v2(multicast, dev, at, memory, offset, size, flags)), multicast, at, memory,
                 size);
}

CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle multicast, size_t at, CUdeviceptr memory, size_t size,
                             unsigned long long flags)
{
    NEED_CUDA(cuMulticastBindAddr);
    CUresult rc = FORWARD(cuMulticastBindAddr(multicast, at, memory, size, flags));
    return bound(rc, multicast, at, rc == CUDA_SUCCESS ? handle_at(memory) : 0, size);
}

CUresult cuMulticastBindAddr_v2(CUmemGenericAllocationHandle multicast, CUdevice dev, size_t at, CUdeviceptr memory,
                                size_t size, unsigned long long flags)
{
    NEED_CUDA(cuMulticastBindAddr_v2);
    CUresult rc = FORWARD(cuMulticastBindAddr_v2(multicast, dev, at, memory, size, flags));
    return bound(rc, multicast, at, rc == CUDA_SUCCESS ? handle_at(memory) : 0, size);
}

/* Bindings under one call whose references are given up before the driver acts; nobody has more. */
enum { AT_ONCE = 64 };

CUresult cuMulticastUnbind(CUmemGenericAllocationHandle multicast, CUdevice dev, size_t at, size_t size)
{
    NEED_CUDA(cuMulticastUnbind);
    struct live binding[AT_ONCE];
    struct vmm_dropped dropped[AT_ONCE];
    int count = 0;
    int device = target_device(dev).device;
    for (size_t here = at, end = at + size; counting() && device >= 0 && here < end && count < AT_ONCE; count++) {
        if (!live_take(LIVE_BINDING, key_of(multicast, here, device), &binding[count]))
            break;
        dropped[count] = vmm_drop(binding[count].owner);
        here += binding[count].bytes;
    }
    CUresult rc = FORWARD(cuMulticastUnbind(multicast, dev, at, size));
    for (int i = 0; i < count; i++) {
        vmm_settle(rc, &dropped[i]);
        if (rc != CUDA_SUCCESS)
            live_add(binding[i]);
    }
    return rc;
}
