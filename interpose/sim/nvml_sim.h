/* What the parts of the simulated NVML share. */
#ifndef SIM_NVML_H
#define SIM_NVML_H

#include "driver_more.h"
#include "mig.h"
#include "state.h"

/* First line of every entry point: act out a described fault, refuse before nvmlInit. */
#define ENTER()                                                                                                        \
    do {                                                                                                               \
        int entered_;                                                                                                  \
        if (sim && sim->fault_count && fault_hits(__func__, &entered_))                                                \
            return (nvmlReturn_t)entered_;                                                                             \
        if (!nvml_ready())                                                                                             \
            return NVML_ERROR_UNINITIALIZED;                                                                           \
    } while (0)

/* ENTER() for a call about one device: declares `device`, its index in sim->devices. */
#define ENTER_DEVICE(handle)                                                                                           \
    ENTER();                                                                                                           \
    int device = nvml_device(handle);                                                                                  \
    if (device < 0)                                                                                                    \
        return NVML_ERROR_INVALID_ARGUMENT;                                                                            \
    if (sim->fault_count && fault_lost(device))                                                                        \
    return NVML_ERROR_GPU_IS_LOST

/* The same for a call that also takes the handle of a MIG device: declares `unit`. */
#define ENTER_UNIT(handle)                                                                                             \
    ENTER();                                                                                                           \
    int unit = nvml_unit(handle);                                                                                      \
    if (unit < 0)                                                                                                      \
        return NVML_ERROR_INVALID_ARGUMENT;                                                                            \
    if (sim->fault_count && fault_lost(unit_device(unit)))                                                             \
    return NVML_ERROR_GPU_IS_LOST

bool nvml_ready(void);
int nvml_unsupported(const char *symbol);
int nvml_device(nvmlDevice_t handle); /* -1 = not a device's handle */
int nvml_unit(nvmlDevice_t handle);   /* -1 = no device's, and no MIG device's that exists and may be seen */
nvmlDevice_t nvml_handle(int unit);
/* Memory of a unit in use; of a device, that of its instances too. */
u64 nvml_used(int unit);
int nvml_visible(int *devices);
void nvml_pci(nvmlPciInfo_t *out, unsigned bus, unsigned device_id);

/* The protocol of lists: too small a buffer is told the size it needs. */
nvmlReturn_t nvml_room(unsigned *count, unsigned have, const void *buffer);

/* Copy a text into a caller's buffer. */
nvmlReturn_t nvml_text(char *out, unsigned length, const char *value);

#endif
