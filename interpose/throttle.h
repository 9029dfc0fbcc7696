/* Token arithmetic of the compute limit, on the words of one device of a region. Knows no driver and reads no clock.
 *
 * A container that may use the share L of a device earns L ns of device time every ns, up to a burst, and owes what its
 * kernels take. It may launch while it owes no more than a small window's worth. Debt lives in the region, so all
 * processes of a container share one account.
 */
#ifndef HAMI_THROTTLE_H
#define HAMI_THROTTLE_H

#include "region.h"

/* Debt that may be open while launching goes on, as wall time: short-term deviation against waiting for every kernel. */
#define THROTTLE_WINDOW_NS (20 * NS_PER_MS)
/* Unused time that may be saved up, as wall time at the limit itself: of what is lent nothing is saved, since it may be
 * wanted back. */
#define THROTTLE_BURST_NS (50 * NS_PER_MS)
/* Longest single wait, so that a raised limit or the end of sharing is noticed soon. */
#define THROTTLE_LONGEST_WAIT_NS (2 * NS_PER_MS)

/* Percent of the device's time that holds at `now`: the limit, or more where `borrows` and others' unused share is lent to
 * the container; 0 = no limit. */
uint32_t throttle_percent(const struct region_device *device, uint64_t now, bool borrows);
/* Books what was earned until `now` (monotonic ns) at `percent` of the device's time. */
void throttle_earn(struct region_device *device, uint64_t now, uint32_t percent);
/* Adds device time used; negative takes back what was charged too much. */
void throttle_charge(struct region_device *device, int64_t ns);
/* How long to wait before the next launch: 0 = go. `strictness` 0..255: which part of the window must be paid off first.
 * Callers vary it: launches then come at no fixed phase to a neighbour's turns, and a part of them is measured clean. */
uint64_t throttle_wait(const struct region_device *device, uint32_t percent, uint8_t strictness);

#endif
