#include "launch.h"

#include "context.h"
#include "cost.h"
#include "process.h"
#include "throttle.h"

/* Launches of a kind wait this long at most for its first measurement. It may be the waiting launch that lets the earlier
 * one end, so this must not be a condition. */
#define FIRST_MEASUREMENT_NS (20 * NS_PER_MS)
#define POLL_NS (200 * NS_PER_US)
/* Old monitors unblock by a store alone, without waking anybody. */
#define BLOCKED_POLL_NS (50 * NS_PER_MS)

#define NOTE_EVERY 64

/* What monitors take for "active": they count this word down. */
static const int32_t active = 2;

__attribute__((noinline)) static void wait_while_blocked(struct region_prefix *prefix)
{
    int32_t seen = __atomic_load_n(&prefix->recent_kernel, __ATOMIC_RELAXED);
    while (seen != active) {
        if (seen < 0) {
            prim_wait(&prefix->recent_kernel, seen, BLOCKED_POLL_NS);
            seen = __atomic_load_n(&prefix->recent_kernel, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&prefix->recent_kernel, &seen, active, false, __ATOMIC_RELAXED,
                                               __ATOMIC_RELAXED)) {
            return;
        }
    }
}

static void note_time(struct region_prefix *prefix)
{
    uint64_t now = prim_unix_seconds();
    if (__atomic_load_n(&prefix->last_kernel, __ATOMIC_RELAXED) != now)
        __atomic_store_n(&prefix->last_kernel, now, __ATOMIC_RELAXED);
}

/* The clock is read only when somebody has looked since the last launch, for that is what a look changes. */
static void note_activity(struct region_prefix *prefix)
{
    if (__builtin_expect(__atomic_load_n(&prefix->recent_kernel, __ATOMIC_RELAXED) == active, 1))
        return;
    wait_while_blocked(prefix);
    note_time(prefix);
}

/* A sum that may miss launches of other threads: it shows activity, and must not cost a locked instruction. The first of
 * a process, and one in many, notes the time, too, whether anybody looks or not. */
static void count_launch(int device)
{
    if (device < 0)
        return;
    uint64_t *launches = &process.region.ext->claims[process.region.slot].launches[device];
    uint64_t before = __atomic_load_n(launches, __ATOMIC_RELAXED);
    __atomic_store_n(launches, before + 1, __ATOMIC_RELAXED);
    if (before % NOTE_EVERY == 0)
        note_time(process.region.prefix);
}

/* Percent of the device's time, or 0 = no limit. */
static uint32_t limit_of(const struct region_device *device)
{
    uint32_t cores = __atomic_load_n(&device->cores, __ATOMIC_RELAXED);
    return cores < 100 ? cores : 0;
}

static bool is_shared(const struct region_prefix *prefix)
{
    return __atomic_load_n(&prefix->sharing, __ATOMIC_RELAXED) != 0;
}

/* Whether other processes of this container may take turns with this one. */
static bool has_company(const struct region_prefix *prefix)
{
    return __atomic_load_n(&prefix->slot_count, __ATOMIC_RELAXED) > 1;
}

/* Whether any device of this container is limited now: a few loads, before the driver is asked which one it is. */
static bool limits_hold(void)
{
    const struct region *region = &process.region;
    bool by_policy = process.config.policy == POLICY_FORCE ||
                     (process.config.policy == POLICY_DEFAULT && is_shared(region->prefix));
    if (!by_policy)
        return false;
    uint64_t count = __atomic_load_n(&region->prefix->count, __ATOMIC_RELAXED);
    for (uint64_t i = 0; i < count && i < REGION_DEVICES; i++)
        if (limit_of(&region->ext->devices[i]) && process.enforcer[i] != ENFORCED_BY_MPS)
            return true;
    return false;
}

static bool captured(const struct work *work)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult rc = CUDA_SUCCESS;
    if (work->per_thread && real.cuStreamIsCapturing_ptsz)
        rc = FORWARD(cuStreamIsCapturing_ptsz(work->stream, &status));
    else if (real.cuStreamIsCapturing)
        rc = FORWARD(cuStreamIsCapturing(work->stream, &status));
    return rc != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Cheap noise; quality does not matter, only that threads and processes differ. */
