/* The driver behind us: one typed pointer for each row of hooks.def, and the way from a driver's function to ours.
 *
 * House rules of code that lives in another program, for all files here:
 *   - nothing happens at load time; the first request for a driver symbol finds the driver
 *   - we never call the dlsym that we show to the world, only the C library's own
 *   - look-ups and launches take no lock shared between processes, make no system call and allocate nothing
 *   - errno is kept; a missing driver function is answered, never called
 *   - a fork's child starts anew; a call the driver makes from inside one of ours passes through (hook_inside)
 *   - a null pointer from the program is the driver's to refuse: such calls are forwarded as they are
 *   - memory fails closed where a grant says so (config.h), or where limits may hold and cannot be read; what the driver
 *     will not tell of a call is taken for the worst; everything else fails open, uncounted
 */
#ifndef HAMI_HOOK_H
#define HAMI_HOOK_H

#include <stdbool.h>

/* What the rows name is shown to the world; everything else stays hidden. */
#pragma GCC visibility push(default)
#include "driver.h"
#pragma GCC visibility pop

enum hook_library { LIBRARY_cuda, LIBRARY_nvml, LIBRARY_COUNT };

enum hook_id {
#define HOOK(library, symbol, name, version, stream, concern) HOOK_##symbol,
#include "hooks.def"
    HOOK_COUNT
};

struct driver {
#define HOOK(library, symbol, name, version, stream, concern) __typeof__(&symbol) symbol;
#define CALL(library, symbol) __typeof__(&symbol) symbol;
#include "hooks.def"
};

/* Null where the driver lacks the function, and all null before hook_bind. Each is written once. */
extern struct driver real;

/* Finds the genuine library and fills its part of `real`; cheap once done. With `load` it is loaded if it is not yet.
 * False: there is none. */
bool hook_bind(enum hook_library library, bool load);
/* Takes the library that `address` lies in as the genuine one, if it is named like it and none is bound yet. */
bool hook_bind_address(enum hook_library library, const void *address);

/* Which of the driver's libraries a file of this name is; -1: none. */
int hook_library_of_path(const char *path);

/* Our stand-in for the driver's function at `address`, or null. */
void *hook_for_address(const void *address);
/* The row of a symbol name, or -1. No name outside hooks.def costs more than a hash. */
int hook_by_symbol(const char *symbol);
/* The row that answers a request of cuGetProcAddress: the newest ABI up to `version`; -1 if that is none of ours. */
int hook_by_request(const char *name, int version, bool per_thread);

enum hook_library hook_library(int id);
void *hook_stand_in(int id);
/* The driver's function of a row, or null. */
void *hook_genuine(int id);

/* More than 0 while this thread is inside a call that we forwarded. */
extern __thread int hook_inside __attribute__((tls_model("initial-exec")));

/* Opens every stand-in: returns `absent` if the driver lacks the function. */
#define HOOK_NEEDS(library, symbol, absent)                                                                            \
    do {                                                                                                               \
        if (__builtin_expect(!real.symbol, 0) && (!hook_bind(LIBRARY_##library, true) || !real.symbol))                \
            return absent;                                                                                             \
    } while (0)
#define NEED_CUDA(symbol) HOOK_NEEDS(cuda, symbol, CUDA_ERROR_NOT_SUPPORTED)
#define NEED_NVML(symbol) HOOK_NEEDS(nvml, symbol, NVML_ERROR_FUNCTION_NOT_FOUND)

/* Forwards a call; what the driver itself calls meanwhile passes through uncounted. */
#define FORWARD(call)                                                                                                  \
    __extension__({                                                                                                    \
        hook_inside++;                                                                                                 \
        __typeof__(real.call) answer_ = real.call;                                                                     \
        hook_inside--;                                                                                                 \
        answer_;                                                                                                       \
    })

#endif
