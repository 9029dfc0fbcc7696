/* Memory limits of cgroups: set by root, read by anybody, on devices that are not in MIG mode. */
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "nvml_sim.h"

static bool offered(int device) { return cgroup_supported() && !mig_on(device); }

static bool valid(int device, u64 soft, u64 hard)
{
    u64 total = sim->devices[device].memory_bytes;
    return soft <= hard && soft <= total && (hard <= total || hard == CGROUP_NO_LIMIT);
}

/* No limits are none: the row is given up when no device has any. */
static void put(struct sim_cgroup *row, int device, u64 soft, u64 hard)
{
    bool none = soft == 0 && hard == CGROUP_NO_LIMIT;
    row->soft[device] = soft;
    row->hard[device] = hard;
    row->limited = none ? row->limited & ~(1ull << device) : row->limited | 1ull << device;
    if (!row->limited)
        memset(row, 0, sizeof *row);
}

SIM_API nvmlReturn_t nvmlDeviceSetMemoryLimits_v1(nvmlDevice_t handle, nvmlSetMemoryLimits_v1_t *limits)
{
    ENTER_DEVICE(handle);
    if (!offered(device))
        return NVML_ERROR_NOT_SUPPORTED;
    if (!limits || !limits->nameSpace || !valid(device, limits->softLimit, limits->hardLimit))
        return NVML_ERROR_INVALID_ARGUMENT;
    if (geteuid() != 0)
        return NVML_ERROR_NO_PERMISSION;
    u64 inode = cgroup_inode(limits->nameSpace);
    if (!inode)
        return NVML_ERROR_OPERATING_SYSTEM;
    state_lock();
    struct sim_cgroup *row = cgroup_claim(inode, limits->nameSpace);
    if (row)
        put(row, device, limits->softLimit, limits->hardLimit);
    state_unlock();
    return row ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

SIM_API nvmlReturn_t nvmlDeviceGetMemoryLimits_v1(nvmlDevice_t handle, nvmlGetMemoryLimits_v1_t *limits)
{
    ENTER_DEVICE(handle);
    if (!offered(device))
        return NVML_ERROR_NOT_SUPPORTED;
    if (!limits || !limits->nameSpace)
        return NVML_ERROR_INVALID_ARGUMENT;
    u64 inode = cgroup_inode(limits->nameSpace);
    if (!inode)
        return NVML_ERROR_OPERATING_SYSTEM;
    state_reap();
    state_lock();
    const struct sim_cgroup *row = cgroup_row(inode);
    bool found = row && row->limited & 1ull << device;
    if (found) {
        limits->softLimit = row->soft[device];
        limits->hardLimit = row->hard[device];
        limits->currentUsed = cgroup_used(inode, device);
    }
    state_unlock();
    return found ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
