/* A device keeps what its graphs took, in steps of 2 MiB, until it is trimmed; runs use it one after the other. */
#include "graph_memory.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"

#define STEP (2ull << 20)
#define ROUND 512u

static struct {
    u64 reserved, reserved_high, used, used_high;
} held[SIM_UNITS];
static unsigned held_generation;

static void refresh(void)
{
    if (held_generation != state_generation())
        memset(held, 0, sizeof held);
    held_generation = state_generation();
}

static u64 steps(u64 bytes) { return (bytes + STEP - 1) / STEP * STEP; }

static struct block *block_at(CUdeviceptr at)
{
    CUdeviceptr base;
    struct block *block = arena_find(at, &base);
    return block && base == at && block->kind == KIND_GRAPH ? block : NULL;
}

CUdeviceptr graph_memory_address(int device, u64 bytes)
{
    struct block *block;
    CUdeviceptr at = arena_take(bytes, &block);
    if (!at)
        return 0;
    block->kind = KIND_GRAPH;
    block->device = device;
    block->cost = (bytes + ROUND - 1) / ROUND * ROUND;
    return at;
}

static u64 alive(const struct graph_memory *memory)
{
    u64 bytes = 0;
    for (size_t i = 0; i < memory->kept_count; i++)
        bytes += block_at(memory->kept[i])->cost;
    return bytes;
}

bool graph_memory_alloc(struct graph_memory *memory, CUdeviceptr at)
{
    struct block *block = block_at(at);
    if (!block || (memory->device >= 0 && memory->device != block->device))
        return false;
    CUdeviceptr *more = realloc(memory->kept, (memory->kept_count + 1) * sizeof *more);
    if (!more)
        return false;
    memory->device = block->device;
    memory->kept = more;
    more[memory->kept_count++] = at;
    u64 bytes = alive(memory);
    memory->peak = bytes > memory->peak ? bytes : memory->peak;
    return true;
}

bool graph_memory_free(struct graph_memory *memory, CUdeviceptr at)
{
    for (size_t i = 0; i < memory->kept_count; i++)
        if (memory->kept[i] == at) {
            memory->kept[i] = memory->kept[--memory->kept_count];
            return true;
        }
    return false;
}

void graph_memory_end(struct graph_memory *memory)
{
    free(memory->kept);
    *memory = (struct graph_memory){.device = -1};
}

bool graph_memory_release(CUdeviceptr at)
{
    struct block *block = block_at(at);
    refresh();
    if (!block || !block->live)
        return false;
    block->live = false;
    held[block->device].used -= block->cost;
    return true;
}

CUresult graph_memory_run(const struct graph_memory *memory)
{
    if (memory->device < 0)
        return CUDA_SUCCESS;
    refresh();
    __typeof__(&held[0]) device = &held[memory->device];
    for (size_t i = 0; i < memory->kept_count; i++)
        if (block_at(memory->kept[i])->live && !(memory->auto_free && graph_memory_release(memory->kept[i])))
            return CUDA_ERROR_INVALID_VALUE;
    u64 wanted = steps(device->used + memory->peak);
    if (wanted > device->reserved) {
        if (!ledger_take(memory->device, KIND_GRAPH, wanted - device->reserved))
            return CUDA_ERROR_OUT_OF_MEMORY;
        device->reserved = wanted;
    }
    for (size_t i = 0; i < memory->kept_count; i++) {
        block_at(memory->kept[i])->live = true;
        device->used += block_at(memory->kept[i])->cost;
    }
    device->reserved_high = device->reserved > device->reserved_high ? device->reserved : device->reserved_high;
    device->used_high = device->used > device->used_high ? device->used : device->used_high;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetGraphMemAttribute(CUdevice dev, CUgraphMem_attribute attribute, void *value)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || (unsigned)attribute > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    refresh();
    const u64 values[] = {held[device].used, held[device].used_high, held[device].reserved, held[device].reserved_high};
    *(u64 *)value = values[attribute];
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

/* The high marks can be set, to 0 only. */
SIM_API CUresult cuDeviceSetGraphMemAttribute(CUdevice dev, CUgraphMem_attribute attribute, void *value)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    bool high = attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH || attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
    if (!value || *(u64 *)value || !high)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&local);
    refresh();
    if (attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
        held[device].used_high = held[device].used;
    else
        held[device].reserved_high = held[device].reserved;
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGraphMemTrim(CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&local);
    refresh();
    u64 wanted = steps(held[device].used);
    if (held[device].reserved > wanted)
        ledger_give(device, KIND_GRAPH, held[device].reserved - wanted);
    held[device].reserved = wanted;
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}
