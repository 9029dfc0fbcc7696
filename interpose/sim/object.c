#include "cuda_sim.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lists = PTHREAD_MUTEX_INITIALIZER;
static struct object *ended[OBJECT_KINDS_END - OBJECT_CONTEXT];

static void fresh_lock_in_child(void) { pthread_mutex_init(&lists, NULL); }

void *object_new(size_t size, enum object_kind kind)
{
    static bool forks_known;
    struct object **list = &ended[kind - OBJECT_CONTEXT];
    state_after_fork(&forks_known, fresh_lock_in_child);
    pthread_mutex_lock(&lists);
    struct object *object = *list;
    if (object)
        *list = object->next;
    pthread_mutex_unlock(&lists);
    if (object)
        memset(object, 0, size);
    else
        object = calloc(1, size);
    if (object) {
        object->kind = kind;
        object->generation = state_generation();
    }
    return object;
}

void object_end(void *ending)
{
    struct object *object = ending;
    struct object **list = &ended[object->kind - OBJECT_CONTEXT];
    pthread_mutex_lock(&lists);
    object->kind = OBJECT_FREE;
    object->next = *list;
    *list = object;
    pthread_mutex_unlock(&lists);
}

bool object_is(const void *pointer, enum object_kind kind)
{
    const struct object *object = pointer;
    return object && ((uintptr_t)object & (sizeof(void *) - 1)) == 0 && object->kind == kind &&
           object->generation == state_generation();
}
