/* Under the library, on the driver beside this file: device 0 has 100 MiB. */
#include <dlfcn.h>
#include <string.h>

#include "../driven/driven.h"

#define NVML(function) ((__typeof__(&function))dlsym(library, #function))

/* Of protected memory, too, a container sees its part. */
static void confidential(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_LAZY);
    CHECK(library);
    nvmlMemory_t memory;
    nvmlConfComputeMemSizeInfo_t sizes;
    CHECK_EQUAL(NVML(nvmlDeviceGetConfComputeProtectedMemoryUsage)(NULL, &memory), NVML_SUCCESS);
    CHECK_EQUAL(memory.total / MIB, 100);
    CHECK_EQUAL(memory.used / MIB, 90);
    CHECK_EQUAL(memory.free / MIB, 10);
    CHECK_EQUAL(NVML(nvmlDeviceGetConfComputeMemSizeInfo)(NULL, &sizes), NVML_SUCCESS);
    CHECK_EQUAL(sizes.protectedMemSizeKib, 100 << 10);
    CHECK_EQUAL(sizes.unprotectedMemSizeKib, 7);
}

int main(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_LAZY);
    CHECK(library);
    OK(CU(cuInit)(0));

    /* What this driver lacks is absent, also by the names that we export. */
    CHECK(dlsym(library, "cuMemAllocAsync") == NULL);
    CHECK(dlsym(RTLD_DEFAULT, "cuMemAllocAsync") == NULL);
    CHECK(dlsym(library, "cuMemGetInfo_v2") == NULL);

    /* An inner entry is recognised by what was asked for, and limited. */
    __typeof__(&cuMemAlloc_v2) alloc = NULL;
    CUdeviceptr address;
    OK(CU(cuGetProcAddress_v2)("cuMemAlloc", (void **)&alloc, 12000, 0, NULL));
    OK(alloc(&address, 60 * MIB));
    CHECK_EQUAL(counted(0), 60);
    CHECK_EQUAL(alloc(&address, 60 * MIB), CUDA_ERROR_OUT_OF_MEMORY);

    /* A newer ABI than any we know is passed on as it is: another signature must never meet our stand-in. */
    void *newer = NULL;
    OK(CU(cuGetProcAddress_v2)("cuMemAlloc", &newer, 99000, 0, NULL));
    CHECK(newer == dlsym(library, "cuMemAlloc_v9"));

    /* What graphs hold counts from their launch on, once. */
    OK(CU(cuGraphLaunch)((CUgraphExec)20, NULL));
    CHECK_EQUAL(counted(0), 80);
    OK(CU(cuGraphLaunch)((CUgraphExec)20, NULL));
    CHECK_EQUAL(counted(0), 80);
    OK(CU(cuDeviceGraphMemTrim)(0));
    CHECK_EQUAL(counted(0), 60);
    OK(CU(cuGraphLaunch)((CUgraphExec)20, NULL));
    OK(alloc(&address, 30 * MIB)); /* what graphs keep without need gives way */
    CHECK_EQUAL(counted(0), 90);

    /* Its tiles of sparse arrays would keep memory that nobody can count. */
    CHECK_EQUAL(CU(cuMemMapArrayAsync)(NULL, 0, NULL), CUDA_ERROR_NOT_SUPPORTED);
    confidential();
    return 0;
}
