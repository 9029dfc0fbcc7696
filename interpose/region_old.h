/* The shared regions of containers that HAMi 2.x started, for the node side: read, and the two words set that its
 * monitor sets.
 *
 * Nothing is mapped: the file belongs to a container, which may cut it at any moment, and a read that comes up short
 * harms nobody. What is read may be a few updates apart, as it is for HAMi's own monitor.
 */
#ifndef HAMI_REGION_OLD_H
#define HAMI_REGION_OLD_H

#include "region.h"

/* ---- layout 0; numbers found by measuring its files */
struct region_v0_memory {
    uint64_t context, module, data, offset, total;
};
struct region_v0_use {
    uint64_t decoder, encoder, sm;
};
struct region_v0_slot {
    int32_t pid, host_pid;
    struct region_v0_memory memory[REGION_DEVICES];
    uint64_t monitor_used[REGION_DEVICES];
    struct region_v0_use use[REGION_DEVICES];
    int32_t status;
    int32_t pad;
};
struct region_v0 {
    int32_t ready, sm_init;
    uint32_t owner;
    unsigned char semaphore[36]; /* 32 bytes, somewhere inside */
    uint64_t count;
    char uuids[REGION_DEVICES][REGION_UUID_BYTES];
    uint64_t limit[REGION_DEVICES];
    uint64_t sm_limit[REGION_DEVICES];
    struct region_v0_slot slots[REGION_SLOTS];
    int32_t slot_count, sharing, recent_kernel, priority;
};

/* One device of one container, summed over its processes. */
struct region_old_device {
    char uuid[REGION_UUID_BYTES]; /* NUL ended */
    uint64_t limit;               /* bytes, 0 = none */
    uint64_t cores;               /* percent */
    uint64_t context, module, data, total;
};

struct region_old {
    int layout; /* 0 or 1 */
    int minor;  /* of layout 1 */
    int count;
    struct region_old_device devices[REGION_DEVICES];
    int processes;
    int32_t host_pids[REGION_SLOTS]; /* of processes whose pid on the node the library has found out */
    int host_pid_count;
    int32_t sharing, recent_kernel, priority;
    uint64_t last_kernel; /* Unix seconds; 0 = never, or not known to this layout */
};

/* The region in the file `fd`. 0, or -1 with errno; EPROTO: no region of a layout that is known. */
int region_old_read(int fd, struct region_old *into);
/* Sets the activity word and the sharing switch of a region that has been read. 0, or -1 with errno. */
int region_old_set(int fd, int layout, int32_t recent_kernel, bool sharing);

#endif
