/* Initialization, devices, their properties and how they reach each other. */
#include <stdio.h>
#include <string.h>

#include "cuda_sim.h"
#include "mig.h"
#include "mps.h"
#include "timeline.h"
#include "visible.h"

pthread_mutex_t local = PTHREAD_MUTEX_INITIALIZER;

static unsigned ready_generation; /* state_generation() at cuInit; 0 = never */
static int device_count;
static int devices[SIM_DEVICES]; /* units, by ordinal */
static u64 made[SIM_DEVICES];    /* unit_made() of each at cuInit */

bool cuda_ready(void) { return __atomic_load_n(&ready_generation, __ATOMIC_ACQUIRE) == state_generation(); }

int cuda_device_count(void) { return device_count; }

int cuda_device(CUdevice ordinal)
{
    /* An instance that was destroyed is no device any more, though a new one may be in its place. */
    if (ordinal < 0 || ordinal >= device_count || !unit_exists(devices[ordinal]) ||
        unit_made(devices[ordinal]) != made[ordinal])
        return -1;
    return devices[ordinal];
}

CUdevice cuda_ordinal(int device)
{
    for (int i = 0; i < device_count; i++)
        if (devices[i] == device)
            return i;
    return -1;
}

/* What answers without asking the device: what is known of it, and which context is current. */
bool device_lost(const char *call, int *result)
{
    static const char *const alive[] = {"cuCtxGetCurrent", "cuCtxSetCurrent", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2",
                                        "cuCtxGetDevice"};
    CUcontext context = context_current();
    if (!context || !fault_lost(unit_device(context->device)) || strncmp(call, "cuDevice", 8) == 0)
        return false;
    for (size_t i = 0; i < sizeof alive / sizeof *alive; i++)
        if (strcmp(call, alive[i]) == 0)
            return false;
    *result = CUDA_ERROR_UNKNOWN;
    return true;
}

static void fresh_lock_in_child(void) { pthread_mutex_init(&local, NULL); }

SIM_API CUresult cuInit(unsigned int flags)
{
    int result;
    if (state_map() && fault_hits(__func__, &result))
        return (CUresult)result;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (!state_map())
        return CUDA_ERROR_NO_DEVICE;
    static bool forks_known;
    state_after_fork(&forks_known, fresh_lock_in_child);
    pthread_mutex_lock(&local);
    if (ready_generation != state_generation()) {
        device_count = visible_to_cuda(devices);
        for (int i = 0; i < device_count; i++)
            made[i] = unit_made(devices[i]);
        if (device_count > 0)
            __atomic_store_n(&ready_generation, state_generation(), __ATOMIC_RELEASE);
    }
    bool ready = ready_generation == state_generation();
    pthread_mutex_unlock(&local);
    return ready ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

/* Answers before cuInit too, as the driver does. */
SIM_API CUresult cuDriverGetVersion(int *version)
{
    int result;
    if (state_map() && fault_hits(__func__, &result))
        return (CUresult)result;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = state_map() ? (int)sim->cuda_version : 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetCount(int *count)
{
    ENTER();
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = device_count;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER();
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    if (cuda_device(ordinal) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetName(char *name, int length, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!name || length <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)length, "%s", sim->devices[device].name);
    return CUDA_SUCCESS;
}

static int hex(char digit) { return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10; }

static CUresult get_uuid(CUuuid *uuid, CUdevice dev, bool of_device)
{
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    const char *at = sim->devices[of_device ? unit_device(device) : device].uuid + strlen("GPU-");
    for (int i = 0; i < 16; i++, at += 2) {
        at += *at == '-';
        uuid->bytes[i] = (char)(hex(at[0]) * 16 + hex(at[1]));
    }
    return CUDA_SUCCESS;
}

/* The old form tells the device, the new one the instance. */
SIM_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    ENTER();
    return get_uuid(uuid, dev, true);
}

SIM_API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    ENTER();
    return get_uuid(uuid, dev, false);
}

SIM_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = sim->devices[device].memory_bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    u64 total = sim->devices[device].memory_bytes;
    *bytes = total > UINT32_MAX ? UINT32_MAX : (unsigned)total;
    return CUDA_SUCCESS;
}

/* What the models have in common, or what no client here depends on; 0 for everything not listed. */
static const struct {
    int attribute, value;
} COMMON[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, INT32_MAX},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152},
    {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 65536},
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
    {CU_DEVICE_ATTRIBUTE_MAX_PITCH, INT32_MAX},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536},
    {CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512},
    {CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {30 /* surface alignment */, 512},
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
    {CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 1},
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 41943040},
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
    {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 3},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
    {79 /* L1 caches globals */, 1},
    {80 /* L1 caches locals */, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 167936},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536},
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1},
    {97 /* opt-in shared memory of a block */, 166912},
    {99 /* host registration */, 1},
    {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 32},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
};

static int attribute_of(int device, int attribute)
{
    const struct sim_device *described = &sim->devices[device];
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return (int)timeline_sm_count(device);
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return (int)described->capability_major;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return (int)described->capability_minor;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return (int)described->sm_clock_mhz * 1000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return (int)described->memory_clock_mhz * 1000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return (int)described->bus_width;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return (int)described->pci_bus;
    case CU_DEVICE_ATTRIBUTE_MPS_ENABLED: return mps_in_use(device);
    case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH: return described->capability_major >= 9;
    case 134 /* NUMA node of the host side */: return described->numa;
    default: break;
    }
    for (size_t i = 0; i < sizeof COMMON / sizeof *COMMON; i++)
        if (COMMON[i].attribute == attribute)
            return COMMON[i].value;
    return 0;
}

SIM_API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || (int)attribute <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    *value = attribute_of(device, (int)attribute);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!major || !minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = (int)sim->devices[device].capability_major;
    *minor = (int)sim->devices[device].capability_minor;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetPCIBusId(char *text_out, int length, CUdevice dev)
{
    ENTER();
    int device = cuda_device(dev);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!text_out || length < 13)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(text_out, (size_t)length, "0000:%02X:00.0", sim->devices[device].pci_bus);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *bus_id)
{
    ENTER();
    unsigned domain, bus;
    if (!dev || !bus_id)
        return CUDA_ERROR_INVALID_VALUE;
    if (sscanf(bus_id, "%x:%x:", &domain, &bus) != 2 && (domain = 0, sscanf(bus_id, "%x:", &bus)) != 1)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < device_count; i++)
        if (sim->devices[devices[i]].pci_bus == bus && domain == 0) {
            *dev = i;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_DEVICE;
}

/* All devices of a machine reach each other, over NVLink or PCIe; an instance is always alone in its process. */
SIM_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice dev, CUdevice peer)
{
    ENTER();
    if (cuda_device(dev) < 0 || cuda_device(peer) < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!can)
        return CUDA_ERROR_INVALID_VALUE;
    *can = dev != peer;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice source,
                                         CUdevice destination)
{
    ENTER();
    int a = cuda_device(source), b = cuda_device(destination);
    if (a < 0 || b < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || a == b)
        return CUDA_ERROR_INVALID_VALUE;
    bool linked = sim->devices[a].peer_links[b] || (sim->devices[a].switch_links && sim->devices[b].switch_links);
    switch ((int)attribute) {
    case 1 /* performance rank: 0 is best */: *value = !linked; return CUDA_SUCCESS;
    case 2 /* access */: *value = 1; return CUDA_SUCCESS;
    case 3 /* native atomics */: *value = linked; return CUDA_SUCCESS;
    case 4 /* arrays */: *value = 1; return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}
