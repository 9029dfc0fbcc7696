/* A region has its name only when it is complete, is never made twice, and any user may write it whatever the umask. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "region.h"

enum { RACERS = 16 };

int main(void)
{
    const char *path = own_file("region_birth");
    struct region_plan plan = {.count = 2, .uuids = {"GPU-a", "GPU-b"}, .limit = {1 << 30, 0}, .cores = {30, 0}};
    umask(077);
    int made[2];
    CHECK(pipe(made) == 0);
    for (int i = 0; i < RACERS; i++) {
        if (fork() == 0) {
            int rc = region_create(path, &plan);
            CHECK(rc == 0 || errno == EEXIST);
            struct region region;
            CHECK(region_open(&region, path) == 0);
            CHECK_EQUAL(region.prefix->count, 2);
            CHECK_EQUAL(region.ext->devices[0].limit, 1 << 30);
            if (rc == 0)
                CHECK(write(made[1], "x", 1) == 1);
            exit(0);
        }
    }
    for (int i = 0; i < RACERS; i++) {
        int status;
        CHECK(wait(&status) > 0);
        CHECK_EQUAL(status, 0);
    }
    close(made[1]);
    char creators[RACERS];
    CHECK_EQUAL(read(made[0], creators, sizeof creators), 1);

    struct stat st;
    CHECK(stat(path, &st) == 0);
    CHECK_EQUAL(st.st_mode & 0777, 0666);
    CHECK_EQUAL(st.st_size, REGION_BYTES);

    struct region region;
    CHECK(region_open(&region, path) == 0);
    CHECK(region_find(&region, "GPU-b") == 1);
    CHECK(region_find(&region, "MIG-b") == 1);
    CHECK(region_find(&region, "GPU-c") == -1);
    CHECK(region_add(&region, "GPU-c") == 2);
    CHECK(region_add(&region, "GPU-c") == 2);
    CHECK_EQUAL(region.prefix->sharing, 1);
    CHECK_EQUAL(region.prefix->recent_kernel, 2);
    CHECK_EQUAL(region.prefix->sm_limit[0], 30);
    region_close(&region);

    CHECK(truncate(path, 100) == 0);
    CHECK(region_open(&region, path) == -1 && errno == EPROTO);
    remove(path);
    CHECK(region_open(&region, path) == -1 && errno == ENOENT);
    CHECK(region_create("/nowhere/at/all.cache", &plan) == -1);
    return 0;
}
