#include "visible.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "mig.h"

#define MOUNTED "/var/run/nvidia-container-devices"

/* The unit whose UUID starts with the `length` characters at `word`; -1: none, or not one only. */
static int by_uuid(const char *word, size_t length)
{
    int found = -1;
    for (int i = 0; i < SIM_UNITS; i++) {
        if (!unit_exists(i) || strncmp(sim->devices[i].uuid, word, length) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

static bool is_number(const char *word, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isdigit((unsigned char)word[i]))
            return false;
    return length > 0 && length < 6;
}

/* `0:1`: the second instance of the first device. -1: not so written, or there is none. */
static int by_position(const char *word, size_t length)
{
    const char *colon = memchr(word, ':', length);
    int units[SIM_INSTANCES];
    if (!colon || !is_number(word, (size_t)(colon - word)) || !is_number(colon + 1, length - (size_t)(colon - word) - 1))
        return -1;
    int device = atoi(word), position = atoi(colon + 1);
    if (device >= (int)sim->device_count || position >= unit_instances(device, units))
        return -1;
    return units[position];
}

static void mark(bool *chosen, const char *word, size_t length)
{
    int unit = is_number(word, length) ? atoi(word) : by_position(word, length);
    if (unit < 0)
        unit = by_uuid(word, length);
    if (unit >= 0 && unit < SIM_UNITS && unit_exists(unit))
        chosen[unit] = true;
}

/* The form in which each chosen device is a file in a directory, named by its UUID. */
static void mark_mounted(bool *chosen)
{
    DIR *directory = opendir(MOUNTED);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            mark(chosen, entry->d_name, strlen(entry->d_name));
    closedir(directory);
}

/* The units that NVIDIA_VISIBLE_DEVICES names; false where the runtime would have put no driver at all. */
static bool choose(bool chosen[SIM_UNITS])
{
    const char *list = getenv("NVIDIA_VISIBLE_DEVICES");
    memset(chosen, false, SIM_UNITS * sizeof *chosen);
    if (list && (!*list || strcmp(list, "void") == 0))
        return false;
    if (!list || strcmp(list, "all") == 0)
        for (u32 i = 0; i < sim->device_count; i++)
            chosen[i] = true;
    else if (strncmp(list, MOUNTED, strlen(MOUNTED)) == 0)
        mark_mounted(chosen);
    else if (strcmp(list, "none") != 0)
        for (const char *word = list; *word; word += strspn(word, ", ")) {
            size_t length = strcspn(word, ", ");
            mark(chosen, word, length);
            word += length;
        }
    return true;
}

static int parents(const bool chosen[SIM_UNITS], int *devices)
{
    bool shown[SIM_DEVICES] = {false};
    int count = 0;
    for (int i = 0; i < SIM_UNITS; i++)
        if (chosen[i])
            shown[unit_device(i)] = true;
    for (int i = 0; i < (int)sim->device_count; i++)
        if (shown[i])
            devices[count++] = i;
    return count;
}

int visible_to_container(int *devices)
{
    bool chosen[SIM_UNITS];
    return choose(chosen) ? parents(chosen, devices) : -1;
}

bool visible_instance(int unit)
{
    bool chosen[SIM_UNITS];
    return choose(chosen) && (chosen[unit] || chosen[unit_device(unit)]);
}

/* What programs run on where a device is meant: itself or, in MIG mode, its first visible instance; -1 = nothing. */
static int runs_on(const bool chosen[SIM_UNITS], int device)
{
    int units[SIM_INSTANCES];
    if (!mig_on(device))
        return device;
    int count = unit_instances(device, units);
    for (int i = 0; i < count; i++)
        if (chosen[units[i]] || chosen[device])
            return units[i];
    return -1;
}

/* The unit that one entry of CUDA_VISIBLE_DEVICES means; -1 = none. */
static int meant(const bool chosen[SIM_UNITS], const int *devices, int count, const char *word, size_t length)
{
    if (is_number(word, length))
        return atoi(word) < count ? runs_on(chosen, devices[atoi(word)]) : -1;
    if (length < 5 || (strncmp(word, "GPU-", 4) != 0 && strncmp(word, "MIG-", 4) != 0))
        return -1;
    int named = by_uuid(word, length);
    if (named < 0 || !(chosen[named] || chosen[unit_device(named)]))
        return -1;
    return unit_is_instance(named) ? named : runs_on(chosen, named);
}

/* The first instance alone, if there is one. */
static int one_instance(int *units, int count)
{
    for (int i = 0; i < count; i++)
        if (unit_is_instance(units[i])) {
            units[0] = units[i];
            return 1;
        }
    return count;
}

int visible_to_cuda(int *units)
{
    bool chosen[SIM_UNITS];
    int devices[SIM_DEVICES], kept = 0;
    if (!choose(chosen))
        return -1;
    int count = parents(chosen, devices);
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list) {
        for (int i = 0; i < count; i++)
            if ((units[kept] = runs_on(chosen, devices[i])) >= 0)
                kept++;
        return one_instance(units, kept);
    }
    /* The list ends at the first entry that names nothing; an entry named twice leaves no device at all. */
    for (const char *word = list; *word;) {
        while (*word == ' ')
            word++;
        size_t length = strcspn(word, ", ");
        int unit = kept < SIM_DEVICES ? meant(chosen, devices, count, word, length) : -1;
        if (unit < 0)
            break;
        for (int i = 0; i < kept; i++)
            if (units[i] == unit)
                return 0;
        units[kept++] = unit;
        word += length;
        word += strspn(word, ", ");
    }
    return one_instance(units, kept);
}