static uint8_t noise(void)
{
    static __thread uint64_t state __attribute__((tls_model("initial-exec")));
    if (state == 0)
        state = prim_now() | 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint8_t)(state >> 32);
}

static void wait_for_turn(struct region_device *device, struct cost *cost)
{
    struct region_prefix *prefix = process.region.prefix;
    uint64_t begun = prim_now();
    uint64_t now = begun;
    uint8_t strictness = 0;
    for (;; now = prim_now()) {
        uint32_t percent = throttle_percent(device, now, process.config.policy == POLICY_DEFAULT);
        bool shared = is_shared(prefix);
        cost_harvest(&process.region, shared || has_company(prefix));
        if (percent == 0 || (!shared && process.config.policy != POLICY_FORCE))
            break;
        throttle_earn(device, now, percent);
        uint64_t wait = throttle_wait(device, percent, strictness);
        if (wait == 0 && now - begun > FIRST_MEASUREMENT_NS)
            cost_stop_waiting(cost);
        if (wait == 0 && !cost_pending(cost))
            break;
        if (wait != 0 && strictness == 0)
            strictness = noise() | 1;
        prim_sleep(wait ? wait : POLL_NS);
    }
    if (now - begun > POLL_NS)
        __atomic_add_fetch(&device->waited_ns, now - begun, __ATOMIC_RELAXED);
}

/* In the context of the stream. */
static struct launch limited_at(const struct context_place *place, const struct work *work)
{
    struct launch launch = {.device = -1};
    if (place->device < 0 || process.enforcer[place->device] == ENFORCED_BY_MPS)
        return launch;
    struct region_device *device = &process.region.ext->devices[place->device];
    if (limit_of(device) == 0 || captured(work))
        return launch;
    struct cost *cost = work->graph ? cost_of_graph(work->graph)
                                    : cost_of_kernel(work->function, work->blocks, work->threads, work->shared_bytes);
    wait_for_turn(device, cost);
    launch.device = place->device;
    launch.charged = cost_estimate(cost);
    throttle_charge(device, (int64_t)launch.charged);
    launch.sample = cost_begin(cost, place->context, work->stream, work->per_thread);
    return launch;
}

__attribute__((noinline)) static struct launch limited(const struct work *work)
{
    struct context_visit visit = context_visit(work->stream, work->per_thread);
    struct launch launch = limited_at(&visit.place, work);
    context_leave(&visit);
    return launch;
}

/* What monitors are told of any launch. True: limits hold, so this one has to be priced. It does not know what is
 * launched: where nothing is limited, nobody puts that together. */
static inline bool note_launch(void)
{
    if (process_phase() != PROCESS_READY || hook_inside > 0)
        return false;
    note_activity(process.region.prefix);
    count_launch(process.device_count == 1 ? process.only : context_place().device);
    return limits_hold();
}

struct launch launch_begin(const struct work *work)
{
    return note_launch() ? limited(work) : (struct launch){.device = -1};
}

CUresult launch_end(const struct launch *launch, const struct work *work, CUresult answer)
{
    if (__builtin_expect(launch->device < 0, 1))
        return answer;
    struct region_device *device = &process.region.ext->devices[launch->device];
    if (answer != CUDA_SUCCESS)
        throttle_charge(device, -(int64_t)launch->charged);
    if (launch->sample) {
        struct context_visit visit = context_visit(work->stream, work->per_thread);
        cost_end(launch->sample, answer, work->stream, work->per_thread, launch->device, launch->charged);
        context_leave(&visit);
    }
    return answer;
}

/* ---- kernels */

static uint64_t volume(unsigned int x, unsigned int y, unsigned int z)
{
    return (uint64_t)x * y * z;
}

/* A launch by its call and by what is launched, the initialisers of a `struct work`. */
#define LAUNCHED(call, ...)                                                                                            \
    do {                                                                                                               \
        if (!note_launch())                                                                                            \
            return FORWARD(call);                                                                                      \
        const struct work work = __VA_ARGS__;                                                                          \
        struct launch launch = limited(&work);                                                                         \
        return launch_end(&launch, &work, FORWARD(call));                                                              \
    } while (0)

CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                        unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params,
                        void **extra)
{
    NEED_CUDA(cuLaunchKernel);
    LAUNCHED(cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra),
             {.function = f, .blocks = volume(gx, gy, gz), .threads = volume(bx, by, bz),
              .shared_bytes = shared, .stream = stream});
}

CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                             unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params,
                             void **extra)
{
    NEED_CUDA(cuLaunchKernel_ptsz);
    LAUNCHED(cuLaunchKernel_ptsz(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra),
             {.function = f, .blocks = volume(gx, gy, gz), .threads = volume(bx, by, bz),
              .shared_bytes = shared, .stream = stream, .per_thread = true});
}

static struct work work_of_config(const CUlaunchConfig *c, CUfunction f, bool per_thread)
{
    return (struct work){.function = f,
                         .blocks = volume(c->gridDimX, c->gridDimY, c->gridDimZ),
                         .threads = volume(c->blockDimX, c->blockDimY, c->blockDimZ),
                         .shared_bytes = c->sharedMemBytes,
                         .stream = c->hStream,
                         .per_thread = per_thread};
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    NEED_CUDA(cuLaunchKernelEx);
    if (!config)
        return FORWARD(cuLaunchKernelEx(config, f, params, extra));
    LAUNCHED(cuLaunchKernelEx(config, f, params, extra), work_of_config(config, f, false));
}

CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    NEED_CUDA(cuLaunchKernelEx_ptsz);
    if (!config)
        return FORWARD(cuLaunchKernelEx_ptsz(config, f, params, extra));
    LAUNCHED(cuLaunchKernelEx_ptsz(config, f, params, extra), work_of_config(config, f, true));
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                                   unsigned int by, unsigned int bz, unsigned int shared, CUstream stream,
                                   void **params)
{
    NEED_CUDA(cuLaunchCooperativeKernel);
    LAUNCHED(cuLaunchCooperativeKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params),
             {.function = f, .blocks = volume(gx, gy, gz), .threads = volume(bx, by, bz),
              .shared_bytes = shared, .stream = stream});
}

CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
                                        unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared,
                                        CUstream stream, void **params)
{
    NEED_CUDA(cuLaunchCooperativeKernel_ptsz);
    LAUNCHED(cuLaunchCooperativeKernel_ptsz(f, gx, gy, gz, bx, by, bz, shared, stream, params),
             {.function = f, .blocks = volume(gx, gy, gz), .threads = volume(bx, by, bz),
              .shared_bytes = shared, .stream = stream, .per_thread = true});
}

/* The oldest launches take their block shape from the function, which nobody tells us; the function stands for it. */
CUresult cuLaunch(CUfunction f)
{
    NEED_CUDA(cuLaunch);
    LAUNCHED(cuLaunch(f), {.function = f, .blocks = 1});
}

CUresult cuLaunchGrid(CUfunction f, int width, int height)
{
    NEED_CUDA(cuLaunchGrid);
    LAUNCHED(cuLaunchGrid(f, width, height),
             {.function = f, .blocks = volume((unsigned int)width, (unsigned int)height, 1)});
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
    NEED_CUDA(cuLaunchGridAsync);
    LAUNCHED(cuLaunchGridAsync(f, width, height, stream),
             {.function = f, .blocks = volume((unsigned int)width, (unsigned int)height, 1), .stream = stream});
}

/* ---- one kernel on several devices: each charges its own, which is the device of its stream's context */

CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned int count, unsigned int flags)
{
    NEED_CUDA(cuLaunchCooperativeKernelMultiDevice);
    struct work work[REGION_DEVICES];
    struct launch launch[REGION_DEVICES];
    unsigned int counted = launches && count <= REGION_DEVICES ? count : 0;
    for (unsigned int i = 0; i < counted; i++) {
        const CUDA_LAUNCH_PARAMS *p = &launches[i];
        work[i] = (struct work){.function = p->function,
                                .blocks = volume(p->gridDimX, p->gridDimY, p->gridDimZ),
                                .threads = volume(p->blockDimX, p->blockDimY, p->blockDimZ),
                                .shared_bytes = p->sharedMemBytes,
                                .stream = p->hStream};
        launch[i] = launch_begin(&work[i]);
    }
    CUresult rc = FORWARD(cuLaunchCooperativeKernelMultiDevice(launches, count, flags));
    for (unsigned int i = 0; i < counted; i++)
        launch_end(&launch[i], &work[i], rc);
    return rc;
}
