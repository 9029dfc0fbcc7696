/* A process is stopped while it holds a device's lock. Others go on without it, never beyond the limit, and the total is
 * right again when it goes on. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

int main(void)
{
    const char *path = own_file("account_stopped");
    struct region_plan plan = {.count = 1, .uuids = {"GPU-a"}, .limit = {100}};
    struct region region;
    CHECK(region_create(path, &plan) == 0);
    CHECK(region_open(&region, path) == 0);
    region_join(&region);
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t holder = fork();
    if (holder == 0) {
        CHECK(prim_lock(&region.ext->devices[0].lock.mutex, NS_PER_S) == PRIM_LOCKED);
        CHECK(write(ready[1], "x", 1) == 1);
        raise(SIGSTOP);
        prim_unlock(&region.ext->devices[0].lock.mutex);
        _exit(0);
    }
    char x;
    CHECK(read(ready[0], &x, 1) == 1);
    int status;
    CHECK(waitpid(holder, &status, WUNTRACED) == holder && WIFSTOPPED(status));
    CHECK(account_charge(&region, 0, 60, ACCOUNT_REFUSE));
    CHECK(!account_charge(&region, 0, 60, ACCOUNT_REFUSE));
    CHECK_EQUAL(account_total(&region, 0), 60);
    account_refund(&region, 0, 20);
    CHECK_EQUAL(account_total(&region, 0), 40);
    kill(holder, SIGCONT);
    CHECK(waitpid(holder, &status, 0) == holder);
    CHECK(account_charge(&region, 0, 60, ACCOUNT_REFUSE));
    CHECK_EQUAL(account_total(&region, 0), 100);
    CHECK_EQUAL(region.ext->devices[0].stale, 0);
    remove(path);
    return 0;
}
