#include "cost.h"

#include <pthread.h>
#include <string.h>

#include "throttle.h"

/* ---- the table of costs */

enum { COSTS = 4096, PROBES = 32, WINDOW_SAMPLES = 256 };
#define UNKNOWN_NS (50 * NS_PER_US)    /* charged until the first measurement */
#define WINDOW_NS (5 * NS_PER_S)       /* how long a half of the envelope's window is at most */
#define WINDOW_SHARED_NS (20 * NS_PER_S) /* beside others: few kernels, if they are long, are measured without them */
#define LONG_NS (100 * NS_PER_US)      /* from here on timing costs nothing beside the kernel: time every launch */
enum { FIRST_SAMPLES = 8, EVERY = 64 }; /* shorter ones: the first few, then one in this many */
_Static_assert((COSTS & (COSTS - 1)) == 0, "a mask selects the slot");

struct cost {
    uint64_t key;         /* 0 = free; set once */
    uint64_t least_ns;    /* in the current half of the window; 0 = no sample yet */
    uint64_t former_ns;   /* in the half before; 0 = none */
    uint64_t since_ns;    /* when the current half began */
    uint32_t samples;     /* in the current half */
    uint32_t known;       /* samples ever, since the last invalidation */
    uint32_t launches;
    uint32_t under_way;   /* timed launches whose end has not been seen */
    uint32_t impatient;   /* 1: nobody waits for the first measurement any more */
    uint32_t edition;     /* counts invalidations */
};

/* Words are read without a lock; only cost_learn and cost_invalidate write the figures, under `learning`. */
static struct cost costs[COSTS];
static struct cost others = {.key = 1};
static pthread_mutex_t learning = PTHREAD_MUTEX_INITIALIZER;

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b) * 0x9e3779b97f4a7c15ULL;
    return x ^ x >> 32;
}

