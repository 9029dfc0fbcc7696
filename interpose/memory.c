/* Linear memory: reserve, ask the driver, keep the reservation or give it back. */
#include "live.h"
#include "managed.h"
#include "process.h"

/* The unit in which the driver hands out device memory. */
#define UNIT_BYTES 512ULL
/* Rows are padded by at most this; the driver's answer says exactly. */
#define WORST_PITCH 512

/* What `bytes` take of the device. A size that no device has stays one. */
static uint64_t taken(uint64_t bytes)
{
    return bytes > UINT64_MAX - UNIT_BYTES ? bytes : (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
}

static struct live entry_of(const struct target *target, uint64_t address, uint64_t bytes)
{
    return (struct live){.kind = LIVE_LINEAR,
                         .key = address,
                         .bytes = bytes,
                         .owner = target->context,
                         .device = (int16_t)target->device};
}

static void keep(const struct target *target, uint64_t address, uint64_t bytes)
{
    if (target->device >= 0)
        live_add(entry_of(target, address, bytes));
}

/* The driver has no room: with oversubscription the memory may stand in the host's. */
__attribute__((noinline)) static CUresult substitute(const struct target *target, CUdeviceptr *address, size_t bytes,
                                                     uint64_t cost)
{
    CUresult rc = managed_alloc(target, address, bytes);
    if (rc != CUDA_SUCCESS) {
        target_refund(target, cost);
        return rc;
    }
    struct live entry = entry_of(target, *address, cost);
    entry.references = LIVE_SUBSTITUTE;
    live_add(entry);
    managed_note(&entry, true);
    return rc;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    NEED_CUDA(cuMemAlloc_v2);
    struct target target = target_current();
    uint64_t cost = taken(bytes);
    if (!target_charge(&target, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuMemAlloc_v2(address, bytes));
    if (rc == CUDA_SUCCESS)
        keep(&target, *address, cost);
    else if (rc == CUDA_ERROR_OUT_OF_MEMORY && process.config.oversubscribe)
        rc = substitute(&target, address, bytes, cost);
    else
        target_refund(&target, cost);
    return rc;
}

CUresult cuMemAlloc(CUdeviceptr_v1 *address, unsigned int bytes)
{
    NEED_CUDA(cuMemAlloc);
    struct target target = target_current();
    uint64_t cost = taken(bytes);
    if (!target_charge(&target, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuMemAlloc(address, bytes));
    if (rc == CUDA_SUCCESS)
        keep(&target, *address, cost);
    else
        target_refund(&target, cost);
    return rc;
}

CUresult cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
    NEED_CUDA(cuMemAllocManaged);
    struct target target = target_current();
    uint64_t cost = taken(bytes);
    if (!target_charge_managed(&target, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuMemAllocManaged(address, bytes, flags));
    if (rc == CUDA_SUCCESS)
        keep(&target, *address, cost);
    else
        target_refund(&target, cost);
    return rc;
}

/* What `height` rows take at most. False if no memory could hold that. */
static bool worst_case(uint64_t width, uint64_t height, uint64_t *bytes)
{
    uint64_t row;
    return !__builtin_add_overflow(width, WORST_PITCH - 1, &row) &&
           !__builtin_mul_overflow(row / WORST_PITCH * WORST_PITCH, height, bytes);
}

/* The driver has chosen `pitch`: makes the reservation of `reserved` bytes exact. */
static void keep_rows(const struct target *target, uint64_t address, uint64_t pitch, uint64_t height, uint64_t reserved)
{
    uint64_t bytes = taken(pitch * height);
    if (bytes > reserved)
        target_force(target, bytes - reserved);
    else
        target_refund(target, reserved - bytes);
    keep(target, address, bytes);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned int element)
{
    NEED_CUDA(cuMemAllocPitch_v2);
    struct target target = target_current();
    uint64_t bytes;
    if (!worst_case(width, height, &bytes) || !target_charge(&target, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuMemAllocPitch_v2(address, pitch, width, height, element));
    if (rc == CUDA_SUCCESS)
        keep_rows(&target, *address, *pitch, height, bytes);
    else
        target_refund(&target, bytes);
    return rc;
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *address, unsigned int *pitch, unsigned int width, unsigned int height,
                         unsigned int element)
{
    NEED_CUDA(cuMemAllocPitch);
    struct target target = target_current();
    uint64_t bytes;
    if (!worst_case(width, height, &bytes) || !target_charge(&target, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = FORWARD(cuMemAllocPitch(address, pitch, width, height, element));
    if (rc == CUDA_SUCCESS)
        keep_rows(&target, *address, *pitch, height, bytes);
    else
        target_refund(&target, bytes);
    return rc;
}

/* The entry leaves the table before the driver frees the address, because the driver may give that address to another
 * thread at once. An address that is not ours (a pool's, an imported one) is the driver's to judge. */
static bool release(uint64_t address, struct live *entry)
{
    return process_phase() == PROCESS_READY && hook_inside == 0 && live_take(LIVE_LINEAR, address, entry);
}

static CUresult settle(CUresult rc, bool ours, const struct live *entry)
{
    if (ours && rc == CUDA_SUCCESS) {
        account_refund(&process.region, entry->device, entry->bytes);
        if (entry->references == LIVE_SUBSTITUTE)
            managed_note(entry, false);
    } else if (ours) {
        live_add(*entry);
    }
    return rc;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    NEED_CUDA(cuMemFree_v2);
    struct live entry;
    bool ours = release(address, &entry);
    return settle(FORWARD(cuMemFree_v2(address)), ours, &entry);
}

CUresult cuMemFree(CUdeviceptr_v1 address)
{
    NEED_CUDA(cuMemFree);
    struct live entry;
    bool ours = release(address, &entry);
    return settle(FORWARD(cuMemFree(address)), ours, &entry);
}
