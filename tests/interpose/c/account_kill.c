/* Processes are killed at random instructions while they charge and refund. Whatever they were doing, the ledger is
 * exact after one sweep, nobody hangs, and the limit is never passed. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

enum { PROCESSES = 4, KILLS = 300, LIMIT = 1000 };

static pid_t worker(const char *path)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct region region;
    CHECK(region_open(&region, path) == 0);
    region_join(&region);
    uint64_t held = 0;
    for (unsigned int i = (unsigned int)getpid();; i = i * 1103515245u + 12345u) {
        uint64_t bytes = 1 + (i >> 16) % 200;
        if (held && (i >> 8) % 2) {
            account_refund(&region, 0, held);
            held = 0;
        } else if (account_charge(&region, 0, bytes, ACCOUNT_REFUSE)) {
            held += bytes;
        }
    }
}

int main(void)
{
    const char *path = own_file("account_kill");
    struct region_plan plan = {.count = 1, .uuids = {"GPU-a"}, .limit = {LIMIT}};
    struct region region;
    CHECK(region_create(path, &plan) == 0);
    CHECK(region_open(&region, path) == 0);
    pid_t workers[PROCESSES];
    for (int i = 0; i < PROCESSES; i++)
        workers[i] = worker(path);
    for (int i = 0; i < KILLS; i++) {
        int victim = rand() % PROCESSES;
        usleep((useconds_t)(rand() % 3000));
        CHECK(kill(workers[victim], SIGKILL) == 0);
        CHECK(waitpid(workers[victim], NULL, 0) == workers[victim]);
        CHECK(account_total(&region, 0) <= LIMIT);
        workers[victim] = worker(path);
    }
    for (int i = 0; i < PROCESSES; i++) {
        kill(workers[i], SIGKILL);
        waitpid(workers[i], NULL, 0);
    }
    uint64_t before = prim_now();
    region_reap(&region, false);
    CHECK(prim_now() - before < NS_PER_S);
    region_join(&region);
    CHECK(account_charge(&region, 0, LIMIT, ACCOUNT_REFUSE));
    CHECK_EQUAL(account_total(&region, 0), LIMIT);
    for (int slot = 0; slot < REGION_SLOTS; slot++)
        CHECK(slot == region.slot || region.ext->claims[slot].pid == 0);
    remove(path);
    return 0;
}
