/*
 * Copies and fills. They take no device time and happen at the call, also the asynchronous ones. Device content is kept
 * up to a limit (arena.h); array content never is.
 */
#include <string.h>

#include "arena.h"

/* One side of a copy: device addresses are looked up, host addresses used as they are. With `local` held. */
static void *target(CUdeviceptr address, size_t size)
{
    CUdeviceptr base;
    return arena_find(address, &base) ? arena_write(address, size) : (void *)(uintptr_t)address;
}

static const void *source(CUdeviceptr address, size_t size)
{
    CUdeviceptr base;
    return arena_find(address, &base) ? arena_read(address, size) : (const void *)(uintptr_t)address;
}

/* True when `address` is device memory with `size` bytes from there on. With `local` held. */
static bool device_range(CUdeviceptr address, size_t size)
{
    CUdeviceptr base;
    struct block *block = arena_find(address, &base);
    return block && size <= block->size && address - base <= block->size - size;
}

/* `checked_to`, `checked_from`: that side must be device memory. Unified copies check neither. */
static CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t size, bool checked_to, bool checked_from)
{
    if (!context_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!size)
        return CUDA_SUCCESS;
    if (!to || !from)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&local);
    if ((checked_to && !device_range(to, size)) || (checked_from && !device_range(from, size))) {
        rc = CUDA_ERROR_INVALID_VALUE;
    } else {
        void *into = target(to, size);
        const void *out_of = source(from, size);
        if (into && out_of)
            memmove(into, out_of, size);
    }
    pthread_mutex_unlock(&local);
    return rc;
}

#define HOST(pointer) ((CUdeviceptr)(uintptr_t)(pointer))

PLAIN_TWINS(cuMemcpy, _ptds, (CUdeviceptr to, CUdeviceptr from, size_t size), to, from, size)
{
    return copy(to, from, size, false, false);
}

PLAIN_TWINS(cuMemcpyHtoD_v2, _ptds, (CUdeviceptr to, const void *from, size_t size), to, from, size)
{
    return copy(to, HOST(from), size, true, false);
}

PLAIN_TWINS(cuMemcpyDtoH_v2, _ptds, (void *to, CUdeviceptr from, size_t size), to, from, size)
{
    return copy(HOST(to), from, size, false, true);
}

PLAIN_TWINS(cuMemcpyDtoD_v2, _ptds, (CUdeviceptr to, CUdeviceptr from, size_t size), to, from, size)
{
    return copy(to, from, size, true, true);
}

PLAIN_TWINS(cuMemcpyPeer, _ptds, (CUdeviceptr to, CUcontext to_in, CUdeviceptr from, CUcontext from_in, size_t size),
            to, to_in, from, from_in, size)
{
    return to_in && from_in ? copy(to, from, size, true, true) : CUDA_ERROR_INVALID_CONTEXT;
}

/* Asynchronous forms: a captured copy is a node without device time. */
#define ASYNC()                                                                                                        \
    do {                                                                                                               \
        CUstream on_ = stream_of(stream);                                                                              \
        if (!on_)                                                                                                      \
            return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;                         \
        if (on_->capture)                                                                                              \
            return graph_add(on_->capture, 0);                                                                         \
    } while (0)

STREAM_CALL(cuMemcpyAsync, _ptsz, (CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream), to, from, size,
            stream)
{
    ASYNC();
    return copy(to, from, size, false, false);
}

STREAM_CALL(cuMemcpyHtoDAsync_v2, _ptsz, (CUdeviceptr to, const void *from, size_t size, CUstream stream), to, from,
            size, stream)
{
    ASYNC();
    return copy(to, HOST(from), size, true, false);
}

STREAM_CALL(cuMemcpyDtoHAsync_v2, _ptsz, (void *to, CUdeviceptr from, size_t size, CUstream stream), to, from, size,
            stream)
{
    ASYNC();
    return copy(HOST(to), from, size, false, true);
}

STREAM_CALL(cuMemcpyDtoDAsync_v2, _ptsz, (CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream), to, from,
            size, stream)
{
    ASYNC();
    return copy(to, from, size, true, true);
}

