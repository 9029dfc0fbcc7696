/*
 * One file, mapped by every process that uses the machine. House rules: nothing happens at load time; the lock is held
 * for a few hundred instructions and never across a wait; what a process holds is written in its own row only, so that
 * a death at any instruction loses nothing (sums are made again from the rows); a row is free when its liveness lock is
 * free.
 */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "mig.h"
#include "mps.h"
#include "timeline.h"

struct sim_state *sim;

static pthread_mutex_t attach_lock = PTHREAD_MUTEX_INITIALIZER;
static int state_fd = -1;
static struct stat state_file; /* what state_fd was opened on */
static int own_slot = -1;
static unsigned generation = 1;
static bool mapped;

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(((struct sim_state *)0)->lock), "the lock fits its field");

static pthread_mutex_t *shared_lock(void) { return (pthread_mutex_t *)(void *)sim->lock; }

/* A lock of one byte at `offset`: `command` is one of fcntl's lock commands. */
static int byte_lock(int command, short type, u64 offset, struct flock *answer)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
    int rc;
    do {
        rc = fcntl(state_fd, command, &lock);
    } while (rc < 0 && errno == EINTR);
    if (answer)
        *answer = lock;
    return rc;
}

/* The first process makes the lock. Others wait for it at byte 0, so nobody sees it half made. */
static bool make_ready(void)
{
    if (__atomic_load_n(&sim->ready, __ATOMIC_ACQUIRE))
        return true;
    if (byte_lock(F_OFD_SETLKW, F_WRLCK, 0, NULL) < 0)
        return false;
    if (!sim->ready) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(shared_lock(), &attributes);
        pthread_mutexattr_destroy(&attributes);
        sim->born_ns = state_now();
        for (u32 d = 0; d < sim->device_count; d++)
            sim->mig_current[d] = sim->mig_pending[d] = sim->devices[d].mig_mode;
        __atomic_store_n(&sim->ready, 1, __ATOMIC_RELEASE);
    }
    byte_lock(F_OFD_SETLK, F_UNLCK, 0, NULL);
    return true;
}

/* Daemons close every descriptor they find; by then another file may have the number. */
static bool fd_is_ours(void)
{
    struct stat now;
    return state_fd >= 0 && fstat(state_fd, &now) == 0 && now.st_dev == state_file.st_dev &&
           now.st_ino == state_file.st_ino;
}

/* A child has no contexts and must not keep its parent's lock alive: it starts over at its next call. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&attach_lock, NULL);
    if (fd_is_ours())
        close(state_fd);
    state_fd = -1;
    own_slot = -1;
    mapped = false;
    generation++;
}

static bool open_state(void)
{
    const char *path = getenv("HAMI_SIM_STATE");
    if (!path || !*path)
        return false;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct stat info;
    if (fstat(fd, &info) < 0 || (u64)info.st_size < sizeof(struct sim_state))
        goto refuse;
    if (!sim) {
        void *at = mmap(NULL, sizeof(struct sim_state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED)
            goto refuse;
        struct sim_state *state = at;
        if (state->magic != SIM_MAGIC || state->version != SIM_VERSION || state->size != sizeof(struct sim_state) ||
            state->device_count > SIM_DEVICES || state->fault_count > SIM_FAULTS) {
            munmap(at, sizeof(struct sim_state));
            goto refuse;
        }
        sim = state;
    }
    state_fd = fd;
    state_file = info;
    return make_ready();
refuse:
    close(fd);
    return false;
}

void state_after_fork(bool *known, void (*child)(void))
{
    if (!__atomic_load_n(known, __ATOMIC_ACQUIRE) && pthread_atfork(NULL, NULL, child) == 0)
        __atomic_store_n(known, true, __ATOMIC_RELEASE);
}

bool state_map(void)
{
    static bool forks_known;
    if (__atomic_load_n(&mapped, __ATOMIC_ACQUIRE))
        return true;
    state_after_fork(&forks_known, after_fork_in_child);
    pthread_mutex_lock(&attach_lock);
    if (!mapped && open_state())
        __atomic_store_n(&mapped, true, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&attach_lock);
    return mapped;
}

/* The last holder died: its half-done change is in sums only, so make those again. */
static void repair(void)
{
    for (u32 d = 0; d < SIM_UNITS; d++) {
        u64 used = 0;
        for (u64 p = 0; p < sim->process_high; p++)
            for (int k = 0; sim->processes[p].live && k < SIM_KINDS; k++)
                used += sim->processes[p].memory[d * SIM_KINDS + k];
        sim->used[d] = used;
    }
    timeline_repair();
}

void state_lock(void)
{
    /* Tried, not waited for: a waiter registers its intent with the kernel under its thread id, and in containers,
     * where ids repeat (1, 7, ...), the kernel would take a killed waiter for the holder of the same id. */
    for (unsigned spin = 0;; spin++) {
        int rc = pthread_mutex_trylock(shared_lock());
        if (rc == 0)
            return;
        if (rc == EOWNERDEAD) {
            pthread_mutex_consistent(shared_lock());
            repair();
            return;
        }
        if (spin >= 64)
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        else
            sched_yield();
    }
}

void state_unlock(void) { pthread_mutex_unlock(shared_lock()); }

bool state_alive(int slot)
{
    if (slot == own_slot)
        return true;
    struct flock found;
    if (byte_lock(F_OFD_GETLK, F_WRLCK, (u64)SIM_LOCK_BASE + (u64)slot, &found) < 0)
        return true; /* in doubt nobody loses memory */
    return found.l_type != F_UNLCK;
}

