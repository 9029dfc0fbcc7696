/* Accounting in the form of CUDA 13.5. */
#include "nvml_sim.h"

SIM_API nvmlReturn_t nvmlDeviceGetAccountingStats_v2(nvmlDevice_t handle, nvmlAccountingStats_v2_t *out)
{
    ENTER_DEVICE(handle);
    (void)device;
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlAccountingStats_t stats;
    nvmlReturn_t rc = nvmlDeviceGetAccountingStats(handle, out->pid, &stats);
    if (rc == NVML_SUCCESS)
        *out = (nvmlAccountingStats_v2_t){
            .pid = out->pid, .maxMemoryUsage = stats.maxMemoryUsage, .isRunning = stats.isRunning};
    return rc;
}
