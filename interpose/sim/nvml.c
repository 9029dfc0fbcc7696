/* Library, devices and their plain properties. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cgroup.h"
#include "nvml_sim.h"
#include "timeline.h"
#include "visible.h"

static int uses; /* nvmlInit minus nvmlShutdown */

bool nvml_ready(void) { return __atomic_load_n(&uses, __ATOMIC_ACQUIRE) > 0; }

int nvml_unsupported(const char *symbol)
{
    int result;
    if (sim && sim->fault_count && fault_hits(symbol, &result))
        return result;
    return nvml_ready() ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_UNINITIALIZED;
}

int nvml_visible(int *devices) { return visible_to_container(devices); }

nvmlDevice_t nvml_handle(int unit) { return (nvmlDevice_t)(void *)&sim->devices[unit]; }

int nvml_unit(nvmlDevice_t handle)
{
    for (int i = 0; i < SIM_UNITS; i++)
        if (handle == nvml_handle(i))
            return unit_exists(i) && (!unit_is_instance(i) || visible_instance(i)) ? i : -1;
    return -1;
}

int nvml_device(nvmlDevice_t handle)
{
    int unit = nvml_unit(handle);
    return unit_is_instance(unit) ? -1 : unit;
}

u64 nvml_used(int unit)
{
    int instances[SIM_INSTANCES];
    u64 used = ledger_used(unit);
    int count = unit_is_instance(unit) ? 0 : unit_instances(unit, instances);
    for (int i = 0; i < count; i++)
        used += ledger_used(instances[i]);
    return used;
}

/* Percent of the last second in which a device was busy: in MIG mode, weighted by the multiprocessors of instances. */
static unsigned busy_percent(int device)
{
    int instances[SIM_INSTANCES];
    u64 busy = timeline_busy_percent(device) * sim->devices[device].sm_count;
    int count = unit_instances(device, instances);
    for (int i = 0; i < count; i++)
        busy += timeline_busy_percent(instances[i]) * sim->devices[instances[i]].sm_count;
    return (unsigned)(busy / sim->devices[device].sm_count);
}

nvmlReturn_t nvml_text(char *out, unsigned length, const char *value)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (length <= strlen(value))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, value);
    return NVML_SUCCESS;
}

static nvmlReturn_t init(void)
{
    int devices[SIM_DEVICES];
    if (!state_map() || visible_to_container(devices) < 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    __atomic_add_fetch(&uses, 1, __ATOMIC_ACQ_REL);
    return NVML_SUCCESS;
}

#define INIT(name, ...)                                                                                                \
    SIM_API nvmlReturn_t name(__VA_ARGS__)                                                                             \
    {                                                                                                                  \
        int result;                                                                                                    \
        return state_map() && fault_hits(#name, &result) ? (nvmlReturn_t)result : init();                              \
    }
INIT(nvmlInit, void)
INIT(nvmlInit_v2, void)
INIT(nvmlInitWithFlags, unsigned int flags __attribute__((unused)))

SIM_API nvmlReturn_t nvmlShutdown(void)
{
    ENTER();
    __atomic_sub_fetch(&uses, 1, __ATOMIC_ACQ_REL);
    return NVML_SUCCESS;
}

SIM_API const char *nvmlErrorString(nvmlReturn_t result)
{
    switch ((int)result) {
    case NVML_SUCCESS: return "Success";
    case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
    case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND: return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT: return "Timeout";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
    case NVML_ERROR_OPERATING_SYSTEM: return "OS call failed";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_IN_USE: return "In use by another client";
    case NVML_ERROR_INSUFFICIENT_RESOURCES: return "Insufficient Resources";
    case NVML_ERROR_MEMORY: return "Insufficient Memory";
    case NVML_ERROR_NO_DATA: return "No data";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "The provided version is invalid/unsupported";
    default: return "Unknown Error";
    }
}

SIM_API nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int length)
{
    ENTER();
    return nvml_text(out, length, sim->driver_version);
}

SIM_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned int length)
{
    ENTER();
    char version[48];
    snprintf(version, sizeof version, "%u.%.32s", sim->cuda_version / 1000, sim->driver_version);
    return nvml_text(out, length, version);
}

