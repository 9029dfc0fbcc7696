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

struct sums {
    int64_t total, overhead;
};

static struct region_memory *shown_of(const struct region *region, int slot, int device)
{
    return &region->prefix->slots[slot].memory[device];
}

static int64_t overhead_of(const struct region_memory *memory)
{
    return (int64_t)(__atomic_load_n(&memory->context, __ATOMIC_RELAXED) +
                     __atomic_load_n(&memory->module, __ATOMIC_RELAXED));
}

static void add_slot(struct sums *sums, const struct region *region, int slot, int device)
{
    sums->total += load(&region->ext->claims[slot].used[device]);
    sums->overhead += overhead_of(shown_of(region, slot, device));
}

static struct sums sums_of_slots(const struct region *region, int device)
{
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    struct sums sums = {0};
    add_slot(&sums, region, REGION_OVERFLOW, device);
    for (int slot = 0; slot < slots && slot < REGION_OVERFLOW; slot++)
        add_slot(&sums, region, slot, device);
    return sums;
}

void account_recount(struct region *region, int device)
{
    struct region_device *d = device_of(region, device);
    __atomic_store_n(&d->stale, 0, __ATOMIC_RELAXED);
    struct sums sums = sums_of_slots(region, device);
    __atomic_store_n(&d->total, sums.total, __ATOMIC_RELAXED);
    __atomic_store_n(&d->overhead, sums.overhead, __ATOMIC_RELAXED);
}

/* True if locked, with the sums right. */
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
    struct region_memory *shown = shown_of(region, region->slot, device);
    __atomic_store_n(&shown->data, (uint64_t)used, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->total, (uint64_t)(used + overhead_of(shown)), __ATOMIC_RELAXED);
}

/* `before` is what stood there without these bytes. */
static bool fits(const struct region_device *d, struct sums before, uint64_t bytes, enum account_cap cap)
{
    uint64_t limit = __atomic_load_n(&d->limit, __ATOMIC_RELAXED);
    int64_t held = before.total + (cap == ACCOUNT_STRICT ? before.overhead : 0);
    return limit == 0 || cap == ACCOUNT_COUNT || (held >= 0 && (uint64_t)held + bytes <= limit);
}

/* With the device locked. */
static struct sums sums_of(const struct region_device *d)
{
    return (struct sums){.total = load(&d->total), .overhead = load(&d->overhead)};
}

