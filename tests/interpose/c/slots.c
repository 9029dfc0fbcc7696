/* Slots: stable, reused after death, taken over after an exec, shared when there are no more. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

static void after_exec(const char *path)
{
    struct region region;
    CHECK(region_open(&region, path) == 0);
    CHECK_EQUAL(account_total(&region, 0), 500);
    region_join(&region);
    CHECK_EQUAL(region.slot, 0);
    CHECK_EQUAL(account_total(&region, 0), 0);
    exit(0);
}

static void overflow(struct region *region)
{
    /* All slots but the shared one belong to a process that lives. */
    struct prim_process self = prim_self();
    for (int slot = 0; slot < REGION_OVERFLOW; slot++) {
        region->ext->claims[slot].pid = 1;
        region->ext->claims[slot].pid_namespace = self.pid_namespace;
        region->ext->claims[slot].state = REGION_CLAIM_COMPLETE;
    }
    pid_t member = fork();
    if (member == 0) {
        struct region own;
        CHECK(region_open(&own, getenv("REGION")) == 0);
        region_join(&own);
        CHECK_EQUAL(own.slot, REGION_OVERFLOW);
        CHECK(account_charge(&own, 0, 300, ACCOUNT_REFUSE));
        pause();
    }
    while (account_total(region, 0) != 300)
        usleep(1000);
    CHECK_EQUAL(region_reap(region, false), 0);
    CHECK_EQUAL(account_total(region, 0), 300);
    kill(member, SIGKILL);
    waitpid(member, NULL, 0);
    CHECK_EQUAL(region_reap(region, false), 1);
    CHECK_EQUAL(account_total(region, 0), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        after_exec(argv[1]);
    const char *path = own_file("slots");
    setenv("REGION", path, 1);
    struct region_plan plan = {.count = 1, .uuids = {"GPU-a"}, .limit = {1000}};
    struct region region;
    CHECK(region_create(path, &plan) == 0);
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(region_open(&region, path) == 0);
        region_join(&region);
        CHECK_EQUAL(region.slot, 0);
        CHECK(account_charge(&region, 0, 500, ACCOUNT_REFUSE));
        execl("/proc/self/exe", argv[0], path, (char *)NULL);
        exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);

    CHECK(region_open(&region, path) == 0);
    region_join(&region);
    CHECK_EQUAL(region.slot, 1); /* slot 0 is dead, but nobody has swept yet */
    CHECK_EQUAL(region_reap(&region, true), 1);
    CHECK_EQUAL(region.prefix->slots[1].host_pid, 0); /* our own is not looked at */
    CHECK_EQUAL(region.slot, 1);

    child = fork();
    if (child == 0) {
        struct region own;
        CHECK(region_open(&own, path) == 0);
        region_join(&own);
        CHECK_EQUAL(own.slot, 0);
        CHECK(account_charge(&own, 0, 10, ACCOUNT_REFUSE));
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
    /* An allocation that does not fit sweeps by itself. */
    CHECK_EQUAL(account_total(&region, 0), 10);
    CHECK(account_charge(&region, 0, 995, ACCOUNT_REFUSE));
    account_refund(&region, 0, 995);
    region_forget(&region);
    memset(&region.ext->claims[1], 0, sizeof region.ext->claims[1]);
    overflow(&region);
    remove(path);
    return 0;
}