static nvmlReturn_t cuda_version(int *out)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = (int)sim->cuda_version;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *out)
{
    ENTER();
    return cuda_version(out);
}

SIM_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    ENTER();
    return cuda_version(out);
}

SIM_API nvmlReturn_t nvmlUnitGetCount(unsigned int *out)
{
    ENTER();
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = 0;
    return NVML_SUCCESS;
}

/* ---- finding devices */

static nvmlReturn_t count(unsigned *out)
{
    int devices[SIM_DEVICES];
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    int visible = nvml_visible(devices);
    *out = visible < 0 ? 0 : (unsigned)visible;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetCount(unsigned int *out)
{
    ENTER();
    return count(out);
}

SIM_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *out)
{
    ENTER();
    return count(out);
}

static nvmlReturn_t by_index(unsigned index, nvmlDevice_t *out)
{
    int devices[SIM_DEVICES];
    int visible = nvml_visible(devices);
    if (!out || (int)index >= visible || (int)index < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = nvml_handle(devices[index]);
    return fault_lost(devices[index]) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *out)
{
    ENTER();
    return by_index(index, out);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *out)
{
    ENTER();
    return by_index(index, out);
}

/* The visible device for which `same` holds. */
static nvmlReturn_t search(nvmlDevice_t *out, const char *wanted, bool (*same)(const struct sim_device *, const char *))
{
    int devices[SIM_DEVICES];
    int visible = nvml_visible(devices);
    if (!out || !wanted)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < visible; i++)
        if (same(&sim->devices[devices[i]], wanted)) {
            *out = nvml_handle(devices[i]);
            return fault_lost(devices[i]) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

static bool same_uuid(const struct sim_device *d, const char *uuid) { return strcmp(d->uuid, uuid) == 0; }
static bool same_serial(const struct sim_device *d, const char *serial) { return strcmp(d->serial, serial) == 0; }

static bool same_bus(const struct sim_device *d, const char *bus_id)
{
    unsigned domain, bus;
    if (sscanf(bus_id, "%x:%x:", &domain, &bus) == 2)
        return domain == 0 && bus == d->pci_bus;
    return sscanf(bus_id, "%x:", &bus) == 1 && bus == d->pci_bus;
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    ENTER();
    nvmlReturn_t rc = search(out, uuid, same_uuid);
    for (int i = SIM_DEVICES; rc == NVML_ERROR_NOT_FOUND && i < SIM_UNITS; i++)
        if (unit_exists(i) && same_uuid(&sim->devices[i], uuid) && visible_instance(i)) {
            *out = nvml_handle(i);
            rc = NVML_SUCCESS;
        }
    return rc;
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *out)
{
    ENTER();
    return search(out, serial, same_serial);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *out)
{
    ENTER();
    return search(out, bus_id, same_bus);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *out)
{
    ENTER();
    return search(out, bus_id, same_bus);
}

/* ---- texts and numbers of one device */

SIM_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *out, unsigned int length)
{
    ENTER_UNIT(handle);
    return nvml_text(out, length, sim->devices[unit].name);
}

SIM_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *out, unsigned int length)
{
    ENTER_UNIT(handle);
    return nvml_text(out, length, sim->devices[unit].uuid);
}

SIM_API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t handle, char *out, unsigned int length)
{
    ENTER_DEVICE(handle);
    return nvml_text(out, length, sim->devices[device].serial);
}

SIM_API nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t handle, char *out, unsigned int length)
{
    ENTER_DEVICE(handle);
    return nvml_text(out, length, "92.00.45.00.03");
}

