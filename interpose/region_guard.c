#include "region_guard.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "region.h"

/* More regions than a node has containers; what is beyond is mapped unguarded. */
enum { MAPPINGS = 4096 };

static struct mapping {
    uintptr_t at; /* 0 = free; written last when taken, first when given back */
    size_t bytes;
    int lost;
} mappings[MAPPINGS];
static struct sigaction before;

static struct mapping *find(uintptr_t address)
{
    for (int i = 0; i < MAPPINGS; i++) {
        uintptr_t at = __atomic_load_n(&mappings[i].at, __ATOMIC_ACQUIRE);
        if (at != 0 && address >= at && address - at < mappings[i].bytes)
            return &mappings[i];
    }
    return NULL;
}

/* What the signal did before us. Without a handler the fault comes again and ends the process, as it should. */
static void pass_on(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else
        sigaction(number, &before, NULL);
}

/* Puts zeros where the file has no pages any more, from the fault to the end of the mapping; the instruction is then tried
 * again. mmap is a plain system call, which a handler may make. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    struct mapping *mapping = find(address);
    uintptr_t page = address & ~(uintptr_t)4095;
    bool replaced = false;
    if (mapping) {
        __atomic_store_n(&mapping->lost, 1, __ATOMIC_RELEASE);
        size_t rest = mapping->bytes - (page - mapping->at);
        replaced = mmap((void *)page, rest, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
                   MAP_FAILED;
    }
    errno = saved;
    if (!replaced)
        pass_on(number, info, context);
}

static void mapped(void *at, size_t bytes)
{
    for (int i = 0; i < MAPPINGS; i++) {
        uintptr_t nobody = 0;
        if (!__atomic_compare_exchange_n(&mappings[i].at, &nobody, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        mappings[i].bytes = bytes;
        mappings[i].lost = 0;
        __atomic_store_n(&mappings[i].at, (uintptr_t)at, __ATOMIC_RELEASE);
        return;
    }
}

/* A lost mapping stays for good: if one of its locks was held when the pages went, the C library's list of this thread's
 * locks still leads through it. */
static bool unmapping(void *at)
{
    struct mapping *mapping = find((uintptr_t)at);
    if (!mapping)
        return true;
    bool lost = __atomic_load_n(&mapping->lost, __ATOMIC_ACQUIRE) != 0;
    __atomic_store_n(&mapping->at, 0, __ATOMIC_RELEASE);
    return !lost;
}

bool region_guard_lost(const void *at)
{
    const struct mapping *mapping = find((uintptr_t)at);
    return mapping && __atomic_load_n(&mapping->lost, __ATOMIC_ACQUIRE) != 0;
}

bool region_guard_start(void)
{
    static const struct region_watch watch = {.mapped = mapped, .unmapping = unmapping};
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (region_watch || sigaction(SIGBUS, &action, &before) != 0)
        return region_watch != NULL;
    region_watch = &watch;
    return true;
}
