/*
 * Graphs, as far as device time is concerned: a graph is a list of pieces of work, an executable graph the list at the
 * time of instantiation, a launch one piece of work of the list's total. Edges and copies are not played; memory nodes
 * are, in the order in which they were added (graph_memory.h).
 */
#ifndef SIM_GRAPH_H
#define SIM_GRAPH_H

#include "cuda_sim.h"

#define JOINED 32 /* most streams of one capture */

/* The driver's numbers. */
enum node_type { NODE_KERNEL = 0, NODE_GRAPH = 4, NODE_EMPTY = 5, NODE_ALLOC = 10, NODE_FREE = 11 };

struct CUgraphNode_st {
    struct object object;
    CUgraph graph;
    int type;          /* enum node_type */
    unsigned position; /* among the graph's nodes */
    u64 work;
    struct CUDA_KERNEL_NODE_PARAMS_v2_st kernel;
    CUDA_MEM_ALLOC_NODE_PARAMS alloc; /* of a free node, the address alone */
    CUgraph child;
};

struct CUgraph_st {
    struct object object;
    CUgraphNode *nodes;
    size_t count, room;
    CUstream joined[JOINED]; /* streams that take part in the capture, the origin first */
    unsigned joined_count;
    u64 capture_id;
};

CUgraph graph_new(void);

/* The kernel's device time. */
u64 graph_kernel_work(const struct CUDA_KERNEL_NODE_PARAMS_v2_st *kernel);

/* The first form of the parameters lacks the last two members. */
struct CUDA_KERNEL_NODE_PARAMS_v2_st graph_widened(const CUDA_KERNEL_NODE_PARAMS_v1 *kernel);

/* Device time of all nodes together. */
u64 graph_work(CUgraph graph);

/* `stream` waits for an event of the capture into `graph` and so takes part in it. */
CUresult graph_join(CUgraph graph, CUstream stream);

/* A captured allocation, or the free of one. */
CUresult graph_add_alloc(CUgraph graph, int device, u64 bytes, CUdeviceptr *at);
CUresult graph_add_free(CUgraph graph, CUdeviceptr at);

#endif
