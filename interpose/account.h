/* Charges, refunds and views: arithmetic on a region. Calls no driver, prints nothing.
 *
 * Memory is reserved before the driver is asked for it and given back if the driver refuses, so that two programs can
 * never share out the same bytes. The reservation stands in the claim of the slot (`used`) and in the device's `total`;
 * both change under the device's robust lock. If the holder died in between, `total` is summed again from the claims.
 * If the holder is stopped, callers do without the lock after a while: they announce in their own claim, sum all claims,
 * and withdraw if that is too much. That may refuse too much while several do it, but never grants too much.
 */
#ifndef HAMI_ACCOUNT_H
#define HAMI_ACCOUNT_H

#include "region.h"

enum account_cap { ACCOUNT_REFUSE, ACCOUNT_COUNT };

/* Reserves `bytes` for this process. False: they do not fit under the limit (and dead processes held none of it).
 * With ACCOUNT_COUNT they are counted whatever the limit says: the cap is somebody else's business. */
bool account_charge(struct region *region, int device, uint64_t bytes, enum account_cap cap);
void account_refund(struct region *region, int device, uint64_t bytes);
/* What all processes have reserved, bytes. */
uint64_t account_total(const struct region *region, int device);
uint64_t account_limit(const struct region *region, int device);

/* What a program is told: a device of the size of its limit. */
struct account_view {
    uint64_t total;
    uint64_t used;
    uint64_t free;
};
/* From what the driver says. Without a limit that is the answer; with one, nothing exceeds the limit nor the device. */
struct account_view account_view(const struct region *region, int device, uint64_t real_total, uint64_t real_free,
                                 uint64_t real_used);

/* Sums `total` again from the claims. The caller holds the device's lock. */
void account_recount(struct region *region, int device);

#endif
