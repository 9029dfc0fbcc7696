/* Arrays: what they cost, until they are destroyed or their context is. Their content is not kept. */
#include "cuda_sim.h"

#define ROUND 512u

/* First member of what ends with its context. */
struct held {
    struct object object;
    CUcontext context;
    struct held *previous, *next; /* of this process's */
};

struct CUarray_st {
    struct held held; /* not listed for a level */
    CUDA_ARRAY3D_DESCRIPTOR description;
    int device;
    u64 cost;
    bool level; /* of a mipmapped array, which pays for it */
};

struct CUmipmappedArray_st {
    struct held held;
    CUDA_ARRAY3D_DESCRIPTOR description;
    int device;
    unsigned level_count;
    u64 cost;
    CUarray levels[32];
};

static struct held *all;
static unsigned all_generation;

/* With `local` held, like the one below. */
static struct held **list(void)
{
    if (all_generation != state_generation()) {
        all_generation = state_generation();
        all = NULL;
    }
    return &all;
}

static void unlist(struct held *held)
{
    struct held **first = list();
    if (held->previous)
        held->previous->next = held->next;
    else
        *first = held->next;
    if (held->next)
        held->next->previous = held->previous;
}

static void keep(struct held *held, CUcontext context)
{
    pthread_mutex_lock(&local);
    struct held **first = list();
    held->context = context;
    held->next = *first;
    if (held->next)
        held->next->previous = held;
    *first = held;
    pthread_mutex_unlock(&local);
}

static void give_up(struct held *held)
{
    pthread_mutex_lock(&local);
    unlist(held);
    pthread_mutex_unlock(&local);
}

static unsigned element_bytes(CUarray_format format)
{
    switch ((int)format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8: return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF: return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT: return 4;
    default: return 0;
    }
}

static u64 at_least_one(u64 value) { return value ? value : 1; }

/* Bytes of one level; 0 = not a valid description, or memory that comes with a later mapping. */
static u64 level_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned level)
{
    bool layered = d->Flags & CUDA_ARRAY3D_LAYERED;
    u64 width = at_least_one(d->Width >> level), height = at_least_one(d->Height >> level);
    u64 depth = at_least_one(layered ? d->Depth : d->Depth >> level);
    return width * height * depth * d->NumChannels * element_bytes(d->Format);
}

static bool valid(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    return d->Width && element_bytes(d->Format) &&
           (d->NumChannels == 1 || d->NumChannels == 2 || d->NumChannels == 4) && d->Width <= 1u << 20 &&
           d->Height <= 1u << 20 && d->Depth <= 1u << 16;
}

static u64 cost_of(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels)
{
    u64 bytes = 0;
    if (d->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING))
        return 0;
    for (unsigned level = 0; level < levels; level++)
        bytes += (level_bytes(d, level) + ROUND - 1) / ROUND * ROUND;
    return bytes;
}

