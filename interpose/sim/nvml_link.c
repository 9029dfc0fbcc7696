/* Where a device sits: NUMA, PCIe distance, NVLinks. PCIe distance follows the NUMA node. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nvml_sim.h"

#define SWITCHES 6 /* NVSwitches of one machine; links go round them */
#define SWITCH_BUS 0xc4u
#define SWITCH_ID 0x1af110deu

SIM_API nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t handle, unsigned int *out)
{
    ENTER_DEVICE(handle);
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (sim->devices[device].numa < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (unsigned)sim->devices[device].numa;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t handle, unsigned int words, unsigned long *set,
                                                 nvmlAffinityScope_t scope)
{
    ENTER_DEVICE(handle);
    i32 numa = sim->devices[device].numa;
    if (!set || !words || scope > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (numa < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    if ((unsigned)numa >= words * 8 * sizeof *set)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memset(set, 0, words * sizeof *set);
    set[(unsigned)numa / (8 * sizeof *set)] = 1ul << ((unsigned)numa % (8 * sizeof *set));
    return NVML_SUCCESS;
}

/* Processors of a simulated NUMA node: this host's, split evenly among the nodes that devices sit on. */
static nvmlReturn_t processors(int device, unsigned words, unsigned long *set)
{
    long count = sysconf(_SC_NPROCESSORS_CONF);
    i32 nodes = 1, numa = sim->devices[device].numa < 0 ? 0 : sim->devices[device].numa;
    for (u32 i = 0; i < sim->device_count; i++)
        if (sim->devices[i].numa >= nodes)
            nodes = sim->devices[i].numa + 1;
    if (!set || !words)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(set, 0, words * sizeof *set);
    for (long cpu = count * numa / nodes; cpu < count * (numa + 1) / nodes; cpu++)
        if ((unsigned long)cpu < words * 8 * sizeof *set)
            set[(unsigned long)cpu / (8 * sizeof *set)] |= 1ul << ((unsigned long)cpu % (8 * sizeof *set));
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t handle, unsigned int words, unsigned long *set)
{
    ENTER_DEVICE(handle);
    return processors(device, words, set);
}

SIM_API nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t handle, unsigned int words, unsigned long *set,
                                                         nvmlAffinityScope_t scope)
{
    ENTER_DEVICE(handle);
    return scope > 1 ? NVML_ERROR_INVALID_ARGUMENT : processors(device, words, set);
}

static nvmlGpuTopologyLevel_t level(int a, int b)
{
    if (a == b)
        return NVML_TOPOLOGY_INTERNAL;
    return sim->devices[a].numa == sim->devices[b].numa ? NVML_TOPOLOGY_NODE : NVML_TOPOLOGY_SYSTEM;
}

SIM_API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t handle, nvmlDevice_t other,
                                                         nvmlGpuTopologyLevel_t *out)
{
    ENTER_DEVICE(handle);
    int second = nvml_device(other);
    if (second < 0 || !out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = level(device, second);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t handle, nvmlGpuTopologyLevel_t wanted,
                                                      unsigned int *count, nvmlDevice_t *out)
{
    ENTER_DEVICE(handle);
    int devices[SIM_DEVICES];
    int visible = nvml_visible(devices);
    if (!count || (*count && !out))
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned found = 0;
    for (int i = 0; i < visible; i++)
        if (devices[i] != device && level(device, devices[i]) == wanted) {
            if (found < *count)
                out[found] = nvml_handle(devices[i]);
            found++;
        }
    *count = found;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t handle, nvmlDevice_t other, int *out)
{
    ENTER_DEVICE(handle);
    if (nvml_device(other) < 0 || !out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = nvml_device(other) == device;
    return NVML_SUCCESS;
}

/* Peer access always works; over NVLink only where there are links. */
SIM_API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t handle, nvmlDevice_t other, nvmlGpuP2PCapsIndex_t capability,
                                            nvmlGpuP2PStatus_t *out)
{
    ENTER_DEVICE(handle);
    int second = nvml_device(other);
    if (second < 0 || !out || (unsigned)capability > 4)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct sim_device *a = &sim->devices[device], *b = &sim->devices[second];
    bool linked = a->peer_links[second] || (a->switch_links && b->switch_links);
    bool over_link = capability == NVML_P2P_CAPS_INDEX_NVLINK || capability == NVML_P2P_CAPS_INDEX_ATOMICS;
    *out = over_link && !linked ? NVML_P2P_STATUS_NOT_SUPPORTED : NVML_P2P_STATUS_OK;
    return NVML_SUCCESS;
}

/* ---- NVLinks: those to other devices first, in their order, then those to the switches */

struct end {
    int peer; /* -1 = a switch */
    unsigned bus, id;
};

/* What link number `link` of `device` leads to; false = the link is not active. */
static bool other_end(int device, unsigned link, struct end *end)
{
    const struct sim_device *d = &sim->devices[device];
    unsigned first = 0;
    for (u32 peer = 0; peer < sim->device_count; peer++) {
        if (link - first < d->peer_links[peer]) {
            *end =
                (struct end){.peer = (int)peer, .bus = sim->devices[peer].pci_bus, .id = sim->devices[peer].pci_device};
            return true;
        }
        first += d->peer_links[peer];
    }
    if (link - first >= d->switch_links)
        return false;
    *end = (struct end){.peer = -1, .bus = SWITCH_BUS + (link - first) % SWITCHES, .id = SWITCH_ID};
    return true;
}

static unsigned link_count(int device)
{
    unsigned count = sim->devices[device].switch_links;
    for (u32 peer = 0; peer < sim->device_count; peer++)
        count += sim->devices[device].peer_links[peer];
    return count;
}

#define MAX_LINKS 36u /* of any chip */

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t handle, unsigned int link, unsigned int *out)
{
    ENTER_DEVICE(handle);
    struct end end;
    if (!out || link >= MAX_LINKS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!link_count(device))
        return NVML_ERROR_NOT_SUPPORTED;
    *out = other_end(device, link, &end);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t handle, unsigned int link, unsigned int *out)
{
    ENTER_DEVICE(handle);
    struct end end;
    if (!out || link >= MAX_LINKS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!other_end(device, link, &end))
        return NVML_ERROR_NOT_SUPPORTED;
    *out = sim->devices[device].capability_major >= 10 ? 7 : sim->devices[device].capability_major >= 9 ? 6 : 5;
    return NVML_SUCCESS;
}

/* Capabilities: peer access, system memory access, both atomics, SLI bridge, valid. */
SIM_API nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t handle, unsigned int link,
                                                   nvmlNvLinkCapability_t capability, unsigned int *out)
{
    ENTER_DEVICE(handle);
    struct end end;
    if (!out || link >= MAX_LINKS || (unsigned)capability > NVML_NVLINK_CAP_VALID)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!link_count(device))
        return NVML_ERROR_NOT_SUPPORTED;
    bool active = other_end(device, link, &end);
    *out = active && (capability == NVML_NVLINK_CAP_P2P_SUPPORTED || capability == NVML_NVLINK_CAP_P2P_ATOMICS ||
                      capability == NVML_NVLINK_CAP_VALID);
    return NVML_SUCCESS;
}

static nvmlReturn_t remote(int device, unsigned link, nvmlPciInfo_t *out)
{
    struct end end;
    if (!out || link >= MAX_LINKS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!other_end(device, link, &end))
        return NVML_ERROR_NOT_SUPPORTED;
    nvml_pci(out, end.bus, end.id);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo(nvmlDevice_t handle, unsigned int link, nvmlPciInfo_t *out)
{
    ENTER_DEVICE(handle);
    return remote(device, link, out);
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t handle, unsigned int link, nvmlPciInfo_t *out)
{
    ENTER_DEVICE(handle);
    return remote(device, link, out);
}

SIM_API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t handle, unsigned int link,
                                                         nvmlIntNvLinkDeviceType_t *out)
{
    ENTER_DEVICE(handle);
    struct end end;
    if (!out || link >= MAX_LINKS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!other_end(device, link, &end))
        return NVML_ERROR_NOT_SUPPORTED;
    *out = end.peer < 0 ? NVML_NVLINK_DEVICE_TYPE_SWITCH : NVML_NVLINK_DEVICE_TYPE_GPU;
    return NVML_SUCCESS;
}