SIM_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_DEVICE(handle);
    int devices[SIM_DEVICES];
    int visible = nvml_visible(devices);
    for (int i = 0; out && i < visible; i++)
        if (devices[i] == device) {
            *out = (unsigned)i;
            return NVML_SUCCESS;
        }
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* A call that gives one unsigned number of a device. */
#define NUMBER(name, value)                                                                                            \
    SIM_API nvmlReturn_t name(nvmlDevice_t handle, unsigned int *out)                                                  \
    {                                                                                                                  \
        ENTER_DEVICE(handle);                                                                                          \
        const struct sim_device *d = &sim->devices[device];                                                            \
        (void)d;                                                                                                       \
        if (!out)                                                                                                      \
            return NVML_ERROR_INVALID_ARGUMENT;                                                                        \
        *out = (unsigned)(value);                                                                                      \
        return NVML_SUCCESS;                                                                                           \
    }

NUMBER(nvmlDeviceGetMinorNumber, device)
NUMBER(nvmlDeviceGetModuleId, device)
NUMBER(nvmlDeviceGetBoardId, d->pci_bus << 8)
NUMBER(nvmlDeviceGetMultiGpuBoard, 0)
NUMBER(nvmlDeviceGetBrand, d->capability_major >= 7 ? 14 /* NVIDIA */ : 2 /* Tesla */)
NUMBER(nvmlDeviceGetMemoryBusWidth, d->bus_width)
NUMBER(nvmlDeviceGetNumGpuCores, d->sm_count *(d->capability_major == 8 && d->capability_minor == 0 ? 64 : 128))
NUMBER(nvmlDeviceGetPersistenceMode, 1)
NUMBER(nvmlDeviceGetComputeMode, 0)
NUMBER(nvmlDeviceGetPerformanceState, 0)
NUMBER(nvmlDeviceGetDisplayMode, 0)
NUMBER(nvmlDeviceGetDisplayActive, 0)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, 4)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, 4)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetPowerManagementLimit, d->power_limit_mw)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, d->power_limit_mw)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, d->power_limit_mw)
/* An idle device draws an eighth of its limit and is 30 degrees warm; a busy one draws 85 % and has 65 degrees. */
NUMBER(nvmlDeviceGetPowerUsage,
       d->power_limit_mw / 8 + (u64)d->power_limit_mw * busy_percent(device) * 29 / 4000)
static unsigned degrees(int device) { return 30 + busy_percent(device) * 35 / 100; }

SIM_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, nvmlTemperatureSensors_t sensor, unsigned int *out)
{
    ENTER_DEVICE(handle);
    if (!out || sensor != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = degrees(device);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major, int *minor)
{
    ENTER_DEVICE(handle);
    if (!major || !minor)
        return NVML_ERROR_INVALID_ARGUMENT;
    *major = (int)sim->devices[device].capability_major;
    *minor = (int)sim->devices[device].capability_minor;
    return NVML_SUCCESS;
}

/* NVML's numbers of chip generations. */
SIM_API nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_DEVICE(handle);
    const struct sim_device *d = &sim->devices[device];
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    switch (d->capability_major) {
    case 6: *out = 4; break;
    case 7: *out = d->capability_minor >= 5 ? 6 : 5; break;
    case 8: *out = d->capability_minor >= 9 ? 8 : 7; break;
    case 9: *out = 9; break;
    case 10:
    case 12: *out = 10; break;
    default: *out = UINT32_MAX;
    }
    return NVML_SUCCESS;
}

/* Clocks: of graphics, SM, memory, video. */
static nvmlReturn_t clock_of(int device, nvmlClockType_t type, unsigned *out)
{
    if (!out || (unsigned)type > NVML_CLOCK_VIDEO)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = type == NVML_CLOCK_MEM ? sim->devices[device].memory_clock_mhz : sim->devices[device].sm_clock_mhz;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t handle, nvmlClockType_t type, unsigned int *out)
{
    ENTER_DEVICE(handle);
    return clock_of(device, type, out);
}

SIM_API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t handle, nvmlClockType_t type, unsigned int *out)
{
    ENTER_DEVICE(handle);
    return clock_of(device, type, out);
}

