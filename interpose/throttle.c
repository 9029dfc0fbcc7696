#include "throttle.h"

/* Booking more often than this costs a compare-and-swap a launch and gains nothing. */
#define EARN_STEP_NS (20 * NS_PER_US)
/* Longer gaps fill the burst whatever they are; the bound keeps the product below 64 bit. */
#define LONGEST_GAP_NS (10 * NS_PER_S)

static int64_t share_of(uint64_t ns, uint32_t percent)
{
    return (int64_t)(ns * percent / 100);
}

uint32_t throttle_percent(const struct region_device *device, uint64_t now, bool borrows)
{
    uint32_t cores = __atomic_load_n(&device->cores, __ATOMIC_RELAXED);
    if (cores == 0 || cores >= 100)
        return 0;
    uint32_t lent = __atomic_load_n(&device->lent, __ATOMIC_RELAXED);
    if (!borrows || lent <= cores)
        return cores;
    /* A time that lies too far ahead is of another boot, or another clock than ours. */
    if (__atomic_load_n(&device->lent_until_ns, __ATOMIC_RELAXED) - now > REGION_LOAN_NS)
        return cores;
    return lent < 100 ? lent : 100;
}

static uint32_t own_percent(const struct region_device *device, uint32_t percent)
{
    uint32_t cores = __atomic_load_n(&device->cores, __ATOMIC_RELAXED);
    return cores != 0 && cores < percent ? cores : percent;
}

void throttle_earn(struct region_device *device, uint64_t now, uint32_t percent)
{
    uint64_t stamp = __atomic_load_n(&device->stamp_ns, __ATOMIC_RELAXED);
    if (now >= stamp && now - stamp < EARN_STEP_NS)
        return;
    /* One process wins the interval. A stamp from the future is another boot's: start anew from here. */
    if (!__atomic_compare_exchange_n(&device->stamp_ns, &stamp, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    uint64_t gap = now < stamp ? 0 : now - stamp;
    int64_t earned = share_of(gap < LONGEST_GAP_NS ? gap : LONGEST_GAP_NS, percent);
    int64_t most_credit = -share_of(THROTTLE_BURST_NS, own_percent(device, percent));
    int64_t debt = __atomic_load_n(&device->debt_ns, __ATOMIC_RELAXED);
    int64_t next;
    do {
        next = debt - earned;
        if (next < most_credit)
            next = debt < most_credit ? debt : most_credit;
    } while (!__atomic_compare_exchange_n(&device->debt_ns, &debt, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void throttle_charge(struct region_device *device, int64_t ns)
{
    uint32_t correction = __atomic_load_n(&device->correction, __ATOMIC_RELAXED);
    if (correction != 0)
        ns = ns * (int64_t)correction / 1000;
    __atomic_add_fetch(&device->debt_ns, ns, __ATOMIC_RELAXED);
    __atomic_add_fetch(&device->charged_ns, (uint64_t)ns, __ATOMIC_RELAXED);
}

uint64_t throttle_wait(const struct region_device *device, uint32_t percent, uint8_t strictness)
{
    int64_t window = share_of(THROTTLE_WINDOW_NS, percent) * (255 - strictness) / 255;
    int64_t over = __atomic_load_n(&device->debt_ns, __ATOMIC_RELAXED) - window;
    if (over <= 0)
        return 0;
    uint64_t wait = (uint64_t)over > LONGEST_GAP_NS ? THROTTLE_LONGEST_WAIT_NS : (uint64_t)over * 100 / percent;
    return wait < THROTTLE_LONGEST_WAIT_NS ? wait + 1 : THROTTLE_LONGEST_WAIT_NS;
}
