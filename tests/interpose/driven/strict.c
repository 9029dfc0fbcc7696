/* With strict accounting contexts and code are part of the limit, and refused beyond it. */
#include "driven.h"

int main(void)
{
    setenv("HAMI_MEMORY_ACCOUNTING", "strict", 1);
    setenv("CUDA_DEVICE_MEMORY_LIMIT_0", "700m", 1); /* room for two contexts, of which nobody knows how large they are */
    CUcontext first = use_device(0), second;
    CUdeviceptr a, b;
    OK(CU(cuMemAlloc_v2)(&a, 300 * MIB));
    CHECK_EQUAL(CU(cuMemAlloc_v2)(&b, 101 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQUAL(CU(cuCtxCreate_v2)(&second, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
    OK(CU(cuMemFree_v2)(a));
    OK(CU(cuCtxCreate_v2)(&second, 0, 0));
    OK(CU(cuMemAlloc_v2)(&a, 100 * MIB));
    CUmodule module;
    CHECK_EQUAL(CU(cuModuleLoadData)(&module, "sim_ns_1"), CUDA_ERROR_OUT_OF_MEMORY);
    OK(CU(cuCtxDestroy_v2)(second)); /* with what was allocated in it */
    CHECK_EQUAL(free_mib(), 400);
    OK(CU(cuModuleLoadData)(&module, "sim_ns_1"));
    CUcontext again;
    OK(CU(cuDevicePrimaryCtxRetain)(&again, 0)); /* no new one */
    CHECK(again == first);
    return 0;
}