void nvml_pci(nvmlPciInfo_t *out, unsigned bus, unsigned device_id)
{
    memset(out, 0, sizeof *out);
    out->bus = bus;
    out->pciDeviceId = device_id;
    out->pciSubSystemId = 0x146310de;
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "0000:%02X:00.0", bus & 0xff);
    snprintf(out->busId, sizeof out->busId, "00000000:%02X:00.0", bus & 0xff);
}

/* The old forms end before the long bus id; the first one before the subsystem too. */
#define PCI(name, written)                                                                                             \
    SIM_API nvmlReturn_t name(nvmlDevice_t handle, nvmlPciInfo_t *out)                                                 \
    {                                                                                                                  \
        ENTER_DEVICE(handle);                                                                                          \
        nvmlPciInfo_t info;                                                                                            \
        if (!out)                                                                                                      \
            return NVML_ERROR_INVALID_ARGUMENT;                                                                        \
        nvml_pci(&info, sim->devices[device].pci_bus, sim->devices[device].pci_device);                                \
        memcpy(out, &info, written);                                                                                   \
        return NVML_SUCCESS;                                                                                           \
    }
PCI(nvmlDeviceGetPciInfo, offsetof(nvmlPciInfo_t, pciSubSystemId))
PCI(nvmlDeviceGetPciInfo_v2, offsetof(nvmlPciInfo_t, busId))
PCI(nvmlDeviceGetPciInfo_v3, sizeof(nvmlPciInfo_t))

/* ---- memory and use */

SIM_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *out)
{
    ENTER_UNIT(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    u64 total = sim->devices[unit].memory_bytes, used = nvml_used(unit);
    *out = (nvmlMemory_t){.total = total, .free = total - used, .used = used};
    return NVML_SUCCESS;
}

/* Nothing is reserved for the device's own use here. Unlike the first form, a process under a limit of its cgroup is
 * shown that limit. */
SIM_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *out)
{
    ENTER_UNIT(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    u64 total = sim->devices[unit].memory_bytes, used = nvml_used(unit);
    cgroup_view(unit, &total, &used);
    *out = (nvmlMemory_v2_t){.version = nvmlMemory_v2, .total = total, .free = total - used, .used = used};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t handle, nvmlBAR1Memory_t *out)
{
    ENTER_DEVICE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    u64 total = 1;
    while (total < sim->devices[device].memory_bytes)
        total *= 2;
    *out = (nvmlBAR1Memory_t){.bar1Total = total, .bar1Free = total};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *out)
{
    ENTER_DEVICE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (mig_on(device))
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (nvmlUtilization_t){.gpu = timeline_busy_percent(device)};
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetDynamicPstatesInfo(nvmlDevice_t handle, nvmlGpuDynamicPstatesInfo_t *out)
{
    ENTER_DEVICE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (mig_on(device))
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (nvmlGpuDynamicPstatesInfo_t){
        .utilization[0] = {.bIsPresent = 1, .percentage = timeline_busy_percent(device)}};
    return NVML_SUCCESS;
}

/* The buffer holds one sample: of now. */
SIM_API nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t handle, nvmlSamplingType_t type, unsigned long long since,
                                          nvmlValueType_t *value_type, unsigned int *count, nvmlSample_t *samples)
{
    ENTER_DEVICE(handle);
    struct timespec now;
    if (!value_type || !count || (samples && *count == 0))
        return NVML_ERROR_INVALID_ARGUMENT;
    if (type != NVML_GPU_UTILIZATION_SAMPLES || mig_on(device))
        return NVML_ERROR_NOT_SUPPORTED;
    clock_gettime(CLOCK_REALTIME, &now);
    u64 stamp = (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
    if (stamp <= since)
        return NVML_ERROR_NOT_FOUND;
    *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
    *count = 1;
    if (samples)
        *samples = (nvmlSample_t){.timeStamp = stamp, .sampleValue.uiVal = (unsigned)timeline_busy_percent(device)};
    return NVML_SUCCESS;
}
