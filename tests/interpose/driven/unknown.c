/* Many launches of a kernel that nobody has timed yet, queued behind one that takes long: the first may be waited for,
 * but not each of them. */
#include "driven.h"

extern CUresult cuModuleLoadData(CUmodule *module, const void *image);
extern CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
extern CUresult cuStreamCreate(CUstream *stream, unsigned int flags);

enum { LAUNCHES = 200 };

int main(void)
{
    use_device(0);
    struct region region;
    CUdeviceptr address;
    OK(CU(cuMemAlloc_v2)(&address, MIB)); /* joins */
    CHECK(region_open(&region, getenv("REGION")) == 0);
    region_set_limit(&region, 0, 100 * MIB, 90);
    CUmodule module;
    CUfunction blocker, quick;
    CUstream stream;
    OK(CU(cuModuleLoadData)(&module, "sim_ns_600000000 sim_ns_1000"));
    OK(CU(cuModuleGetFunction)(&blocker, module, "sim_ns_600000000"));
    OK(CU(cuModuleGetFunction)(&quick, module, "sim_ns_1000"));
    OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
    OK(CU(cuLaunchKernel)(blocker, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    uint64_t begun = prim_now();
    for (int i = 0; i < LAUNCHES; i++)
        OK(CU(cuLaunchKernel)(quick, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    CHECK(prim_now() - begun < 300 * NS_PER_MS);
    OK(CU(cuStreamSynchronize)(stream));
    CHECK_EQUAL(region_launches(&region, 0), LAUNCHES + 1);
    return 0;
}
