/* The environment of HAMi's contract, with its quirks, and the order of authority. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "config.h"

static struct config config;
static char base[256];

static const char *in_base(const char *name)
{
    static char path[4][512];
    static int next;
    char *at = path[next++ % 4];
    snprintf(at, sizeof path[0], "%s/%s", base, name);
    return at;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    CHECK(file);
    fputs(text, file);
    fclose(file);
}

static enum config_verdict read_all(void)
{
    struct config_sources sources = {.grant_directory = in_base("etc"), .library_directory = in_base("mounted")};
    config_read(&sources, &config);
    return config.verdict;
}

static void sizes(void)
{
    CHECK_EQUAL(config_bytes("3000m"), 3000LL << 20);
    CHECK_EQUAL(config_bytes("3000M"), 3000LL << 20);
    CHECK_EQUAL(config_bytes("2g"), 2LL << 30);
    CHECK_EQUAL(config_bytes("5K"), 5120);
    CHECK_EQUAL(config_bytes("0x10m"), 16LL << 20);
    CHECK_EQUAL(config_bytes("010m"), 8LL << 20);
    CHECK_EQUAL(config_bytes("1234"), 1234);
    CHECK_EQUAL(config_bytes("0m"), 0);
    const char *const unreadable[] = {NULL, "", "m", "-5m", "5t", "5mm", " 5m", "99999999999999999999g", "20000000000g"};
    for (size_t i = 0; i < sizeof unreadable / sizeof unreadable[0]; i++)
        CHECK_EQUAL(config_bytes(unreadable[i]), 0);
}

static void environment(void)
{
    CHECK_EQUAL(read_all(), CONFIG_ABSENT);
    setenv("CUDA_DEVICE_MEMORY_LIMIT", "1g", 1);
    setenv("CUDA_DEVICE_MEMORY_LIMIT_1", "500m", 1);
    setenv("CUDA_DEVICE_SM_LIMIT", "40", 1);
    setenv("CUDA_DEVICE_SM_LIMIT_2", "100", 1);
    CHECK_EQUAL(read_all(), CONFIG_LIMITS);
    CHECK(strcmp(config.region, "/tmp/cudevshr.cache") == 0);
    CHECK(!config.granted);
    CHECK_EQUAL(config.plan.limit[0], 1LL << 30);
    CHECK_EQUAL(config.plan.limit[1], 500LL << 20);
    CHECK_EQUAL(config.plan.cores[0], 40);
    CHECK_EQUAL(config.plan.cores[2], 0);
    CHECK_EQUAL(config.plan.priority, 1);
    CHECK_EQUAL(config.plan.count, 0);
    setenv("GPU_CORE_UTILIZATION_POLICY", "FORCE", 1);
    setenv("CUDA_TASK_PRIORITY", "0", 1);
    setenv("NVIDIA_VISIBLE_DEVICES", "all", 1);
    setenv("CUDA_DEVICE_MEMORY_SHARED_CACHE", "/x/y.cache", 1);
    read_all();
    CHECK_EQUAL(config.policy, POLICY_FORCE);
    CHECK_EQUAL(config.plan.priority, 0);
    CHECK_EQUAL(config.plan.count, 0);
    CHECK(strcmp(config.region, "/x/y.cache") == 0);
    setenv("NVIDIA_VISIBLE_DEVICES", "GPU-b,GPU-a", 1);
    read_all();
    CHECK_EQUAL(config.plan.count, 2);
    CHECK(strcmp(config.plan.uuids[0], "GPU-b") == 0);
    setenv("HAMI_DEVICE_UUIDS", "MIG-c", 1);
    read_all();
    CHECK_EQUAL(config.plan.count, 1);
    CHECK(strcmp(config.plan.uuids[0], "MIG-c") == 0);
}

static void mounted_region(void)
{
    clearenv();
    CHECK(mkdir(in_base("mounted"), 0755) == 0);
    CHECK_EQUAL(read_all(), CONFIG_ABSENT);
    write_file(in_base("mounted/one.cache"), "");
    CHECK_EQUAL(read_all(), CONFIG_LIMITS);
    CHECK(strcmp(config.region, in_base("mounted/one.cache")) == 0);
    write_file(in_base("mounted/two.cache"), "");
    CHECK_EQUAL(read_all(), CONFIG_ABSENT);
}

static void grant_first(void)
{
    const char *good = "hami-grant=1\ndevice.0.uuid=GPU-a\nregion=/r.cache\n";
    setenv("CUDA_DEVICE_MEMORY_LIMIT", "1g", 1);
    write_file(in_base("own"), good);
    setenv("HAMI_GRANT", in_base("own"), 1);
    CHECK_EQUAL(read_all(), CONFIG_LIMITS);
    CHECK(config.granted);
    CHECK_EQUAL(config.plan.limit[0], 0);
    setenv("HAMI_GRANT", in_base("missing"), 1);
    CHECK_EQUAL(read_all(), CONFIG_CLOSED);
    setenv("HAMI_GRANT", in_base("own"), 1);
    /* The mounted directory outranks what anybody in the container can set. */
    CHECK(mkdir(in_base("etc"), 0755) == 0);
    CHECK_EQUAL(read_all(), CONFIG_CLOSED);
    CHECK(strstr(config.reason, "etc/grant"));
    write_file(in_base("etc/grant"), "broken");
    CHECK_EQUAL(read_all(), CONFIG_CLOSED);
    write_file(in_base("etc/grant"), good);
    CHECK_EQUAL(read_all(), CONFIG_LIMITS);
    FILE *file = fopen(in_base("etc/grant"), "a");
    CHECK(file);
    for (int i = 0; i < 2000; i++)
        fprintf(file, "comment.%d=x\n", i);
    fclose(file);
    CHECK_EQUAL(read_all(), CONFIG_CLOSED);
    CHECK(strstr(config.reason, "16 KiB"));
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/config.%d", tmp ? tmp : "/tmp", (int)getpid());
    CHECK(mkdir(base, 0755) == 0);
    clearenv();
    sizes();
    environment();
    mounted_region();
    grant_first();
    char command[300];
    snprintf(command, sizeof command, "/bin/rm -rf %s", base);
    return system(command);
}
