/* Stream-ordered memory counts by what its pool has reserved from the device. */
#include "driven.h"

int main(void)
{
    use_device(0);
    CUdeviceptr a, b, c;
    OK(CU(cuMemAllocAsync)(&a, 10 * MIB, NULL));
    CHECK_EQUAL(counted(0), 32); /* one chunk */
    OK(CU(cuMemAllocAsync)(&b, 20 * MIB, NULL));
    CHECK_EQUAL(counted(0), 32);
    OK(CU(cuMemAllocAsync)(&c, 30 * MIB, NULL));
    CHECK_EQUAL(counted(0), 64);
    CUdeviceptr d;
    CHECK_EQUAL(CU(cuMemAllocAsync)(&d, 40 * MIB, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(counted(0), 64);
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&d, 37 * MIB), CUDA_ERROR_OUT_OF_MEMORY);

    OK(CU(cuMemFreeAsync)(c, NULL));
    OK(CU(cuMemFree_v2)(b)); /* allowed for a pool's memory too */
    OK(CU(cuStreamSynchronize)(NULL));
    CHECK_EQUAL(counted(0), 32); /* the driver has taken a chunk back, and the others of the container know */
    /* What the pool keeps unused gives way to an allocation that needs it. */
    OK(CU(cuMemAlloc_v2)(&d, 60 * MIB));
    CHECK_EQUAL(counted(0), 60 + 32);
    OK(CU(cuMemFreeAsync)(a, NULL));
    OK(CU(cuMemFree_v2)(d));

    CUmemoryPool pool, other;
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 1}};
    OK(CU(cuMemPoolCreate)(&other, &props));
    props.location.id = 0;
    OK(CU(cuMemPoolCreate)(&pool, &props));
    OK(CU(cuDeviceGetDefaultMemPool)(&other, 0));
    OK(CU(cuMemPoolTrimTo)(other, 0));
    CHECK_EQUAL(counted(0), 0);
    OK(CU(cuMemAllocFromPoolAsync)(&a, 70 * MIB, pool, NULL));
    CHECK_EQUAL(counted(0), 96);
    OK(CU(cuMemFreeAsync)(a, NULL));
    OK(CU(cuStreamSynchronize)(NULL));
    OK(CU(cuMemPoolDestroy)(pool));
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(CU(cuMemAllocAsync)(NULL, MIB, NULL), CUDA_ERROR_INVALID_VALUE);
    return 0;
}
