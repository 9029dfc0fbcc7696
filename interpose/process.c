#include "process.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "context.h"
#include "cost.h"
#include "graph_memory.h"
#include "live.h"
#include "log.h"
#include "managed.h"
#include "mps.h"
#include "override.h"
#include "pool.h"

struct process process;

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

static void set_phase(enum process_phase phase)
{
    __atomic_store_n(&process.phase, phase, __ATOMIC_RELEASE);
}

/* ---- step 1: configuration and region */

static void library_directory(char *path, size_t room)
{
    Dl_info info;
    path[0] = 0;
    if (!dladdr((const void *)&process_start, &info) || !info.dli_fname)
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    if (slash && (size_t)(slash - info.dli_fname) < room)
        snprintf(path, room, "%.*s", (int)(slash - info.dli_fname), info.dli_fname);
}

/* Of a region that cannot be opened nobody knows what it says. False: no limits are known from elsewhere. */
static bool do_without(int failure)
{
    struct config *config = &process.config;
    if (!config->granted && !config->limits_named && access(config->region, F_OK) == 0) {
        snprintf(config->reason, sizeof config->reason, "%.200s: %s", config->region, strerror(failure));
        config->verdict = CONFIG_CLOSED;
        return false;
    }
    log_line(LOG_WARNING, "%s: %s; limits hold for this process alone", config->region, strerror(failure));
    return region_private(&process.region, &config->plan) == 0;
}

static bool open_region(void)
{
    const struct config *config = &process.config;
    for (int attempt = 0; config->region[0] && attempt < 2; attempt++) {
        if (region_open(&process.region, config->region) == 0)
            return true;
        if (errno != ENOENT || (region_create(config->region, &config->plan) != 0 && errno != EEXIST))
            break;
    }
    return do_without(errno);
}

/* The grant outranks words that anybody in the container can change. */
static void assert_grant(void)
{
    const struct config *config = &process.config;
    for (int i = 0; i < config->plan.count; i++) {
        int index = region_add(&process.region, config->plan.uuids[i]);
        if (index < 0)
            continue;
        region_set_limit(&process.region, index, config->plan.limit[i], config->plan.cores[i]);
        process.enforcer[index] = config->enforcer[i];
    }
    region_set_priority(&process.region, config->plan.priority);
}

static bool forked; /* what stands in the tables is the parent's */

/* The child shares neither device memory nor locks with its parent, and must not keep the parent's slot alive. Most
 * children only exec, so the tables are cleared when the first driver call needs them. What a thread of the parent had
 * begun to attach is begun anew. */
static void after_fork(void)
{
    pthread_mutex_init(&starting, NULL);
    hook_inside = 0;
    region_forget(&process.region);
    region_check_descriptor(&process.region);
    if (process.region.fd >= 0)
        close(process.region.fd);
    process.region.fd = -1;
    forked = process.phase == PROCESS_READY || forked;
    if (process.phase == PROCESS_READY)
        set_phase(PROCESS_ATTACHED);
}

static void forget_parent(void)
{
    live_forget();
    pool_forget();
    graph_memory_forget();
    managed_forget();
    context_forget();
    cost_forget();
    forked = false;
}

static void attach(void)
{
    char directory[512];
    library_directory(directory, sizeof directory);
    struct config_sources sources = {.grant_directory = HAMI_GRANT_DIRECTORY, .library_directory = directory};
    if (getauxval(AT_SECURE) == 0) /* not in a program with more rights than who started it */
        sources.override_file = OVERRIDE_FILE;
    config_read(&sources, &process.config);
    bool limited = process.config.verdict == CONFIG_LIMITS && open_region();
    if (process.config.verdict == CONFIG_CLOSED)
        log_line(LOG_ERROR, "grant not usable, device memory is refused: %s", process.config.reason);
    if (limited && process.config.granted)
        assert_grant();
    set_phase(limited                                      ? PROCESS_ATTACHED
              : process.config.verdict == CONFIG_CLOSED ? PROCESS_CLOSED
                                                           : PROCESS_FREE);
}

