/* The file of changed variables: what it names counts like a variable, as long as it does not loosen a limit. */
#include <string.h>

#include "check.h"
#include "config.h"
#include "override.h"

static const char *path;

static struct config read_with(const char *text)
{
    static struct config config;
    FILE *file = fopen(path, "w");
    CHECK(file);
    fputs(text, file);
    fclose(file);
    struct config_sources sources = {.override_file = path};
    config_read(&sources, &config);
    return config;
}

static void lines(void)
{
    struct overrides overrides;
    read_with("\n\nA=1\nB==2\nA=3\n\nC=\nnonsense\nD=end");
    overrides_read(path, &overrides);
    CHECK(strcmp(overrides_get(&overrides, "A"), "3") == 0);
    CHECK(strcmp(overrides_get(&overrides, "B"), "=2") == 0);
    CHECK(strcmp(overrides_get(&overrides, "C"), "") == 0);
    CHECK(strcmp(overrides_get(&overrides, "D"), "end") == 0);
    CHECK(overrides_get(&overrides, "nonsense") == NULL);
    CHECK(overrides_get(&overrides, "AA") == NULL);
    const char *const nothing[] = {NULL, "/no/such/file", "/dev/zero"};
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        overrides_read(nothing[i], &overrides);
        CHECK(overrides_get(&overrides, "A") == NULL);
    }
}

int main(void)
{
    path = own_file("override");
    clearenv(); /* limits of the one who runs this are not meant here */
    lines();
    CHECK_EQUAL(read_with("").verdict, CONFIG_ABSENT);
    struct config config = read_with("CUDA_DEVICE_MEMORY_LIMIT=1g\nCUDA_DEVICE_SM_LIMIT_1=30\nCUDA_TASK_PRIORITY=0\n");
    CHECK_EQUAL(config.verdict, CONFIG_LIMITS);
    CHECK_EQUAL(config.plan.limit[3], 1LL << 30);
    CHECK_EQUAL(config.plan.cores[0], 0);
    CHECK_EQUAL(config.plan.cores[1], 30);
    CHECK_EQUAL(config.plan.priority, 0);
    CHECK(getenv("CUDA_DEVICE_MEMORY_LIMIT") == NULL); /* the program's environment is its own */

    setenv("CUDA_DEVICE_MEMORY_LIMIT", "500m", 1);
    setenv("CUDA_DEVICE_SM_LIMIT", "40", 1);
    config = read_with("CUDA_DEVICE_MEMORY_LIMIT=0\nCUDA_DEVICE_MEMORY_LIMIT_1=2g\nCUDA_DEVICE_MEMORY_LIMIT_2=100m\n"
                       "CUDA_DEVICE_SM_LIMIT=100\nCUDA_DEVICE_SM_LIMIT_2=20\nGPU_CORE_UTILIZATION_POLICY=disable\n");
    CHECK_EQUAL(config.plan.limit[0], 500LL << 20);
    CHECK_EQUAL(config.plan.limit[1], 500LL << 20);
    CHECK_EQUAL(config.plan.limit[2], 100LL << 20);
    CHECK_EQUAL(config.plan.cores[0], 40);
    CHECK_EQUAL(config.plan.cores[2], 20);
    CHECK_EQUAL(config.policy, POLICY_DEFAULT);
    CHECK_EQUAL(read_with("GPU_CORE_UTILIZATION_POLICY=force\n").policy, POLICY_FORCE);
    remove(path);
    return 0;
}
