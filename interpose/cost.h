/* What launches cost: device time by kernel or graph, learned by timing them with the driver's events.
 *
 * On a device that is time-sliced between containers a timed kernel also contains its neighbours' turns, so a sample is
 * an upper bound; the least of many is near the truth. While the device is shared, with other containers or between the
 * processes of one, a launch is charged that lower envelope; otherwise what was measured.
 */
#ifndef HAMI_COST_H
#define HAMI_COST_H

#include "hook.h"
#include "region.h"

struct cost;

/* The entry for kernels of this function and shape. Never null: when the table is full, one entry serves all others. */
struct cost *cost_of_kernel(CUfunction function, uint64_t blocks, uint64_t threads, uint32_t shared_bytes);
struct cost *cost_of_graph(CUgraphExec graph);
/* Device time that a launch is expected to take. */
uint64_t cost_estimate(const struct cost *cost);
/* The kernel or graph has changed: learn anew. */
void cost_invalidate(struct cost *cost);
/* Takes one measured time into account. Returns what that launch is charged. */
uint64_t cost_learn(struct cost *cost, uint64_t measured_ns, bool shared);

/* ---- timing with events */

struct sample;

/* Before a launch: a sample whose start has been recorded on the stream, or null if this launch is not to be timed. */
struct sample *cost_begin(struct cost *cost, uint64_t context, CUstream stream, bool per_thread);
/* After it. `charged`: what was charged for it meanwhile. */
void cost_end(struct sample *sample, CUresult launched, CUstream stream, bool per_thread, int device, uint64_t charged);
/* Looks which timed launches have ended; charges or gives back the difference to what they were charged. */
void cost_harvest(struct region *region, bool shared);
/* True while this cost is not known, a launch that will tell is under way, and nobody has given up waiting for it. */
bool cost_pending(const struct cost *cost);
/* That launch may depend on others of its kind: until it has told, they go without knowing. */
void cost_stop_waiting(struct cost *cost);
/* Forgets samples in a context that has ended; all, in the child of a fork. */
void cost_drop_context(CUcontext context);
void cost_forget(void);

#endif
