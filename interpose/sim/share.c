/* Memory of other processes and of other interfaces: handles to it can be made, passed on and opened, and what is opened has
 * addresses. It takes nothing of the device, as it was taken where it was made. Its content is not shared: reads of it give
 * zeros, and it does not keep the memory alive that it names. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "pool.h"
#include "vmm.h"

/* What is written into a handle of any form. */
struct shared {
    u64 magic, size, pid;
    i32 device;
    u32 kind;
    CUmemAllocationProp properties;
};
enum { SHARED_MEMORY = 1, SHARED_PHYSICAL, SHARED_POOL };
#define MAGIC 0x5348415245443031u
_Static_assert(sizeof(struct shared) <= 96, "small");

/* ---- in a file descriptor */

static CUresult to_descriptor(void *out, CUmemAllocationHandleType type, const struct shared *shared)
{
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    int fd = (int)syscall(SYS_memfd_create, "hami-simulated-handle", 1u /* close on exec */); /* older C libraries lack it */
    if (fd < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    if (write(fd, shared, sizeof *shared) != sizeof *shared) {
        close(fd);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    *(int *)out = fd;
    return CUDA_SUCCESS;
}

static bool from_descriptor(void *handle, CUmemAllocationHandleType type, u32 kind, struct shared *shared)
{
    return type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR &&
           pread((int)(intptr_t)handle, shared, sizeof *shared, 0) == sizeof *shared && shared->magic == MAGIC &&
           shared->kind == kind;
}

/* An address for memory that is not this process's. */
static CUresult open_at(CUdeviceptr *out, u64 size, CUcontext context, CUmemoryPool pool)
{
    struct block *block;
    pthread_mutex_lock(&local);
    CUdeviceptr at = arena_take(size, &block);
    if (at) {
        block->context = context;
        block->pool = pool;
        block->kind = KIND_LINEAR;
        block->device = context->device;
        *out = at;
    }
    pthread_mutex_unlock(&local);
    return at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- linear memory */

SIM_API CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr at)
{
    ENTER();
    CUdeviceptr base;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(at, &base);
    bool can = block && block->kind == KIND_LINEAR && block->cost; /* no pool's, no managed memory */
    const u64 words[] = {MAGIC, can ? block->size : 0, (u64)getpid(), can ? (u64)block->device : 0};
    pthread_mutex_unlock(&local);
    memset(out, 0, sizeof *out);
    memcpy(out, words, sizeof words);
    return can ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult open_ipc(CUdeviceptr *out, CUipcMemHandle handle)
{
    u64 words[4];
    CUcontext context = context_current();
    memcpy(words, &handle, sizeof words);
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || words[0] != MAGIC)
        return CUDA_ERROR_INVALID_VALUE;
    /* A process cannot open what it has made. */
    return words[2] == (u64)getpid() ? CUDA_ERROR_INVALID_CONTEXT : open_at(out, words[1], context, NULL);
}

SIM_API CUresult cuIpcOpenMemHandle(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags)
{
    ENTER();
    (void)flags;
    return open_ipc(out, handle);
}

SIM_API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags)
{
    ENTER();
    (void)flags;
    return open_ipc(out, handle);
}

SIM_API CUresult cuIpcCloseMemHandle(CUdeviceptr at)
{
    ENTER();
    CUdeviceptr base;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(at, &base);
    bool opened = block && base == at && block->kind == KIND_LINEAR && !block->cost && !block->pool;
    if (opened)
        arena_return(base);
    pthread_mutex_unlock(&local);
    return opened ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- physical memory */

SIM_API CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
                                              CUmemAllocationHandleType type, unsigned long long flags)
{
    ENTER();
    struct physical *physical = physical_of(handle);
    if (!out || !physical || flags)
        return CUDA_ERROR_INVALID_VALUE;
    const struct shared shared = {.magic = MAGIC,
                                  .kind = SHARED_PHYSICAL,
                                  .size = physical->size,
                                  .device = physical->device,
                                  .properties = physical->properties};
    return to_descriptor(out, type, &shared);
}

SIM_API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *handle,
                                                CUmemAllocationHandleType type)
{
    ENTER();
    struct shared shared;
    if (!out || !from_descriptor(handle, type, SHARED_PHYSICAL, &shared))
        return CUDA_ERROR_INVALID_VALUE;
    struct physical *physical = object_new(sizeof *physical, OBJECT_PHYSICAL);
    if (!physical)
        return CUDA_ERROR_OUT_OF_MEMORY;
    physical->device = -1;
    physical->size = shared.size;
    physical->properties = shared.properties;
    physical->handles = 1;
    *out = (CUmemGenericAllocationHandle)(uintptr_t)physical;
    return CUDA_SUCCESS;
}

/* ---- pools */

SIM_API CUresult cuMemPoolExportToShareableHandle(void *out, CUmemoryPool pool, CUmemAllocationHandleType type,
                                                  unsigned long long flags)
{
    ENTER();
    if (!out || !object_is(pool, OBJECT_POOL) || flags)
        return CUDA_ERROR_INVALID_VALUE;
    const struct shared shared = {.magic = MAGIC, .kind = SHARED_POOL};
    return to_descriptor(out, type, &shared);
}

SIM_API CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *out, void *handle, CUmemAllocationHandleType type,
                                                    unsigned long long flags)
{
    ENTER();
    struct shared shared;
    if (!out || flags || !from_descriptor(handle, type, SHARED_POOL, &shared))
        return CUDA_ERROR_INVALID_VALUE;
    return pool_import(out);
}

SIM_API CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData *out, CUdeviceptr at)
{
    ENTER();
    CUdeviceptr base;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    struct block *block = arena_find(at, &base);
    const u64 words[] = {MAGIC, block && block->pool ? block->size : 0};
    pthread_mutex_unlock(&local);
    memset(out, 0, sizeof *out);
    memcpy(out, words, sizeof words);
    return words[1] ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemPoolImportPointer(CUdeviceptr *out, CUmemoryPool pool, CUmemPoolPtrExportData *data)
{
    ENTER();
    u64 words[2];
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || !data || !object_is(pool, OBJECT_POOL))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(words, data, sizeof words);
    return words[0] == MAGIC ? open_at(out, words[1], context, pool) : CUDA_ERROR_INVALID_VALUE;
}

/* ---- memory of graphics interfaces, by whatever descriptor: only its size is looked at */

struct CUextMemory_st {
    struct object object;
    u64 size;
};

SIM_API CUresult cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *desc)
{
    ENTER();
    if (!out || !desc || !desc->size)
        return CUDA_ERROR_INVALID_VALUE;
    CUexternalMemory memory = object_new(sizeof *memory, OBJECT_EXTERNAL);
    if (!memory)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memory->size = desc->size;
    *out = memory;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *out, CUexternalMemory memory,
                                                 const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *desc)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || !desc || !object_is(memory, OBJECT_EXTERNAL) || desc->offset + desc->size > memory->size)
        return CUDA_ERROR_INVALID_VALUE;
    return open_at(out, desc->size, context, NULL);
}

SIM_API CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    ENTER();
    if (!object_is(memory, OBJECT_EXTERNAL))
        return CUDA_ERROR_INVALID_HANDLE;
    object_end(memory);
    return CUDA_SUCCESS;
}
