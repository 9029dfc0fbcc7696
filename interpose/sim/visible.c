#include "visible.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define MOUNTED "/var/run/nvidia-container-devices"

/* Index of the device whose UUID starts with the `length` characters at `word`; -1: none, or not one only. */
static int by_uuid(const char *word, size_t length)
{
    int found = -1;
    for (u32 i = 0; i < sim->device_count; i++) {
        if (strncmp(sim->devices[i].uuid, word, length) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = (int)i;
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

static void mark(bool *chosen, const char *word, size_t length)
{
    int index = is_number(word, length) ? atoi(word) : by_uuid(word, length);
    if (index >= 0 && index < (int)sim->device_count)
        chosen[index] = true;
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

int visible_to_container(int *devices)
{
    const char *list = getenv("NVIDIA_VISIBLE_DEVICES");
    bool chosen[SIM_DEVICES] = {false};
    if (list && (!*list || strcmp(list, "void") == 0))
        return -1;
    if (!list || strcmp(list, "all") == 0)
        memset(chosen, true, sizeof chosen);
    else if (strncmp(list, MOUNTED, strlen(MOUNTED)) == 0)
        mark_mounted(chosen);
    else if (strcmp(list, "none") != 0)
        for (const char *word = list; *word; word += strspn(word, ", ")) {
            size_t length = strcspn(word, ", ");
            mark(chosen, word, length);
            word += length;
        }
    int count = 0;
    for (int i = 0; i < (int)sim->device_count; i++)
        if (chosen[i])
            devices[count++] = i;
    return count;
}

int visible_to_cuda(int *devices)
{
    int all[SIM_DEVICES];
    int count = visible_to_container(all), kept = 0;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (count < 0 || !list) {
        memcpy(devices, all, sizeof all);
        return count;
    }
    /* The list ends at the first entry that names nothing; an entry named twice leaves no device at all. */
    for (const char *word = list; *word;) {
        while (*word == ' ')
            word++;
        size_t length = strcspn(word, ", ");
        int index = -1;
        if (is_number(word, length)) {
            int position = atoi(word);
            index = position < count ? all[position] : -1;
        } else if (length >= 5 && strncmp(word, "GPU-", 4) == 0) {
            int named = by_uuid(word, length);
            for (int i = 0; i < count; i++)
                if (all[i] == named)
                    index = named;
        }
        if (index < 0)
            break;
        for (int i = 0; i < kept; i++)
            if (devices[i] == index)
                return 0;
        devices[kept++] = index;
        word += length;
        word += strspn(word, ", ");
    }
    return kept;
}
