/* Charges, refunds and views: arithmetic on a region. Calls no driver, prints nothing.
 *
 * Memory is reserved before the driver is asked for it and given back if the driver refuses, so that two programs can
 * never share out the same bytes. The reservation stands in the claim of the slot (`used`) and in the device's `total`;
 * both change under the device's robust lock. If the holder died in between, `total` is summed again from the claims.
 * If the holder is stopped, callers do without the lock after a while: they announce in their own claim, sum all claims,
 * and withdraw if that is too much. That may refuse too much while several do it, but never grants too much.
 *
 * Overhead is what the driver takes beside what a program asked for: contexts and loaded code. Nobody says how much that
 * is, so a process counts estimates, which the node side replaces by what the driver says about the whole process.
 */
#ifndef HAMI_ACCOUNT_H
#define HAMI_ACCOUNT_H

#include "region.h"

enum account_cap {
    ACCOUNT_REFUSE, /* beyond the limit, overhead aside */
    ACCOUNT_STRICT, /* beyond the limit, overhead included */
    ACCOUNT_COUNT,
};

/* A context of a device of which nothing was measured yet. The usual ones take 100 to 600 MiB. */
#define ACCOUNT_CONTEXT_BYTES (300ULL << 20)

/* Reserves `bytes` for this process. False: they do not fit under the limit (and dead processes held none of it).
 * With ACCOUNT_COUNT they are counted whatever the limit says: the cap is somebody else's business. */
bool account_charge(struct region *region, int device, uint64_t bytes, enum account_cap cap);
/* Notes that a program was refused, for monitors. */
void account_refuse(struct region *region, int device);
void account_refund(struct region *region, int device, uint64_t bytes);
/* What all processes have reserved, bytes. */
uint64_t account_total(const struct region *region, int device);

enum account_overhead { ACCOUNT_CONTEXT, ACCOUNT_MODULE };
/* Counts overhead of this process, or gives it back. False: with ACCOUNT_STRICT it does not fit. */
bool account_add_overhead(struct region *region, int device, enum account_overhead kind, uint64_t bytes,
                          enum account_cap cap);
void account_end_overhead(struct region *region, int device, enum account_overhead kind, uint64_t bytes);
/* What all processes have of it, bytes. */
uint64_t account_overhead(const struct region *region, int device);
/* What to count for a context. */
uint64_t account_context_bytes(const struct region *region, int device);
/* Notes that this process has `bytes` more (or less) that its device had no room for, so that they stand in host memory;
 * they are charged like all others. */
void account_swap(struct region *region, int device, int64_t bytes);
/* What all processes have of it, bytes. */
uint64_t account_swapped(const struct region *region, int device);
/* The node side: the driver says that the process in `slot` holds `bytes` of the device, all in all. What is beside its
 * allocations is overhead; new contexts of this device will be counted like this one's. */
void account_observe(struct region *region, int slot, int device, uint64_t bytes);
uint64_t account_limit(const struct region *region, int device);

/* What a program is told: a device of the size of its limit. */
struct account_view {
    uint64_t total;
    uint64_t used;
    uint64_t free;
};
/* From what the driver says. Without a limit that is the answer; with one, nothing exceeds the limit nor the device.
 * `with_overhead`: contexts and code are shown as used. */
struct account_view account_view(const struct region *region, int device, const struct account_view *driver,
                                 bool with_overhead);

/* Makes the device's sums again from what the slots say. The caller holds the device's lock. */
void account_recount(struct region *region, int device);

#endif
