#include "account.h"

/* How long a lock may be held up by a stopped process before its waiters do without. A healthy holder needs < 1 us. */
#define PATIENCE_NS (100 * NS_PER_MS)
/* More than any device has: such a request can only fail, and must not wrap a sum. */
#define ABSURD_BYTES (1ULL << 60)

static int64_t load(const int64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static struct region_device *device_of(const struct region *region, int device)
{
    return &region->ext->devices[device];
}

static int64_t sum_of_claims(const struct region *region, int device)
{
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    int64_t sum = load(&region->ext->claims[REGION_OVERFLOW].used[device]);
    for (int slot = 0; slot < slots && slot < REGION_OVERFLOW; slot++)
        sum += load(&region->ext->claims[slot].used[device]);
    return sum;
}

void account_recount(struct region *region, int device)
{
    struct region_device *d = device_of(region, device);
    __atomic_store_n(&d->stale, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&d->total, sum_of_claims(region, device), __ATOMIC_RELAXED);
}

/* True if locked, with `total` right. */
static bool lock_device(struct region *region, int device)
{
    struct region_device *d = device_of(region, device);
    enum prim_lock got = prim_lock(&d->lock.mutex, PATIENCE_NS);
    if (got == PRIM_TIMED_OUT)
        return false;
    if (got == PRIM_OWNER_DIED || __atomic_load_n(&d->stale, __ATOMIC_RELAXED))
        account_recount(region, device);
    return true;
}

/* Adds to the claim, and lets monitors see it. Atomic because threads without the lock and sharers of the overflow slot
 * may add at the same time. */
static void add_used(struct region *region, int device, int64_t bytes)
{
    int64_t used = __atomic_add_fetch(&region->ext->claims[region->slot].used[device], bytes, __ATOMIC_RELAXED);
    struct region_memory *shown = &region->prefix->slots[region->slot].memory[device];
    __atomic_store_n(&shown->data, (uint64_t)used, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->total, (uint64_t)used + shown->context, __ATOMIC_RELAXED);
}

static bool fits(const struct region_device *d, int64_t total, uint64_t bytes, enum account_cap cap)
{
    uint64_t limit = __atomic_load_n(&d->limit, __ATOMIC_RELAXED);
    return limit == 0 || cap == ACCOUNT_COUNT || (total >= 0 && (uint64_t)total + bytes <= limit);
}

/* One attempt. `total` is what stood reserved before it. */
static bool try_charge(struct region *region, int device, uint64_t bytes, enum account_cap cap)
{
    struct region_device *d = device_of(region, device);
    bool granted;
    if (lock_device(region, device)) {
        int64_t total = load(&d->total);
        granted = fits(d, total, bytes, cap);
        if (granted) {
            add_used(region, device, (int64_t)bytes);
            __atomic_store_n(&d->total, total + (int64_t)bytes, __ATOMIC_RELAXED);
        }
        prim_unlock(&d->lock.mutex);
        return granted;
    }
    add_used(region, device, (int64_t)bytes);
    __atomic_store_n(&d->stale, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* announce before looking: of two racers at least one sees the other */
    granted = fits(d, sum_of_claims(region, device) - (int64_t)bytes, bytes, cap);
    if (!granted)
        add_used(region, device, -(int64_t)bytes);
    return granted;
}

bool account_charge(struct region *region, int device, uint64_t bytes, enum account_cap cap)
{
    if (bytes >= ABSURD_BYTES)
        return false;
    if (try_charge(region, device, bytes, cap))
        return true;
    if (region_reap(region, false) > 0 && try_charge(region, device, bytes, cap))
        return true;
    __atomic_add_fetch(&device_of(region, device)->refused, 1, __ATOMIC_RELAXED);
    return false;
}

void account_refund(struct region *region, int device, uint64_t bytes)
{
    struct region_device *d = device_of(region, device);
    if (!lock_device(region, device)) {
        add_used(region, device, -(int64_t)bytes);
        __atomic_store_n(&d->stale, 1, __ATOMIC_RELAXED);
        return;
    }
    add_used(region, device, -(int64_t)bytes);
    __atomic_store_n(&d->total, load(&d->total) - (int64_t)bytes, __ATOMIC_RELAXED);
    prim_unlock(&d->lock.mutex);
}

uint64_t account_total(const struct region *region, int device)
{
    const struct region_device *d = device_of(region, device);
    bool stale = __atomic_load_n(&d->stale, __ATOMIC_RELAXED) != 0;
    int64_t total = stale ? sum_of_claims(region, device) : load(&d->total);
    return total < 0 ? 0 : (uint64_t)total;
}

uint64_t account_limit(const struct region *region, int device)
{
    return __atomic_load_n(&device_of(region, device)->limit, __ATOMIC_RELAXED);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct account_view account_view(const struct region *region, int device, uint64_t real_total, uint64_t real_free,
                                 uint64_t real_used)
{
    uint64_t limit = account_limit(region, device);
    if (limit == 0)
        return (struct account_view){.total = real_total, .used = real_used, .free = real_free};
    struct account_view view = {.total = least(limit, real_total)};
    view.used = least(account_total(region, device), view.total);
    view.free = least(view.total - view.used, real_free);
    return view;
}
