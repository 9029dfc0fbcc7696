/* Learned costs: the lower envelope while the device is shared, the measurement itself when it is not, and forgetting. */
#include "check.h"
#include "cost.h"

struct driver real;
__thread int hook_inside __attribute__((tls_model("initial-exec")));

int main(void)
{
    CUfunction f = (CUfunction)0x1000, g = (CUfunction)0x2000;
    struct cost *a = cost_of_kernel(f, 100, 256, 0);
    CHECK(a == cost_of_kernel(f, 100, 256, 0));
    CHECK(a == cost_of_kernel(f, 103, 256, 0)); /* nearly the same size */
    CHECK(a != cost_of_kernel(f, 113, 256, 0));
    CHECK(a != cost_of_kernel(f, 1000, 256, 0));
    CHECK(cost_of_kernel(f, 7, 256, 0) != cost_of_kernel(f, 8, 256, 0));
    CHECK(a != cost_of_kernel(f, 100, 128, 0));
    CHECK(a != cost_of_kernel(g, 100, 256, 0));
    CHECK(a != cost_of_graph((CUgraphExec)0x1000));

    uint64_t unknown = cost_estimate(a);
    CHECK(unknown > 0);
    CHECK_EQUAL(cost_learn(a, 3000000, true), 3000000);
    CHECK_EQUAL(cost_learn(a, 1000000, true), 1000000);
    /* A neighbour's turn in the measurement is not charged, */
    CHECK_EQUAL(cost_learn(a, 3000000, true), 1000000);
    CHECK_EQUAL(cost_estimate(a), 1000000);
    /* but alone every ns is our own. */
    CHECK_EQUAL(cost_learn(a, 2000000, false), 2000000);

    /* When the kernel really takes longer now, the old minimum is forgotten after two windows. */
    for (int i = 0; i < 520; i++)
        cost_learn(a, 5000000, true);
    CHECK_EQUAL(cost_estimate(a), 5000000);
    cost_invalidate(a);
    CHECK_EQUAL(cost_estimate(a), unknown);
    CHECK_EQUAL(cost_learn(a, 0, true), 1); /* too short for the clock, but not unknown */

    /* A full table has one entry for all the rest. */
    for (uintptr_t i = 1; i < 100000; i++)
        CHECK(cost_of_kernel((CUfunction)(i << 8), 1, 1, 0) != NULL);
    CHECK(cost_of_kernel((CUfunction)0x1234567800, 1, 1, 0) == cost_of_kernel((CUfunction)0x1234567900, 1, 1, 0));
    CHECK(a == cost_of_kernel(f, 100, 256, 0));
    return 0;
}
