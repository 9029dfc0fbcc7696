/* What a replay costs is measured anew after every edit of an executable graph: a graph that was short and became long must
 * not go on at its old price, which is the least of many measurements. */
#include "driven.h"
#include "sim/driver_more.h"

#define LONG_NS 5000000
#define RUNS 4

extern CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
extern CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                        const CUDA_KERNEL_NODE_PARAMS *params);
extern CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                         CUgraph child);
extern CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);

static CUDA_KERNEL_NODE_PARAMS kernel_of(const char *name)
{
    CUmodule module;
    CUDA_KERNEL_NODE_PARAMS params = {
        .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1};
    OK(CU(cuModuleLoadData)(&module, name));
    OK(CU(cuModuleGetFunction)(&params.func, module, name));
    return params;
}

static CUgraphNode add_kernel(CUgraph graph, const CUDA_KERNEL_NODE_PARAMS *kernel)
{
    CUgraphNode node;
    OK(CU(cuGraphAddKernelNode_v2)(&node, graph, NULL, 0, kernel));
    return node;
}

static CUgraph graph_of(const CUDA_KERNEL_NODE_PARAMS *kernel)
{
    CUgraph graph;
    OK(CU(cuGraphCreate)(&graph, 0));
    add_kernel(graph, kernel);
    return graph;
}

static uint64_t charged(void)
{
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    uint64_t ns = region.ext->devices[0].charged_ns;
    region_close(&region);
    return ns;
}

/* What the last of some replays was charged with; the first ones are measured. It also settles what the one before it
 * was charged too much, so it may be somewhat less than the kernel takes. */
static uint64_t price(CUgraphExec exec)
{
    uint64_t before = 0;
    for (int i = 0; i < RUNS; i++) {
        before = charged();
        OK(CU(cuGraphLaunch)(exec, NULL));
        OK(CU(cuStreamSynchronize)(NULL));
    }
    return charged() - before;
}

static CUgraphExec cheap(CUgraph graph)
{
    CUgraphExec exec;
    OK(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0));
    return exec;
}

int main(void)
{
    setenv("CUDA_DEVICE_SM_LIMIT", "50", 1);
    use_device(0);
    CUDA_KERNEL_NODE_PARAMS brief = kernel_of("sim_ns_100000"), lengthy = kernel_of("sim_ns_5000000");
    CUgraphNode node;

    CUgraph outer;
    OK(CU(cuGraphCreate)(&outer, 0));
    OK(CU(cuGraphAddChildGraphNode)(&node, outer, NULL, 0, graph_of(&brief)));
    CUgraphExec exec = cheap(outer);
    CHECK(price(exec) < LONG_NS / 2);
    OK(CU(cuGraphExecChildGraphNodeSetParams)(exec, node, graph_of(&lengthy)));
    CHECK(price(exec) > LONG_NS / 2);

    CUgraph two = graph_of(&brief);
    node = add_kernel(two, &lengthy);
    exec = cheap(two);
    OK(CU(cuGraphNodeSetEnabled)(exec, node, 0));
    CHECK(price(exec) < LONG_NS / 2);
    OK(CU(cuGraphNodeSetEnabled)(exec, node, 1));
    CHECK(price(exec) > LONG_NS / 2);

    CUgraph one;
    OK(CU(cuGraphCreate)(&one, 0));
    node = add_kernel(one, &brief);
    exec = cheap(one);
    CHECK(price(exec) < LONG_NS / 2);
    CUgraphNodeParams params = {.kernel = lengthy};
    OK(CU(cuGraphExecNodeSetParams)(exec, node, &params));
    CHECK(price(exec) > LONG_NS / 2);
    return 0;
}
