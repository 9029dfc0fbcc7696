/* What graphs take when they run. Their allocation nodes say how much that is at most, which is reserved before a run whose
 * memory is not there yet; afterwards the driver says what they hold. It keeps that until it is trimmed. */
#ifndef HAMI_GRAPH_MEMORY_H
#define HAMI_GRAPH_MEMORY_H

#include "process.h"

/* `exec` was made from `graph`, or is like it now. `auto_free`: what a run leaves behind ends when the next begins. */
void graph_memory_note(CUgraphExec exec, CUgraph graph, bool auto_free);
void graph_memory_drop(CUgraphExec exec);

struct graph_run {
    CUgraphExec exec;
    bool reserved; /* the lock is held, too */
};
/* Makes room for a run. False: there is none. */
bool graph_memory_begin(CUgraphExec exec, struct graph_run *run);
/* The driver has answered. Returns its answer. */
CUresult graph_memory_done(const struct graph_run *run, CUresult answer);

/* Counts anew what graphs hold: on one device, which the driver calls `driver`; on all where they hold something. */
void graph_memory_refresh(CUdevice driver, int device);
void graph_memory_refresh_all(void);
/* Gives back what no run needs now. True if that freed anything. */
bool graph_memory_trim(int device);
/* Forgets everything, in the child of a fork. */
void graph_memory_forget(void);

#endif
