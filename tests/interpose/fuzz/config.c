/* Texts of the grant file and of the environment: whatever they are, reading them ends with a valid configuration.
 *
 * Input: its first byte chooses. Even: the rest is a grant file. Odd: the rest is values of the variables below, each ended
 * by a NUL byte; an empty one is not set.
 */
#include "config.h"

#include <string.h>

#include "fuzz.h"

static const char *const variables[] = {
    "CUDA_DEVICE_MEMORY_LIMIT",   "CUDA_DEVICE_MEMORY_LIMIT_0", "CUDA_DEVICE_MEMORY_LIMIT_15",     "CUDA_DEVICE_SM_LIMIT",
    "CUDA_DEVICE_SM_LIMIT_1",     "HAMI_DEVICE_UUIDS",          "NVIDIA_VISIBLE_DEVICES",          "CUDA_TASK_PRIORITY",
    "GPU_CORE_UTILIZATION_POLICY", "CUDA_OVERSUBSCRIBE",        "CUDA_DEVICE_MEMORY_SHARED_CACHE", "HAMI_MEMORY_ACCOUNTING",
};
enum { VARIABLES = sizeof variables / sizeof *variables };

static void check(const struct config *config)
{
    REQUIRE(config->verdict >= CONFIG_ABSENT && config->verdict <= CONFIG_CLOSED);
    REQUIRE(config->policy >= POLICY_DEFAULT && config->policy <= POLICY_DISABLE);
    REQUIRE(config->plan.count >= 0 && config->plan.count <= REGION_DEVICES);
    for (int i = 0; i < REGION_DEVICES; i++) {
        REQUIRE(memchr(config->plan.uuids[i], 0, REGION_UUID_BYTES));
        REQUIRE(config->enforcer[i] >= ENFORCED_BY_LIBRARY && config->enforcer[i] <= ENFORCED_BY_MPS);
    }
    REQUIRE(memchr(config->region, 0, sizeof config->region));
    REQUIRE(memchr(config->reason, 0, sizeof config->reason));
    REQUIRE((config->verdict == CONFIG_CLOSED) == (config->reason[0] != 0));
    REQUIRE(config->verdict != CONFIG_LIMITS || config->region[0]);
}

static void read_grant(const char *text, size_t size)
{
    struct config config = {.plan = {.priority = 1}};
    char *copy = strndup(text, size);
    REQUIRE(copy);
    bool valid = config_parse_grant(copy, &config);
    free(copy);
    REQUIRE(valid == (config.verdict == CONFIG_LIMITS));
    REQUIRE(valid == config.granted);
    check(&config);
}

static void read_environment(const char *text, size_t size)
{
    const char *end = text + size;
    for (int i = 0; i < VARIABLES; i++) {
        const char *stop = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
        size_t length = stop ? (size_t)(stop - text) : (size_t)(end - text);
        char *value = strndup(text, length);
        REQUIRE(value);
        if (length > 0)
            REQUIRE(setenv(variables[i], value, 1) == 0);
        else
            REQUIRE(unsetenv(variables[i]) == 0);
        config_bytes(value);
        free(value);
        text = stop ? stop + 1 : end;
    }
    struct config config;
    config_read(&(struct config_sources){0}, &config);
    REQUIRE(!config.granted);
    check(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    if (data[0] & 1)
        read_environment(text, size - 1);
    else
        read_grant(text, size - 1);
    return 0;
}
