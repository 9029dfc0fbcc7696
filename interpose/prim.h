/* The operating system as this library uses it: clock, sleep, processes, maps, locks. Nothing else here calls it.
 *
 * Every function keeps errno and neither allocates nor prints. Times are nanoseconds.
 */
#ifndef HAMI_PRIM_H
#define HAMI_PRIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/* ---- time */
uint64_t prim_now(void);          /* monotonic */
uint64_t prim_unix_seconds(void); /* wall clock, coarse: a few ns a call */
void prim_sleep(uint64_t ns);     /* returns early when a signal arrives */
/* Waits until *word is no longer `seen`, somebody wakes it, a signal arrives or `ns` passed. Works across processes. */
void prim_wait(const int32_t *word, int32_t seen, uint64_t ns);
void prim_wake(const int32_t *word);

/* ---- processes */
struct prim_process {
    int32_t pid;
    uint64_t start;         /* field 22 of /proc/<pid>/stat; 0 when it cannot be read */
    uint64_t pid_namespace; /* inode; 0 when it cannot be read */
};
struct prim_process prim_self(void);
/* True only if `process`, which must be of the caller's own pid namespace, certainly no longer runs. */
bool prim_gone(const struct prim_process *process);
/* The pid under which the caller's /proc shows `process`, a process of any pid namespace; 0 if it shows none.
 * `complete` becomes false if /proc could not be searched, so that 0 proves nothing. */
int32_t prim_find(const struct prim_process *process, bool *complete);

/* Calls `child` in every later fork's child, before fork returns there. Once it is `known` this does nothing; threads that
 * come first together may each have it called, so `child` must bear that. Who guards something by a lock calls this before
 * the lock is first taken: a fork meanwhile would leave it held for good. */
void prim_after_fork(bool *known, void (*child)(void));

/* ---- locks shared between processes: robust, so that the death of a holder is noticed */
enum prim_lock { PRIM_LOCKED, PRIM_OWNER_DIED, PRIM_TIMED_OUT };
void prim_lock_init(pthread_mutex_t *mutex);
/* PRIM_OWNER_DIED: locked, and the caller must repair what the lock guards before it unlocks. */
enum prim_lock prim_lock(pthread_mutex_t *mutex, uint64_t timeout_ns);
void prim_unlock(pthread_mutex_t *mutex);
/* From now on this process takes such locks by their first word alone. For the node side, which outranks the programs it
 * shares memory with: what they write into the rest, pointers among it, the C library would believe. */
void prim_lock_by_word(void);

/* ---- byte locks of an open file description: gone when its last descriptor is closed, however that happens */
bool prim_byte_lock(int fd, off_t at, bool exclusive);
void prim_byte_unlock(int fd, off_t at);
/* True if nobody but this file description holds a lock there. False also when that cannot be asked. */
bool prim_byte_free(int fd, off_t at);

/* ---- files and maps; -1 or null on failure, errno says why */
int prim_open(const char *path, int flags, mode_t mode); /* close-on-exec, and a high number out of programs' way */
void *prim_map(int fd, size_t bytes);                    /* fd < 0: anonymous, shared with children */
/* Reads a whole small file; returns its length, or -1. Longer than `room` - 1: errno = EFBIG. NUL is appended. */
ssize_t prim_read_file(const char *path, char *text, size_t room);

#endif