STREAM_CALL(cuMemcpyPeerAsync, _ptsz,
            (CUdeviceptr to, CUcontext to_in, CUdeviceptr from, CUcontext from_in, size_t size, CUstream stream), to,
            to_in, from, from_in, size, stream)
{
    ASYNC();
    return to_in && from_in ? copy(to, from, size, true, true) : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult copy_2d(const CUDA_MEMCPY2D *plan)
{
    if (!plan)
        return CUDA_ERROR_INVALID_VALUE;
    if (plan->srcMemoryType == CU_MEMORYTYPE_ARRAY || plan->dstMemoryType == CU_MEMORYTYPE_ARRAY)
        return context_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    CUdeviceptr from = plan->srcMemoryType == CU_MEMORYTYPE_HOST ? HOST(plan->srcHost) : plan->srcDevice;
    CUdeviceptr to = plan->dstMemoryType == CU_MEMORYTYPE_HOST ? HOST(plan->dstHost) : plan->dstDevice;
    CUresult rc = context_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    for (size_t row = 0; row < plan->Height && rc == CUDA_SUCCESS; row++)
        rc = copy(to + plan->dstXInBytes + (plan->dstY + row) * plan->dstPitch,
                  from + plan->srcXInBytes + (plan->srcY + row) * plan->srcPitch, plan->WidthInBytes,
                  plan->dstMemoryType == CU_MEMORYTYPE_DEVICE, plan->srcMemoryType == CU_MEMORYTYPE_DEVICE);
    return rc;
}

PLAIN_TWINS(cuMemcpy2D_v2, _ptds, (const CUDA_MEMCPY2D *plan), plan) { return copy_2d(plan); }

PLAIN_TWINS(cuMemcpy2DUnaligned_v2, _ptds, (const CUDA_MEMCPY2D *plan), plan) { return copy_2d(plan); }

STREAM_CALL(cuMemcpy2DAsync_v2, _ptsz, (const CUDA_MEMCPY2D *plan, CUstream stream), plan, stream)
{
    ASYNC();
    return copy_2d(plan);
}

/* ---- fills */

static CUresult fill(CUdeviceptr at, const void *value, size_t width, size_t count, size_t pitch, size_t rows)
{
    if (!context_current())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!count || !rows)
        return CUDA_SUCCESS;
    size_t bytes;
    if (at % width || __builtin_mul_overflow(count, width, &bytes) || (rows > 1 && pitch < bytes))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&local);
    for (size_t row = 0; row < rows && rc == CUDA_SUCCESS; row++) {
        CUdeviceptr start = at + row * pitch;
        if (!device_range(start, bytes)) {
            rc = CUDA_ERROR_INVALID_VALUE;
            break;
        }
        char *into = arena_write(start, bytes);
        if (into && width == 1)
            memset(into, *(const unsigned char *)value, bytes);
        else
            for (size_t i = 0; into && i < count; i++)
                memcpy(into + i * width, value, width);
    }
    pthread_mutex_unlock(&local);
    return rc;
}

#define FILL(bits, type)                                                                                               \
    PLAIN_TWINS(cuMemsetD##bits##_v2, _ptds, (CUdeviceptr at, type value, size_t count), at, value, count)             \
    {                                                                                                                  \
        return fill(at, &value, sizeof value, count, 0, 1);                                                            \
    }                                                                                                                  \
    STREAM_CALL(cuMemsetD##bits##Async, _ptsz, (CUdeviceptr at, type value, size_t count, CUstream stream), at, value, \
                count, stream)                                                                                         \
    {                                                                                                                  \
        ASYNC();                                                                                                       \
        return fill(at, &value, sizeof value, count, 0, 1);                                                            \
    }                                                                                                                  \
    PLAIN_TWINS(cuMemsetD2D##bits##_v2, _ptds,                                                                         \
                (CUdeviceptr at, size_t pitch, type value, size_t width, size_t height), at, pitch, value, width,      \
                height)                                                                                                \
    {                                                                                                                  \
        return fill(at, &value, sizeof value, width, pitch, height);                                                   \
    }                                                                                                                  \
    STREAM_CALL(cuMemsetD2D##bits##Async, _ptsz,                                                                       \
                (CUdeviceptr at, size_t pitch, type value, size_t width, size_t height, CUstream stream), at, pitch,   \
                value, width, height, stream)                                                                          \
    {                                                                                                                  \
        ASYNC();                                                                                                       \
        return fill(at, &value, sizeof value, width, pitch, height);                                                   \
    }

FILL(8, unsigned char)
FILL(16, unsigned short)
FILL(32, unsigned int)

/* Advice and prefetching move nothing here. */
static CUresult known_range(CUdeviceptr at, size_t size)
{
    pthread_mutex_lock(&local);
    bool known = device_range(at, size);
    pthread_mutex_unlock(&local);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemAdvise(CUdeviceptr at, size_t size, CUmem_advise advice, CUdevice dev)
{
    ENTER();
    (void)advice, (void)dev;
    return known_range(at, size);
}

SIM_API CUresult cuMemAdvise_v2(CUdeviceptr at, size_t size, CUmem_advise advice, CUmemLocation location)
{
    ENTER();
    (void)advice, (void)location;
    return known_range(at, size);
}

STREAM_CALL(cuMemPrefetchAsync, _ptsz, (CUdeviceptr at, size_t size, CUdevice dev, CUstream stream), at, size, dev,
            stream)
{
    (void)dev;
    return stream_of(stream) ? known_range(at, size) : CUDA_ERROR_INVALID_HANDLE;
}

STREAM_CALL(cuMemPrefetchAsync_v2, _ptsz,
            (CUdeviceptr at, size_t size, CUmemLocation location, unsigned int flags, CUstream stream), at, size,
            location, flags, stream)
{
    (void)location, (void)flags;
    return stream_of(stream) ? known_range(at, size) : CUDA_ERROR_INVALID_HANDLE;
}
