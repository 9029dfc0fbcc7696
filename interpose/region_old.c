#include "region_old.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define AT(field, offset) _Static_assert(offsetof(struct region_v0, field) == (offset), "v0." #field)
#define SLOT_AT(field, offset) _Static_assert(offsetof(struct region_v0_slot, field) == (offset), "v0 slot." #field)
AT(owner, 8);
AT(count, 48);
AT(uuids, 56);
AT(limit, 1592);
AT(sm_limit, 1720);
AT(slots, 1848);
AT(slot_count, 1197880);
AT(priority, 1197892);
SLOT_AT(memory, 8);
SLOT_AT(monitor_used, 648);
SLOT_AT(use, 776);
SLOT_AT(status, 1160);
_Static_assert(sizeof(struct region_v0_slot) == 1168, "size of a slot of layout 0");
_Static_assert(sizeof(struct region_v0) == 1197896, "size of layout 0");

/* Where the parts of a layout lie in its file. */
struct places {
    size_t bytes, slots, slot_bytes, tail;
};
static const struct places places[2] = {
    {sizeof(struct region_v0), offsetof(struct region_v0, slots), sizeof(struct region_v0_slot),
     offsetof(struct region_v0, slot_count)},
    {sizeof(struct region_prefix), offsetof(struct region_prefix, slots), sizeof(struct region_slot),
     offsetof(struct region_prefix, slot_count)},
};

/* What both layouts end with; layout 0 has no time. */
struct tail {
    int32_t slot_count, sharing, recent_kernel, priority;
    uint64_t last_kernel;
};
_Static_assert(offsetof(struct region_prefix, last_kernel) - offsetof(struct region_prefix, slot_count) ==
                   offsetof(struct tail, last_kernel),
               "the end of layout 1");

static int no_region(void)
{
    errno = EPROTO;
    return -1;
}

static int read_at(int fd, void *into, size_t bytes, size_t at)
{
    ssize_t got = pread(fd, into, bytes, (off_t)at);
    if (got == (ssize_t)bytes)
        return 0;
    return got < 0 ? -1 : no_region(); /* it has been cut */
}

/* As HAMi's monitor tells them apart: by size, and from layout 1 on by its number. */
static int layout_of(int fd, int *minor)
{
    struct stat st;
    int32_t head[3];
    if (fstat(fd, &st) != 0 || read_at(fd, head, sizeof head, 0) != 0)
        return -1;
    if (head[0] != REGION_READY || (size_t)st.st_size < places[0].bytes)
        return no_region();
    if ((size_t)st.st_size < places[1].bytes)
        return 0;
    *minor = head[2];
    return head[1] == REGION_MAJOR ? 1 : no_region();
}

static void add_slot_0(struct region_old *into, const struct region_v0_slot *slot)
{
    for (int i = 0; i < into->count; i++) {
        into->devices[i].context += slot->memory[i].context;
        into->devices[i].module += slot->memory[i].module;
        into->devices[i].data += slot->memory[i].data;
        into->devices[i].total += slot->memory[i].total;
    }
}

static void add_slot_1(struct region_old *into, const struct region_slot *slot)
{
    for (int i = 0; i < into->count; i++) {
        into->devices[i].context += slot->memory[i].context;
        into->devices[i].module += slot->memory[i].module;
        into->devices[i].data += slot->memory[i].data;
        into->devices[i].total += slot->memory[i].total;
    }
}

/* One process of either layout; slots of processes that are gone keep their amounts and do not count. */
static void add_slot(struct region_old *into, const char *at)
{
    int32_t status, host_pid;
    if (into->layout == 0) {
        const struct region_v0_slot *slot = (const void *)at;
        status = slot->status;
        host_pid = slot->host_pid;
        if (status != 0)
            add_slot_0(into, slot);
    } else {
        const struct region_slot *slot = (const void *)at;
        status = slot->status;
        host_pid = slot->host_pid;
        if (status != 0)
            add_slot_1(into, slot);
    }
    if (status == 0)
        return;
    into->processes++;
    if (host_pid > 0)
        into->host_pids[into->host_pid_count++] = host_pid;
}

static int read_slots(int fd, struct region_old *into, int count)
{
    const struct places *p = &places[into->layout];
    int slots = count < 0 ? 0 : count > REGION_SLOTS ? REGION_SLOTS : count;
    size_t bytes = (size_t)slots * p->slot_bytes;
    char *buffer = slots ? malloc(bytes) : NULL;
    if (slots && !buffer)
        return -1;
    int rc = slots ? read_at(fd, buffer, bytes, p->slots) : 0;
    for (int i = 0; rc == 0 && i < slots; i++)
        add_slot(into, buffer + (size_t)i * p->slot_bytes);
    free(buffer);
    return rc;
}

/* The fields before the slots lie in the same order in both layouts, eight bytes apart. */
static int read_devices(int fd, struct region_old *into)
{
    struct {
        uint64_t count;
        char uuids[REGION_DEVICES][REGION_UUID_BYTES];
        uint64_t limit[REGION_DEVICES], sm_limit[REGION_DEVICES];
    } head;
    size_t at = into->layout == 0 ? offsetof(struct region_v0, count) : offsetof(struct region_prefix, count);
    if (read_at(fd, &head, sizeof head, at) != 0)
        return -1;
    if (head.count > REGION_DEVICES)
        return no_region();
    into->count = (int)head.count;
    for (int i = 0; i < into->count; i++) {
        memcpy(into->devices[i].uuid, head.uuids[i], REGION_UUID_BYTES - 1);
        into->devices[i].limit = head.limit[i];
        into->devices[i].cores = head.sm_limit[i];
    }
    return 0;
}

int region_old_read(int fd, struct region_old *into)
{
    struct tail tail = {0};
    memset(into, 0, sizeof *into);
    into->layout = layout_of(fd, &into->minor);
    if (into->layout < 0)
        return -1;
    size_t bytes = into->layout == 0 ? offsetof(struct tail, last_kernel) : sizeof tail;
    if (read_devices(fd, into) != 0 || read_at(fd, &tail, bytes, places[into->layout].tail) != 0)
        return -1;
    into->sharing = tail.sharing;
    into->recent_kernel = tail.recent_kernel;
    into->priority = tail.priority;
    into->last_kernel = tail.last_kernel;
    return read_slots(fd, into, tail.slot_count);
}

int region_old_set(int fd, int layout, int32_t recent_kernel, bool sharing)
{
    int32_t words[2] = {sharing ? 1 : 0, recent_kernel};
    off_t at = (off_t)(places[layout].tail + offsetof(struct tail, sharing));
    ssize_t put = pwrite(fd, words, sizeof words, at);
    if (put == (ssize_t)sizeof words)
        return 0;
    return put < 0 ? -1 : no_region();
}
