/* Eight processes at once never get more than the limit together, and what they give back is all there again. */
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

enum { PROCESSES = 8, ROUNDS = 3000, PIECE = 3, LIMIT = 50 };

int main(void)
{
    const char *path = own_file("account_race");
    struct region_plan plan = {.count = 1, .uuids = {"GPU-a"}, .limit = {LIMIT}};
    struct region region;
    CHECK(region_create(path, &plan) == 0);
    CHECK(region_open(&region, path) == 0);
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() == 0) {
            CHECK(region_open(&region, path) == 0);
            region_join(&region);
            int held = 0;
            for (int i = 0; i < ROUNDS; i++) {
                if (account_charge(&region, 0, PIECE, ACCOUNT_REFUSE))
                    held++;
                CHECK(account_total(&region, 0) <= LIMIT);
                if (held > 0 && (i & 1)) {
                    account_refund(&region, 0, PIECE);
                    held--;
                }
            }
            while (held-- > 0)
                account_refund(&region, 0, PIECE);
            exit(0);
        }
    }
    int status;
    while (wait(&status) > 0)
        CHECK_EQUAL(status, 0);
    CHECK_EQUAL(account_total(&region, 0), 0);
    region_join(&region);
    CHECK(account_charge(&region, 0, LIMIT, ACCOUNT_REFUSE));
    CHECK(!account_charge(&region, 0, 1, ACCOUNT_REFUSE));
    CHECK(account_charge(&region, 0, 1, ACCOUNT_COUNT));
    CHECK(!account_charge(&region, 0, UINT64_MAX, ACCOUNT_REFUSE));
    CHECK(!account_charge(&region, 0, UINT64_MAX, ACCOUNT_COUNT));
    CHECK_EQUAL(account_total(&region, 0), LIMIT + 1);
    struct account_view view = account_view(&region, 0, &(struct account_view){1000, 100, 900}, true);
    CHECK_EQUAL(view.total, LIMIT);
    CHECK_EQUAL(view.used, LIMIT);
    CHECK_EQUAL(view.free, 0);
    account_refund(&region, 0, 21);
    view = account_view(&region, 0, &(struct account_view){1000, 995, 5}, true);
    CHECK_EQUAL(view.free, 5);
    view = account_view(&region, 0, &(struct account_view){40, 0, 40}, true);
    CHECK_EQUAL(view.total, 40);
    remove(path);
    return 0;
}
