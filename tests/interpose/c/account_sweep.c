/* What the dead held is there for every process that asks at once, not only for the one that sweeps it up. */
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

enum { PROCESSES = 6, ROUNDS = 150, PIECE = 10, LIMIT = PROCESSES * PIECE };

static void dies_holding_all(const char *path)
{
    struct region region;
    if (fork() == 0) {
        CHECK(region_open(&region, path) == 0);
        region_join(&region);
        CHECK(account_charge(&region, 0, LIMIT, ACCOUNT_REFUSE));
        _exit(0);
    }
    int status;
    CHECK(wait(&status) > 0);
    CHECK_EQUAL(status, 0);
}

static void asks(const char *path, int *arrived)
{
    struct region region;
    CHECK(region_open(&region, path) == 0);
    region_join(&region);
    __atomic_add_fetch(arrived, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(arrived, __ATOMIC_RELAXED) % PROCESSES != 0)
        sched_yield();
    CHECK(account_charge(&region, 0, PIECE, ACCOUNT_REFUSE));
    account_refund(&region, 0, PIECE);
    exit(0);
}

int main(void)
{
    const char *path = own_file("account_sweep");
    struct region_plan plan = {.count = 1, .uuids = {"GPU-a"}, .limit = {LIMIT}};
    CHECK(region_create(path, &plan) == 0);
    int *arrived = mmap(NULL, sizeof *arrived, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(arrived != MAP_FAILED);
    for (int round = 0; round < ROUNDS; round++) {
        dies_holding_all(path);
        for (int p = 0; p < PROCESSES; p++)
            if (fork() == 0)
                asks(path, arrived);
        int status;
        while (wait(&status) > 0)
            CHECK_EQUAL(status, 0);
    }
    remove(path);
    return 0;
}
