/* Every way to ask for a function gives the stand-in of exactly that ABI, or the very pointer the driver gives. */
#include "driven.h"

/* The version of a symbol that the C library has always had on this machine. */
#ifdef __aarch64__
#define OLDEST "GLIBC_2.17"
#else
#define OLDEST "GLIBC_2.2.5"
#endif

static bool ours(const void *address)
{
    Dl_info info;
    return address && dladdr(address, &info) && strstr(info.dli_fname, "libvgpu");
}

static const char *symbol_of(const void *address)
{
    Dl_info info;
    return address && dladdr(address, &info) && info.dli_sname ? info.dli_sname : "";
}

static void *ask(const char *name, int version, int flags)
{
    void *found = NULL;
    CUdriverProcAddressQueryResult status;
    CU(cuGetProcAddress_v2)(name, &found, version, (cuuint64_t)flags, &status);
    return found;
}

int main(void)
{
    /* Before the driver is loaded there is no such symbol, whatever we export. */
    CHECK(dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") == NULL);
    CHECK(dlsym(RTLD_DEFAULT, "curl_easy_init") == NULL);
    CHECK(dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD) == NULL); /* and asking loaded nothing */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const int past_us = 0; /* these sanitizers forbid it */
#else
    const int past_us = RTLD_DEEPBIND;
#endif
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | past_us);
    CHECK(library);

    CHECK(ours(dlsym(library, "cuMemAlloc_v2")));
    CHECK(ours(dlsym(library, "cuLaunchKernel_ptsz")));
    CHECK(ours(dlsym(library, "cuGetProcAddress_v2")));
    CHECK(ours(dlsym(RTLD_DEFAULT, "cuMemAlloc_v2")));
    CHECK(dlsym(library, "cuMemAlloc_v2") == dlsym(library, "cuMemAlloc_v2"));
    CHECK(!ours(dlsym(library, "cuInit")) && dlsym(library, "cuInit"));
    CHECK(dlsym(library, "cuNoSuchFunction") == NULL);
    CHECK(dlerror() != NULL);
    CHECK(dlvsym(library, "cuNoSuchFunction", "V1") == NULL);
    void *c = dlopen("libc.so.6", RTLD_LAZY);
    CHECK(dlsym(c, "cuMemAlloc_v2") == NULL);
    CHECK(dlsym(c, "getpid") == (void *)dlsym(RTLD_DEFAULT, "getpid"));
    CHECK(dlvsym(c, "getpid", OLDEST) != NULL);
    CHECK(dlsym(RTLD_NEXT, "getpid") != NULL);
    CHECK(dlsym(RTLD_NEXT, "getpid") != NULL);

    CHECK(strcmp(symbol_of(ask("cuMemAlloc", 12000, 0)), "cuMemAlloc_v2") == 0);
    CHECK(ours(ask("cuMemAlloc", 12000, 0)));
    CHECK(strcmp(symbol_of(ask("cuMemAlloc", 2000, 0)), "cuMemAlloc") == 0);
    CHECK(strcmp(symbol_of(ask("cuLaunchKernel", 12000, 0)), "cuLaunchKernel") == 0);
    CHECK(strcmp(symbol_of(ask("cuLaunchKernel", 12000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)),
                 "cuLaunchKernel_ptsz") == 0);
    CHECK(ours(ask("cuLaunchKernel", 12000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)));
    CHECK(strcmp(symbol_of(ask("cuGraphLaunch", 12000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)),
                 "cuGraphLaunch_ptsz") == 0);
    CHECK(ours(ask("cuGetProcAddress", 12000, 0)));
    CHECK(!ours(ask("cuInit", 12000, 0)) && ask("cuInit", 12000, 0));
    CHECK(ask("cuNoSuchFunction", 12000, 0) == NULL);
    CHECK(ask("cuMemAllocAsync", 2000, 0) == NULL); /* too new for that version: the driver's answer */
    CHECK_EQUAL(CU(cuGetProcAddress_v2)(NULL, NULL, 12000, 0, NULL), CUDA_ERROR_INVALID_VALUE);
    return 0;
}