static CUresult create(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *description)
{
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || !valid(description))
        return CUDA_ERROR_INVALID_VALUE;
    u64 cost = cost_of(description, 1);
    if (!ledger_take(context->device, KIND_ARRAY, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUarray array = object_new(sizeof *array, OBJECT_ARRAY);
    if (!array) {
        ledger_give(context->device, KIND_ARRAY, cost);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    array->description = *description;
    array->device = context->device;
    array->cost = cost;
    keep(&array->held, context);
    *out = array;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayCreate_v2(CUarray *out, const CUDA_ARRAY_DESCRIPTOR *d)
{
    ENTER();
    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    return create(out, &(CUDA_ARRAY3D_DESCRIPTOR){
                           .Width = d->Width, .Height = d->Height, .Format = d->Format, .NumChannels = d->NumChannels});
}

SIM_API CUresult cuArrayCreate(CUarray *out, const CUDA_ARRAY_DESCRIPTOR_v1 *d)
{
    ENTER();
    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    return create(out, &(CUDA_ARRAY3D_DESCRIPTOR){
                           .Width = d->Width, .Height = d->Height, .Format = d->Format, .NumChannels = d->NumChannels});
}

SIM_API CUresult cuArray3DCreate_v2(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    ENTER();
    return d ? create(out, d) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuArray3DCreate(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR_v1 *d)
{
    ENTER();
    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    return create(out, &(CUDA_ARRAY3D_DESCRIPTOR){.Width = d->Width,
                                                  .Height = d->Height,
                                                  .Depth = d->Depth,
                                                  .Format = d->Format,
                                                  .NumChannels = d->NumChannels,
                                                  .Flags = d->Flags});
}

static void array_end(CUarray array)
{
    ledger_give(array->device, KIND_ARRAY, array->cost);
    object_end(array);
}

SIM_API CUresult cuArrayDestroy(CUarray array)
{
    ENTER();
    if (!object_is(array, OBJECT_ARRAY) || array->level)
        return CUDA_ERROR_INVALID_HANDLE;
    give_up(&array->held);
    array_end(array);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *out, CUarray array)
{
    ENTER();
    if (!out || !object_is(array, OBJECT_ARRAY))
        return CUDA_ERROR_INVALID_HANDLE;
    *out = (CUDA_ARRAY_DESCRIPTOR){.Width = array->description.Width,
                                   .Height = array->description.Height,
                                   .Format = array->description.Format,
                                   .NumChannels = array->description.NumChannels};
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *out, CUarray array)
{
    ENTER();
    if (!out || !object_is(array, OBJECT_ARRAY))
        return CUDA_ERROR_INVALID_HANDLE;
    *out = array->description;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUarray array, CUdevice dev)
{
    ENTER();
    if (!out || cuda_device(dev) < 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (!object_is(array, OBJECT_ARRAY))
        return CUDA_ERROR_INVALID_HANDLE;
    *out = (CUDA_ARRAY_MEMORY_REQUIREMENTS){.size = cost_of(&array->description, 1), .alignment = ROUND};
    return CUDA_SUCCESS;
}

static void mipmap_end(CUmipmappedArray array)
{
    for (unsigned level = 0; level < array->level_count; level++)
        if (array->levels[level])
            object_end(array->levels[level]);
    ledger_give(array->device, KIND_ARRAY, array->cost);
    object_end(array);
}

SIM_API CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels)
{
    ENTER();
    CUcontext context = context_current();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || !d || !valid(d) || !levels || levels > 32)
        return CUDA_ERROR_INVALID_VALUE;
    u64 cost = cost_of(d, levels);
    if (!ledger_take(context->device, KIND_ARRAY, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUmipmappedArray array = object_new(sizeof *array, OBJECT_MIPMAP);
    if (!array) {
        ledger_give(context->device, KIND_ARRAY, cost);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    array->description = *d;
    array->device = context->device;
    array->level_count = levels;
    array->cost = cost;
    for (unsigned level = 0; level < levels; level++) {
        CUarray part = object_new(sizeof *part, OBJECT_ARRAY);
        if (!part) {
            mipmap_end(array);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        part->description = *d;
        part->description.Width = at_least_one(d->Width >> level);
        part->description.Height = d->Height ? at_least_one(d->Height >> level) : 0;
        part->device = array->device;
        part->level = true;
        array->levels[level] = part;
    }
    keep(&array->held, context);
    *out = array;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayGetLevel(CUarray *out, CUmipmappedArray array, unsigned int level)
{
    ENTER();
    if (!object_is(array, OBJECT_MIPMAP))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!out || level >= array->level_count)
        return CUDA_ERROR_INVALID_VALUE;
    *out = array->levels[level];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    ENTER();
    if (!object_is(array, OBJECT_MIPMAP))
        return CUDA_ERROR_INVALID_HANDLE;
    give_up(&array->held);
    mipmap_end(array);
    return CUDA_SUCCESS;
}

void context_arrays_drop(CUcontext context)
{
    pthread_mutex_lock(&local);
    for (struct held *held = *list(), *next; held; held = next) {
        next = held->next;
        if (held->context != context)
            continue;
        unlist(held);
        if (object_is(held, OBJECT_MIPMAP))
            mipmap_end((CUmipmappedArray)held);
        else
            array_end((CUarray)held);
    }
    pthread_mutex_unlock(&local);
}

SIM_API CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUmipmappedArray array,
                                                       CUdevice dev)
{
    ENTER();
    if (!out || cuda_device(dev) < 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (!object_is(array, OBJECT_MIPMAP))
        return CUDA_ERROR_INVALID_HANDLE;
    *out =
        (CUDA_ARRAY_MEMORY_REQUIREMENTS){.size = cost_of(&array->description, array->level_count), .alignment = ROUND};
    return CUDA_SUCCESS;
}
