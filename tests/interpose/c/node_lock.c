/* The node side's way to take a region's locks and the programs' way are one lock: they shut each other out, notice each
 * other's death, and the node side believes nothing that stands behind the lock's word. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "prim.h"

enum { PROCESSES = 4, ROUNDS = 4000 };

struct shared {
    pthread_mutex_t mutex;
    volatile int inside, count, holding;
};

static struct shared *shared;

static pid_t start(bool node_side, void (*work)(void))
{
    pid_t child = fork();
    if (child == 0) {
        if (node_side)
            prim_lock_by_word();
        work();
        exit(0);
    }
    return child;
}

static void work_in_turns(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQUAL(prim_lock(&shared->mutex, 10 * NS_PER_S), PRIM_LOCKED);
        CHECK_EQUAL(shared->inside++, 0);
        shared->count++;
        shared->inside--;
        prim_unlock(&shared->mutex);
    }
}

static void hold_for_ever(void)
{
    CHECK_EQUAL(prim_lock(&shared->mutex, NS_PER_S), PRIM_LOCKED);
    shared->holding = 1;
    for (;;)
        pause();
}

static void find_a_dead_holder(void)
{
    CHECK_EQUAL(prim_lock(&shared->mutex, 50 * NS_PER_MS), PRIM_OWNER_DIED);
    prim_unlock(&shared->mutex);
    CHECK_EQUAL(prim_lock(&shared->mutex, 50 * NS_PER_MS), PRIM_LOCKED);
    prim_unlock(&shared->mutex);
}

static void find_it_held(void)
{
    CHECK_EQUAL(prim_lock(&shared->mutex, 50 * NS_PER_MS), PRIM_TIMED_OUT);
}

static void find_it_free(void)
{
    CHECK_EQUAL(prim_lock(&shared->mutex, 50 * NS_PER_MS), PRIM_LOCKED);
    prim_unlock(&shared->mutex);
}

static void ends_well(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
}

/* Whoever dies with the lock, and whoever comes next. */
static void check_death(bool holder_is_node, bool next_is_node)
{
    prim_lock_init(&shared->mutex);
    shared->holding = 0;
    pid_t holder = start(holder_is_node, hold_for_ever);
    while (!shared->holding)
        prim_sleep(NS_PER_MS);
    if (!holder_is_node)
        ends_well(start(next_is_node, find_it_held));
    CHECK(kill(holder, SIGKILL) == 0 && waitpid(holder, NULL, 0) == holder);
    ends_well(start(next_is_node, find_a_dead_holder));
    ends_well(start(!next_is_node, find_it_free));
}

int main(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    prim_lock_init(&shared->mutex);
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++)
        children[i] = start(i & 1, work_in_turns);
    for (int i = 0; i < PROCESSES; i++)
        ends_well(children[i]);
    CHECK_EQUAL(shared->count, PROCESSES * ROUNDS);

    for (int which = 0; which < 4; which++)
        check_death(which & 1, which & 2);

    prim_lock_init(&shared->mutex);
    memset((char *)&shared->mutex + sizeof(int), 0x5a, sizeof shared->mutex - sizeof(int));
    ends_well(start(true, find_it_free));
    return 0;
}
