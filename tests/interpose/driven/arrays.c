/* Arrays count by their shape. */
#include "driven.h"

int main(void)
{
    use_device(0);
    CUarray a, b;
    CUDA_ARRAY_DESCRIPTOR flat = {.Width = 4096, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    OK(CU(cuArrayCreate_v2)(&a, &flat));
    CHECK_EQUAL(counted(0), 64);
    CHECK_EQUAL(CU(cuArrayCreate_v2)(&b, &flat), CUDA_ERROR_OUT_OF_MEMORY);
    OK(CU(cuArrayDestroy)(a));
    CHECK_EQUAL(counted(0), 0);

    CUDA_ARRAY3D_DESCRIPTOR deep = {
        .Width = 256, .Height = 256, .Depth = 256, .Format = CU_AD_FORMAT_HALF, .NumChannels = 1};
    OK(CU(cuArray3DCreate_v2)(&a, &deep));
    CHECK_EQUAL(counted(0), 32);
    deep.Width = 1ULL << 62;
    CHECK(CU(cuArray3DCreate_v2)(&b, &deep) != CUDA_SUCCESS);
    CHECK_EQUAL(counted(0), 32);
    OK(CU(cuArrayDestroy)(a));

    CUmipmappedArray levels;
    CUDA_ARRAY3D_DESCRIPTOR image = {.Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4};
    OK(CU(cuMipmappedArrayCreate)(&levels, &image, 3)); /* 64 + 16 + 4 MiB */
    CHECK_EQUAL(counted(0), 84);
    OK(CU(cuMipmappedArrayDestroy)(levels));
    CHECK_EQUAL(counted(0), 0);
    CHECK_EQUAL(CU(cuArrayCreate_v2)(&a, NULL), CUDA_ERROR_INVALID_VALUE);
    return 0;
}