int state_pid(int slot)
{
    if (slot == own_slot)
        return getpid();
    struct flock found;
    if (byte_lock(F_GETLK, F_WRLCK, (u64)SIM_PID_BASE + (u64)slot, &found) < 0 || found.l_type == F_UNLCK)
        return 0;
    return found.l_pid > 0 ? found.l_pid : 0;
}

/* Clear `slot`, whose process is gone. With the lock held. */
static void drop(int slot)
{
    struct sim_process *process = &sim->processes[slot];
    for (u32 d = 0; d < SIM_UNITS; d++) {
        for (int k = 0; k < SIM_KINDS; k++) {
            sim->used[d] -= process->memory[d * SIM_KINDS + k];
            process->memory[d * SIM_KINDS + k] = 0;
        }
        if (process->queue[d])
            timeline_remove(process->queue[d] - 1);
    }
    memset(process, 0, sizeof *process);
}

static void reap_locked(void)
{
    for (int p = 0; p < (int)sim->process_high; p++)
        if (sim->processes[p].live && !state_alive(p))
            drop(p);
}

void state_reap(void)
{
    state_lock();
    reap_locked();
    state_unlock();
}

/* Claim a slot: its byte lock first, so that no reaper can take a claimed row for a dead one. With the lock held. */
static int claim(const u64 *groups, const struct mps_terms *terms)
{
    for (int p = 0; p < SIM_PROCESSES; p++) {
        struct sim_process *process = &sim->processes[p];
        if (process->live && state_alive(p))
            continue;
        if (byte_lock(F_OFD_SETLK, F_WRLCK, (u64)SIM_LOCK_BASE + (u64)p, NULL) < 0)
            continue;
        if (process->live)
            drop(p);
        byte_lock(F_SETLK, F_WRLCK, (u64)SIM_PID_BASE + (u64)p, NULL);
        process->pid = getpid();
        process->started_ns = state_now();
        prctl(PR_GET_NAME, process->name);
        memcpy(process->groups, groups, sizeof process->groups);
        process->sm_ppm = terms->sm_ppm;
        process->mps_client = terms->client;
        memcpy(process->pinned, terms->pinned, sizeof process->pinned);
        process->live = 1;
        if (sim->process_high <= (u64)p)
            sim->process_high = (u64)p + 1;
        return p;
    }
    return -1;
}

int state_attach(void)
{
    int slot = __atomic_load_n(&own_slot, __ATOMIC_ACQUIRE);
    if (slot >= 0 || !state_map())
        return slot;
    pthread_mutex_lock(&attach_lock);
    if (own_slot < 0) {
        u64 groups[SIM_CGROUP_DEPTH];
        struct mps_terms terms;
        cgroup_find(groups);
        mps_find(&terms);
        state_lock();
        slot = claim(groups, &terms);
        state_unlock();
        __atomic_store_n(&own_slot, slot, __ATOMIC_RELEASE);
    }
    slot = own_slot;
    pthread_mutex_unlock(&attach_lock);
    return slot;
}

unsigned state_generation(void) { return generation; }

/* Bytes that a process may still take of a unit. With the lock held. */
static u64 room_for(int slot, int device, enum sim_kind kind)
{
    const struct sim_process *process = &sim->processes[slot];
    u64 room = sim->devices[device].memory_bytes - sim->used[device];
    u64 of_group = cgroup_room(process->groups, device, kind), of_client = mps_room(process, device, kind);
    u64 allowed = of_group < of_client ? of_group : of_client;
    return allowed < room ? allowed : room;
}

bool ledger_take(int device, enum sim_kind kind, u64 bytes)
{
    int slot = state_attach();
    if (slot < 0)
        return false;
    state_lock();
    u64 room = room_for(slot, device, kind);
    if (bytes > room) {
        reap_locked();
        room = room_for(slot, device, kind);
    }
    bool fits = bytes <= room && unit_exists(device);
    if (fits) {
        sim->processes[slot].memory[device * SIM_KINDS + kind] += bytes;
        sim->used[device] += bytes;
    }
    state_unlock();
    return fits;
}

u64 ledger_take_some(int device, enum sim_kind kind, u64 bytes)
{
    int slot = state_attach();
    if (slot < 0)
        return 0;
    state_lock();
    reap_locked();
    u64 room = unit_exists(device) ? room_for(slot, device, kind) : 0;
    u64 taken = bytes < room ? bytes : room;
    sim->processes[slot].memory[device * SIM_KINDS + kind] += taken;
    sim->used[device] += taken;
    state_unlock();
    return taken;
}

void ledger_give(int device, enum sim_kind kind, u64 bytes)
{
    int slot = state_attach();
    if (slot < 0)
        return;
    state_lock();
    sim->processes[slot].memory[device * SIM_KINDS + kind] -= bytes;
    sim->used[device] -= bytes;
    state_unlock();
}

bool ledger_busy(int unit)
{
    reap_locked();
    for (u64 p = 0; p < sim->process_high; p++) {
        const struct sim_process *process = &sim->processes[p];
        if (process->live && process->contexts[unit])
            return true;
    }
    return sim->used[unit] > 0;
}

u64 ledger_used(int device)
{
    state_lock();
    reap_locked();
    u64 used = sim->used[device];
    state_unlock();
    return used;
}

u64 state_now(void)
{
    u64 manual = __atomic_load_n(&sim->manual_ns, __ATOMIC_ACQUIRE);
    if (manual)
        return manual;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}

void state_sleep_until(u64 when)
{
    u64 manual = __atomic_load_n(&sim->manual_ns, __ATOMIC_ACQUIRE);
    if (manual) {
        while (manual < when &&
               !__atomic_compare_exchange_n(&sim->manual_ns, &manual, when, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(when / 1000000000u), .tv_nsec = (long)(when % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        continue;
}
