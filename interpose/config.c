#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "override.h"

enum { GRANT_ROOM = 16 * 1024 + 1 };
#define DEFAULT_REGION "/tmp/cudevshr.cache" /* HAMi's */
#define MIB (1024ULL * 1024ULL)

__attribute__((format(printf, 2, 3))) static bool refuse(struct config *config, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(config->reason, sizeof config->reason, format, arguments);
    va_end(arguments);
    config->verdict = CONFIG_CLOSED;
    return false;
}

/* ---- the grant file */

static bool read_number(const char *text, uint64_t most, uint64_t *number)
{
    if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 18)
        return false;
    *number = strtoull(text, NULL, 10);
    return *number <= most;
}

static int read_word(const char *text, const char *const words[], int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    return -1;
}

enum device_key { DEVICE_UUID, DEVICE_MEMORY, DEVICE_CORES, DEVICE_ENFORCER, DEVICE_KEYS };
enum plain_key { PLAIN_POLICY, PLAIN_PRIORITY, PLAIN_OVERSUBSCRIBE, PLAIN_REGION, PLAIN_ACCOUNTING, PLAIN_KEYS };

struct grant_reader {
    struct config *config;
    bool have_device[REGION_DEVICES][DEVICE_KEYS];
    bool have_plain[PLAIN_KEYS];
};

static bool read_device_value(struct config *config, int i, enum device_key key, const char *value)
{
    static const char *const enforcers[] = {"library", "driver", "mps"};
    uint64_t number;
    int word;
    switch (key) {
    case DEVICE_UUID:
        if (!*value || strlen(value) >= REGION_UUID_BYTES)
            return false;
        strcpy(config->plan.uuids[i], value);
        return true;
    case DEVICE_MEMORY:
        if (!read_number(value, UINT64_MAX / MIB, &number))
            return false;
        config->plan.limit[i] = number * MIB;
        return true;
    case DEVICE_CORES:
        if (!read_number(value, INT32_MAX, &number)) /* from 100 on it is no limit */
            return false;
        config->plan.cores[i] = (uint32_t)number;
        return true;
    case DEVICE_ENFORCER:
        word = read_word(value, enforcers, 3);
        config->enforcer[i] = (enum config_enforcer)(word < 0 ? 0 : word);
        return word >= 0;
    case DEVICE_KEYS:
        break;
    }
    return false;
}

static const char *const accountings[] = {"with-overhead", "requested", "strict"};

static bool read_plain_value(struct config *config, enum plain_key key, const char *value)
{
    static const char *const policies[] = {"default", "force", "disable"};
    static const char *const truths[] = {"false", "true"};
    uint64_t number;
    int word;
    switch (key) {
    case PLAIN_POLICY:
        word = read_word(value, policies, 3);
        config->policy = (enum config_policy)(word < 0 ? 0 : word);
        return word >= 0;
    case PLAIN_PRIORITY:
        if (!read_number(value, INT32_MAX, &number))
            return false;
        config->plan.priority = (int32_t)number;
        return true;
    case PLAIN_OVERSUBSCRIBE:
        word = read_word(value, truths, 2);
        config->oversubscribe = word == 1;
        return word >= 0;
    case PLAIN_REGION:
        if (value[0] != '/' || strlen(value) >= sizeof config->region)
            return false;
        strcpy(config->region, value);
        return true;
    case PLAIN_ACCOUNTING:
        word = read_word(value, accountings, 3);
        config->accounting = (enum config_accounting)(word < 0 ? 0 : word);
        return word >= 0;
    case PLAIN_KEYS:
        break;
    }
    return false;
}

/* "device.<i>.<name>" into index and name; -1 if it is no such key. An index beyond what a region holds: -2. */
static int split_device_key(const char *key, const char **name)
{
    if (strncmp(key, "device.", 7) != 0)
        return -1;
    size_t digits = strspn(key + 7, "0123456789");
    if (digits == 0 || key[7 + digits] != '.')
        return -1;
    *name = key + 7 + digits + 1;
    long index = digits > 4 ? REGION_DEVICES : strtol(key + 7, NULL, 10);
    return index >= REGION_DEVICES ? -2 : (int)index;
}

