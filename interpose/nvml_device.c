/* Which devices NVML programs are told of: those of their grant. A container runtime shows a container nothing else; programs
 * started with `hami run` would see the whole machine. CUDA's numbers stay as they are: a device that is not granted has no
 * memory to give (process.c). */
#include "nvml.h"

#include <string.h>

/* More devices than any machine has. */
enum { DEVICES = 64 };

/* Whether a grant names what there is. MIG instances are found through devices that no grant names. */
static bool hides(void)
{
    const struct config *config = &process.config;
    enum process_phase phase = process_attach();
    if ((phase != PROCESS_ATTACHED && phase != PROCESS_READY) || hook_inside > 0 || !config->granted)
        return false;
    bool whole = config->plan.count > 0;
    for (int i = 0; i < config->plan.count; i++)
        whole = whole && strncmp(config->plan.uuids[i], "MIG-", 4) != 0;
    return whole;
}

static bool is_granted(nvmlDevice_t device)
{
    char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    if (!real.nvmlDeviceGetUUID || FORWARD(nvmlDeviceGetUUID(device, uuid, sizeof uuid)) != NVML_SUCCESS)
        return false;
    for (int i = 0; i < process.config.plan.count; i++)
        if (strcmp(process.config.plan.uuids[i], uuid) == 0)
            return true;
    return false;
}

/* The granted devices in the driver's order. */
static nvmlReturn_t granted(nvmlDevice_t found[DEVICES], unsigned int *count)
{
    unsigned int all = 0;
    nvmlDevice_t device;
    *count = 0;
    if (!real.nvmlDeviceGetCount_v2 || !real.nvmlDeviceGetHandleByIndex_v2)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetCount_v2(&all));
    for (unsigned int i = 0; rc == NVML_SUCCESS && i < all && *count < DEVICES; i++)
        if (FORWARD(nvmlDeviceGetHandleByIndex_v2(i, &device)) == NVML_SUCCESS && is_granted(device))
            found[(*count)++] = device;
    return rc;
}

#define COUNT(symbol)                                                                                                  \
    nvmlReturn_t symbol(unsigned int *count)                                                                           \
    {                                                                                                                  \
        NEED_NVML(symbol);                                                                                             \
        nvmlReturn_t rc = FORWARD(symbol(count));                                                                      \
        nvmlDevice_t found[DEVICES];                                                                                   \
        return rc == NVML_SUCCESS && hides() ? granted(found, count) : rc;                                             \
    }
COUNT(nvmlDeviceGetCount)
COUNT(nvmlDeviceGetCount_v2)

#define BY_INDEX(symbol)                                                                                               \
    nvmlReturn_t symbol(unsigned int index, nvmlDevice_t *device)                                                      \
    {                                                                                                                  \
        NEED_NVML(symbol);                                                                                             \
        nvmlDevice_t found[DEVICES];                                                                                   \
        unsigned int count;                                                                                            \
        if (!device || !hides() || granted(found, &count) != NVML_SUCCESS)                                             \
            return FORWARD(symbol(index, device));                                                                     \
        if (index >= count)                                                                                            \
            return NVML_ERROR_INVALID_ARGUMENT;                                                                        \
        *device = found[index];                                                                                        \
        return NVML_SUCCESS;                                                                                           \
    }
BY_INDEX(nvmlDeviceGetHandleByIndex)
BY_INDEX(nvmlDeviceGetHandleByIndex_v2)

/* The driver's answer, unless that device is not to be shown. */
#define BY_NAME(symbol)                                                                                                \
    nvmlReturn_t symbol(const char *name, nvmlDevice_t *device)                                                        \
    {                                                                                                                  \
        NEED_NVML(symbol);                                                                                             \
        nvmlReturn_t rc = FORWARD(symbol(name, device));                                                               \
        return rc == NVML_SUCCESS && hides() && !is_granted(*device) ? NVML_ERROR_NOT_FOUND : rc;                      \
    }
BY_NAME(nvmlDeviceGetHandleByUUID)
BY_NAME(nvmlDeviceGetHandleBySerial)
BY_NAME(nvmlDeviceGetHandleByPciBusId)
BY_NAME(nvmlDeviceGetHandleByPciBusId_v2)

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    NEED_NVML(nvmlDeviceGetIndex);
    nvmlReturn_t rc = FORWARD(nvmlDeviceGetIndex(device, index));
    nvmlDevice_t found[DEVICES];
    unsigned int count;
    if (rc != NVML_SUCCESS || !hides() || granted(found, &count) != NVML_SUCCESS)
        return rc;
    for (unsigned int i = 0; i < count; i++)
        if (found[i] == device)
            *index = i;
    return rc;
}
