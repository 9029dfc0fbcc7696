#include "live.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 16, FIRST_ROOM = 64 };

struct part {
    pthread_mutex_t lock;
    struct live *slots; /* open addressing, linear; key 0 = empty; at most three quarters full */
    uint32_t room;      /* power of two */
    uint32_t count;
} __attribute__((aligned(64)));

static struct part parts[PARTS] = {[0 ... PARTS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

static uint64_t hash_of(enum live_kind kind, uint64_t key)
{
    uint64_t hash = (key ^ (uint64_t)kind << 58) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 29;
}

static struct part *part_of(uint64_t hash)
{
    return &parts[hash >> 60];
}

/* Position of the entry, or of the empty slot where it would stand. The part has room. */
static uint32_t seek(const struct part *part, enum live_kind kind, uint64_t key, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (part->room - 1);
    while (part->slots[at].key && (part->slots[at].key != key || part->slots[at].kind != kind))
        at = (at + 1) & (part->room - 1);
    return at;
}

static bool grow(struct part *part)
{
    struct part larger = {.room = part->room ? part->room * 2 : FIRST_ROOM};
    larger.slots = calloc(larger.room, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (uint32_t i = 0; i < part->room; i++) {
        const struct live *entry = &part->slots[i];
        if (entry->key)
            larger.slots[seek(&larger, entry->kind, entry->key, hash_of(entry->kind, entry->key))] = *entry;
    }
    free(part->slots);
    part->slots = larger.slots;
    part->room = larger.room;
    return true;
}

static bool add(struct live entry, bool replace)
{
    uint64_t hash = hash_of(entry.kind, entry.key);
    struct part *part = part_of(hash);
    pthread_mutex_lock(&part->lock);
    bool room = part->count + 1 <= part->room / 4 * 3 || grow(part);
    bool added = false;
    if (room) {
        uint32_t at = seek(part, entry.kind, entry.key, hash);
        added = replace || part->slots[at].key == 0;
        if (added) {
            part->count += part->slots[at].key == 0;
            part->slots[at] = entry;
        }
    }
    pthread_mutex_unlock(&part->lock);
    return added;
}

bool live_add(struct live entry)
{
    return add(entry, true);
}

bool live_add_new(struct live entry)
{
    return add(entry, false);
}

/* Empties a slot and moves later entries of its run forward, so that no search ends early. */
static void empty(struct part *part, uint32_t hole)
{
    uint32_t mask = part->room - 1;
    for (uint32_t at = (hole + 1) & mask; part->slots[at].key; at = (at + 1) & mask) {
        uint32_t home = (uint32_t)hash_of(part->slots[at].kind, part->slots[at].key) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            part->slots[hole] = part->slots[at];
            hole = at;
        }
    }
    part->slots[hole].key = 0;
    part->count--;
}

static struct live *locked_find(struct part *part, enum live_kind kind, uint64_t key, uint64_t hash)
{
    if (part->room == 0)
        return NULL;
    struct live *slot = &part->slots[seek(part, kind, key, hash)];
    return slot->key ? slot : NULL;
}

bool live_take(enum live_kind kind, uint64_t key, struct live *entry)
{
    uint64_t hash = hash_of(kind, key);
    struct part *part = part_of(hash);
    pthread_mutex_lock(&part->lock);
    struct live *slot = locked_find(part, kind, key, hash);
    if (slot) {
        *entry = *slot;
        empty(part, (uint32_t)(slot - part->slots));
    }
    pthread_mutex_unlock(&part->lock);
    return slot != NULL;
}

bool live_find(enum live_kind kind, uint64_t key, struct live *entry)
{
    uint64_t hash = hash_of(kind, key);
    struct part *part = part_of(hash);
    pthread_mutex_lock(&part->lock);
    struct live *slot = locked_find(part, kind, key, hash);
    if (slot)
        *entry = *slot;
    pthread_mutex_unlock(&part->lock);
    return slot != NULL;
}

int64_t live_refer(enum live_kind kind, uint64_t key, int change, struct live *entry)
{
    uint64_t hash = hash_of(kind, key);
    struct part *part = part_of(hash);
    int64_t left = -1;
    pthread_mutex_lock(&part->lock);
    struct live *slot = locked_find(part, kind, key, hash);
    if (slot) {
        slot->references = (uint32_t)((int64_t)slot->references + change);
        left = slot->references;
        *entry = *slot;
        if (left == 0)
            empty(part, (uint32_t)(slot - part->slots));
    }
    pthread_mutex_unlock(&part->lock);
    return left;
}

void live_take_owned(enum live_kind kind, uint64_t owner, void (*each)(const struct live *entry))
{
    for (int i = 0; i < PARTS; i++) {
        struct part *part = &parts[i];
        pthread_mutex_lock(&part->lock);
        for (uint32_t at = 0; at < part->room;) {
            struct live entry = part->slots[at];
            if (!entry.key || entry.kind != kind || entry.owner != owner) {
                at++;
                continue;
            }
            empty(part, at); /* another entry may have moved here: look again */
            each(&entry);
        }
        pthread_mutex_unlock(&part->lock);
    }
}

void live_forget(void)
{
    for (int i = 0; i < PARTS; i++) {
        pthread_mutex_init(&parts[i].lock, NULL);
        if (parts[i].slots)
            memset(parts[i].slots, 0, parts[i].room * sizeof *parts[i].slots);
        parts[i].count = 0;
    }
}