static bool read_entry(struct grant_reader *reader, const char *key, const char *value)
{
    static const char *const device_keys[] = {"uuid", "memory_mib", "cores", "enforced_by"};
    static const char *const plain_keys[] = {"policy", "priority", "oversubscribe", "region", "accounting"};
    const char *name = NULL;
    int device = split_device_key(key, &name);
    if (device == -2)
        return refuse(reader->config, "%.40s: more devices than a region holds", key);
    bool *have;
    bool valid;
    if (device >= 0) {
        int known = read_word(name, device_keys, DEVICE_KEYS);
        if (known < 0)
            return true;
        have = &reader->have_device[device][known];
        valid = read_device_value(reader->config, device, (enum device_key)known, value);
    } else {
        int known = read_word(key, plain_keys, PLAIN_KEYS);
        if (known < 0)
            return true;
        have = &reader->have_plain[known];
        valid = read_plain_value(reader->config, (enum plain_key)known, value);
    }
    if (*have)
        return refuse(reader->config, "%.40s: given twice", key);
    *have = true;
    return valid || refuse(reader->config, "%.40s: cannot be %.40s", key, value);
}

static bool check_devices(struct grant_reader *reader)
{
    int count = 0;
    for (int i = 0; i < REGION_DEVICES; i++) {
        bool any = false;
        for (int key = 0; key < DEVICE_KEYS; key++)
            any = any || reader->have_device[i][key];
        if (!any)
            continue;
        if (i != count || !reader->have_device[i][DEVICE_UUID])
            return refuse(reader->config, "device.%d: no uuid, or a device before it is missing", count);
        count++;
    }
    reader->config->plan.count = count;
    return true;
}

bool config_parse_grant(char *text, struct config *config)
{
    struct grant_reader reader = {.config = config};
    char *rest = NULL;
    char *line = strtok_r(text, "\n", &rest);
    if (!line || strcmp(line, "hami-grant=1") != 0)
        return refuse(config, "first line is not hami-grant=1");
    while ((line = strtok_r(NULL, "\n", &rest))) {
        char *equals = strchr(line, '=');
        if (!equals || equals == line || !equals[1])
            return refuse(config, "%.40s: not key=value", line);
        *equals = 0;
        if (!read_entry(&reader, line, equals + 1))
            return false;
    }
    if (!reader.have_plain[PLAIN_REGION])
        return refuse(config, "no region");
    if (!check_devices(&reader))
        return false;
    config->verdict = CONFIG_LIMITS;
    config->granted = true;
    return true;
}

static void read_grant(const char *path, struct config *config)
{
    char text[GRANT_ROOM];
    ssize_t length = prim_read_file(path, text, sizeof text);
    if (length < 0)
        refuse(config, "%.200s: %s", path, errno == EFBIG ? "larger than 16 KiB" : strerror(errno));
    else if (strlen(text) != (size_t)length)
        refuse(config, "%.200s: holds a NUL byte", path);
    else
        config_parse_grant(text, config);
}

/* ---- the environment */

uint64_t config_bytes(const char *text)
{
    if (!text || !isdigit((unsigned char)*text))
        return 0;
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 0);
    uint64_t unit = 1;
    switch (tolower((unsigned char)*end)) {
    case 'g':
        unit = MIB * 1024;
        break;
    case 'm':
        unit = MIB;
        break;
    case 'k':
        unit = 1024;
        break;
    case 0:
        end--;
        break;
    default:
        return 0;
    }
    if (errno || end[1] || number > UINT64_MAX / unit)
        return 0;
    return number * unit;
}

/* A variable as the container was started with it, and as it was changed afterwards; null where it is not named. */
struct setting {
    const char *given, *changed;
};

static struct setting setting_of(const struct overrides *overrides, const char *name)
{
    return (struct setting){.given = getenv(name), .changed = overrides_get(overrides, name)};
}

static const char *latest(const struct overrides *overrides, const char *name)
{
    struct setting setting = setting_of(overrides, name);
    return setting.changed ? setting.changed : setting.given;
}

static struct setting indexed(const struct overrides *overrides, const char *name, int i)
{
    char both[64];
    snprintf(both, sizeof both, "%s_%d", name, i);
    struct setting one = setting_of(overrides, both), all = setting_of(overrides, name);
    return (struct setting){.given = one.given ? one.given : all.given,
                            .changed = one.changed ? one.changed : all.changed};
}

