/* This process's part in its container: configuration, region, slot, and which device is which.
 *
 * Started by the first call that needs it, in two steps: configuration and region (enough for NVML), then, once the
 * driver is initialised, the devices and a slot. A fork's child goes through the second step again.
 */
#ifndef HAMI_PROCESS_H
#define HAMI_PROCESS_H

#include "account.h"
#include "config.h"
#include "hook.h"

enum process_phase {
    PROCESS_NEW,      /* nothing known */
    PROCESS_FREE,     /* no limits here: every call passes, for good */
    PROCESS_CLOSED,   /* the grant cannot be read: every allocation is refused, for good */
    PROCESS_ATTACHED, /* configuration and region, but no slot yet */
    PROCESS_READY,
};

enum { PROCESS_DEVICES = 64 };

/* Instead of an index in the region. */
enum {
    DEVICE_FREE = -1,      /* not limited, not counted */
    DEVICE_FORBIDDEN = -2, /* not in the grant: nothing may be allocated there */
    DEVICE_UNKNOWN = -3,   /* the driver would not say which it is; stands in `process.index` alone */
};

struct process {
    int phase; /* enum process_phase; read and written atomically */
    struct config config;
    struct region region;
    int8_t index[PROCESS_DEVICES]; /* by the driver's device number: index in the region, or DEVICE_* */
    int device_count;              /* devices in `index` */
    int only;                      /* `index` of the only device; DEVICE_FREE if there are several */
    enum config_enforcer enforcer[REGION_DEVICES]; /* by index in the region */
};

extern struct process process;

/* The phase after trying to get as far as possible. */
enum process_phase process_start(void);
/* The same up to PROCESS_ATTACHED: asks no CUDA driver. */
enum process_phase process_attach(void);

static inline enum process_phase process_phase(void)
{
    int phase = __atomic_load_n(&process.phase, __ATOMIC_ACQUIRE);
    return __builtin_expect(phase == PROCESS_READY || phase == PROCESS_FREE, 1) ? (enum process_phase)phase
                                                                               : process_start();
}

/* Where memory is about to be allocated. */
struct target {
    int device;  /* index in the region; negative = not counted */
    bool closed; /* nothing may be allocated */
    uint64_t context; /* of the calling thread; 0 = none or not asked for */
};

/* Index in the region of a device by the driver's number, or DEVICE_FREE or DEVICE_FORBIDDEN. One that the driver will not
 * name (-1: it will not even number it) is the container's only one; if it has several, and limits, a forbidden one. */
int process_index(CUdevice device);
/* Whether the driver has said so: it is running at all. Else the call at hand will fail as well. */
bool process_stopped(CUresult answer);

/* The calling thread's current device. */
struct target target_current(void);
/* The stream's, wherever the calling thread is. */
struct target target_stream(CUstream stream, bool per_thread);
/* A device by the driver's number. */
struct target target_device(CUdevice device);
/* True if `bytes` may be allocated; they are reserved then. */
bool target_charge(const struct target *target, uint64_t bytes);
/* The same for managed memory, which a driver that holds the cap itself does not count. */
bool target_charge_managed(const struct target *target, uint64_t bytes);
void target_refund(const struct target *target, uint64_t bytes);
/* The driver's number of a device (index in the region); -1 if it has none. */
CUdevice process_driver_device(int device);
/* Gives back what this process's pools and graphs keep of a device without need. True if that freed anything. */
bool process_reclaim(int device);
/* How the limit of a device (index in the region) is to be held. */
enum account_cap process_cap(int device);
/* What the container is told of a device, from what the driver says. */
struct account_view process_view(int device, const struct account_view *driver);
/* Counts `bytes` that the driver has taken already, whatever the limit. */
void target_force(const struct target *target, uint64_t bytes);

#endif
