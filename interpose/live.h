/* What this process holds of a driver's memory, by the number the driver gave it: address, handle, array, pool.
 *
 * A hash table in sixteen parts with a lock each; the cost of a step does not depend on how much is held. Only this
 * process's threads use it. A fork's child holds nothing.
 */
#ifndef HAMI_LIVE_H
#define HAMI_LIVE_H

#include <stdbool.h>
#include <stdint.h>

enum live_kind {
    LIVE_LINEAR = 1, /* an address; `owner` is its context; `references` may be LIVE_SUBSTITUTE */
    LIVE_PHYSICAL,   /* a handle of cuMemCreate; `references` counts creations, retains and mappings */
    LIVE_MAPPING,    /* an address; `owner` is the handle mapped there */
    LIVE_ARRAY,      /* `owner` is its context */
    LIVE_CONTEXT,    /* what it was counted with; `owner` is 0 */
    LIVE_MODULE,     /* loaded code; `owner` is its context */
    LIVE_BINDING,    /* of memory to a multicast object (vmm.c); `owner` is the handle bound */
    LIVE_GRAPH,      /* what an executable graph needs (graph_memory.c) */
};

enum { LIVE_SUBSTITUTE = 1 }; /* stands in host memory (managed.h) */

struct live {
    uint64_t key; /* never 0 */
    uint64_t bytes;
    uint64_t owner;
    uint32_t references;
    int16_t device; /* index in the region */
    uint8_t kind;
};

/* False only without memory for the table: then the caller keeps its charge until the process ends. */
bool live_add(struct live entry);
/* The same, but false if there is an entry with this key already, which stays as it is. */
bool live_add_new(struct live entry);
/* Takes the entry out; false if there is none. */
bool live_take(enum live_kind kind, uint64_t key, struct live *entry);
bool live_find(enum live_kind kind, uint64_t key, struct live *entry);
/* Changes the references of an entry and returns what they are then; -1 if there is none. An entry that reaches 0 is
 * taken out into *entry. */
int64_t live_refer(enum live_kind kind, uint64_t key, int change, struct live *entry);
/* Takes out every entry of `kind` with this owner, calling `each` for it. */
void live_take_owned(enum live_kind kind, uint64_t owner, void (*each)(const struct live *entry));
/* Forgets everything, in the child of a fork. */
void live_forget(void);

#endif
