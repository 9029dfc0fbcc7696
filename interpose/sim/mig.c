#include "mig.h"

#include <stdio.h>
#include <string.h>

bool unit_is_instance(int unit) { return unit >= SIM_DEVICES; }

int unit_device(int unit) { return unit_is_instance(unit) ? (int)sim->instances[unit - SIM_DEVICES].device : unit; }

bool unit_exists(int unit)
{
    if (!unit_is_instance(unit))
        return unit >= 0 && unit < (int)sim->device_count;
    const struct sim_instance *instance = &sim->instances[unit - SIM_DEVICES];
    return instance->live && instance->compute;
}

u64 unit_work(int unit, u64 work_ns)
{
    if (!unit_is_instance(unit))
        return work_ns;
    u32 whole = sim->devices[unit_device(unit)].sm_count, part = sim->devices[unit].sm_count;
    return work_ns / part * whole + work_ns % part * whole / part;
}

u64 unit_made(int unit) { return unit_is_instance(unit) ? sim->instances[unit - SIM_DEVICES].made : 0; }

int unit_instances(int device, int *units)
{
    int count = 0;
    for (int i = 0; i < SIM_INSTANCES; i++) {
        const struct sim_instance *instance = &sim->instances[i];
        if (!instance->live || !instance->compute || instance->device != (u32)device)
            continue;
        int at = count++;
        for (; at > 0 && sim->instances[units[at - 1] - SIM_DEVICES].id > instance->id; at--)
            units[at] = units[at - 1];
        units[at] = SIM_DEVICES + i;
    }
    return count;
}

bool mig_on(int device) { return __atomic_load_n(&sim->mig_current[device], __ATOMIC_ACQUIRE); }

static const struct sim_profile *profile_of(int device, u32 profile)
{
    return &sim->profiles[device * SIM_PROFILES + (int)profile];
}

const struct sim_profile *mig_profile(const struct sim_instance *instance)
{
    return profile_of((int)instance->device, instance->profile);
}

static u32 slices(const struct sim_profile *profile, u32 start) { return ((1u << profile->size) - 1) << start; }

bool mig_fits(int device, u32 profile, u32 start)
{
    const struct sim_profile *wanted = profile_of(device, profile);
    u32 alike = 0;
    if (start >= 32 || !(wanted->starts & 1u << start))
        return false;
    for (int i = 0; i < SIM_INSTANCES; i++) {
        const struct sim_instance *other = &sim->instances[i];
        if (!other->live || other->device != (u32)device)
            continue;
        const struct sim_profile *held = mig_profile(other);
        if (slices(held, other->start) & slices(wanted, start) || (held->media && wanted->media))
            return false;
        alike += other->profile == profile;
    }
    return alike < wanted->most;
}

unsigned mig_room(int device, u32 profile, u32 *at)
{
    const struct sim_profile *wanted = profile_of(device, profile);
    u32 alike = 0, room = 0, first = SIM_INSTANCES;
    for (int i = 0; i < SIM_INSTANCES; i++)
        alike += sim->instances[i].live && sim->instances[i].device == (u32)device &&
                 sim->instances[i].profile == profile;
    /* No two starts of one profile overlap. */
    for (u32 start = 0; start < 32; start++) {
        if (!mig_fits(device, profile, start))
            continue;
        if (!room++)
            first = start;
    }
    if (at)
        *at = first;
    return room < wanted->most - alike ? room : wanted->most - alike;
}

/* The driver's ids follow a tree: the whole device is 0, its halves 1 and 2, and so on. */
static u32 instance_id(int device, const struct sim_profile *profile, u32 start)
{
    u32 whole = 0;
    for (int i = 0; i < SIM_PROFILES; i++)
        if (sim->profiles[device * SIM_PROFILES + i].size > whole)
            whole = sim->profiles[device * SIM_PROFILES + i].size;
    return whole / profile->size - 1 + start / profile->size;
}

/* The same for the same device and instance id, always, as with the vendor's driver. */
static void name_uuid(char *out, size_t size, const char *device_uuid, u32 id)
{
    u64 hash[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
    for (int half = 0; half < 2; half++) {
        for (const char *at = device_uuid; *at; at++)
            hash[half] = (hash[half] ^ (unsigned char)*at) * 0x100000001b3u;
        hash[half] = (hash[half] ^ (id + 1)) * 0x100000001b3u;
        hash[half] ^= hash[half] >> 29;
    }
    snprintf(out, size, "MIG-%08x-%04x-%04x-%04x-%012llx", (u32)(hash[0] >> 32), (u32)(hash[0] >> 16 & 0xffff),
             (u32)(0x5000 | (hash[0] & 0xfff)), (u32)(0x8000 | (hash[1] >> 48 & 0x3fff)),
             (unsigned long long)(hash[1] & 0xffffffffffffu));
}

int mig_make(int device, u32 profile, u32 start)
{
    const struct sim_profile *described = profile_of(device, profile);
    for (int step = 0; step < SIM_INSTANCES; step++) {
        /* Rows are used in turn, so that a stale handle is not soon another instance's. */
        int i = (int)((sim->made + (u64)step) % SIM_INSTANCES);
        struct sim_instance *instance = &sim->instances[i];
        if (instance->live)
            continue;
        struct sim_device *unit = &sim->devices[SIM_DEVICES + i];
        *unit = sim->devices[device];
        unit->memory_bytes = described->memory_bytes;
        unit->sm_count = described->sm_count;
        unit->switch_links = 0;
        memset(unit->peer_links, 0, sizeof unit->peer_links);
        char name[sizeof unit->name];
        snprintf(name, sizeof name, "%.56s MIG %.31s", sim->devices[device].name, described->name);
        memcpy(unit->name, name, sizeof name);
        u32 id = instance_id(device, described, start);
        name_uuid(unit->uuid, sizeof unit->uuid, sim->devices[device].uuid, id);
        *instance = (struct sim_instance){
            .device = (u32)device, .profile = profile, .start = start, .id = id, .made = ++sim->made};
        __atomic_store_n(&instance->live, 1, __ATOMIC_RELEASE);
        return i;
    }
    return -1;
}
