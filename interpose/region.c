#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account.h"

/* ---- the layout other programs rely on; the numbers are HAMi's, found by measuring its files */

#define AT(structure, field, offset)                                                                                   \
    _Static_assert(offsetof(struct structure, field) == (offset), #structure "." #field " moved")
AT(region_prefix, ready, 0);
AT(region_prefix, owner, 16);
AT(region_prefix, semaphore, 24);
AT(region_prefix, count, 56);
AT(region_prefix, uuids, 64);
AT(region_prefix, limit, 1600);
AT(region_prefix, sm_limit, 1728);
AT(region_prefix, slots, 1856);
AT(region_prefix, slot_count, 2008896);
AT(region_prefix, sharing, 2008900);
AT(region_prefix, recent_kernel, 2008904);
AT(region_prefix, priority, 2008908);
AT(region_prefix, last_kernel, 2008912);
AT(region_prefix, probe_semaphore, 2008920);
AT(region_slot, host_pid, 4);
AT(region_slot, memory, 8);
AT(region_slot, monitor_used, 1032);
AT(region_slot, use, 1160);
AT(region_slot, status, 1928);
AT(region_slot, sequence, 1936);
_Static_assert(sizeof(struct region_prefix) == 2008952, "size of layout 1.2");
_Static_assert(sizeof(struct region_slot) == 1960, "size of a slot of layout 1.2");
/* ---- and of ours, which the agent of one release and the library of another share */
AT(region_device, total, 64);
AT(region_device, overhead, 96);
AT(region_device, debt_ns, 128);
AT(region_device, lent_until_ns, 176);
AT(region_device, lent, 184);
AT(region_claim, used, 24);
AT(region_extension, policy, 16);
AT(region_extension, registry, 64);
AT(region_extension, devices, 128);
AT(region_claim, launches, 152);
AT(region_extension, claims, 128 + 16 * 192);
_Static_assert(sizeof(struct region_device) == 192, "three cache lines a device");
_Static_assert(sizeof(struct region_claim) == 320, "five cache lines a claim");
_Static_assert(REGION_EXTENSION_AT % 4096 == 0 && REGION_EXTENSION_AT > sizeof(struct region_prefix) + 1, "a page");
#undef AT

#define PATIENCE_NS (100 * NS_PER_MS)
#define EXTEND_PATIENCE_NS (1000 * NS_PER_MS)
/* The kernel's fixed inode number of the first pid namespace: who lives there sees every process in /proc. */
#define INITIAL_PID_NAMESPACE 0xEFFFFFFCULL

/* File offset whose byte lock shows that the owner of a slot lives. Old libraries lock only the prefix. */
static off_t lock_offset(int slot)
{
    return (off_t)(REGION_EXTENSION_AT + offsetof(struct region_extension, claims) +
                   (size_t)slot * sizeof(struct region_claim));
}

static void fill_extension(struct region_extension *ext)
{
    ext->version = REGION_EXTENSION_VERSION;
    ext->bytes = sizeof *ext;
    prim_lock_init(&ext->registry.mutex);
    for (int i = 0; i < REGION_DEVICES; i++)
        prim_lock_init(&ext->devices[i].lock.mutex);
    __atomic_store_n(&ext->magic, REGION_EXTENSION_MAGIC, __ATOMIC_RELEASE);
}

static void fill(struct region *region, const struct region_plan *plan)
{
    struct region_prefix *p = region->prefix;
    _Static_assert(sizeof(sem_t) <= sizeof p->semaphore, "an old library's semaphore fits");
    sem_init((sem_t *)(void *)p->semaphore, 1, 1);
    sem_init((sem_t *)(void *)p->probe_semaphore, 1, 1);
    p->major = REGION_MAJOR;
    p->minor = REGION_MINOR;
    p->sharing = 1;
    p->recent_kernel = 2;
    p->priority = plan->priority;
    fill_extension(region->ext);
    p->count = (uint64_t)plan->count;
    for (int i = 0; i < plan->count; i++) {
        memcpy(p->uuids[i], plan->uuids[i], REGION_UUID_BYTES - 1);
        region_set_limit(region, i, plan->limit[i], plan->cores[i]);
    }
    __atomic_store_n(&p->ready, REGION_READY, __ATOMIC_RELEASE);
}

const struct region_watch *region_watch;

static int map(struct region *region, int fd)
{
    char *at = prim_map(fd, REGION_BYTES);
    if (!at)
        return -1;
    if (region_watch)
        region_watch->mapped(at, REGION_BYTES);
    region->prefix = (struct region_prefix *)(void *)at;
    region->ext = (struct region_extension *)(void *)(at + REGION_EXTENSION_AT);
    region->fd = fd;
    region->slot = -1;
    return 0;
}

int region_private(struct region *region, const struct region_plan *plan)
{
    *region = (struct region){.fd = -1, .slot = -1};
    if (map(region, -1) != 0)
        return -1;
    fill(region, plan);
    return 0;
}

void region_check_descriptor(struct region *region)
{
    struct stat st;
    int saved = errno;
    if (region->fd >= 0 && (fstat(region->fd, &st) != 0 || (uint64_t)st.st_dev != region->dev ||
                            (uint64_t)st.st_ino != region->inode))
        region->fd = -1;
    errno = saved;
}

void region_close(struct region *region)
{
    if (region->prefix && (!region_watch || region_watch->unmapping(region->prefix)))
        munmap(region->prefix, REGION_BYTES);
    region_check_descriptor(region);
    if (region->fd >= 0)
        close(region->fd);
    *region = (struct region){.fd = -1, .slot = -1};
}

int region_create(const char *path, const struct region_plan *plan)
{
    char temporary[4096];
    struct region region = {.fd = -1, .slot = -1};
    struct prim_process self = prim_self();
    int length = snprintf(temporary, sizeof temporary, "%s.%d.%llx.new", path, self.pid, (unsigned long long)prim_now());
    if (length < 0 || length >= (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = prim_open(temporary, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return -1;
    /* Any user of the container may come first; fchmod because the process's umask is not ours to change. */
    int rc = ftruncate(fd, (off_t)REGION_BYTES) == 0 && fchmod(fd, 0666) == 0 ? 0 : -1;
    if (rc == 0)
        rc = map(&region, fd);
    if (rc == 0) {
        fill(&region, plan);
        rc = link(temporary, path);
    }
    int failure = errno;
    unlink(temporary);
    if (region.prefix)
        region_close(&region);
    else
        close(fd);
    errno = failure;
    return rc;
}

/* Gives a region made by another program our extension. Its amounts stay with the processes that it lists: they are not
 * ours to take back, and they end with them. */
static int extend(struct region *region)
{
    uint64_t until = prim_now() + EXTEND_PATIENCE_NS;
    const off_t at = REGION_EXTENSION_AT;
    while (!prim_byte_lock(region->fd, at, true)) {
        if (prim_now() > until) {
            errno = ETIMEDOUT;
            return -1;
        }
        prim_sleep(NS_PER_MS);
    }
    if (region->ext->magic != REGION_EXTENSION_MAGIC) {
        for (int i = 0; i < REGION_DEVICES; i++) {
            region->ext->devices[i].limit = region->prefix->limit[i];
            region->ext->devices[i].cores = (uint32_t)region->prefix->sm_limit[i];
        }
        fill_extension(region->ext);
    }
    prim_byte_unlock(region->fd, at);
    return 0;
}

int region_open(struct region *region, const char *path)
{
    *region = (struct region){.fd = -1, .slot = -1};
    int fd = prim_open(path, O_RDWR, 0);
    if (fd < 0)
        return -1;
    struct stat st;
    int rc = fstat(fd, &st);
    if (rc == 0 && (size_t)st.st_size < sizeof(struct region_prefix)) {
        errno = EPROTO;
        rc = -1;
    }
    if (rc == 0 && (size_t)st.st_size < REGION_BYTES)
        rc = ftruncate(fd, (off_t)REGION_BYTES);
    if (rc == 0)
        rc = map(region, fd);
    if (rc != 0) {
        int failure = errno;
        close(fd);
        errno = failure;
        return -1;
    }
    region->dev = (uint64_t)st.st_dev;
    region->inode = (uint64_t)st.st_ino;
    bool ready = __atomic_load_n(&region->prefix->ready, __ATOMIC_ACQUIRE) == REGION_READY;
    if (!ready || region->prefix->major != REGION_MAJOR || region->prefix->count > REGION_DEVICES) {
        region_close(region);
        errno = EPROTO;
        return -1;
    }
    if (__atomic_load_n(&region->ext->magic, __ATOMIC_ACQUIRE) != REGION_EXTENSION_MAGIC && extend(region) != 0) {
        int failure = errno;
        region_close(region);
        errno = failure;
        return -1;
    }
    return 0;
}

/* ---- devices */

static const char *after_kind(const char *uuid)
{
    const char *dash = strchr(uuid, '-');
    return dash ? dash + 1 : uuid;
}

int region_find(const struct region *region, const char *uuid)
{
    int count = (int)__atomic_load_n(&region->prefix->count, __ATOMIC_ACQUIRE);
    for (int i = 0; i < count && i < REGION_DEVICES; i++)
        if (strncmp(after_kind(region->prefix->uuids[i]), after_kind(uuid), REGION_UUID_TEXT) == 0)
            return i;
    return -1;
}

int region_add(struct region *region, const char *uuid)
{
    int found = region_find(region, uuid);
    if (found >= 0)
        return found;
    if (prim_lock(&region->ext->registry.mutex, PATIENCE_NS) == PRIM_TIMED_OUT)
        return -1;
    found = region_find(region, uuid);
    uint64_t count = region->prefix->count; /* whatever somebody has written there */
    if (found < 0 && count < REGION_DEVICES) {
        found = (int)count;
        strncpy(region->prefix->uuids[found], uuid, REGION_UUID_BYTES - 1);
        __atomic_store_n(&region->prefix->count, count + 1, __ATOMIC_RELEASE);
    }
    prim_unlock(&region->ext->registry.mutex);
    return found;
}

/* ---- slots */

/* Takes everything back that a slot had reserved. Safe to repeat from the start after dying anywhere in it: amounts and
 * totals change together under the device's robust lock, and the slot is free only after the last of them. */
static void empty_slot(struct region *region, int slot)
{
    struct region_claim *claim = &region->ext->claims[slot];
    for (int i = 0; i < REGION_DEVICES; i++) {
        struct region_device *d = &region->ext->devices[i];
        __atomic_add_fetch(&d->launches, claim->launches[i], __ATOMIC_RELAXED);
        claim->launches[i] = 0;
        struct region_memory *memory = &region->prefix->slots[slot].memory[i];
        if (__atomic_load_n(&claim->used[i], __ATOMIC_RELAXED) == 0 && memory->context == 0 && memory->module == 0)
            continue;
        bool locked = prim_lock(&d->lock.mutex, PATIENCE_NS) != PRIM_TIMED_OUT;
        __atomic_store_n(&claim->used[i], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&memory->context, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&memory->module, 0, __ATOMIC_RELAXED);
        if (locked) {
            account_recount(region, i);
            prim_unlock(&d->lock.mutex);
        } else {
            __atomic_store_n(&d->stale, 1, __ATOMIC_RELAXED);
        }
    }
    struct region_slot *shown = &region->prefix->slots[slot];
    shown->status = 0;
    memset(shown->memory, 0, sizeof shown->memory);
    memset(shown->monitor_used, 0, sizeof shown->monitor_used);
    memset(shown->use, 0, sizeof shown->use);
    shown->host_pid = 0;
    shown->pid = 0;
}

static void free_slot(struct region *region, int slot)
{
    struct region_claim *claim = &region->ext->claims[slot];
    empty_slot(region, slot);
    claim->start = 0;
    claim->pid_namespace = 0;
    claim->state = 0;
    __atomic_store_n(&claim->pid, 0, __ATOMIC_RELEASE);
}

static void show(struct region *region, int slot, const struct prim_process *self)
{
    struct region_slot *shown = &region->prefix->slots[slot];
    shown->pid = self->pid;
    shown->host_pid = 0;
    shown->status = 1;
}

/* The slot this process had before an exec. What its former program had allocated, the driver took back. */
static int own_old_slot(struct region *region, const struct prim_process *self)
{
    if (self->start == 0)
        return -1; /* without /proc an equal pid is no proof */
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    for (int slot = 0; slot < slots && slot < REGION_OVERFLOW; slot++) {
        const struct region_claim *claim = &region->ext->claims[slot];
        if (claim->pid == self->pid && claim->start == self->start && claim->pid_namespace == self->pid_namespace) {
            empty_slot(region, slot);
            return slot;
        }
    }
    return -1;
}

/* After the death of a holder of the registry's lock: it may have been filling in a claim, which nobody could judge. */
static void free_incomplete(struct region *region)
{
    for (int slot = 0; slot < REGION_SLOTS; slot++)
        if (region->ext->claims[slot].pid != 0 && region->ext->claims[slot].state == 0)
            free_slot(region, slot);
}

static void raise_slot_count(struct region *region, int slot)
{
    int32_t seen = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_RELAXED);
    while (seen <= slot && !__atomic_compare_exchange_n(&region->prefix->slot_count, &seen, slot + 1, false,
                                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        continue;
}

static int free_slot_for(struct region *region, const struct prim_process *self)
{
    for (int slot = 0; slot < REGION_OVERFLOW; slot++) {
        struct region_claim *claim = &region->ext->claims[slot];
        int32_t nobody = 0;
        if (__atomic_load_n(&claim->pid, __ATOMIC_RELAXED) != 0)
            continue;
        raise_slot_count(region, slot); /* first: a sweep must see whoever dies right after taking it */
        if (__atomic_compare_exchange_n(&claim->pid, &nobody, self->pid, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return slot;
    }
    return -1;
}

/* The slot is ours: says who we are. */
static void fill_claim(struct region *region, int slot, const struct prim_process *self)
{
    struct region_claim *claim = &region->ext->claims[slot];
    bool overflow = slot == REGION_OVERFLOW;
    claim->pid = self->pid;
    claim->start = overflow ? 0 : self->start;
    claim->pid_namespace = overflow ? 0 : self->pid_namespace;
    bool locked = region->fd >= 0 && prim_byte_lock(region->fd, lock_offset(slot), !overflow);
    __atomic_store_n(&claim->state, REGION_CLAIM_COMPLETE | (locked ? REGION_CLAIM_LOCKED : 0), __ATOMIC_RELEASE);
    show(region, slot, self);
    region->slot = slot;
}

/* Takes a slot under the registry's lock; without it when its holder is stopped, which the compare-and-swap allows. */
static bool take_slot(struct region *region, const struct prim_process *self)
{
    enum prim_lock got = prim_lock(&region->ext->registry.mutex, PATIENCE_NS);
    if (got == PRIM_OWNER_DIED)
        free_incomplete(region);
    int slot = own_old_slot(region, self);
    if (slot < 0)
        slot = free_slot_for(region, self);
    if (slot >= 0)
        fill_claim(region, slot, self);
    if (got != PRIM_TIMED_OUT)
        prim_unlock(&region->ext->registry.mutex);
    return slot >= 0;
}

void region_join(struct region *region)
{
    struct prim_process self = prim_self();
    if (take_slot(region, &self) || (region_reap(region, false) > 0 && take_slot(region, &self)))
        return;
    raise_slot_count(region, REGION_OVERFLOW);
    fill_claim(region, REGION_OVERFLOW, &self);
}

void region_forget(struct region *region)
{
    region->slot = -1;
}

struct reaper {
    struct prim_process self;
    bool node_side;
};

static struct prim_process owner_of(const struct region *region, int slot)
{
    const struct region_claim *claim = &region->ext->claims[slot];
    return (struct prim_process){.pid = claim->pid, .start = claim->start, .pid_namespace = claim->pid_namespace};
}

static bool same_namespace(const struct prim_process *a, const struct prim_process *b)
{
    return a->pid_namespace == b->pid_namespace && a->pid_namespace != 0;
}

static bool certainly_gone(const struct region *region, int slot, const struct reaper *reaper)
{
    const struct region_claim *claim = &region->ext->claims[slot];
    struct prim_process owner = owner_of(region, slot);
    bool unlocked = (claim->state & REGION_CLAIM_LOCKED) && region->fd >= 0 && prim_byte_free(region->fd, lock_offset(slot));
    if (slot == REGION_OVERFLOW)
        return unlocked && region->slot != REGION_OVERFLOW;
    if (same_namespace(&owner, &reaper->self) || claim->state == 0)
        return prim_gone(&owner);
    if (!reaper->node_side)
        return unlocked;
    bool sees_all = reaper->self.pid_namespace == INITIAL_PID_NAMESPACE;
    if (!unlocked && !sees_all)
        return false; /* a lock vanishes when a program closes every descriptor; /proc must agree */
    bool complete;
    return prim_find(&owner, &complete) == 0 && complete;
}

/* The owner's pid as the node side sees it; stays 0 where /proc does not show the owner. */
static void note_host_pid(struct region *region, int slot, const struct reaper *reaper)
{
    struct region_slot *shown = &region->prefix->slots[slot];
    if (!reaper->node_side || shown->host_pid != 0 || slot == REGION_OVERFLOW)
        return;
    struct prim_process owner = owner_of(region, slot);
    bool complete;
    shown->host_pid = same_namespace(&owner, &reaper->self) ? owner.pid : prim_find(&owner, &complete);
}

int region_reap(struct region *region, bool node_side)
{
    struct reaper reaper = {.self = prim_self(), .node_side = node_side};
    int reaped = 0;
    region_check_descriptor(region);
    enum prim_lock got = prim_lock(&region->ext->registry.mutex, PATIENCE_NS);
    if (got == PRIM_TIMED_OUT)
        return 0;
    if (got == PRIM_OWNER_DIED)
        free_incomplete(region);
    int slots = region->prefix->slot_count;
    for (int slot = 0; slot < slots && slot < REGION_SLOTS; slot++) {
        if (region->ext->claims[slot].pid == 0 || slot == region->slot)
            continue;
        if (certainly_gone(region, slot, &reaper)) {
            free_slot(region, slot);
            reaped++;
        } else {
            note_host_pid(region, slot, &reaper);
        }
    }
    prim_unlock(&region->ext->registry.mutex);
    return reaped;
}

void region_note_policy(struct region *region, uint32_t policy)
{
    __atomic_store_n(&region->ext->policy, policy, __ATOMIC_RELAXED);
}

uint64_t region_launches(const struct region *region, int device)
{
    uint64_t launches = __atomic_load_n(&region->ext->devices[device].launches, __ATOMIC_RELAXED);
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    for (int slot = 0; slot < slots && slot < REGION_SLOTS; slot++)
        launches += __atomic_load_n(&region->ext->claims[slot].launches[device], __ATOMIC_RELAXED);
    return launches;
}

/* ---- the node side's words */

void region_set_limit(struct region *region, int device, uint64_t bytes, uint32_t cores)
{
    __atomic_store_n(&region->ext->devices[device].limit, bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&region->ext->devices[device].cores, cores, __ATOMIC_RELAXED);
    __atomic_store_n(&region->prefix->limit[device], bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&region->prefix->sm_limit[device], cores, __ATOMIC_RELAXED);
}

void region_set_priority(struct region *region, int32_t priority)
{
    __atomic_store_n(&region->prefix->priority, priority, __ATOMIC_RELAXED);
}

static bool is_whole(const struct region *region, const struct region_plan *plan)
{
    const struct region_prefix *p = region->prefix;
    return p->ready == REGION_READY && p->major == REGION_MAJOR && region->ext->magic == REGION_EXTENSION_MAGIC &&
           p->priority == plan->priority && p->count >= (uint64_t)plan->count && p->count <= REGION_DEVICES;
}

static bool is_planned(const struct region *region, const struct region_plan *plan, int i)
{
    const struct region_prefix *p = region->prefix;
    const struct region_device *d = &region->ext->devices[i];
    return strncmp(p->uuids[i], plan->uuids[i], REGION_UUID_BYTES) == 0 && p->limit[i] == plan->limit[i] &&
           p->sm_limit[i] == plan->cores[i] && d->limit == plan->limit[i] && d->cores == plan->cores[i];
}

bool region_reassert(struct region *region, const struct region_plan *plan)
{
    struct region_prefix *p = region->prefix;
    bool changed = !is_whole(region, plan);
    for (int i = 0; i < plan->count; i++) {
        if (is_planned(region, plan, i))
            continue;
        changed = true;
        memcpy(p->uuids[i], plan->uuids[i], REGION_UUID_BYTES);
        region_set_limit(region, i, plan->limit[i], plan->cores[i]);
    }
    if (!changed)
        return false;
    region_set_priority(region, plan->priority);
    if (p->count < (uint64_t)plan->count || p->count > REGION_DEVICES)
        p->count = (uint64_t)plan->count;
    p->major = REGION_MAJOR;
    region->ext->magic = REGION_EXTENSION_MAGIC;
    __atomic_store_n(&p->ready, REGION_READY, __ATOMIC_RELEASE);
    return true;
}

void region_set_sharing(struct region *region, bool sharing)
{
    __atomic_store_n(&region->prefix->sharing, sharing ? 1 : 0, __ATOMIC_RELAXED);
}

void region_set_correction(struct region *region, int device, uint32_t permille, uint32_t tenants)
{
    __atomic_store_n(&region->ext->devices[device].correction, permille, __ATOMIC_RELAXED);
    __atomic_store_n(&region->ext->devices[device].tenants, tenants, __ATOMIC_RELAXED);
}

void region_lend(struct region *region, int device, uint32_t percent)
{
    struct region_device *d = &region->ext->devices[device];
    __atomic_store_n(&d->lent_until_ns, percent ? prim_now() + REGION_LOAN_NS : 0, __ATOMIC_RELAXED);
    __atomic_store_n(&d->lent, percent, __ATOMIC_RELAXED);
}

void region_set_context_bytes(struct region *region, int device, uint64_t bytes)
{
    __atomic_store_n(&region->ext->devices[device].context_bytes, bytes, __ATOMIC_RELAXED);
}

#define AMENDED_NS NS_PER_S /* credit by amendment, as wall time */

void region_amend(struct region *region, int device, int64_t ns)
{
    int64_t *debt = &region->ext->devices[device].debt_ns;
    int64_t most_credit = -(int64_t)(AMENDED_NS * region->ext->devices[device].cores / 100);
    int64_t owed = __atomic_load_n(debt, __ATOMIC_RELAXED), next;
    do {
        next = owed + ns;
        if (ns < 0 && next < most_credit)
            next = owed < most_credit ? owed : most_credit;
    } while (!__atomic_compare_exchange_n(debt, &owed, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void region_block(struct region *region)
{
    __atomic_store_n(&region->prefix->recent_kernel, -1, __ATOMIC_RELAXED);
}

void region_unblock(struct region *region)
{
    int32_t seen = __atomic_load_n(&region->prefix->recent_kernel, __ATOMIC_RELAXED);
    while (seen < 0 && !__atomic_compare_exchange_n(&region->prefix->recent_kernel, &seen, 0, false, __ATOMIC_RELAXED,
                                                    __ATOMIC_RELAXED))
        continue;
    prim_wake(&region->prefix->recent_kernel);
}

int32_t region_decay(struct region *region)
{
    int32_t seen = __atomic_load_n(&region->prefix->recent_kernel, __ATOMIC_RELAXED);
    while (seen > 0 && !__atomic_compare_exchange_n(&region->prefix->recent_kernel, &seen, seen - 1, false,
                                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        continue;
    return seen > 0 ? seen - 1 : seen;
}
