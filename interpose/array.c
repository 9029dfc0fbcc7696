/* Arrays: the driver chooses their layout and does not say how much that takes, so their size is computed from what was
 * asked for. Sparse arrays and those whose memory is mapped later take nothing at first. */
#include "live.h"
#include "process.h"

/* The unit in which the driver hands out device memory. */
#define UNIT_BYTES 512ULL

struct shape {
    uint64_t width, height, depth;
    CUarray_format format;
    unsigned int channels;
    unsigned int flags;
    unsigned int levels;
};

static uint64_t bytes_of(CUarray_format format)
{
    switch ((unsigned int)format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
    case 0xb0: /* NV12 */
    case 0xc0: /* normalised 8 bit, one to four channels, unsigned and signed */
    case 0xc1:
    case 0xc2:
    case 0xc6:
    case 0xc7:
    case 0xc8:
        return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
    case 0xc3: /* normalised 16 bit */
    case 0xc4:
    case 0xc5:
    case 0xc9:
    case 0xca:
    case 0xcb:
        return 2;
    default:
        return 4; /* 32-bit formats; compressed ones take less */
    }
}

static uint64_t at_least_one(uint64_t extent)
{
    return extent ? extent : 1;
}

/* False if no memory could hold that. */
static bool bytes_needed(const struct shape *shape, uint64_t *bytes)
{
    *bytes = 0;
    if (shape->flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING))
        return true;
    bool layers = (shape->flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
    for (unsigned int level = 0; level < shape->levels && level < 64; level++) {
        uint64_t width = at_least_one(shape->width >> level);
        uint64_t height = at_least_one(shape->height >> level);
        uint64_t depth = at_least_one(layers ? shape->depth : shape->depth >> level);
        uint64_t size = bytes_of(shape->format) * at_least_one(shape->channels);
        if (__builtin_mul_overflow(size, width, &size) || __builtin_mul_overflow(size, height, &size) ||
            __builtin_mul_overflow(size, depth, &size) || __builtin_add_overflow(size, UNIT_BYTES - 1, &size) ||
            __builtin_add_overflow(*bytes, size / UNIT_BYTES * UNIT_BYTES, bytes))
            return false;
    }
    return true;
}

/* Reserves for a new array; a null description is the driver's to refuse. */
static bool reserve(const struct shape *shape, struct target *target, uint64_t *bytes)
{
    *target = target_current();
    return bytes_needed(shape, bytes) && target_charge(target, *bytes);
}

static void settle(CUresult rc, const struct target *target, const void *array, uint64_t bytes)
{
    if (rc != CUDA_SUCCESS)
        target_refund(target, bytes);
    else if (target->device >= 0)
        live_add((struct live){.kind = LIVE_ARRAY,
                               .key = (uint64_t)(uintptr_t)array,
                               .bytes = bytes,
                               .owner = target->context,
                               .device = (int16_t)target->device});
}

static CUresult destroyed(CUresult rc, bool ours, const struct live *entry)
{
    if (ours && rc == CUDA_SUCCESS)
        account_refund(&process.region, entry->device, entry->bytes);
    else if (ours)
        live_add(*entry);
    return rc;
}

static bool release(const void *array, struct live *entry)
{
    return process_phase() == PROCESS_READY && hook_inside == 0 &&
           live_take(LIVE_ARRAY, (uint64_t)(uintptr_t)array, entry);
}

#define SHAPE_2D(d)                                                                                                    \
    {.width = (d)->Width, .height = (d)->Height, .format = (d)->Format, .channels = (d)->NumChannels, .levels = 1}
#define SHAPE_3D(d, level_count)                                                                                       \
    {.width = (d)->Width,                                                                                              \
     .height = (d)->Height,                                                                                            \
     .depth = (d)->Depth,                                                                                              \
     .format = (d)->Format,                                                                                            \
     .channels = (d)->NumChannels,                                                                                     \
     .flags = (d)->Flags,                                                                                              \
     .levels = (level_count)}

/* The bodies differ in the type of the description and in the driver's function only. */
#define CREATE(function, out, description, shape_of, call)                                                             \
    do {                                                                                                               \
        NEED_CUDA(function);                                                                                           \
        if (!(description) || !(out))                                                                                  \
            return FORWARD(call);                                                                                      \
        struct shape shape = shape_of;                                                                                 \
        struct target target;                                                                                          \
        uint64_t bytes;                                                                                                \
        if (!reserve(&shape, &target, &bytes))                                                                         \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                           \
        CUresult rc = FORWARD(call);                                                                                   \
        settle(rc, &target, rc == CUDA_SUCCESS ? *(out) : NULL, bytes);                                                \
        return rc;                                                                                                     \
    } while (0)

CUresult cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *d)
{
    CREATE(cuArrayCreate, array, d, SHAPE_2D(d), cuArrayCreate(array, d));
}

CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *d)
{
    CREATE(cuArrayCreate_v2, array, d, SHAPE_2D(d), cuArrayCreate_v2(array, d));
}

CUresult cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *d)
{
    CREATE(cuArray3DCreate, array, d, SHAPE_3D(d, 1), cuArray3DCreate(array, d));
}

CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    CREATE(cuArray3DCreate_v2, array, d, SHAPE_3D(d, 1), cuArray3DCreate_v2(array, d));
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels)
{
    CREATE(cuMipmappedArrayCreate, array, d, SHAPE_3D(d, levels), cuMipmappedArrayCreate(array, d, levels));
}

CUresult cuArrayDestroy(CUarray array)
{
    NEED_CUDA(cuArrayDestroy);
    struct live entry;
    bool ours = release(array, &entry);
    return destroyed(FORWARD(cuArrayDestroy(array)), ours, &entry);
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    NEED_CUDA(cuMipmappedArrayDestroy);
    struct live entry;
    bool ours = release(array, &entry);
    return destroyed(FORWARD(cuMipmappedArrayDestroy(array)), ours, &entry);
}
