/* Functions that glibc kept in files of their own before 2.34 (libpthread, libdl), under their own names, for this library
 * alone. Needing those files would have every program that starts open two more, which newer glibc only keeps as empty
 * shells. So each function is found when it is first called; by then there is a driver, which needs those files itself.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "genuine.h"

/* `place` remembers it. Two threads that search at once find the same. */
static void *late(void **place, const char *name, const char *file)
{
    void *function = __atomic_load_n(place, __ATOMIC_RELAXED);
    if (__builtin_expect(!function, 0)) {
        function = genuine_function(name, file);
        __atomic_store_n(place, function, __ATOMIC_RELAXED);
    }
    return function;
}

/* `absent` is the answer where the C library has no such function; the rest of this library takes it as a refusal. */
#define LATE(file, name, absent, parameters, arguments)                                                                \
    int name parameters                                                                                                \
    {                                                                                                                  \
        static void *place;                                                                                            \
        __typeof__(&name) function = (__typeof__(&name))late(&place, #name, file);                                     \
        return function ? function arguments : (absent);                                                               \
    }
#define LATE_LOCK(name, parameters, arguments) LATE("libpthread.so.0", name, ENOSYS, parameters, arguments)

LATE_LOCK(pthread_mutex_trylock, (pthread_mutex_t * mutex), (mutex))
LATE_LOCK(pthread_mutex_timedlock, (pthread_mutex_t * mutex, const struct timespec *until), (mutex, until))
LATE_LOCK(pthread_mutex_consistent, (pthread_mutex_t * mutex), (mutex))
LATE_LOCK(pthread_mutexattr_init, (pthread_mutexattr_t * attributes), (attributes))
LATE_LOCK(pthread_mutexattr_destroy, (pthread_mutexattr_t * attributes), (attributes))
LATE_LOCK(pthread_mutexattr_setpshared, (pthread_mutexattr_t * attributes, int shared), (attributes, shared))
LATE_LOCK(pthread_mutexattr_setrobust, (pthread_mutexattr_t * attributes, int robust), (attributes, robust))
LATE("libpthread.so.0", sem_init, -1, (sem_t * semaphore, int shared, unsigned int value), (semaphore, shared, value))
LATE("libdl.so.2", dladdr, 0, (const void *address, Dl_info *info), (address, info))
