#ifndef SIM_GRAPH_H
#define SIM_GRAPH_H

#include "cuda_sim.h"

/* `stream` waits for an event of the capture into `graph` and so takes part in it. */
CUresult graph_join(CUgraph graph, CUstream stream);

/* A captured allocation, or the free of one. */
CUresult graph_add_alloc(CUgraph graph, int device, u64 bytes, CUdeviceptr *at);
CUresult graph_add_free(CUgraph graph, CUdeviceptr at);

#endif
