#include "prim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef F_OFD_GETLK /* Linux 3.15; older C libraries do not name them */
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

/* Programs assume that the next descriptor they open is a small number; ours stay above what shells hand out. */
enum { LOWEST_FD = 200 };

static uint64_t as_ns(struct timespec t)
{
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static struct timespec as_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

uint64_t prim_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return as_ns(t);
}

uint64_t prim_unix_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (uint64_t)t.tv_sec;
}

void prim_sleep(uint64_t ns)
{
    int saved = errno;
    struct timespec t = as_timespec(ns);
    nanosleep(&t, NULL);
    errno = saved;
}

void prim_wait(const int32_t *word, int32_t seen, uint64_t ns)
{
    int saved = errno;
    struct timespec t = as_timespec(ns);
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &t, NULL, 0);
    errno = saved;
}

void prim_wake(const int32_t *word)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    errno = saved;
}

/* Field 22 of a stat line. The name in field 2 may hold anything, so counting starts at the last ')'. */
static uint64_t start_of(const char *proc, int32_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "%s/%d/stat", proc, pid);
    if (prim_read_file(path, text, sizeof text) <= 0)
        return 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static uint64_t pid_namespace_of(const char *who)
{
    char path[300]; /* a directory entry's name is at most 255 bytes */
    struct stat st;
    snprintf(path, sizeof path, "/proc/%s/ns/pid", who);
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

struct prim_process prim_self(void)
{
    int saved = errno;
    struct prim_process self = {.pid = (int32_t)getpid()};
    self.start = start_of("/proc", self.pid);
    self.pid_namespace = pid_namespace_of("self");
    errno = saved;
    return self;
}

bool prim_gone(const struct prim_process *process)
{
    int saved = errno;
    bool gone = false;
    if (kill((pid_t)process->pid, 0) != 0 && errno == ESRCH) {
        gone = true;
    } else if (process->start != 0) {
        uint64_t start = start_of("/proc", process->pid);
        gone = start != 0 && start != process->start; /* the number was given to another process since */
    }
    errno = saved;
    return gone;
}

/* The pid of a process in its own, innermost namespace: the last number of the NSpid line. */
static int32_t innermost_pid(const char *pid)
{
    char path[300], text[4096];
    snprintf(path, sizeof path, "/proc/%s/status", pid);
    if (prim_read_file(path, text, sizeof text) <= 0)
        return 0;
    char *line = strstr(text, "\nNSpid:");
    if (!line)
        return 0;
    char *end = strchr(line + 1, '\n');
    if (end)
        *end = 0;
    const char *last = strrchr(line + 1, '\t');
    return last ? (int32_t)strtol(last + 1, NULL, 10) : 0;
}

int32_t prim_find(const struct prim_process *process, bool *complete)
{
    int saved = errno;
    int32_t found = 0;
    DIR *proc = opendir("/proc");
    *complete = proc != NULL;
    for (struct dirent *entry; proc && !found && (entry = readdir(proc));) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        int32_t pid = (int32_t)strtol(entry->d_name, NULL, 10);
        uint64_t start = start_of("/proc", pid);
        if (start != process->start || innermost_pid(entry->d_name) != process->pid)
            continue;
        uint64_t space = pid_namespace_of(entry->d_name);
        if (space == 0 || space == process->pid_namespace) /* unreadable: take it as alive */
            found = pid;
    }
    if (proc)
        closedir(proc);
    errno = saved;
    return found;
}

/* What pthread_atfork calls in glibc. By its name linkers add a part of glibc that other C libraries cannot load. */
extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *object)
    __attribute__((weak));

void prim_after_fork(bool *known, void (*child)(void))
{
    if (__atomic_load_n(known, __ATOMIC_ACQUIRE))
        return;
    if (__register_atfork)
        __register_atfork(NULL, NULL, child, NULL); /* no object to end with: this library is never unloaded */
    __atomic_store_n(known, true, __ATOMIC_RELEASE);
}

void prim_lock_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

/* The first word of glibc's robust mutexes: 0, or the holder's thread number, with the kernel's two marks. In place of a
 * number the node side writes one that no thread can have. Nothing tells of its death: its hold is over in microseconds,
 * so whoever waits in vain takes it for dead. */
enum { NODE_SIDE = 0x3ffffffe, NODE_PAUSE_NS = 20000 };
static bool by_word;

void prim_lock_by_word(void)
{
    by_word = true;
}

