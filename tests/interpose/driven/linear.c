/* Linear memory: every way to get some counts, the limit is exact, what is freed is there again. */
#include "driven.h"

int main(void)
{
    use_device(0);
    size_t free, total, bytes, pitch;
    CUdeviceptr a, b;
    OK(CU(cuMemGetInfo_v2)(&free, &total));
    CHECK_EQUAL(total, 100 * MIB);
    CHECK_EQUAL(free, 100 * MIB);
    OK(CU(cuDeviceTotalMem_v2)(&bytes, 0));
    CHECK_EQUAL(bytes, 100 * MIB);
    OK(CU(cuDeviceTotalMem_v2)(&bytes, 1));
    CHECK_EQUAL(bytes, 4096 * MIB);

    OK(CU(cuMemAlloc_v2)(&a, 60 * MIB));
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&b, 40 * MIB + 1), CUDA_ERROR_OUT_OF_MEMORY);
    OK(CU(cuMemAlloc_v2)(&b, 40 * MIB));
    CHECK_EQUAL(free_mib(), 0);
    CHECK_EQUAL(counted(0), 100);
    OK(CU(cuMemFree_v2)(a));
    CHECK_EQUAL(counted(0), 40);
    CHECK_EQUAL(free_mib(), 60);
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&a, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(counted(0), 40);

    OK(CU(cuMemAllocManaged)(&a, 30 * MIB, 1));
    CHECK_EQUAL(counted(0), 70);
    OK(CU(cuMemFree_v2)(a));
    OK(CU(cuMemFree_v2)(b));
    CHECK_EQUAL(counted(0), 0);

    /* Rows are padded: the driver's pitch counts, not what was asked for. */
    OK(CU(cuMemAllocPitch_v2)(&a, &pitch, 1000, 10000, 4));
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    CHECK_EQUAL(account_total(&region, 0), pitch * 10000);
    CHECK_EQUAL(CU(cuMemAllocPitch_v2)(&b, &pitch, SIZE_MAX / 2, 3, 4), CUDA_ERROR_OUT_OF_MEMORY);
    OK(CU(cuMemFree_v2)(a));
    CHECK_EQUAL(account_total(&region, 0), 0);

    /* What the driver refuses costs nothing, and its answers stay its own. */
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&a, 0), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQUAL(CU(cuMemAlloc_v2)(NULL, MIB), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQUAL(CU(cuMemFree_v2)(0x1234567), CUDA_ERROR_INVALID_VALUE);
    OK(CU(cuMemGetInfo_v2)(NULL, &total)); /* this driver takes one null */
    CHECK_EQUAL(total, 100 * MIB);
    CHECK_EQUAL(CU(cuMemGetInfo_v2)(NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQUAL(account_total(&region, 0), 0);
    return 0;
}
