/* Programs that run on a driver under the library: they ask for the driver's functions as cudart does. test_driven.py
 * gives them a simulated machine, a region (REGION) and limits; device 0 has 100 MiB, device 1 no limit. */
#ifndef DRIVEN_H
#define DRIVEN_H

#include <dlfcn.h>
#include <string.h>

#include "../c/check.h"
#include "account.h"
#include "driver.h"

#define MIB ((size_t)1 << 20)
#define CU(function) ((__typeof__(&function))driver_symbol(#function))
#define OK(call) CHECK_EQUAL(call, CUDA_SUCCESS)

static inline void *driver_symbol(const char *name)
{
    static void *library;
    if (!library)
        library = dlopen("libcuda.so.1", RTLD_LAZY);
    CHECK(library);
    void *symbol = dlsym(library, name);
    CHECK(symbol);
    return symbol;
}

static inline CUcontext use_device(int device)
{
    CUcontext context;
    OK(CU(cuInit)(0));
    OK(CU(cuDevicePrimaryCtxRetain)(&context, device));
    OK(CU(cuCtxPushCurrent_v2)(context));
    return context;
}

/* MiB that stand in the ledger for a device, rounded down. */
static inline int counted(int device)
{
    struct region region;
    CHECK(region_open(&region, getenv("REGION")) == 0);
    int mib = (int)(account_total(&region, device) / MIB);
    region_close(&region);
    return mib;
}

static inline size_t free_mib(void)
{
    size_t free, total;
    OK(CU(cuMemGetInfo_v2)(&free, &total));
    return free / MIB;
}

#endif