enum process_phase process_attach(void)
{
    int phase = __atomic_load_n(&process.phase, __ATOMIC_ACQUIRE);
    if (phase != PROCESS_NEW)
        return (enum process_phase)phase;
    static bool forks_known;
    prim_after_fork(&forks_known, after_fork);
    pthread_mutex_lock(&starting);
    if (process.phase == PROCESS_NEW)
        attach();
    phase = process.phase;
    pthread_mutex_unlock(&starting);
    return (enum process_phase)phase;
}

/* ---- step 2: devices and slot */

static bool uuid_of(CUdevice device, char text[REGION_UUID_BYTES])
{
    CUuuid uuid;
    CUresult rc = CUDA_ERROR_NOT_SUPPORTED;
    if (real.cuDeviceGetUuid_v2)
        rc = FORWARD(cuDeviceGetUuid_v2(&uuid, device));
    else if (real.cuDeviceGetUuid)
        rc = FORWARD(cuDeviceGetUuid(&uuid, device));
    if (rc != CUDA_SUCCESS)
        return false;
    int length = snprintf(text, REGION_UUID_BYTES, "GPU-");
    for (int i = 0; i < 16; i++)
        length += snprintf(text + length, (size_t)(REGION_UUID_BYTES - length),
                           i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", (unsigned char)uuid.bytes[i]);
    return true;
}

/* Without a grant or a list of UUIDs, limits are in the driver's order, which the first process writes down. */
static int index_of(const char *uuid, bool write_down)
{
    int index = region_find(&process.region, uuid);
    if (index >= 0 || !write_down)
        return index;
    index = region_add(&process.region, uuid);
    const struct region_plan *plan = &process.config.plan;
    if (index >= 0 && account_limit(&process.region, index) == 0 && process.region.ext->devices[index].cores == 0)
        region_set_limit(&process.region, index, plan->limit[index], plan->cores[index]);
    return index;
}

/* A grant says what a container may use, so a device that it does not name is closed. MIG instances are the exception:
 * old drivers tell the UUID of the whole device instead. */
static int unknown_device(void)
{
    const struct config *config = &process.config;
    bool closed = config->granted && config->plan.count > 0;
    for (int i = 0; i < config->plan.count; i++)
        closed = closed && strncmp(config->plan.uuids[i], "MIG-", 4) != 0;
    return closed ? DEVICE_FORBIDDEN : DEVICE_FREE;
}

bool process_stopped(CUresult answer)
{
    return answer == CUDA_ERROR_NOT_INITIALIZED || answer == CUDA_ERROR_DEINITIALIZED;
}

struct mapping {
    char uuids[PROCESS_DEVICES][REGION_UUID_BYTES]; /* by the driver's number; empty: not told */
    int count;
    bool whole; /* every device was told */
};

/* Asks for all devices. Where one is not told by its ordinal, that is taken for its number, as it is in all drivers. */
static CUresult ask_devices(struct mapping *mapping)
{
    int count = 0;
    *mapping = (struct mapping){.whole = true};
    CUresult rc = CUDA_ERROR_NOT_SUPPORTED;
    if (real.cuDeviceGetCount)
        rc = FORWARD(cuDeviceGetCount(&count));
    for (int ordinal = 0; rc == CUDA_SUCCESS && ordinal < count && ordinal < PROCESS_DEVICES; ordinal++) {
        CUdevice device = ordinal;
        if (real.cuDeviceGet && FORWARD(cuDeviceGet(&device, ordinal)) != CUDA_SUCCESS)
            device = ordinal;
        if (device < 0 || device >= PROCESS_DEVICES)
            continue;
        if (!uuid_of(device, mapping->uuids[device])) {
            mapping->uuids[device][0] = 0;
            mapping->whole = false;
        }
        mapping->count = device + 1 > mapping->count ? device + 1 : mapping->count;
    }
    return rc;
}

/* What MPS does not hold is ours to hold. */
static void check_enforcer(CUdevice device, int index)
{
    if (index < 0 || process.enforcer[index] != ENFORCED_BY_MPS)
        return;
    uint32_t cores = process.region.ext->devices[index].cores;
    bool limited = cores != 0 && cores < 100 && process.config.policy != POLICY_DISABLE;
    if (!limited || mps_holds(device, cores))
        return;
    log_line(LOG_WARNING, "MPS does not hold this program to its share; the library does");
    process.enforcer[index] = ENFORCED_BY_LIBRARY;
}

static void set_index(CUdevice device, int index)
{
    __atomic_store_n(&process.index[device], (int8_t)index, __ATOMIC_RELAXED);
}

/* False: the driver is not running. What it does not tell stays DEVICE_UNKNOWN, and is asked again when it matters. */
static bool map_devices(void)
{
    struct mapping mapping;
    CUresult rc = ask_devices(&mapping);
    if (process_stopped(rc))
        return false;
    bool write_down = !process.config.granted && process.region.prefix->count == 0;
    /* Written down in the driver's order, so all or none. */
    bool told = rc == CUDA_SUCCESS && (mapping.whole || !write_down);
    for (CUdevice device = 0; device < PROCESS_DEVICES; device++) {
        const char *uuid = mapping.uuids[device];
        int index = device < mapping.count && uuid[0] && told ? index_of(uuid, write_down) : -1;
        if (index < 0)
            index = !told || (device < mapping.count && !uuid[0]) ? DEVICE_UNKNOWN : unknown_device();
        check_enforcer(device, index);
        set_index(device, index);
    }
    process.only = mapping.count == 1 ? process.index[0] : DEVICE_FREE;
    __atomic_store_n(&process.device_count, mapping.count, __ATOMIC_RELEASE);
    return true;
}

/* For memory on a device that nobody can name. */
static int supposed_index(void)
{
    if (process.region.prefix->count == 1)
        return 0;
    for (int i = 0; i < REGION_DEVICES; i++)
        if (account_limit(&process.region, i) != 0 || process.config.plan.limit[i] != 0)
            return DEVICE_FORBIDDEN;
    return DEVICE_FREE;
}

int process_index(CUdevice device)
{
    bool numbered = device >= 0 && device < PROCESS_DEVICES;
    if (numbered && __atomic_load_n(&process.index[device], __ATOMIC_RELAXED) == DEVICE_UNKNOWN) {
        pthread_mutex_lock(&starting);
        if (process.index[device] == DEVICE_UNKNOWN)
            map_devices();
        pthread_mutex_unlock(&starting);
    }
    int index = numbered ? __atomic_load_n(&process.index[device], __ATOMIC_RELAXED) : DEVICE_UNKNOWN;
    return index == DEVICE_UNKNOWN ? supposed_index() : index;
}

/* A descriptor of our own for the byte lock: one inherited from the parent would share the parent's. */
static void reopen(void)
{
    region_check_descriptor(&process.region);
    if (process.region.fd >= 0 || process.config.region[0] == 0 || process.region.inode == 0)
        return;
    process.region.fd = prim_open(process.config.region, O_RDWR, 0);
}

static const uint32_t policy_word[] = {
    [POLICY_DEFAULT] = REGION_POLICY_DEFAULT,
    [POLICY_FORCE] = REGION_POLICY_FORCE,
    [POLICY_DISABLE] = REGION_POLICY_DISABLE,
};

enum process_phase process_start(void)
{
    enum process_phase phase = process_attach();
    if (phase != PROCESS_ATTACHED || hook_inside > 0)
        return phase;
    pthread_mutex_lock(&starting);
    if (process.phase == PROCESS_ATTACHED && map_devices()) {
        if (forked)
            forget_parent();
        reopen();
        region_join(&process.region);
        region_note_policy(&process.region, policy_word[process.config.policy]);
        set_phase(PROCESS_READY);
    }
    phase = (enum process_phase)process.phase;
    pthread_mutex_unlock(&starting);
    return phase;
}

/* ---- targets */

static struct target target_at(int index, uint64_t context)
{
    bool closed = index == DEVICE_FORBIDDEN;
    return (struct target){.device = closed ? DEVICE_FREE : index, .closed = closed, .context = context};
}

/* Before the devices are known, and inside a call that we forwarded. */
static struct target target_nowhere(enum process_phase phase)
{
    return (struct target){.device = DEVICE_FREE, .closed = phase == PROCESS_CLOSED && hook_inside == 0};
}

struct target target_device(CUdevice device)
{
    enum process_phase phase = process_phase();
    if (phase != PROCESS_READY || hook_inside > 0 || device < 0 || device >= PROCESS_DEVICES)
        return target_nowhere(phase);
    return target_at(process_index(device), 0);
}

struct target target_current(void)
{
    enum process_phase phase = process_phase();
    if (phase != PROCESS_READY || hook_inside > 0)
        return target_nowhere(phase);
    struct context_place place = context_place();
    return target_at(place.device, place.context);
}

struct target target_stream(CUstream stream, bool per_thread)
{
    enum process_phase phase = process_phase();
    if (phase != PROCESS_READY || hook_inside > 0)
        return target_nowhere(phase);
    struct context_visit visit = context_visit(stream, per_thread);
    context_leave(&visit);
    return target_at(visit.place.device, visit.place.context);
}

CUdevice process_driver_device(int device)
{
    for (int i = 0; i < process.device_count; i++)
        if (process.index[i] == device)
            return i;
    return -1;
}

bool process_reclaim(int device)
{
    bool pools = pool_trim(device);
    return graph_memory_trim(device) || pools;
}

enum account_cap process_cap(int device)
{
    if (process.enforcer[device] == ENFORCED_BY_DRIVER)
        return ACCOUNT_COUNT; /* MPS holds each process alone, so there the container's limit stays ours */
    return process.config.accounting == ACCOUNTING_STRICT ? ACCOUNT_STRICT : ACCOUNT_REFUSE;
}

/* The dead are swept by the node side, and by whoever is refused. Where there is no node side (`hami run`), those who only
 * look shall see no use of the dead either that is older than a second. */
static void sweep(void)
{
    static uint64_t swept;
    uint64_t now = prim_unix_seconds();
    if (__atomic_load_n(&swept, __ATOMIC_RELAXED) == now)
        return;
    if (__atomic_exchange_n(&swept, now, __ATOMIC_RELAXED) != now)
        region_reap(&process.region, false);
}

struct account_view process_view(int device, const struct account_view *driver)
{
    sweep();
    return account_view(&process.region, device, driver, process.config.accounting != ACCOUNTING_REQUESTED);
}

static bool charge(const struct target *target, uint64_t bytes, enum account_cap cap)
{
    if (account_charge(&process.region, target->device, bytes, cap))
        return true;
    process_reclaim(target->device); /* finding nothing is no answer here either */
    if (account_charge(&process.region, target->device, bytes, cap))
        return true;
    account_refuse(&process.region, target->device);
    return false;
}

bool target_charge(const struct target *target, uint64_t bytes)
{
    return !target->closed && (target->device < 0 || charge(target, bytes, process_cap(target->device)));
}

bool target_charge_managed(const struct target *target, uint64_t bytes)
{
    if (target->closed || target->device < 0)
        return !target->closed;
    enum account_cap cap = process_cap(target->device);
    return charge(target, bytes, cap == ACCOUNT_COUNT ? ACCOUNT_REFUSE : cap);
}

void target_refund(const struct target *target, uint64_t bytes)
{
    if (target->device >= 0 && bytes > 0)
        account_refund(&process.region, target->device, bytes);
}

void target_force(const struct target *target, uint64_t bytes)
{
    if (target->device >= 0 && bytes > 0)
        account_charge(&process.region, target->device, bytes, ACCOUNT_COUNT);
}
