/* Contexts and code: counted by estimate, put right by what the driver says, gone with their process, and in the way of
 * nothing unless the limit is meant to include them. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

enum { LIMIT = 1000 };

static struct account_view seen(const struct region *region, bool with_overhead)
{
    return account_view(region, 0, &(struct account_view){.total = 5000, .free = 5000}, with_overhead);
}

static void check_a_process(struct region *region)
{
    CHECK(account_add_overhead(region, 0, ACCOUNT_CONTEXT, 300, ACCOUNT_REFUSE));
    CHECK(account_add_overhead(region, 0, ACCOUNT_MODULE, 50, ACCOUNT_REFUSE));
    CHECK(account_charge(region, 0, 400, ACCOUNT_REFUSE));
    CHECK_EQUAL(account_total(region, 0), 400);
    CHECK_EQUAL(account_overhead(region, 0), 350);
    CHECK_EQUAL(seen(region, true).used, 750);
    CHECK_EQUAL(seen(region, true).free, 250);
    CHECK_EQUAL(seen(region, false).used, 400);
    const struct region_memory *shown = &region->prefix->slots[region->slot].memory[0];
    CHECK_EQUAL(shown->context, 300);
    CHECK_EQUAL(shown->module, 50);
    CHECK_EQUAL(shown->data, 400);
    CHECK_EQUAL(shown->total, 750);

    /* Shown, but no reason to refuse; with the strict rule it is. */
    CHECK(!account_charge(region, 0, 251, ACCOUNT_STRICT));
    CHECK(account_charge(region, 0, 600, ACCOUNT_REFUSE));
    CHECK_EQUAL(seen(region, true).used, LIMIT);
    account_refund(region, 0, 600);
    CHECK(account_charge(region, 0, 250, ACCOUNT_STRICT));
    CHECK(!account_add_overhead(region, 0, ACCOUNT_CONTEXT, 1, ACCOUNT_STRICT));
    account_refund(region, 0, 250);
}

static void check_what_the_driver_says(struct region *region)
{
    const struct region_memory *shown = &region->prefix->slots[region->slot].memory[0];
    CHECK_EQUAL(account_context_bytes(region, 0), ACCOUNT_CONTEXT_BYTES);
    account_observe(region, region->slot, 0, 650);
    CHECK_EQUAL(account_overhead(region, 0), 250);
    CHECK_EQUAL(shown->context, 200);
    CHECK_EQUAL(shown->module, 50);
    CHECK_EQUAL(shown->total, 650);
    CHECK_EQUAL(account_context_bytes(region, 0), 200);
    account_observe(region, region->slot, 0, 430);
    CHECK_EQUAL(shown->context, 0);
    CHECK_EQUAL(shown->module, 30);
    account_observe(region, region->slot, 0, 10); /* older than the last allocation */
    CHECK_EQUAL(account_overhead(region, 0), 0);
    CHECK_EQUAL(account_total(region, 0), 400);
    account_observe(region, region->slot, 0, 800);
    CHECK_EQUAL(account_overhead(region, 0), 400);
    /* An end gives back no more than stands there. */
    account_end_overhead(region, 0, ACCOUNT_MODULE, 50);
    account_end_overhead(region, 0, ACCOUNT_CONTEXT, 1000);
    CHECK_EQUAL(account_overhead(region, 0), 0);
    CHECK_EQUAL(shown->total, 400);
}

int main(void)
{
    const char *path = own_file("overhead");
    struct region_plan plan = {.count = 1, .uuids = {"GPU-a"}, .limit = {LIMIT}};
    struct region region;
    CHECK(region_create(path, &plan) == 0);
    CHECK(region_open(&region, path) == 0);
    region_join(&region);
    check_a_process(&region);
    check_what_the_driver_says(&region);

    /* A process that has nothing but a context dies: the next sweep takes that back too. */
    pid_t child = fork();
    if (child == 0) {
        struct region own;
        CHECK(region_open(&own, path) == 0);
        region_join(&own);
        CHECK(account_add_overhead(&own, 0, ACCOUNT_CONTEXT, 70, ACCOUNT_REFUSE));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQUAL(account_overhead(&region, 0), 70);
    CHECK_EQUAL(region_reap(&region, false), 1);
    CHECK_EQUAL(account_overhead(&region, 0), 0);
    remove(path);
    return 0;
}
