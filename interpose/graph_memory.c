#include "graph_memory.h"

#include <stdlib.h>
#include <string.h>

#include "live.h"
#include "pool.h"

/* The driver hands it out in steps of this. */
#define STEP_BYTES (2ULL << 20)
/* Graphs in graphs, as deep as anybody nests them. */
enum { DEPTH = 16 };

static uint64_t counted[REGION_DEVICES]; /* bytes that stand in the ledger; written under the pools' lock */
static int known;                        /* graphs with memory; atomic */

/* ---- how much a graph needs, by its nodes */

struct allocation {
    CUdeviceptr at;
    uint64_t bytes;
    int device;
    bool freed; /* by the graph itself */
};

struct allocations {
    struct allocation *all;
    size_t count, room;
};

static void add(struct allocations *found, CUgraphNode node)
{
    CUDA_MEM_ALLOC_NODE_PARAMS alloc;
    if (!real.cuGraphMemAllocNodeGetParams || FORWARD(cuGraphMemAllocNodeGetParams(node, &alloc)) != CUDA_SUCCESS ||
        alloc.poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return;
    int device = target_device(alloc.poolProps.location.id).device;
    if (found->count == found->room) {
        size_t room = found->room ? found->room * 2 : 16;
        struct allocation *more = realloc(found->all, room * sizeof *more);
        if (!more)
            return; /* then the driver's word after the run has to do */
        found->all = more;
        found->room = room;
    }
    found->all[found->count++] = (struct allocation){.at = alloc.dptr, .bytes = alloc.bytesize, .device = device};
}

static void end(struct allocations *found, CUgraphNode node)
{
    CUdeviceptr at;
    if (!real.cuGraphMemFreeNodeGetParams || FORWARD(cuGraphMemFreeNodeGetParams(node, &at)) != CUDA_SUCCESS)
        return;
    for (size_t i = 0; i < found->count; i++)
        found->all[i].freed |= found->all[i].at == at;
}

static void walk(struct allocations *found, CUgraph graph, int depth);

static void visit(struct allocations *found, CUgraphNode node, CUgraphNodeType wanted, int depth)
{
    CUgraphNodeType type;
    CUgraph child;
    if (FORWARD(cuGraphNodeGetType(node, &type)) != CUDA_SUCCESS || type != wanted)
        return;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
        add(found, node);
    else if (type == CU_GRAPH_NODE_TYPE_MEM_FREE)
        end(found, node);
    else if (real.cuGraphChildGraphNodeGetGraph && FORWARD(cuGraphChildGraphNodeGetGraph(node, &child)) == CUDA_SUCCESS)
        walk(found, child, depth + 1);
}

/* Allocations first: nodes come in no certain order. */
static void walk(struct allocations *found, CUgraph graph, int depth)
{
    static const CUgraphNodeType order[] = {CU_GRAPH_NODE_TYPE_GRAPH, CU_GRAPH_NODE_TYPE_MEM_ALLOC,
                                            CU_GRAPH_NODE_TYPE_MEM_FREE};
    size_t count = 0;
    if (depth == DEPTH || !real.cuGraphGetNodes || !real.cuGraphNodeGetType ||
        FORWARD(cuGraphGetNodes(graph, NULL, &count)) != CUDA_SUCCESS || count == 0)
        return;
    CUgraphNode *nodes = calloc(count, sizeof *nodes);
    if (!nodes || FORWARD(cuGraphGetNodes(graph, nodes, &count)) != CUDA_SUCCESS)
        count = 0;
    for (size_t pass = 0; pass < sizeof order / sizeof *order; pass++)
        for (size_t i = 0; i < count; i++)
            visit(found, nodes[i], order[pass], depth);
    free(nodes);
}

/* ---- what is known of executable graphs: `bytes` is the most that a run needs, `owner` what it leaves behind for the next
 * one to end, `references` 1 before the first run and 2 after it */

static uint64_t key_of(CUgraphExec exec, int device)
{
    return (uint64_t)(uintptr_t)exec + (uint64_t)device; /* less than the distance of two graphs */
}

void graph_memory_drop(CUgraphExec exec)
{
    struct live entry;
    for (int device = 0; device < REGION_DEVICES && __atomic_load_n(&known, __ATOMIC_RELAXED) > 0; device++)
        if (live_take(LIVE_GRAPH, key_of(exec, device), &entry))
            __atomic_sub_fetch(&known, 1, __ATOMIC_RELAXED);
}

void graph_memory_note(CUgraphExec exec, CUgraph graph, bool auto_free)
{
    if (process_phase() != PROCESS_READY || hook_inside > 0)
        return;
    struct live entries[REGION_DEVICES] = {0};
    struct allocations found = {0};
    graph_memory_drop(exec);
    walk(&found, graph, 0);
    for (size_t i = 0; i < found.count; i++) {
        const struct allocation *allocation = &found.all[i];
        if (allocation->device < 0)
            continue;
        entries[allocation->device].bytes += allocation->bytes;
        if (auto_free && !allocation->freed)
            entries[allocation->device].owner += allocation->bytes;
    }
    free(found.all);
    for (int device = 0; device < REGION_DEVICES; device++) {
        struct live *entry = &entries[device];
        if (entry->bytes == 0)
            continue;
        entry->kind = LIVE_GRAPH;
        entry->key = key_of(exec, device);
        entry->references = 1;
        entry->device = (int16_t)device;
        if (live_add(*entry))
            __atomic_add_fetch(&known, 1, __ATOMIC_RELAXED);
    }
}

/* ---- the driver's word; with the lock held */

static bool attribute(CUdevice driver, CUgraphMem_attribute which, uint64_t *value)
{
    return driver >= 0 && real.cuDeviceGetGraphMemAttribute &&
           FORWARD(cuDeviceGetGraphMemAttribute(driver, which, value)) == CUDA_SUCCESS;
}

static void recount(CUdevice driver, int device)
{
    struct target target = {.device = device};
    uint64_t now;
    if (device < 0 || !attribute(driver, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &now))
        return;
    if (now > counted[device])
        target_force(&target, now - counted[device]);
    else
        target_refund(&target, counted[device] - now);
    __atomic_store_n(&counted[device], now, __ATOMIC_RELAXED);
}

void graph_memory_refresh(CUdevice driver, int device)
{
    pool_lock();
    recount(driver, device);
    pool_unlock();
}

void graph_memory_refresh_all(void)
{
    for (int device = 0; device < REGION_DEVICES; device++)
        if (__atomic_load_n(&counted[device], __ATOMIC_RELAXED))
            graph_memory_refresh(process_driver_device(device), device);
}

bool graph_memory_trim(int device)
{
    if (!__atomic_load_n(&counted[device], __ATOMIC_RELAXED) || !real.cuDeviceGraphMemTrim)
        return false;
    CUdevice driver = process_driver_device(device);
    pool_lock();
    uint64_t before = counted[device];
    FORWARD(cuDeviceGraphMemTrim(driver)); /* keeps what is in use */
    recount(driver, device);
    uint64_t after = counted[device];
    pool_unlock();
    return after < before;
}

void graph_memory_forget(void)
{
    memset(counted, 0, sizeof counted);
    __atomic_store_n(&known, 0, __ATOMIC_RELAXED);
}

/* ---- runs */

/* How much more than it holds the device may have to give for a run. */
static uint64_t growth(const struct live *entry, CUdevice driver)
{
    uint64_t used = 0;
    recount(driver, entry->device);
    attribute(driver, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used);
    if (entry->references == 2)
        used -= entry->owner < used ? entry->owner : used;
    uint64_t idle = counted[entry->device] > used ? counted[entry->device] - used : 0;
    return entry->bytes > idle ? (entry->bytes - idle + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES : 0;
}

static bool reserve(const struct live *entry)
{
    int device = entry->device;
    for (int attempt = 0; attempt < 2; attempt++) {
        uint64_t need = growth(entry, process_driver_device(device));
        if (need == 0)
            return true;
        if (account_charge(&process.region, device, need, process_cap(device))) {
            __atomic_store_n(&counted[device], counted[device] + need, __ATOMIC_RELAXED);
            return true;
        }
        if (!process_reclaim(device)) /* which takes away what this device keeps idle, too: then more is needed */
            break;
    }
    account_refuse(&process.region, device);
    return false;
}

/* What was reserved and not taken goes back. */
static void settle(CUgraphExec exec, bool ran)
{
    struct live entry;
    for (int device = 0; device < REGION_DEVICES; device++)
        if (live_find(LIVE_GRAPH, key_of(exec, device), &entry)) {
            recount(process_driver_device(device), device);
            if (ran && entry.references == 1)
                live_refer(LIVE_GRAPH, entry.key, 1, &entry);
        }
}

bool graph_memory_begin(CUgraphExec exec, struct graph_run *run)
{
    *run = (struct graph_run){.exec = exec};
    if (__atomic_load_n(&known, __ATOMIC_RELAXED) == 0 || process_phase() != PROCESS_READY || hook_inside > 0)
        return true;
    struct live entry;
    bool room = true;
    pool_lock();
    for (int device = 0; device < REGION_DEVICES && room; device++)
        room = !live_find(LIVE_GRAPH, key_of(exec, device), &entry) || reserve(&entry);
    run->reserved = room;
    if (room)
        return true;
    settle(exec, false);
    pool_unlock();
    return false;
}

CUresult graph_memory_done(const struct graph_run *run, CUresult answer)
{
    if (!run->reserved)
        return answer;
    settle(run->exec, answer == CUDA_SUCCESS);
    pool_unlock();
    return answer;
}
