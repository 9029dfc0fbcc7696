/* Which cgroups a process is in, and what their limits leave it. */
#define _GNU_SOURCE
#include "cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_RELEASE 615 /* whose driver can cap a cgroup's memory */
#define PATH_ROOM 1024
#define LINE_ROOM 768 /* with the tree's root in front of it a path has PATH_ROOM */

bool cgroup_supported(void)
{
    return sim && sim->cgroups[0] && atoi(sim->driver_version) >= FIRST_RELEASE;
}

u64 cgroup_inode(const char *path)
{
    struct stat info;
    return path && stat(path, &info) == 0 && S_ISDIR(info.st_mode) ? (u64)info.st_ino : 0;
}

/* ---- whose groups */

/* Inodes of `path` and of the directories above it, up to the root of the tree. */
static void chain(const char *path, u64 *groups)
{
    char at[PATH_ROOM];
    size_t root = strlen(sim->cgroups), depth = 0;
    snprintf(at, sizeof at, "%s", path);
    for (;;) {
        groups[depth++] = cgroup_inode(at);
        char *slash = strrchr(at, '/');
        if (strlen(at) <= root || !slash || depth == SIM_CGROUP_DEPTH)
            return;
        *slash = 0;
    }
}

/* The kernel's tree says it in /proc. In a cgroup namespace the process's own group is the root that it sees. */
static bool kernel_group(char *path, size_t room)
{
    char line[LINE_ROOM];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        found = strncmp(line, "0::/", 4) == 0;
    }
    if (file)
        fclose(file);
    if (found)
        snprintf(path, room, "%s%s", sim->cgroups, line[4] ? line + 3 : "");
    return found;
}

static bool lists(int directory, long pid)
{
    int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    long listed;
    bool found = false;
    while (file && !found && fscanf(file, "%ld", &listed) == 1)
        found = listed == pid;
    if (file)
        fclose(file);
    else if (fd >= 0)
        close(fd);
    return found;
}

/* The directory at or below `path` that lists `pid`; `path` becomes its path. */
static bool played_group(char *path, size_t room, long pid, int depth)
{
    DIR *directory = opendir(path);
    size_t length = strlen(path);
    bool found = directory && lists(dirfd(directory), pid);
    for (struct dirent *entry; directory && !found && depth < SIM_CGROUP_DEPTH && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
            continue;
        snprintf(path + length, room - length, "/%s", entry->d_name);
        found = played_group(path, room, pid, depth + 1);
        if (!found)
            path[length] = 0;
    }
    if (directory)
        closedir(directory);
    return found;
}

static long parent_of(long pid)
{
    char path[64], text[512];
    long parent = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length > 0) {
        text[length] = 0;
        const char *after = strrchr(text, ')'); /* a program's name may hold anything */
        if (!after || sscanf(after, ") %*c %ld", &parent) != 1)
            parent = 0;
    }
    return parent;
}

void cgroup_find(u64 *groups)
{
    char path[PATH_ROOM];
    memset(groups, 0, SIM_CGROUP_DEPTH * sizeof *groups);
    if (!cgroup_supported())
        return;
    snprintf(path, sizeof path, "%s/cgroup.controllers", sim->cgroups);
    if (access(path, F_OK) == 0) {
        if (kernel_group(path, sizeof path))
            chain(path, groups);
        return;
    }
    for (long pid = getpid(); pid > 0; pid = parent_of(pid)) {
        snprintf(path, sizeof path, "%s", sim->cgroups);
        if (played_group(path, sizeof path, pid, 0)) {
            chain(path, groups);
            return;
        }
    }
}

/* ---- limits */

struct sim_cgroup *cgroup_row(u64 inode)
{
    for (int i = 0; inode && i < SIM_CGROUPS; i++)
        if (sim->limits[i].inode == inode)
            return &sim->limits[i];
    return NULL;
}

struct sim_cgroup *cgroup_claim(u64 inode, const char *path)
{
    struct sim_cgroup *free = NULL;
    for (int i = 0; i < SIM_CGROUPS; i++) {
        struct sim_cgroup *row = &sim->limits[i];
        if (row->inode && cgroup_inode(row->path) != row->inode)
            memset(row, 0, sizeof *row); /* inodes are given out again: the limit would come back on a stranger */
        if (!row->inode && !free)
            free = row;
    }
    struct sim_cgroup *known = cgroup_row(inode);
    if (known || !free)
        return known;
    snprintf(free->path, sizeof free->path, "%s", path);
    free->inode = inode;
    return free;
}

static bool is_in(const u64 *groups, u64 inode)
{
    for (int i = 0; i < SIM_CGROUP_DEPTH && groups[i]; i++)
        if (groups[i] == inode)
            return true;
    return false;
}

u64 cgroup_used(u64 inode, int device)
{
    u64 used = 0;
    for (u64 p = 0; p < sim->process_high; p++) {
        const struct sim_process *process = &sim->processes[p];
        if (!process->live || !is_in(process->groups, inode))
            continue;
        for (int k = 0; k < SIM_KINDS; k++)
            if (k != KIND_MANAGED)
                used += process->memory[device * SIM_KINDS + k];
    }
    return used;
}

u64 cgroup_room(const u64 *groups, int device, enum sim_kind kind)
{
    u64 room = CGROUP_NO_LIMIT;
    if (kind == KIND_MANAGED || device >= SIM_DEVICES)
        return room;
    for (int i = 0; i < SIM_CGROUP_DEPTH && groups[i]; i++) {
        const struct sim_cgroup *row = cgroup_row(groups[i]);
        if (!row || !(row->limited & 1ull << device) || row->hard[device] == CGROUP_NO_LIMIT)
            continue;
        u64 used = cgroup_used(row->inode, device);
        u64 left = row->hard[device] > used ? row->hard[device] - used : 0;
        room = left < room ? left : room;
    }
    return room;
}

bool cgroup_view(int device, u64 *total, u64 *used)
{
    u64 groups[SIM_CGROUP_DEPTH];
    if (!cgroup_supported() || device >= SIM_DEVICES)
        return false;
    cgroup_find(groups);
    state_lock();
    const struct sim_cgroup *row = cgroup_row(groups[0]);
    bool limited = row && (row->limited & 1ull << device) && row->hard[device] != CGROUP_NO_LIMIT;
    if (limited) {
        *total = row->hard[device];
        *used = cgroup_used(row->inode, device);
    }
    state_unlock();
    return limited;
}
