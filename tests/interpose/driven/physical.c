/* Memory by handle: counted where it is put, until both the handle and every mapping are gone. */
#include "driven.h"

extern CUresult cuMemAddressReserve(CUdeviceptr *at, size_t size, size_t align, CUdeviceptr hint, unsigned long long f);

int main(void)
{
    use_device(1); /* the current device is not the one it is put on */
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemGenericAllocationHandle a, b, again;
    CUdeviceptr at;
    OK(CU(cuMemAddressReserve)(&at, 128 * MIB, 0, 0, 0));
    OK(CU(cuMemCreate)(&a, 32 * MIB, &prop, 0));
    OK(CU(cuMemCreate)(&b, 64 * MIB, &prop, 0));
    CHECK_EQUAL(counted(0), 96);
    CHECK_EQUAL(counted(1), 0);
    CHECK_EQUAL(CU(cuMemCreate)(&again, 6 * MIB, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);

    OK(CU(cuMemMap)(at, 32 * MIB, 0, a, 0));
    OK(CU(cuMemMap)(at + 32 * MIB, 64 * MIB, 0, b, 0));
    OK(CU(cuMemRelease)(a));
    CHECK_EQUAL(counted(0), 96);
    OK(CU(cuMemRetainAllocationHandle)(&again, (void *)(uintptr_t)at));
    CHECK(again == a);
    OK(CU(cuMemUnmap)(at, 96 * MIB)); /* both at once */
    CHECK_EQUAL(counted(0), 96);
    OK(CU(cuMemRelease)(again));
    CHECK_EQUAL(counted(0), 64);
    OK(CU(cuMemRelease)(b));
    CHECK_EQUAL(counted(0), 0);
    CHECK(CU(cuMemRelease)(b) != CUDA_SUCCESS);
    CHECK_EQUAL(counted(0), 0);

    prop.location.type = CU_MEM_LOCATION_TYPE_HOST;
    CUresult rc = CU(cuMemCreate)(&a, 200 * MIB, &prop, 0);
    CHECK(rc != CUDA_ERROR_OUT_OF_MEMORY); /* host memory is nobody's limit */
    CHECK_EQUAL(counted(0), 0);
    return 0;
}
