/* Clients of MPS: their terms, read strictly, and what these leave them. */
#include "mps.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "visible.h"

/* Limits of the directory that a process finds its daemon by, as they are written there; empty = none. */
struct place {
    char percent[16], pinned[32];
};

/* Where a machine plays a daemon, it leaves this file among its pipes; in a place of a container's own it says the place's
 * limits. A process that names no directory has the default one, where there is always a daemon on a machine whose devices
 * work side by side. False: there is none. */
static bool find_daemon(struct place *place)
{
    const char *pipes = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char path[4096], line[128];
    *place = (struct place){.percent = "", .pinned = ""};
    if (!pipes || !*pipes)
        return true;
    int length = snprintf(path, sizeof path, "%s/simulated", pipes);
    FILE *file = length > 0 && (size_t)length < sizeof path ? fopen(path, "re") : NULL;
    if (!file)
        return false;
    while (fgets(line, sizeof line, file)) {
        sscanf(line, "active_thread_percentage=%15s", place->percent);
        sscanf(line, "pinned_memory_limit=%31s", place->pinned);
    }
    fclose(file);
    return true;
}

/* What a place says outranks the environment. */
static u64 thread_ppm(const struct place *place)
{
    const char *text = *place->percent ? place->percent : getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    double percent = text ? strtod(text, NULL) : 100;
    if (!(percent > 0 && percent < 100))
        return MPS_ALL_PPM;
    return percent < 1e-4 ? 1 : (u64)(percent * MPS_ALL_PPM / 100);
}

/* Digits at `*at`, which moves behind them. False: there are none, or the number is too large. */
static bool read_number(const char **at, u64 most, u64 *number)
{
    const char *first = *at;
    for (*number = 0; isdigit((unsigned char)**at); (*at)++) {
        *number = *number * 10 + (u64)(**at - '0');
        if (*number > most)
            return false;
    }
    return *at > first;
}

/* `3000M`: a whole number and its unit, which may be written with a B. */
static bool read_bytes(const char **at, u64 *bytes)
{
    static const char units[] = "KMG";
    u64 amount;
    if (!read_number(at, 1ull << 32, &amount) || !amount)
        return false;
    const char *unit = **at ? strchr(units, **at) : NULL;
    if (!unit)
        return false;
    *at += (*at)[1] == 'B' ? 2 : 1;
    *bytes = amount << 10 * (unit - units + 1);
    return true;
}

/* The position in `units` of the device that a key up to `=` names, by CUDA's ordinal or as its UUID begins; -1: none, or not
 * one alone. */
static int meant(const char *key, size_t length, const int *units, int count)
{
    u64 ordinal;
    const char *at = key;
    if (read_number(&at, SIM_UNITS, &ordinal))
        return at == key + length && ordinal < (u64)count ? (int)ordinal : -1;
    int found = -1;
    for (int i = 0; i < count && length > 4; i++) {
        if (strncmp(sim->devices[units[i]].uuid, key, length) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

/* `0=3000M,GPU-1f3a=2G`. False where any of it cannot be meant; a device that the process does not see is among that, and
 * so takes the limits from all others. */
static bool read_pinned(const char *text, const int *units, int count, u64 *pinned)
{
    for (;; text++) {
        u64 bytes;
        size_t length = strcspn(text, "=");
        int device = text[length] ? meant(text, length, units, count) : -1;
        text += length + 1;
        if (device < 0 || !read_bytes(&text, &bytes) || pinned[units[device]])
            return false;
        pinned[units[device]] = bytes;
        if (*text != ',')
            return !*text;
    }
}

/* A place's limit is one amount for every device; the environment can only lower it. */
static void limit_to(const struct place *place, const int *units, int count, u64 *pinned)
{
    u64 bytes;
    const char *at = place->pinned;
    if (!*at || !read_bytes(&at, &bytes))
        return;
    for (int i = 0; i < count; i++)
        if (!pinned[units[i]] || bytes < pinned[units[i]])
            pinned[units[i]] = bytes;
}

void mps_find(struct mps_terms *terms)
{
    int units[SIM_DEVICES];
    struct place place;
    const char *text = getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    memset(terms, 0, sizeof *terms);
    terms->sm_ppm = MPS_ALL_PPM;
    terms->client = find_daemon(&place);
    if (!terms->client)
        return;
    terms->sm_ppm = thread_ppm(&place);
    int count = visible_to_cuda(units);
    if (!text || !*text || read_pinned(text, units, count, terms->pinned))
        limit_to(&place, units, count, terms->pinned);
    else
        memset(terms->pinned, 0, sizeof terms->pinned); /* the place's, too */
}

bool mps_holds(const struct sim_process *process, int unit)
{
    return sim->devices[unit].side_by_side && process->mps_client;
}

u64 mps_room(const struct sim_process *process, int unit, enum sim_kind kind)
{
    u64 limit = mps_holds(process, unit) ? process->pinned[unit] : 0, held = 0;
    if (!limit || kind == KIND_MANAGED)
        return UINT64_MAX;
    for (int k = 0; k < SIM_KINDS; k++)
        if (k != KIND_MANAGED)
            held += process->memory[unit * SIM_KINDS + k];
    return held < limit ? limit - held : 0;
}

u64 mps_room_left(int unit)
{
    int slot = state_attach();
    if (slot < 0)
        return UINT64_MAX;
    state_lock();
    u64 room = mps_room(&sim->processes[slot], unit, KIND_LINEAR);
    state_unlock();
    return room;
}

/* A process's terms never change, so its own are read without the lock. */
bool mps_in_use(int unit)
{
    int slot = sim->devices[unit].side_by_side ? state_attach() : -1;
    return slot >= 0 && mps_holds(&sim->processes[slot], unit);
}
