/* Four threads allocate and free in every way at random. Afterwards nothing is counted that is not held, and when all is
 * given back, nothing is. With CHURN_HOLD the program stops in between, so that somebody can compare with the machine;
 * CHURN_STEPS says for how long it goes on. */
#include <pthread.h>
#include <unistd.h>

#include "driven.h"

extern CUresult cuMemAddressReserve(CUdeviceptr *at, size_t size, size_t align, CUdeviceptr hint, unsigned long long f);

extern CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
extern CUresult cuGraphDestroy(CUgraph graph);
extern CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                       CUDA_MEM_ALLOC_NODE_PARAMS *params);

enum { THREADS = 4, HELD = 12, STEPS = 1500 };

struct piece {
    enum { NONE, LINEAR, MANAGED, ROWS, POOLED, PHYSICAL, MAPPED, ARRAY, CODE, GRAPH } kind;
    CUdeviceptr at;
    CUmemGenericAllocationHandle handle;
    CUarray array;
    CUmodule module;
    CUgraphExec exec;
    size_t bytes;
};

struct worker {
    pthread_t thread;
    CUcontext context;
    unsigned int seed;
    struct piece held[HELD];
};

static unsigned int next(struct worker *w)
{
    return (w->seed = w->seed * 1664525u + 1013904223u) >> 8;
}

/* A graph that allocates when it runs; what that leaves behind is the piece. */
static CUresult run_graph(struct piece *p)
{
    CUgraph graph;
    CUgraphNode node;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                       .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}},
                                         .bytesize = p->bytes};
    OK(CU(cuGraphCreate)(&graph, 0));
    OK(CU(cuGraphAddMemAllocNode)(&node, graph, NULL, 0, &params));
    OK(CU(cuGraphInstantiateWithFlags)(&p->exec, graph, 0));
    OK(CU(cuGraphDestroy)(graph));
    p->at = params.dptr;
    CUresult rc = CU(cuGraphLaunch)(p->exec, NULL);
    if (rc != CUDA_SUCCESS)
        OK(CU(cuGraphExecDestroy)(p->exec));
    return rc;
}

static void take(struct worker *w, struct piece *p)
{
    static const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                             .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUresult rc = CUDA_SUCCESS;
    size_t pitch;
    *p = (struct piece){.bytes = (next(w) % 6 + 1) * 2 * MIB};
    switch (next(w) % 8) {
    case 0:
        p->kind = LINEAR;
        rc = CU(cuMemAlloc_v2)(&p->at, p->bytes + next(w) % 2000);
        break;
    case 1:
        p->kind = MANAGED;
        rc = CU(cuMemAllocManaged)(&p->at, p->bytes, 1);
        break;
    case 2:
        p->kind = ROWS;
        rc = CU(cuMemAllocPitch_v2)(&p->at, &pitch, 1000 + next(w) % 500, 1024, 4);
        break;
    case 3:
        p->kind = POOLED;
        rc = CU(cuMemAllocAsync)(&p->at, p->bytes, NULL);
        break;
    case 4: {
        CUDA_ARRAY3D_DESCRIPTOR image = {.Width = 100 + next(w) % 1000,
                                         .Height = 100 + next(w) % 1000,
                                         .Depth = next(w) % 3,
                                         .Format = CU_AD_FORMAT_HALF,
                                         .NumChannels = 2};
        p->kind = ARRAY;
        rc = CU(cuArray3DCreate_v2)(&p->array, &image);
        break;
    }
    case 5:
        p->kind = CODE;
        rc = CU(cuModuleLoadData)(&p->module, "sim_ns_1000");
        break;
    case 6:
        p->kind = GRAPH;
        rc = run_graph(p);
        break;
    default:
        p->kind = PHYSICAL;
        rc = CU(cuMemCreate)(&p->handle, p->bytes, &prop, 0);
        if (rc == CUDA_SUCCESS && next(w) % 2) {
            OK(CU(cuMemAddressReserve)(&p->at, p->bytes, 0, 0, 0));
            OK(CU(cuMemMap)(p->at, p->bytes, 0, p->handle, 0));
            OK(CU(cuMemRelease)(p->handle));
            p->kind = MAPPED;
        }
    }
    CHECK(rc == CUDA_SUCCESS || rc == CUDA_ERROR_OUT_OF_MEMORY);
    if (rc != CUDA_SUCCESS)
        p->kind = NONE;
}

static void give(struct worker *w, struct piece *p)
{
    switch (p->kind) {
    case NONE:
        break;
    case POOLED:
        OK(next(w) % 2 ? CU(cuMemFreeAsync)(p->at, NULL) : CU(cuMemFree_v2)(p->at));
        break;
    case PHYSICAL:
        OK(CU(cuMemRelease)(p->handle));
        break;
    case MAPPED:
        OK(CU(cuMemUnmap)(p->at, p->bytes));
        break;
    case ARRAY:
        OK(CU(cuArrayDestroy)(p->array));
        break;
    case CODE:
        OK(CU(cuModuleUnload)(p->module));
        break;
    case GRAPH:
        OK(CU(cuMemFree_v2)(p->at));
        OK(CU(cuGraphExecDestroy)(p->exec));
        break;
    default:
        OK(CU(cuMemFree_v2)(p->at));
    }
    p->kind = NONE;
}

static void *churn(void *argument)
{
    struct worker *w = argument;
    OK(CU(cuCtxPushCurrent_v2)(w->context));
    const char *steps = getenv("CHURN_STEPS");
    for (int step = 0, last = steps ? atoi(steps) : STEPS; step < last; step++) {
        struct piece *p = &w->held[next(w) % HELD];
        if (p->kind == NONE)
            take(w, p);
        else
            give(w, p);
        CHECK(step % 50 != 0 || counted(0) <= 100);
    }
    return NULL;
}

int main(void)
{
    const char *seed = getenv("CHURN_SEED");
    struct worker workers[THREADS] = {0};
    CUcontext context = use_device(0);
    for (unsigned int i = 0; i < THREADS; i++) {
        workers[i].context = context;
        workers[i].seed = (seed ? (unsigned int)atoi(seed) : 1) * 100 + i;
        CHECK(pthread_create(&workers[i].thread, NULL, churn, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    free_mib(); /* counts the pools anew */
    if (getenv("CHURN_HOLD")) {
        char byte;
        puts("holding");
        fflush(stdout);
        if (read(STDIN_FILENO, &byte, 1) < 0)
            return 1;
    }
    for (int i = 0; i < THREADS; i++)
        for (int h = 0; h < HELD; h++)
            give(&workers[i], &workers[i].held[h]);
    CUmemoryPool pool;
    OK(CU(cuDeviceGetMemPool)(&pool, 0));
    OK(CU(cuStreamSynchronize)(NULL));
    OK(CU(cuMemPoolTrimTo)(pool, 0));
    OK(CU(cuDeviceGraphMemTrim)(0));
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    CHECK_EQUAL(account_total(&region, 0), 0);
    return 0;
}
