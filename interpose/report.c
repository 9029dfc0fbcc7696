/* What CUDA programs are told about memory: a device of the size of their limit. */
#include <limits.h>

#include "pool.h"
#include "process.h"

static struct account_view view(const struct target *target, uint64_t total, uint64_t free)
{
    if (target->closed)
        return (struct account_view){.total = total, .used = total};
    if (target->device < 0)
        return (struct account_view){.total = total, .used = total - free, .free = free};
    struct account_view driver = {.total = total, .used = total - free, .free = free};
    return process_view(target->device, &driver);
}

static struct target current(void)
{
    struct target target = target_current();
    if (target.device >= 0)
        pool_refresh();
    return target;
}

/* The driver judges the program's pointers, of which one may be null; the view needs both figures. */
CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
    NEED_CUDA(cuMemGetInfo_v2);
    CUresult rc = FORWARD(cuMemGetInfo_v2(free, total));
    if (rc != CUDA_SUCCESS)
        return rc;
    size_t real_free = free ? *free : 0, real_total = total ? *total : 0;
    if ((!free || !total) && FORWARD(cuMemGetInfo_v2(&real_free, &real_total)) != CUDA_SUCCESS)
        return rc;
    struct target target = current();
    struct account_view seen = view(&target, real_total, real_free);
    if (free)
        *free = seen.free;
    if (total)
        *total = seen.total;
    return rc;
}

CUresult cuMemGetInfo(unsigned int *free, unsigned int *total)
{
    NEED_CUDA(cuMemGetInfo);
    CUresult rc = FORWARD(cuMemGetInfo(free, total));
    if (rc != CUDA_SUCCESS)
        return rc;
    unsigned int real_free = free ? *free : 0, real_total = total ? *total : 0;
    if ((!free || !total) && FORWARD(cuMemGetInfo(&real_free, &real_total)) != CUDA_SUCCESS)
        return rc;
    struct target target = current();
    struct account_view seen = view(&target, real_total, real_free);
    if (free)
        *free = (unsigned int)seen.free;
    if (total)
        *total = (unsigned int)seen.total;
    return rc;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    NEED_CUDA(cuDeviceTotalMem_v2);
    CUresult rc = FORWARD(cuDeviceTotalMem_v2(bytes, device));
    if (rc != CUDA_SUCCESS || !bytes)
        return rc;
    struct target target = target_device(device);
    *bytes = view(&target, *bytes, *bytes).total;
    return rc;
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice device)
{
    NEED_CUDA(cuDeviceTotalMem);
    CUresult rc = FORWARD(cuDeviceTotalMem(bytes, device));
    if (rc != CUDA_SUCCESS || !bytes)
        return rc;
    struct target target = target_device(device);
    *bytes = (unsigned int)view(&target, *bytes, *bytes).total;
    return rc;
}
