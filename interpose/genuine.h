/* The C library's own dlsym, dlvsym and dlopen, which we hide from the program by showing ours.
 *
 * They are found in the symbol tables of the loaded C library: asking any look-up function by name would ask ourselves.
 */
#ifndef HAMI_GENUINE_H
#define HAMI_GENUINE_H

#include <stdbool.h>

typedef void *(*dlsym_function)(void *handle, const char *name);
typedef void *(*dlvsym_function)(void *handle, const char *name, const char *version);
typedef void *(*dlopen_function)(const char *path, int flags);

struct genuine {
    dlsym_function dlsym;
    dlvsym_function dlvsym;
    dlopen_function dlopen;
    bool glibc; /* false: another C library, or one in which these were not found; they may be called all the same */
};

/* Filled at the first call; the same ever after. */
extern struct genuine genuine;
void genuine_find(void);
/* A function of glibc by name, or null; `file` is the library that held it before glibc 2.34, loaded if need be. */
void *genuine_function(const char *name, const char *file);
/* Whether drivers can be stood in for here: the region's locks and the driver itself are glibc's. If not, says so once
 * where a person sees it. */
bool genuine_usable(void);

#endif
