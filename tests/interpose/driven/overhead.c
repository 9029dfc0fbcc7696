/* Contexts and loaded code are counted as overhead: shown as used, once for each, and gone with them. */
#include "driven.h"

static int overhead(int device)
{
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    int kib = (int)(account_overhead(&region, device) / 1024);
    region_close(&region);
    return kib;
}

/* As the node side does that has seen other contexts of this device. */
static void expect_context(uint64_t bytes)
{
    struct region region;
    size_t total;
    OK(CU(cuInit)(0));
    OK(CU(cuDeviceTotalMem_v2)(&total, 0)); /* makes the region */
    CHECK(region_open(&region, getenv("REGION")) == 0);
    region_set_context_bytes(&region, 0, bytes);
    region_close(&region);
}

int main(void)
{
    setenv("HAMI_MEMORY_ACCOUNTING", "with-overhead", 1);
    expect_context(40 * MIB);
    use_device(0);
    CHECK_EQUAL(overhead(0), 40 * 1024);
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(free_mib(), 60);
    CUcontext again, own;
    OK(CU(cuDevicePrimaryCtxRetain)(&again, 0));
    CHECK_EQUAL(overhead(0), 40 * 1024);
    OK(CU(cuCtxCreate_v2)(&own, 0, 0));
    CHECK_EQUAL(overhead(0), 80 * 1024);

    /* Code goes with its module, or with its context. */
    CUmodule module, other;
    char *image = calloc(1, 64 * 1024);
    CHECK(image);
    memset(image, 'x', 64 * 1024 - 1);
    OK(CU(cuModuleLoadData)(&module, image));
    CHECK_EQUAL(overhead(0), 80 * 1024 + 64);
    OK(CU(cuModuleUnload)(module));
    CHECK_EQUAL(overhead(0), 80 * 1024);
    OK(CU(cuModuleLoadDataEx)(&module, image, 0, NULL, NULL));
    OK(CU(cuModuleLoadFatBinary)(&other, image));
    CHECK_EQUAL(overhead(0), 80 * 1024 + 128);
    CHECK_EQUAL(CU(cuModuleLoadData)(&other, NULL), CUDA_ERROR_INVALID_VALUE);
    CHECK(CU(cuModuleLoad)(&other, "/no/such/file") != CUDA_SUCCESS);
    CHECK_EQUAL(overhead(0), 80 * 1024 + 128);
    OK(CU(cuCtxDestroy_v2)(own));
    CHECK_EQUAL(overhead(0), 40 * 1024);
    CUlibrary library;
    OK(CU(cuLibraryLoadData)(&library, image, NULL, NULL, 0, NULL, NULL, 0));
    CHECK_EQUAL(overhead(0), 40 * 1024 + 64);
    OK(CU(cuLibraryUnload)(library));
    CHECK_EQUAL(overhead(0), 40 * 1024);

    /* The whole limit is the program's all the same. */
    CUdeviceptr a;
    OK(CU(cuMemAlloc_v2)(&a, 100 * MIB));
    CHECK_EQUAL(free_mib(), 0);
    OK(CU(cuMemFree_v2)(a));
    OK(CU(cuDevicePrimaryCtxRelease_v2)(0));
    CHECK_EQUAL(overhead(0), 40 * 1024);
    OK(CU(cuDevicePrimaryCtxReset_v2)(0));
    CHECK_EQUAL(overhead(0), 0);
    free(image);
    return 0;
}
