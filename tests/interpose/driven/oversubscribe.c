/* Where a grant is larger than the device, linear memory that no longer fits stands in host memory; programs see the device
 * memory that they asked for. Not for small pieces, not for high priority, not without being asked to. The device has
 * 4,096 MiB, of which a context takes 100. */
#include <unistd.h>

#include "driven.h"

static unsigned int attribute(CUpointer_attribute which, CUdeviceptr at)
{
    unsigned int one = 99, several[2] = {99, 99};
    CUpointer_attribute both[] = {CU_POINTER_ATTRIBUTE_MAPPED, which};
    void *values[] = {&several[0], &several[1]};
    OK(CU(cuPointerGetAttribute)(&one, which, at));
    OK(CU(cuPointerGetAttributes)(2, both, values, at));
    CHECK_EQUAL(one, several[1]);
    return one;
}

static int swapped(void)
{
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    int mib = (int)(account_swapped(&region, 0) / MIB);
    region_close(&region);
    return mib;
}

static void again_with(const char *name, const char *value, const char *stage)
{
    setenv(name, value, 1);
    setenv("STAGE", stage, 1);
    execl("/proc/self/exe", "oversubscribe", (char *)NULL);
    CHECK(false);
}

static void check_refused(void)
{
    CUdeviceptr a, b;
    OK(CU(cuMemAlloc_v2)(&a, 3000 * MIB));
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&b, 2000 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(counted(0), 3000);
    CHECK_EQUAL(swapped(), 0);
}

static void check_substituted(void)
{
    CUdeviceptr a, b, c;
    OK(CU(cuMemAlloc_v2)(&a, 3000 * MIB));
    OK(CU(cuMemAllocManaged)(&c, 4 * MIB, CU_MEM_ATTACH_GLOBAL));
    OK(CU(cuMemAlloc_v2)(&b, 2000 * MIB));
    CHECK_EQUAL(counted(0), 5004);
    CHECK_EQUAL(swapped(), 2000);
    CHECK_EQUAL(attribute(CU_POINTER_ATTRIBUTE_IS_MANAGED, b + 5 * MIB), 0);
    CHECK_EQUAL(attribute(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, b), CU_MEMORYTYPE_DEVICE);
    CHECK_EQUAL(attribute(CU_POINTER_ATTRIBUTE_IS_MANAGED, a), 0);
    CHECK_EQUAL(attribute(CU_POINTER_ATTRIBUTE_IS_MANAGED, c), 1); /* the program's own */
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&c, 1000 * MIB), CUDA_ERROR_OUT_OF_MEMORY); /* beyond the grant */
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&c, MIB), CUDA_ERROR_OUT_OF_MEMORY);        /* small, and the device is full */
    OK(CU(cuMemFree_v2)(b));
    CHECK_EQUAL(counted(0), 3004);
    CHECK_EQUAL(swapped(), 0);
    OK(CU(cuMemAlloc_v2)(&b, 2900 * MIB));
    CHECK_EQUAL(swapped(), 2900);
    OK(CU(cuDevicePrimaryCtxReset_v2)(0));
    CHECK_EQUAL(swapped(), 0);
    CHECK_EQUAL(counted(0), 0);
}

int main(void)
{
    const char *stage = getenv("STAGE");
    setenv("CUDA_DEVICE_MEMORY_LIMIT_0", "6000m", 1);
    use_device(0);
    if (!stage) {
        check_refused();
        again_with("CUDA_OVERSUBSCRIBE", "true", "allowed");
    } else if (strcmp(stage, "allowed") == 0) {
        CHECK_EQUAL(counted(0), 0); /* what the former program of this process had is gone */
        check_substituted();
        again_with("CUDA_TASK_PRIORITY", "0", "high");
    } else {
        check_refused();
    }
    return 0;
}
