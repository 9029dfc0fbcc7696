/* A plug-in with its own way to the driver: linked to it (LINKED), or asking for it by name when it is first used. */
#include <dlfcn.h>
#include <stddef.h>

#include "driver.h"

extern CUresult cuCtxSetCurrent(CUcontext context);

#ifdef LINKED
#define ASK(name) (void *)name
#else
static void *ask(const char *name)
{
    static void *handle;
    if (!handle)
        handle = dlopen("libcuda.so.1", RTLD_NOW);
    return handle ? dlsym(handle, name) : NULL;
}
#define ASK(name) ask(#name)
#endif

#define CALL(name) ((__typeof__(&name))ASK(name))

/* Total and free MiB as the driver tells them, and the answers to an allocation of each of two sizes. */
int plugin_probe(int mib, int more_mib, long out[4])
{
    CUcontext context;
    CUdeviceptr at;
    size_t free = 0, total = 0;
    if (CALL(cuInit)(0) || CALL(cuDevicePrimaryCtxRetain)(&context, 0) || CALL(cuCtxSetCurrent)(context) ||
        CALL(cuMemGetInfo_v2)(&free, &total))
        return -1;
    out[0] = (long)(total >> 20);
    out[1] = (long)(free >> 20);
    out[2] = CALL(cuMemAlloc_v2)(&at, (size_t)mib << 20);
    if (out[2] == 0)
        CALL(cuMemFree_v2)(at);
    out[3] = CALL(cuMemAlloc_v2)(&at, (size_t)more_mib << 20);
    return CALL(cuDevicePrimaryCtxRelease_v2)(0);
}