/* Of two limits, of which 0 is none. Who may write a file in the container may tighten its limits, not loosen them. */
static uint64_t tighter(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* 0 stands for "no limit", as do 100 and more. */
static uint32_t percent_of(const char *text)
{
    long percent = text ? strtol(text, NULL, 0) : 0;
    return percent > 0 && percent < 100 ? (uint32_t)percent : 0;
}

/* A list of UUIDs, comma separated, into the plan. Anything else (indices, "all", a path) says nothing about order. */
static void read_uuids(const char *list, struct region_plan *plan)
{
    int count = 0;
    char uuids[REGION_DEVICES][REGION_UUID_BYTES] = {{0}};
    for (const char *at = list; at && *at && count < REGION_DEVICES;) {
        size_t length = strcspn(at, ",");
        if (length >= REGION_UUID_BYTES || (strncmp(at, "GPU-", 4) != 0 && strncmp(at, "MIG-", 4) != 0))
            return;
        memcpy(uuids[count++], at, length);
        at += length;
        at += *at == ',';
    }
    if (count == 0)
        return;
    memcpy(plan->uuids, uuids, sizeof uuids);
    plan->count = count;
}

static bool read_environment(struct config *config, const struct overrides *overrides)
{
    const char *priority = latest(overrides, "CUDA_TASK_PRIORITY");
    struct setting policies = setting_of(overrides, "GPU_CORE_UTILIZATION_POLICY");
    bool looser = policies.changed && strcasecmp(policies.changed, "disable") == 0;
    const char *policy = policies.changed && !looser ? policies.changed : policies.given;
    config->plan.priority = priority ? atoi(priority) : 1;
    config->policy = policy && strcasecmp(policy, "force") == 0     ? POLICY_FORCE
                     : policy && strcasecmp(policy, "disable") == 0 ? POLICY_DISABLE
                                                                    : POLICY_DEFAULT;
    const char *oversubscribe = latest(overrides, "CUDA_OVERSUBSCRIBE");
    config->oversubscribe = oversubscribe && (strcasecmp(oversubscribe, "true") == 0 || strcmp(oversubscribe, "1") == 0);
    read_uuids(getenv("NVIDIA_VISIBLE_DEVICES"), &config->plan);
    read_uuids(getenv("HAMI_DEVICE_UUIDS"), &config->plan);
    bool any = false;
    for (int i = 0; i < REGION_DEVICES; i++) {
        struct setting cores = indexed(overrides, "CUDA_DEVICE_SM_LIMIT", i);
        struct setting memory = indexed(overrides, "CUDA_DEVICE_MEMORY_LIMIT", i);
        config->plan.limit[i] = tighter(config_bytes(memory.given), config_bytes(memory.changed));
        config->plan.cores[i] = (uint32_t)tighter(percent_of(cores.given), percent_of(cores.changed));
        any = any || memory.given || memory.changed || cores.given || cores.changed;
    }
    return any;
}

/* The one region in a directory: what processes find that lost their environment. False if there is none or several, and
 * where nobody can tell, the machine being short of something: then nothing is allowed. */
static bool find_region(struct config *config, const char *directory)
{
    char *path = config->region;
    const size_t room = sizeof config->region;
    DIR *open = opendir(directory);
    int found = 0;
    if (!open && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return refuse(config, "%.200s: %s", directory, strerror(errno));
    for (struct dirent *entry; open && (entry = readdir(open));) {
        size_t length = strlen(entry->d_name);
        if (length <= 6 || strcmp(entry->d_name + length - 6, ".cache") != 0)
            continue;
        int written = snprintf(path, room, "%s/%s", directory, entry->d_name);
        found += written > 0 && (size_t)written < room ? 1 : 2;
    }
    if (open)
        closedir(open);
    return found == 1;
}

static void read_contract(const struct config_sources *sources, struct config *config)
{
    const char *cache = getenv("CUDA_DEVICE_MEMORY_SHARED_CACHE");
    struct overrides overrides;
    overrides_read(sources->override_file, &overrides);
    bool limits = read_environment(config, &overrides);
    bool named = cache && *cache && strlen(cache) < sizeof config->region;
    if (named)
        strcpy(config->region, cache);
    else if (!sources->library_directory || !find_region(config, sources->library_directory))
        strcpy(config->region, limits ? DEFAULT_REGION : "");
    if (config->verdict == CONFIG_CLOSED && !limits)
        return;
    config->limits_named = limits;
    config->verdict = config->region[0] ? CONFIG_LIMITS : CONFIG_ABSENT;
}

/* What is shown, or a stricter rule: a container may choose that for itself, unless its grant does. */
static enum config_accounting own_accounting(void)
{
    const char *word = getenv("HAMI_MEMORY_ACCOUNTING");
    int known = word ? read_word(word, accountings, 3) : -1;
    return (enum config_accounting)(known < 0 ? ACCOUNTING_WITH_OVERHEAD : known);
}

void config_read(const struct config_sources *sources, struct config *config)
{
    int saved = errno;
    *config = (struct config){.plan = {.priority = 1}, .accounting = own_accounting()};
    struct stat st;
    const char *named = getenv("HAMI_GRANT");
    if (sources->grant_directory && stat(sources->grant_directory, &st) == 0 && S_ISDIR(st.st_mode)) {
        char path[512];
        snprintf(path, sizeof path, "%s/grant", sources->grant_directory);
        read_grant(path, config);
    } else if (named && *named) {
        read_grant(named, config);
    } else {
        read_contract(sources, config);
    }
    errno = saved;
}
