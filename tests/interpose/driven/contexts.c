/* What ends with a context is given back, the rest is not; memory of a device without a limit is counted, not refused. */
#include "driven.h"

extern CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device);

int main(void)
{
    CUcontext primary = use_device(0), own;
    CUdeviceptr a, b;
    OK(CU(cuMemAlloc_v2)(&a, 10 * MIB));
    OK(CU(cuCtxCreate_v2)(&own, 0, 0));
    OK(CU(cuMemAlloc_v2)(&b, 20 * MIB));
    CHECK_EQUAL(counted(0), 30);
    OK(CU(cuCtxDestroy_v2)(own));
    CHECK_EQUAL(counted(0), 10);
    OK(CU(cuMemFree_v2)(a));
    CHECK_EQUAL(counted(0), 0);

    OK(CU(cuMemAlloc_v2)(&a, 15 * MIB));
    CUcontext again;
    OK(CU(cuDevicePrimaryCtxRetain)(&again, 0));
    CHECK(again == primary);
    OK(CU(cuDevicePrimaryCtxRelease_v2)(0));
    CHECK_EQUAL(counted(0), 15);
    OK(CU(cuDevicePrimaryCtxRelease_v2)(0));
    CHECK_EQUAL(counted(0), 0);

    use_device(0);
    OK(CU(cuMemAlloc_v2)(&a, 25 * MIB));
    CHECK_EQUAL(counted(0), 25);
    OK(CU(cuDevicePrimaryCtxReset_v2)(0));
    CHECK_EQUAL(counted(0), 0);

    use_device(1);
    OK(CU(cuMemAlloc_v2)(&a, 500 * MIB));
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(counted(1), 500);
    return 0;
}
