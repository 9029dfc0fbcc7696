/* The token arithmetic on a clock that the test moves: every limit gets its share of the time, whatever the kernels. */
#include "check.h"
#include "throttle.h"

#define START (100 * NS_PER_S)

/* Launches kernels of `work` ns back to back, waiting as told; returns per cent of `span` the device was busy. */
static double share(uint32_t percent, uint64_t work, uint64_t span, uint8_t strictness)
{
    struct region_device device = {.stamp_ns = START};
    uint64_t now = START, busy = 0;
    while (now < START + span) {
        throttle_earn(&device, now, percent);
        uint64_t wait = throttle_wait(&device, percent, strictness);
        CHECK(wait <= THROTTLE_LONGEST_WAIT_NS + 1);
        if (wait) {
            now += wait;
            continue;
        }
        throttle_charge(&device, (int64_t)work);
        now += work;
        busy += work;
    }
    return 100.0 * (double)busy / (double)span;
}

static void shares(void)
{
    const uint32_t limits[] = {1, 10, 30, 50, 80, 99};
    const uint64_t works[] = {20 * NS_PER_US, 100 * NS_PER_US, NS_PER_MS, 8 * NS_PER_MS};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++)
        for (size_t w = 0; w < sizeof works / sizeof works[0]; w++)
            for (int strictness = 0; strictness < 256; strictness += 255) {
                double got = share(limits[l], works[w], 3 * NS_PER_S, (uint8_t)strictness);
                double off = got - limits[l];
                CHECK(off < 2 && off > -2);
            }
}

static void loans(void)
{
    struct region_device device = {.cores = 30, .lent = 70, .lent_until_ns = START};
    const struct {
        uint64_t now;
        bool borrows;
        uint32_t percent;
    } rows[] = {
        {START - NS_PER_MS, true, 70},
        {START, true, 70},
        {START - NS_PER_MS, false, 30},
        {START + 1, true, 30},                      /* nobody renewed it */
        {START - REGION_LOAN_NS - 1, true, 30},     /* of another clock */
        {0, true, 30},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_EQUAL(throttle_percent(&device, rows[i].now, rows[i].borrows), rows[i].percent);
    device.lent = 20; /* nobody is lent less than what is his */
    CHECK_EQUAL(throttle_percent(&device, START, true), 30);
    device.lent = UINT32_MAX; /* written by a program of the container, perhaps */
    CHECK_EQUAL(throttle_percent(&device, START, true), 100);
    for (uint32_t cores = 0; cores <= 200; cores += 100) {
        device.cores = cores;
        CHECK_EQUAL(throttle_percent(&device, START, true), 0);
    }
    /* Of what is lent, nothing is saved up. */
    device = (struct region_device){.cores = 20, .stamp_ns = START};
    throttle_earn(&device, START + NS_PER_S, 90);
    CHECK_EQUAL(device.debt_ns, -(int64_t)(THROTTLE_BURST_NS / 5));
}

int main(void)
{
    shares();
    loans();
    /* Long rest saves up no more than the burst. */
    struct region_device device = {.stamp_ns = START};
    throttle_earn(&device, START + 3600 * NS_PER_S, 50);
    CHECK_EQUAL(device.debt_ns, -(int64_t)(THROTTLE_BURST_NS / 2));
    throttle_earn(&device, START + 7200 * NS_PER_S, 50);
    CHECK_EQUAL(device.debt_ns, -(int64_t)(THROTTLE_BURST_NS / 2));
    /* A stamp from before a reboot lies in the future: no credit, no endless wait. */
    device = (struct region_device){.stamp_ns = START * 10, .debt_ns = 7};
    throttle_earn(&device, START, 50);
    CHECK_EQUAL(device.stamp_ns, START);
    CHECK_EQUAL(device.debt_ns, 7);
    /* A raised limit pays old debt faster. */
    device = (struct region_device){.stamp_ns = START, .debt_ns = (int64_t)NS_PER_S};
    throttle_earn(&device, START + NS_PER_S, 90);
    CHECK_EQUAL(device.debt_ns, NS_PER_S / 10);
    /* The node side's correction multiplies charges and what is taken back alike. */
    device = (struct region_device){.correction = 500};
    throttle_charge(&device, 1000);
    throttle_charge(&device, -200);
    CHECK_EQUAL(device.debt_ns, 400);
    CHECK_EQUAL(device.charged_ns, 400);
    return 0;
}
