/* Memory of graphs: what their allocation nodes take when they run. */
#ifndef SIM_GRAPH_MEMORY_H
#define SIM_GRAPH_MEMORY_H

#include "cuda_sim.h"

/* What one execution of a graph takes, worked out from its nodes in their order. */
struct graph_memory {
    int device;        /* -1 = none */
    u64 peak;          /* bytes alive at most during a run */
    CUdeviceptr *kept; /* allocations that outlive the run */
    size_t kept_count;
    bool auto_free; /* those of the last run end when the next begins */
};

/* An address for an allocation node on a device; 0 = no room. With `local` held, as all below. */
CUdeviceptr graph_memory_address(int device, u64 bytes);
/* Adds a node that allocates at `at`, or frees it, to what a run takes. False: not an address of graphs, memory of
 * several devices in one graph, or no memory for the list. */
bool graph_memory_alloc(struct graph_memory *memory, CUdeviceptr at);
bool graph_memory_free(struct graph_memory *memory, CUdeviceptr at);
void graph_memory_end(struct graph_memory *memory);
/* A run begins, and in this model is over. */
CUresult graph_memory_run(const struct graph_memory *memory);
/* Frees what a run left behind. False: nothing is alive there. */
bool graph_memory_release(CUdeviceptr at);

#endif
