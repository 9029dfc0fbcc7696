/* A region that HAMi's library made, of the old size and without our extension, is opened, extended once and obeyed. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "account.h"
#include "check.h"

int main(void)
{
    const char *path = own_file("region_foreign");
    int fd = open(path, O_RDWR | O_CREAT, 0666);
    CHECK(fd >= 0);
    CHECK(ftruncate(fd, (off_t)sizeof(struct region_prefix) + 1) == 0);
    struct region_prefix *old = mmap(NULL, sizeof *old, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(old != MAP_FAILED);
    old->major = 1;
    old->minor = 1;
    old->count = 1;
    strcpy(old->uuids[0], "GPU-a");
    old->limit[0] = 1000;
    old->sm_limit[0] = 40;
    old->ready = REGION_READY;

    for (int i = 0; i < 8; i++) {
        if (fork() == 0) {
            struct region region;
            CHECK(region_open(&region, path) == 0);
            region_join(&region);
            CHECK(account_charge(&region, 0, 100, ACCOUNT_REFUSE));
            exit(0);
        }
    }
    int status;
    while (wait(&status) > 0)
        CHECK_EQUAL(status, 0);
    struct region region;
    CHECK(region_open(&region, path) == 0);
    CHECK_EQUAL(account_limit(&region, 0), 1000);
    CHECK_EQUAL(region.ext->devices[0].cores, 40);
    CHECK_EQUAL(account_total(&region, 0), 800);
    CHECK_EQUAL(old->slot_count, 8);
    CHECK_EQUAL(old->slots[3].memory[0].data, 100);
    CHECK_EQUAL(region_reap(&region, false), 8);
    CHECK_EQUAL(account_total(&region, 0), 0);
    CHECK_EQUAL(old->slots[3].memory[0].total, 0);

    old->major = 2;
    struct region newer;
    CHECK(region_open(&newer, path) == -1);
    remove(path);
    return 0;
}
