/* The C library's own dlsym, dlvsym and dlopen, which we hide from the program by showing ours.
 *
 * They are found in the symbol tables of the loaded C library: asking any look-up function by name would ask ourselves.
 */
#ifndef HAMI_GENUINE_H
#define HAMI_GENUINE_H

typedef void *(*dlsym_function)(void *handle, const char *name);
typedef void *(*dlvsym_function)(void *handle, const char *name, const char *version);
typedef void *(*dlopen_function)(const char *path, int flags);

struct genuine {
    dlsym_function dlsym;
    dlvsym_function dlvsym;
    dlopen_function dlopen;
};

/* Filled at the first call; the same ever after. A null member: this is no C library we know. */
extern struct genuine genuine;
void genuine_find(void);

#endif