static uint32_t *word_of(pthread_mutex_t *mutex)
{
    return (uint32_t *)(void *)&mutex->__data.__lock;
}

static bool change_word(pthread_mutex_t *mutex, uint32_t seen, uint32_t holder)
{
    return __atomic_compare_exchange_n(word_of(mutex), &seen, holder | (seen & FUTEX_WAITERS), false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

static enum prim_lock lock_word(pthread_mutex_t *mutex, uint64_t timeout_ns)
{
    const uint64_t until = prim_now() + timeout_ns;
    for (;;) {
        uint32_t seen = __atomic_load_n(word_of(mutex), __ATOMIC_RELAXED);
        bool late = prim_now() >= until;
        bool died = (seen & FUTEX_OWNER_DIED) || (late && (seen & FUTEX_TID_MASK) == NODE_SIDE);
        if ((died || (seen & FUTEX_TID_MASK) == 0) && change_word(mutex, seen, NODE_SIDE))
            return died ? PRIM_OWNER_DIED : PRIM_LOCKED;
        if (late)
            return PRIM_TIMED_OUT;
        prim_sleep(NODE_PAUSE_NS);
    }
}

static void unlock_word(pthread_mutex_t *mutex)
{
    uint32_t seen = __atomic_load_n(word_of(mutex), __ATOMIC_RELAXED);
    while ((seen & FUTEX_TID_MASK) == NODE_SIDE && !(seen & FUTEX_OWNER_DIED)) {
        if (!__atomic_compare_exchange_n(word_of(mutex), &seen, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            continue;
        if (seen & FUTEX_WAITERS)
            prim_wake((const int32_t *)word_of(mutex));
        return;
    }
}

/* A node side that died with the lock: marked as the kernel would have done. False: it is somebody else's. */
static bool mark_dead_node_side(pthread_mutex_t *mutex)
{
    uint32_t seen = __atomic_load_n(word_of(mutex), __ATOMIC_RELAXED);
    return (seen & FUTEX_TID_MASK) == NODE_SIDE && change_word(mutex, seen, FUTEX_OWNER_DIED);
}

static int lock_until(pthread_mutex_t *mutex, uint64_t timeout_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until = as_timespec(as_ns(until) + timeout_ns);
    return pthread_mutex_timedlock(mutex, &until);
}

enum prim_lock prim_lock(pthread_mutex_t *mutex, uint64_t timeout_ns)
{
    if (by_word)
        return lock_word(mutex, timeout_ns);
    int rc = pthread_mutex_trylock(mutex);
    if (rc == EBUSY)
        rc = lock_until(mutex, timeout_ns);
    if (rc == ETIMEDOUT && mark_dead_node_side(mutex))
        rc = pthread_mutex_trylock(mutex);
    if (rc == 0)
        return PRIM_LOCKED;
    if (rc == EOWNERDEAD) {
        pthread_mutex_consistent(mutex);
        return PRIM_OWNER_DIED;
    }
    return PRIM_TIMED_OUT;
}

void prim_unlock(pthread_mutex_t *mutex)
{
    if (by_word)
        unlock_word(mutex);
    else
        pthread_mutex_unlock(mutex);
}

static bool set_byte_lock(int fd, off_t at, short type)
{
    int saved = errno;
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    bool done = fcntl(fd, F_OFD_SETLK, &lock) == 0;
    errno = saved;
    return done;
}

bool prim_byte_lock(int fd, off_t at, bool exclusive)
{
    return set_byte_lock(fd, at, exclusive ? F_WRLCK : F_RDLCK);
}

void prim_byte_unlock(int fd, off_t at)
{
    set_byte_lock(fd, at, F_UNLCK);
}

bool prim_byte_free(int fd, off_t at)
{
    int saved = errno;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    bool unlocked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
    errno = saved;
    return unlocked;
}

int prim_open(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags | O_CLOEXEC, mode);
    if (fd < 0)
        return -1;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_FD);
    if (high < 0)
        return fd; /* few descriptors allowed: a low one serves as well */
    close(fd);
    return high;
}

void *prim_map(int fd, size_t bytes)
{
    int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

ssize_t prim_read_file(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t have = 0;
    ssize_t got = 1;
    while (have < room && (got = read(fd, text + have, room - have)) > 0)
        have += (size_t)got;
    int failure = got < 0 ? errno : 0;
    close(fd);
    if (failure || have == room) {
        errno = failure ? failure : EFBIG;
        return -1;
    }
    text[have] = 0;
    return (ssize_t)have;
}