static struct cost *entry_of(uint64_t key)
{
    key |= 1ULL << 63;
    for (uint64_t i = 0; i < PROBES; i++) {
        struct cost *cost = &costs[(key + i) & (COSTS - 1)];
        uint64_t seen = __atomic_load_n(&cost->key, __ATOMIC_RELAXED);
        if (seen == 0 && __atomic_compare_exchange_n(&cost->key, &seen, key, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return cost;
        if (seen == key)
            return cost;
    }
    return &others;
}

/* Sizes within an eighth of each other are one class: kernels of a class take about as long, and there are few classes. */
static uint32_t size_class(uint64_t size)
{
    if (size < 8)
        return (uint32_t)size;
    uint32_t magnitude = 63u - (uint32_t)__builtin_clzll(size);
    return magnitude << 3 | (uint32_t)(size >> (magnitude - 3) & 7);
}

struct cost *cost_of_kernel(CUfunction function, uint64_t blocks, uint64_t threads, uint32_t shared_bytes)
{
    uint64_t shape = (uint64_t)size_class(blocks) << 48 | threads << 16 | size_class(shared_bytes);
    return entry_of(mix(mix((uint64_t)(uintptr_t)function, 0x6b), shape));
}

struct cost *cost_of_graph(CUgraphExec graph)
{
    return entry_of(mix(mix((uint64_t)(uintptr_t)graph, 0x67), 0));
}

static uint64_t envelope(const struct cost *cost)
{
    uint64_t least = __atomic_load_n(&cost->least_ns, __ATOMIC_RELAXED);
    uint64_t former = __atomic_load_n(&cost->former_ns, __ATOMIC_RELAXED);
    if (least == 0)
        return former;
    return former != 0 && former < least ? former : least;
}

uint64_t cost_estimate(const struct cost *cost)
{
    uint64_t least = envelope(cost);
    return least ? least : UNKNOWN_NS;
}

void cost_invalidate(struct cost *cost)
{
    pthread_mutex_lock(&learning);
    cost->least_ns = cost->former_ns = cost->since_ns = 0;
    cost->samples = cost->known = cost->impatient = 0;
    __atomic_add_fetch(&cost->edition, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&learning);
}

uint64_t cost_learn(struct cost *cost, uint64_t measured_ns, bool shared)
{
    pthread_mutex_lock(&learning);
    uint64_t now = prim_now();
    uint64_t measured = measured_ns ? measured_ns : 1;
    uint64_t window = shared ? WINDOW_SHARED_NS : WINDOW_NS;
    if (cost->samples >= WINDOW_SAMPLES || (cost->samples > 0 && now - cost->since_ns > window)) {
        /* Two halves, so that an old minimum is forgotten without ever forgetting all. */
        cost->former_ns = cost->least_ns;
        cost->least_ns = 0;
        cost->samples = 0;
    }
    if (cost->samples == 0)
        cost->since_ns = now;
    if (cost->least_ns == 0 || measured < cost->least_ns)
        __atomic_store_n(&cost->least_ns, measured, __ATOMIC_RELAXED);
    cost->samples++;
    cost->known++;
    uint64_t charge = shared ? envelope(cost) : measured;
    pthread_mutex_unlock(&learning);
    return charge;
}

bool cost_pending(const struct cost *cost)
{
    return __atomic_load_n(&cost->known, __ATOMIC_RELAXED) == 0 &&
           __atomic_load_n(&cost->under_way, __ATOMIC_RELAXED) > 0 &&
           __atomic_load_n(&cost->impatient, __ATOMIC_RELAXED) == 0;
}

void cost_stop_waiting(struct cost *cost)
{
    __atomic_store_n(&cost->impatient, 1, __ATOMIC_RELAXED);
}

/* ---- samples: pairs of events, kept by context because events belong to one */

enum { SAMPLES = 128 };

struct sample {
    enum { SAMPLE_FREE, SAMPLE_TAKEN, SAMPLE_RUNNING } state;
    struct cost *cost;
    uint32_t edition; /* of the cost, as it was launched */
    uint64_t context; /* 0: no events yet */
    CUevent start, end;
    uint64_t charged;
    int device;
};

static struct sample samples[SAMPLES];
static int next_sample; /* where the search for a free one goes on */
static int running;     /* samples in SAMPLE_RUNNING */
static pthread_mutex_t sampling = PTHREAD_MUTEX_INITIALIZER;

/* Calls on events are "unsafe" while some thread captures; in relaxed mode they disturb no capture. */
static CUstreamCaptureMode relax(void)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    if (real.cuThreadExchangeStreamCaptureMode)
        FORWARD(cuThreadExchangeStreamCaptureMode(&mode));
    return mode;
}

static void restore(CUstreamCaptureMode mode)
{
    if (real.cuThreadExchangeStreamCaptureMode)
        FORWARD(cuThreadExchangeStreamCaptureMode(&mode));
}

static bool can_time(void)
{
    return real.cuEventCreate && real.cuEventRecord && real.cuEventQuery && real.cuEventElapsedTime;
}

static struct sample *take_sample(uint64_t context)
{
    struct sample *taken = NULL;
    pthread_mutex_lock(&sampling);
    for (int i = 0; i < SAMPLES && !taken; i++) {
        struct sample *sample = &samples[next_sample++ % SAMPLES];
        if (sample->state == SAMPLE_FREE && (sample->context == context || sample->context == 0))
            taken = sample;
    }
    if (taken)
        taken->state = SAMPLE_TAKEN;
    next_sample %= SAMPLES;
    pthread_mutex_unlock(&sampling);
    return taken;
}

static void give_back(struct sample *sample)
{
    pthread_mutex_lock(&sampling);
    sample->state = SAMPLE_FREE;
    pthread_mutex_unlock(&sampling);
}

static bool make_events(struct sample *sample, uint64_t context)
{
    if (sample->context == context)
        return true;
    CUstreamCaptureMode mode = relax();
    bool made = FORWARD(cuEventCreate(&sample->start, CU_EVENT_DEFAULT)) == CUDA_SUCCESS &&
                FORWARD(cuEventCreate(&sample->end, CU_EVENT_DEFAULT)) == CUDA_SUCCESS;
    restore(mode);
    sample->context = made ? context : 0;
    return made;
}

static CUresult record(CUevent event, CUstream stream, bool per_thread)
{
    if (per_thread && real.cuEventRecord_ptsz)
        return FORWARD(cuEventRecord_ptsz(event, stream));
    return FORWARD(cuEventRecord(event, stream));
}

static bool worth_timing(struct cost *cost)
{
    uint32_t launches = __atomic_add_fetch(&cost->launches, 1, __ATOMIC_RELAXED);
    uint32_t known = __atomic_load_n(&cost->known, __ATOMIC_RELAXED);
    return known < FIRST_SAMPLES || cost_estimate(cost) >= LONG_NS || launches % EVERY == 0;
}

struct sample *cost_begin(struct cost *cost, uint64_t context, CUstream stream, bool per_thread)
{
    if (!worth_timing(cost) || !can_time())
        return NULL;
    struct sample *sample = take_sample(context);
    if (!sample)
        return NULL;
    if (!make_events(sample, context) || record(sample->start, stream, per_thread) != CUDA_SUCCESS) {
        give_back(sample);
        return NULL;
    }
    sample->cost = cost;
    sample->edition = __atomic_load_n(&cost->edition, __ATOMIC_RELAXED);
    __atomic_add_fetch(&cost->under_way, 1, __ATOMIC_RELAXED);
    return sample;
}

void cost_end(struct sample *sample, CUresult launched, CUstream stream, bool per_thread, int device, uint64_t charged)
{
    bool timed = launched == CUDA_SUCCESS && record(sample->end, stream, per_thread) == CUDA_SUCCESS;
    if (!timed) {
        __atomic_sub_fetch(&sample->cost->under_way, 1, __ATOMIC_RELAXED);
        give_back(sample);
        return;
    }
    pthread_mutex_lock(&sampling);
    sample->device = device;
    sample->charged = charged;
    sample->state = SAMPLE_RUNNING;
    running++;
    pthread_mutex_unlock(&sampling);
}

/* With `sampling` held. */
static void finish(struct sample *sample)
{
    __atomic_sub_fetch(&sample->cost->under_way, 1, __ATOMIC_RELAXED);
    sample->state = SAMPLE_FREE;
    running--;
}

static void harvest_one(struct sample *sample, struct region *region, bool shared)
{
    CUresult state = FORWARD(cuEventQuery(sample->end));
    if (state == CUDA_ERROR_NOT_READY)
        return;
    float ms = 0;
    bool known = state == CUDA_SUCCESS && FORWARD(cuEventElapsedTime(&ms, sample->start, sample->end)) == CUDA_SUCCESS;
    if (known) {
        /* What was launched before a change is paid, and teaches nothing about what is launched after it. */
        bool same = sample->edition == __atomic_load_n(&sample->cost->edition, __ATOMIC_RELAXED);
        uint64_t measured = (uint64_t)((double)ms * (double)NS_PER_MS);
        uint64_t charge = same ? cost_learn(sample->cost, measured, shared) : measured;
        throttle_charge(&region->ext->devices[sample->device], (int64_t)charge - (int64_t)sample->charged);
    }
    finish(sample);
}

void cost_harvest(struct region *region, bool shared)
{
    if (__atomic_load_n(&running, __ATOMIC_RELAXED) == 0 || pthread_mutex_trylock(&sampling) != 0)
        return; /* another thread is at it */
    CUstreamCaptureMode mode = relax();
    for (int i = 0; i < SAMPLES && running > 0; i++)
        if (samples[i].state == SAMPLE_RUNNING)
            harvest_one(&samples[i], region, shared);
    restore(mode);
    pthread_mutex_unlock(&sampling);
}

void cost_drop_context(CUcontext context)
{
    pthread_mutex_lock(&sampling);
    for (int i = 0; i < SAMPLES; i++) {
        if (samples[i].context != (uint64_t)(uintptr_t)context)
            continue;
        if (samples[i].state == SAMPLE_RUNNING)
            finish(&samples[i]);
        samples[i].context = 0; /* its events ended with it */
    }
    pthread_mutex_unlock(&sampling);
}

void cost_forget(void)
{
    pthread_mutex_init(&sampling, NULL);
    pthread_mutex_init(&learning, NULL);
    memset(samples, 0, sizeof samples);
    memset(costs, 0, sizeof costs);
    running = 0;
}
