/* The shared region: one file a container, mapped by each of its processes and by the node side.
 *
 * Its first part is layout 1.2 of HAMi's region, so that monitors and libraries of that system can map it; behind it
 * lies our extension, where the truth is kept. Both are laid out by region.def. account.c does arithmetic on a region;
 * here it is created, opened, joined, left, and swept of the dead.
 *
 * The hard part is dying: a process may be killed at any instruction. So a file is complete before it has a name, every
 * lock is robust, a slot belongs to a process that can be shown to live or not, and what a dead process had reserved
 * stands in its own claim until somebody takes it back.
 */
#ifndef HAMI_REGION_H
#define HAMI_REGION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prim.h"

enum { REGION_DEVICES = 16, REGION_SLOTS = 1024, REGION_UUID_BYTES = 96, REGION_UUID_TEXT = 40 };
enum { REGION_READY = 19920718, REGION_MAJOR = 1, REGION_MINOR = 2 };
enum { REGION_EXTENSION_VERSION = 2 };
enum {
    REGION_CLAIM_COMPLETE = 1, /* the owner's identity is filled in */
    REGION_CLAIM_LOCKED = 2,   /* the owner holds the byte lock at the claim's file offset */
};
enum {
    REGION_POLICY_DEFAULT = 1, /* limits hold beside others, and what is lent counts */
    REGION_POLICY_FORCE = 2,   /* limits always hold */
    REGION_POLICY_DISABLE = 3, /* limits never hold */
};
enum { REGION_OVERFLOW = REGION_SLOTS - 1 }; /* shared by all who find no free slot */
#define REGION_EXTENSION_MAGIC 0x31474552494d4148ULL /* "HAMIREG1" */
/* A loan that is not renewed ends by itself: the node side may be gone. */
#define REGION_LOAN_NS (1 * NS_PER_S)
#define REGION_EXTENSION_AT 2011136                  /* first page behind the prefix */

union region_lock {
    pthread_mutex_t mutex;
    unsigned char line[64]; /* a cache line, whatever size the C library's mutex has */
};

#define REGION_FIELD(type, name, extent, meaning) type name extent;
#define REGION_MEMORY REGION_FIELD
struct region_memory {
#include "region.def"
};
#undef REGION_MEMORY
#define REGION_USE REGION_FIELD
struct region_use {
#include "region.def"
};
#undef REGION_USE
#define REGION_SLOT REGION_FIELD
struct region_slot {
#include "region.def"
};
#undef REGION_SLOT
#define REGION_PREFIX REGION_FIELD
struct region_prefix {
#include "region.def"
};
#undef REGION_PREFIX
#define REGION_DEVICE REGION_FIELD
struct region_device {
#include "region.def"
} __attribute__((aligned(64)));
#undef REGION_DEVICE
#define REGION_CLAIM REGION_FIELD
struct region_claim {
#include "region.def"
} __attribute__((aligned(64)));
#undef REGION_CLAIM
#define REGION_EXTENSION REGION_FIELD
struct region_extension {
#include "region.def"
};
#undef REGION_EXTENSION
#undef REGION_FIELD

#define REGION_BYTES (REGION_EXTENSION_AT + sizeof(struct region_extension))

/* One mapping of a region. */
struct region {
    struct region_prefix *prefix;
    struct region_extension *ext;
    int fd;       /* -1: a private region that no other program sees */
    int slot;     /* this process's slot, -1 before region_join */
    uint64_t dev; /* identity of the file, to notice that a path names another one now */
    uint64_t inode;
};

/* Told of every mapping, where somebody set it before the first (region_guard.h). */
struct region_watch {
    void (*mapped)(void *at, size_t bytes);
    bool (*unmapping)(void *at); /* false: leave it mapped */
};
extern const struct region_watch *region_watch;

/* What a new region starts with. */
struct region_plan {
    int count;
    char uuids[REGION_DEVICES][REGION_UUID_BYTES];
    uint64_t limit[REGION_DEVICES]; /* bytes, 0 = none */
    uint32_t cores[REGION_DEVICES]; /* percent, 0 and 100 = none */
    int32_t priority;
};

/* Creates the file at `path`, complete before it gets that name and writable for all. 0, or -1 with errno;
 * EEXIST if the name is taken: open that one. */
int region_create(const char *path, const struct region_plan *plan);
/* Maps an existing region; one without our extension (made by another program) is given one. 0, or -1 with errno;
 * EPROTO: not a region, or of another major version. */
int region_open(struct region *region, const char *path);
/* A region of this process and its later children only. 0, or -1 with errno. */
int region_private(struct region *region, const struct region_plan *plan);
void region_close(struct region *region);
/* Forgets the descriptor if it is not the region's any more: daemons close all they find, and open files of their own
 * under those numbers. */
void region_check_descriptor(struct region *region);

/* Index of the device with this UUID, or -1. Only what follows the kind ("GPU-", "MIG-") is compared. */
int region_find(const struct region *region, const char *uuid);
/* The same, taking a free entry if there is none with that UUID; -1 if all are taken. */
int region_add(struct region *region, const char *uuid);

/* Takes a slot for the calling process, the one it had before an exec if there is one. Never fails: when all slots are
 * taken by living processes it is REGION_OVERFLOW, which many share. */
void region_join(struct region *region);
/* Takes back what processes that certainly are gone had reserved and frees their slots; returns how many. `node_side`:
 * the caller may look for processes of other pid namespaces in its /proc; it also notes their pids there. */
int region_reap(struct region *region, bool node_side);
/* Forgets the slot without touching it: for the child of a fork, whose parent still owns it. */
void region_forget(struct region *region);

/* What the container's programs make of its compute limits; the one that came last counts. */
void region_note_policy(struct region *region, uint32_t policy);

/* Launches on a device since the region exists, limited or not. */
uint64_t region_launches(const struct region *region, int device);

/* ---- the node side's words */
void region_set_limit(struct region *region, int device, uint64_t bytes, uint32_t cores);
void region_set_priority(struct region *region, int32_t priority);
/* Puts back what the plan says, and what makes the file a region, where any program of the container has changed it;
 * true if something had been. */
bool region_reassert(struct region *region, const struct region_plan *plan);
void region_set_sharing(struct region *region, bool sharing);
void region_set_correction(struct region *region, int device, uint32_t permille, uint32_t tenants);
/* For the next REGION_LOAN_NS the container may use `percent` of the device's time instead of its limit; 0 ends a loan. */
void region_lend(struct region *region, int device, uint32_t percent);
/* Puts right what was charged: adds device time that was had beyond it, or (negative) takes back what was not had,
 * leaving at most a second's share of credit. */
void region_amend(struct region *region, int device, int64_t ns);
/* What a context of the device takes, as measured; 0 = not known. */
void region_set_context_bytes(struct region *region, int device, uint64_t bytes);
void region_block(struct region *region);   /* launches wait */
void region_unblock(struct region *region); /* and go on, at once */
/* Counts recent_kernel down by one if positive; returns what it is then. */
int32_t region_decay(struct region *region);

#endif