static bool try_charge(struct region *region, int device, uint64_t bytes, enum account_cap cap)
{
    struct region_device *d = device_of(region, device);
    bool granted;
    if (lock_device(region, device)) {
        struct sums before = sums_of(d);
        granted = fits(d, before, bytes, cap);
        if (granted) {
            add_used(region, device, (int64_t)bytes);
            __atomic_store_n(&d->total, before.total + (int64_t)bytes, __ATOMIC_RELAXED);
        }
        prim_unlock(&d->lock.mutex);
        return granted;
    }
    add_used(region, device, (int64_t)bytes);
    __atomic_store_n(&d->stale, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* announce before looking: of two racers at least one sees the other */
    struct sums with = sums_of_slots(region, device);
    with.total -= (int64_t)bytes;
    granted = fits(d, with, bytes, cap);
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
    region_reap(region, false); /* nothing to sweep is no answer: another thread may just have swept it */
    return try_charge(region, device, bytes, cap);
}

void account_refuse(struct region *region, int device)
{
    __atomic_add_fetch(&device_of(region, device)->refused, 1, __ATOMIC_RELAXED);
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
    int64_t total = stale ? sums_of_slots(region, device).total : load(&d->total);
    return total < 0 ? 0 : (uint64_t)total;
}

/* ---- overhead */

static uint64_t *overhead_word(const struct region *region, int slot, int device, enum account_overhead kind)
{
    struct region_memory *shown = shown_of(region, slot, device);
    return kind == ACCOUNT_CONTEXT ? &shown->context : &shown->module;
}

/* Changes one word, by at most what stands there, and what is shown of the process. Returns by how much. */
static int64_t change_word(struct region *region, int slot, int device, enum account_overhead kind, int64_t by)
{
    struct region_memory *shown = shown_of(region, slot, device);
    uint64_t *word = overhead_word(region, slot, device, kind);
    uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
    uint64_t next;
    do {
        next = by < 0 && (uint64_t)-by > seen ? 0 : seen + (uint64_t)by;
    } while (!__atomic_compare_exchange_n(word, &seen, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    int64_t used = load(&region->ext->claims[slot].used[device]);
    __atomic_store_n(&shown->total, (uint64_t)(used + overhead_of(shown)), __ATOMIC_RELAXED);
    return (int64_t)(next - seen);
}

/* With the device locked, or with its sums stale. */
static void change_overhead(struct region *region, int slot, int device, enum account_overhead kind, int64_t by)
{
    struct region_device *d = device_of(region, device);
    int64_t changed = change_word(region, slot, device, kind, by);
    __atomic_store_n(&d->overhead, load(&d->overhead) + changed, __ATOMIC_RELAXED);
}

static void change_own_overhead(struct region *region, int device, enum account_overhead kind, int64_t by)
{
    struct region_device *d = device_of(region, device);
    bool locked = lock_device(region, device);
    change_overhead(region, region->slot, device, kind, by);
    if (locked)
        prim_unlock(&d->lock.mutex);
    else
        __atomic_store_n(&d->stale, 1, __ATOMIC_RELAXED);
}

static bool try_overhead(struct region *region, int device, enum account_overhead kind, uint64_t bytes,
                         enum account_cap cap)
{
    struct region_device *d = device_of(region, device);
    if (!lock_device(region, device))
        return false;
    bool granted = fits(d, sums_of(d), bytes, cap);
    if (granted)
        change_overhead(region, region->slot, device, kind, (int64_t)bytes);
    prim_unlock(&d->lock.mutex);
    return granted;
}

bool account_add_overhead(struct region *region, int device, enum account_overhead kind, uint64_t bytes,
                          enum account_cap cap)
{
    if (cap == ACCOUNT_STRICT)
        return try_overhead(region, device, kind, bytes, cap) ||
               (region_reap(region, false) > 0 && try_overhead(region, device, kind, bytes, cap));
    change_own_overhead(region, device, kind, (int64_t)bytes);
    return true;
}

void account_end_overhead(struct region *region, int device, enum account_overhead kind, uint64_t bytes)
{
    change_own_overhead(region, device, kind, -(int64_t)bytes);
}

uint64_t account_overhead(const struct region *region, int device)
{
    const struct region_device *d = device_of(region, device);
    bool stale = __atomic_load_n(&d->stale, __ATOMIC_RELAXED) != 0;
    int64_t overhead = stale ? sums_of_slots(region, device).overhead : load(&d->overhead);
    return overhead < 0 ? 0 : (uint64_t)overhead;
}

uint64_t account_context_bytes(const struct region *region, int device)
{
    uint64_t measured = __atomic_load_n(&device_of(region, device)->context_bytes, __ATOMIC_RELAXED);
    return measured ? measured : ACCOUNT_CONTEXT_BYTES;
}

void account_swap(struct region *region, int device, int64_t bytes)
{
    __atomic_add_fetch(&shown_of(region, region->slot, device)->swapped, (uint64_t)bytes, __ATOMIC_RELAXED);
}

uint64_t account_swapped(const struct region *region, int device)
{
    int slots = __atomic_load_n(&region->prefix->slot_count, __ATOMIC_ACQUIRE);
    uint64_t sum = 0;
    for (int slot = 0; slot < slots && slot < REGION_SLOTS; slot++)
        sum += __atomic_load_n(&shown_of(region, slot, device)->swapped, __ATOMIC_RELAXED);
    return sum;
}

void account_observe(struct region *region, int slot, int device, uint64_t bytes)
{
    struct region_device *d = device_of(region, device);
    if (!lock_device(region, device))
        return; /* the next look is soon */
    int64_t used = load(&region->ext->claims[slot].used[device]);
    struct region_memory *shown = shown_of(region, slot, device);
    uint64_t beside = used > 0 && (uint64_t)used < bytes ? bytes - (uint64_t)used : used > 0 ? 0 : bytes;
    uint64_t code = __atomic_load_n(&shown->module, __ATOMIC_RELAXED);
    uint64_t contexts = __atomic_load_n(&shown->context, __ATOMIC_RELAXED);
    if (code > beside) {
        change_overhead(region, slot, device, ACCOUNT_MODULE, (int64_t)beside - (int64_t)code);
        code = beside;
    }
    change_overhead(region, slot, device, ACCOUNT_CONTEXT, (int64_t)(beside - code) - (int64_t)contexts);
    __atomic_store_n(&region->prefix->slots[slot].monitor_used[device], bytes, __ATOMIC_RELAXED);
    if (beside > code)
        __atomic_store_n(&d->context_bytes, beside - code, __ATOMIC_RELAXED);
    prim_unlock(&d->lock.mutex);
}

uint64_t account_limit(const struct region *region, int device)
{
    return __atomic_load_n(&device_of(region, device)->limit, __ATOMIC_RELAXED);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct account_view account_view(const struct region *region, int device, const struct account_view *driver,
                                 bool with_overhead)
{
    uint64_t limit = account_limit(region, device);
    if (limit == 0)
        return *driver;
    uint64_t used = account_total(region, device) + (with_overhead ? account_overhead(region, device) : 0);
    struct account_view view = {.total = least(limit, driver->total)};
    view.used = least(used, view.total);
    view.free = least(view.total - view.used, driver->free);
    return view;
}
