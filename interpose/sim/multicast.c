/* Multicast objects: memory of several devices behind one address. They take no memory themselves, and keep what is bound to
 * them alive. */
#include <stdlib.h>

#include "vmm.h"

struct multicast {
    struct object object;
    size_t size;
};

struct binding {
    struct binding *next;
    unsigned generation;
    struct multicast *multicast;
    struct physical *physical;
    size_t at, size;
};
static struct binding *bindings;

static struct multicast *of_handle(CUmemGenericAllocationHandle handle)
{
    struct multicast *multicast = (struct multicast *)(uintptr_t)handle;
    return object_is(multicast, OBJECT_MULTICAST) ? multicast : NULL;
}

SIM_API CUresult cuMulticastCreate(CUmemGenericAllocationHandle *out, const CUmulticastObjectProp *properties)
{
    ENTER();
    if (!out || !properties || !properties->size || properties->flags)
        return CUDA_ERROR_INVALID_VALUE;
    struct multicast *multicast = object_new(sizeof *multicast, OBJECT_MULTICAST);
    if (!multicast)
        return CUDA_ERROR_OUT_OF_MEMORY;
    multicast->size = properties->size;
    *out = (CUmemGenericAllocationHandle)(uintptr_t)multicast;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle handle, CUdevice dev)
{
    ENTER();
    if (cuda_device(dev) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    return of_handle(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* With `local` held. */
static CUresult bind(CUmemGenericAllocationHandle handle, size_t at, struct physical *physical, size_t size)
{
    struct multicast *multicast = of_handle(handle);
    if (!multicast || !physical || !size || at + size > multicast->size || size > physical->size)
        return CUDA_ERROR_INVALID_VALUE;
    struct binding *binding = malloc(sizeof *binding);
    if (!binding)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *binding = (struct binding){bindings, state_generation(), multicast, physical, at, size};
    bindings = binding;
    physical->mappings++;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMulticastBindMem(CUmemGenericAllocationHandle handle, size_t at, CUmemGenericAllocationHandle memory,
                                    size_t offset, size_t size, unsigned long long flags)
{
    ENTER();
    if (offset || flags)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    CUresult rc = bind(handle, at, physical_of(memory), size);
    pthread_mutex_unlock(&local);
    return rc;
}

SIM_API CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle handle, size_t at, CUdeviceptr memory, size_t size,
                                     unsigned long long flags)
{
    ENTER();
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    CUresult rc = bind(handle, at, physical_at(memory), size);
    pthread_mutex_unlock(&local);
    return rc;
}

/* The newer forms name the device, which is the memory's own here: access from others is not played. */
SIM_API CUresult cuMulticastBindMem_v2(CUmemGenericAllocationHandle handle, CUdevice dev, size_t at,
                                       CUmemGenericAllocationHandle memory, size_t offset, size_t size,
                                       unsigned long long flags)
{
    ENTER();
    if (cuda_device(dev) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    return cuMulticastBindMem(handle, at, memory, offset, size, flags);
}

SIM_API CUresult cuMulticastBindAddr_v2(CUmemGenericAllocationHandle handle, CUdevice dev, size_t at, CUdeviceptr memory,
                                        size_t size, unsigned long long flags)
{
    ENTER();
    if (cuda_device(dev) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    return cuMulticastBindAddr(handle, at, memory, size, flags);
}

SIM_API CUresult cuMulticastUnbind(CUmemGenericAllocationHandle handle, CUdevice dev, size_t at, size_t size)
{
    ENTER();
    struct multicast *multicast = of_handle(handle);
    int device = cuda_device(dev);
    bool any = false;
    pthread_mutex_lock(&local);
    for (struct binding **link = &bindings; multicast && *link;) {
        struct binding *binding = *link;
        bool inside = binding->generation == state_generation() && binding->multicast == multicast &&
                      binding->physical->device == device && binding->at >= at && binding->at + binding->size <= at + size;
        if (!inside) {
            link = &binding->next;
            continue;
        }
        any = true;
        *link = binding->next;
        binding->physical->mappings--;
        physical_let_go(binding->physical);
        free(binding);
    }
    pthread_mutex_unlock(&local);
    return any ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
