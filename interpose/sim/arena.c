#define _GNU_SOURCE
#include "arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SMALLEST 9 /* log2 of the smallest block */
#define CLASSES 31
#define CLASS_BITS 39               /* log2 of the address space of one class, and of the largest block */
#define FAKE_BASE 0x100000000000ull /* for processes that may not have so much address space */

static struct {
    u64 base; /* 0 = not yet */
    bool backed;
    unsigned generation;
    u64 written, last_id;
    struct {
        struct block *blocks;
        u32 count, room, free; /* free: 1 + index of the first free block */
    } classes[CLASSES];
} arena;

/* Map the range at first use; a forked child, which inherits neither range nor contexts, maps its own. */
static void arena_start(void)
{
    if (arena.base && arena.generation == state_generation())
        return;
    memset(&arena, 0, sizeof arena);
    arena.generation = state_generation();
    size_t size = (size_t)CLASSES << CLASS_BITS;
    void *at = mmap(NULL, size + (1ull << CLASS_BITS), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    arena.backed = at != MAP_FAILED;
    if (arena.backed) {
        madvise(at, size + (1ull << CLASS_BITS), MADV_DONTFORK);
        madvise(at, size + (1ull << CLASS_BITS), MADV_DONTDUMP);
    }
    u64 mask = (1ull << CLASS_BITS) - 1;
    arena.base = arena.backed ? ((u64)(uintptr_t)at + mask) & ~mask : FAKE_BASE;
}

static unsigned class_of(u64 size)
{
    unsigned bits = SMALLEST;
    while (bits < CLASS_BITS && 1ull << bits < size)
        bits++;
    return bits - SMALLEST;
}

CUdeviceptr arena_take(u64 size, struct block **out)
{
    arena_start();
    if (size == 0 || size > 1ull << CLASS_BITS)
        return 0;
    unsigned class = class_of(size);
    __typeof__(&arena.classes[0]) pool = &arena.classes[class];
    u32 index;
    if (pool->free) {
        index = pool->free - 1;
        pool->free = pool->blocks[index].next_free;
    } else {
        if ((u64)(pool->count + 1) << (class + SMALLEST) > 1ull << CLASS_BITS)
            return 0;
        if (pool->count == pool->room) {
            u32 room = pool->room ? pool->room * 2 : 64;
            struct block *more = realloc(pool->blocks, room * sizeof *more);
            if (!more)
                return 0;
            pool->blocks = more;
            pool->room = room;
        }
        index = pool->count++;
    }
    struct block *block = &pool->blocks[index];
    memset(block, 0, sizeof *block);
    block->size = size;
    block->id = ++arena.last_id;
    *out = block;
    return arena.base + ((u64)class << CLASS_BITS) + ((u64)index << (class + SMALLEST));
}

struct block *arena_find(CUdeviceptr address, CUdeviceptr *base)
{
    arena_start();
    u64 offset = address - arena.base;
    if (address < arena.base || offset >> CLASS_BITS >= CLASSES)
        return NULL;
    unsigned class = (unsigned)(offset >> CLASS_BITS);
    u64 index = (offset & ((1ull << CLASS_BITS) - 1)) >> (class + SMALLEST);
    if (index >= arena.classes[class].count || !arena.classes[class].blocks[index].size)
        return NULL;
    *base = arena.base + ((u64)class << CLASS_BITS) + (index << (class + SMALLEST));
    return &arena.classes[class].blocks[index];
}

void arena_return(CUdeviceptr base)
{
    u64 offset = base - arena.base;
    unsigned class = (unsigned)(offset >> CLASS_BITS);
    u32 index = (u32)((offset & ((1ull << CLASS_BITS) - 1)) >> (class + SMALLEST));
    struct block *block = &arena.classes[class].blocks[index];
    if (arena.backed && block->dirty_to > block->dirty_from) {
        u64 from = (base + block->dirty_from) & ~4095ull, to = (base + block->dirty_to + 4095) & ~4095ull;
        if (block->size >= 4096) /* smaller blocks share their page with others */
            madvise((void *)(uintptr_t)from, to - from, MADV_DONTNEED);
        if (block->kind != KIND_MANAGED)
            arena.written -= block->dirty_to - block->dirty_from;
    }
    block->size = 0;
    block->next_free = arena.classes[class].free;
    arena.classes[class].free = index + 1;
}

void arena_each(void (*visit)(CUdeviceptr base, struct block *block, void *data), void *data)
{
    arena_start();
    for (u64 class = 0; class < CLASSES; class++)
        for (u32 i = 0; i < arena.classes[class].count; i++)
            if (arena.classes[class].blocks[i].size)
                visit(arena.base + (class << CLASS_BITS) + ((u64)i << (class + SMALLEST)),
                      &arena.classes[class].blocks[i], data);
}

void *arena_write(CUdeviceptr address, u64 bytes)
{
    CUdeviceptr base;
    struct block *block = arena_find(address, &base);
    if (!block || !arena.backed)
        return NULL;
    u64 from = address - base, to = from + bytes;
    if (block->kind != KIND_MANAGED) {
        u64 now_from = block->dirty_to && block->dirty_from < from ? block->dirty_from : from;
        u64 now_to = block->dirty_to > to ? block->dirty_to : to;
        u64 more = (now_to - now_from) - (block->dirty_to - block->dirty_from);
        if (arena.written + more > ARENA_CONTENT)
            return NULL;
        arena.written += more;
        block->dirty_from = now_from;
        block->dirty_to = now_to;
    }
    return (void *)(uintptr_t)address;
}

const void *arena_read(CUdeviceptr address, u64 bytes)
{
    CUdeviceptr base;
    (void)bytes;
    return arena_find(address, &base) && arena.backed ? (const void *)(uintptr_t)address : NULL;
}
