/*
 * A small CUDA and NVML client for demonstrations and tests: it opens the driver's libraries by name at run time, as
 * programs built on the CUDA runtime do, makes real calls, and prints one JSON object a command.
 *
 *     gpuprobe COMMAND... with COMMAND one of
 *     info                     memory of each visible device as CUDA and NVML tell it
 *     alloc MIB                allocate 1-MiB pieces until MIB or an error
 *     free                     free what alloc took
 *     burn SECONDS KERNEL_NS   launch kernels of KERNEL_NS one after another, waiting for each
 *     hold MIB SECONDS         allocate MIB at once, keep it for SECONDS, free it
 *
 * All but `info` work on device 0. Exit status 0 also when a limit was met; 1 when the driver cannot be used, 2 for a
 * bad command line.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver_more.h"

static struct {
    CUresult (*cuInit)(unsigned);
    CUresult (*cuDeviceGetCount)(int *);
    CUresult (*cuDeviceGet)(CUdevice *, int);
    CUresult (*cuDeviceGetUuid_v2)(CUuuid *, CUdevice);
    CUresult (*cuDeviceTotalMem_v2)(size_t *, CUdevice);
    CUresult (*cuDevicePrimaryCtxRetain)(CUcontext *, CUdevice);
    CUresult (*cuDevicePrimaryCtxRelease_v2)(CUdevice);
    CUresult (*cuCtxSetCurrent)(CUcontext);
    CUresult (*cuMemGetInfo_v2)(size_t *, size_t *);
    CUresult (*cuMemAlloc_v2)(CUdeviceptr *, size_t);
    CUresult (*cuMemFree_v2)(CUdeviceptr);
    CUresult (*cuModuleLoadData)(CUmodule *, const void *);
    CUresult (*cuModuleGetFunction)(CUfunction *, CUmodule, const char *);
    CUresult (*cuStreamCreate)(CUstream *, unsigned);
    CUresult (*cuStreamSynchronize)(CUstream);
    CUresult (*cuLaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                               CUstream, void **, void **);
    CUresult (*cuGetErrorName)(CUresult, const char **);
} cu;

static struct {
    nvmlReturn_t (*nvmlInit_v2)(void);
    nvmlReturn_t (*nvmlDeviceGetHandleByUUID)(const char *, nvmlDevice_t *);
    nvmlReturn_t (*nvmlDeviceGetMemoryInfo)(nvmlDevice_t, nvmlMemory_t *);
    nvmlReturn_t (*nvmlDeviceGetName)(nvmlDevice_t, char *, unsigned);
} nvml;

static CUcontext context;
static CUdeviceptr *pieces;
static size_t piece_count;

static const char *name(CUresult rc)
{
    const char *text = NULL;
    static char number[24];
    if (cu.cuGetErrorName && cu.cuGetErrorName(rc, &text) == CUDA_SUCCESS && text)
        return text;
    snprintf(number, sizeof number, "%d", rc);
    return number;
}

static void die(const char *what, const char *why)
{
    printf("{\"error\": \"%s\", \"reason\": \"%s\"}\n", what, why);
    exit(1);
}

static void check(CUresult rc, const char *what)
{
    if (rc != CUDA_SUCCESS)
        die(what, name(rc));
}

static void *find(void *library, const char *symbol)
{
    void *at = dlsym(library, symbol);
    if (!at)
        die(symbol, "no such function");
    return at;
}

static void open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library)
        die("libcuda.so.1", "cannot be loaded");
#define FIND(symbol) *(void **)&cu.symbol = find(library, #symbol)
    FIND(cuGetErrorName);
    FIND(cuInit);
    FIND(cuDeviceGetCount);
    FIND(cuDeviceGet);
    FIND(cuDeviceGetUuid_v2);
    FIND(cuDeviceTotalMem_v2);
    FIND(cuDevicePrimaryCtxRetain);
    FIND(cuDevicePrimaryCtxRelease_v2);
    FIND(cuCtxSetCurrent);
    FIND(cuMemGetInfo_v2);
    FIND(cuMemAlloc_v2);
    FIND(cuMemFree_v2);
    FIND(cuModuleLoadData);
    FIND(cuModuleGetFunction);
    FIND(cuStreamCreate);
    FIND(cuStreamSynchronize);
    FIND(cuLaunchKernel);
#undef FIND
    check(cu.cuInit(0), "cuInit");
}

static void open_nvml(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library)
        die("libnvidia-ml.so.1", "cannot be loaded");
#define FIND(symbol) *(void **)&nvml.symbol = find(library, #symbol)
    FIND(nvmlInit_v2);
    FIND(nvmlDeviceGetHandleByUUID);
    FIND(nvmlDeviceGetMemoryInfo);
    FIND(nvmlDeviceGetName);
#undef FIND
    if (nvml.nvmlInit_v2() != NVML_SUCCESS)
        die("nvmlInit_v2", "failed");
}

static void use_device_0(void)
{
    CUdevice device;
    if (context)
        return;
    check(cu.cuDeviceGet(&device, 0), "cuDeviceGet");
    check(cu.cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    check(cu.cuCtxSetCurrent(context), "cuCtxSetCurrent");
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double mib(unsigned long long bytes) { return (double)bytes / 1048576.0; }

static void info(void)
{
    int count;
    if (!nvml.nvmlInit_v2)
        open_nvml();
    check(cu.cuDeviceGetCount(&count), "cuDeviceGetCount");
    printf("{\"command\": \"info\", \"pid\": %d, \"devices\": [", getpid());
    for (int i = 0; i < count; i++) {
        CUdevice device;
        CUuuid raw;
        size_t free_bytes, total, device_total;
        char uuid[48], product[96] = "";
        CUcontext own;
        nvmlDevice_t handle;
        nvmlMemory_t memory = {0};
        check(cu.cuDeviceGet(&device, i), "cuDeviceGet");
        check(cu.cuDeviceGetUuid_v2(&raw, device), "cuDeviceGetUuid_v2");
        check(cu.cuDeviceTotalMem_v2(&device_total, device), "cuDeviceTotalMem_v2");
        check(cu.cuDevicePrimaryCtxRetain(&own, device), "cuDevicePrimaryCtxRetain");
        check(cu.cuCtxSetCurrent(own), "cuCtxSetCurrent");
        check(cu.cuMemGetInfo_v2(&free_bytes, &total), "cuMemGetInfo_v2");
        const unsigned char *b = (const unsigned char *)raw.bytes;
        snprintf(uuid, sizeof uuid, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
        bool known = nvml.nvmlDeviceGetHandleByUUID(uuid, &handle) == NVML_SUCCESS;
        if (!known) {
            /* CUDA does not tell an instance from a device. */
            memcpy(uuid, "MIG", 3);
            known = nvml.nvmlDeviceGetHandleByUUID(uuid, &handle) == NVML_SUCCESS;
        }
        if (!known || nvml.nvmlDeviceGetMemoryInfo(handle, &memory) != NVML_SUCCESS ||
            nvml.nvmlDeviceGetName(handle, product, sizeof product) != NVML_SUCCESS)
            die("NVML", "does not know the device that CUDA shows");
        printf("%s{\"uuid\": \"%s\", \"name\": \"%s\", \"total_mib\": %.3f, \"free_mib\": %.3f, \"device_total_mib\": "
               "%.3f, "
               "\"nvml_total_mib\": %.3f, \"nvml_used_mib\": %.3f, \"nvml_free_mib\": %.3f}",
               i ? ", " : "", uuid, product, mib(total), mib(free_bytes), mib(device_total), mib(memory.total),
               mib(memory.used), mib(memory.free));
        check(cu.cuDevicePrimaryCtxRelease_v2(device), "cuDevicePrimaryCtxRelease_v2");
    }
    printf("]}\n");
    if (context)
        check(cu.cuCtxSetCurrent(context), "cuCtxSetCurrent");
}

static void alloc(long wanted)
{
    use_device_0();
    CUresult rc = CUDA_SUCCESS;
    CUdeviceptr *more = realloc(pieces, (piece_count + (size_t)wanted) * sizeof *pieces + 1);
    long got = 0;
    if (!more)
        die("alloc", "no host memory");
    pieces = more;
    for (; got < wanted && rc == CUDA_SUCCESS; got += rc == CUDA_SUCCESS) {
        rc = cu.cuMemAlloc_v2(&pieces[piece_count], 1u << 20);
        piece_count += rc == CUDA_SUCCESS;
    }
    printf("{\"command\": \"alloc\", \"asked_mib\": %ld, \"got_mib\": %ld, \"result\": \"%s\"}\n", wanted, got,
           name(rc));
}

static void free_all(void)
{
    CUresult rc = CUDA_SUCCESS;
    size_t count = piece_count;
    use_device_0();
    while (piece_count && rc == CUDA_SUCCESS)
        rc = cu.cuMemFree_v2(pieces[--piece_count]);
    printf("{\"command\": \"free\", \"freed_mib\": %zu, \"result\": \"%s\"}\n", count - piece_count, name(rc));
}

static void burn(double duration, unsigned long kernel_ns)
{
    char kernel[48];
    CUmodule module;
    CUfunction function;
    CUstream stream;
    unsigned long launches = 0;
    use_device_0();
    snprintf(kernel, sizeof kernel, "sim_ns_%lu", kernel_ns);
    check(cu.cuModuleLoadData(&module, kernel), "cuModuleLoadData");
    check(cu.cuModuleGetFunction(&function, module, kernel), "cuModuleGetFunction");
    check(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    double start = seconds(), now = start;
    for (; now - start < duration; now = seconds(), launches++) {
        check(cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
        check(cu.cuStreamSynchronize(stream), "cuStreamSynchronize");
    }
    double obtained = (double)launches * (double)kernel_ns;
    printf("{\"command\": \"burn\", \"kernel_ns\": %lu, \"launches\": %lu, \"seconds\": %.4f, \"device_ns\": %.0f, "
           "\"share\": %.4f}\n",
           kernel_ns, launches, now - start, obtained, obtained / 1e9 / (now - start));
}

static void hold(long wanted, double duration)
{
    CUdeviceptr at = 0;
    use_device_0();
    CUresult rc = cu.cuMemAlloc_v2(&at, (size_t)wanted << 20);
    printf("{\"command\": \"hold\", \"asked_mib\": %ld, \"result\": \"%s\"}\n", wanted, name(rc));
    fflush(stdout);
    struct timespec rest = {.tv_sec = (time_t)duration, .tv_nsec = (long)((duration - (double)(time_t)duration) * 1e9)};
    nanosleep(&rest, NULL);
    if (rc == CUDA_SUCCESS)
        check(cu.cuMemFree_v2(at), "cuMemFree_v2");
}

static int usage(void)
{
    fputs("usage: gpuprobe [info | alloc MIB | free | burn SECONDS KERNEL_NS | hold MIB SECONDS]...\n", stderr);
    return 2;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2)
        return usage();
    open_driver();
    for (int i = 1; i < count; i++) {
        int left = count - i - 1;
        if (strcmp(words[i], "info") == 0) {
            info();
        } else if (strcmp(words[i], "free") == 0) {
            free_all();
        } else if (strcmp(words[i], "alloc") == 0 && left >= 1 && atol(words[i + 1]) >= 0) {
            alloc(atol(words[i + 1]));
            i += 1;
        } else if (strcmp(words[i], "burn") == 0 && left >= 2 && atol(words[i + 2]) > 0) {
            burn(atof(words[i + 1]), strtoul(words[i + 2], NULL, 10));
            i += 2;
        } else if (strcmp(words[i], "hold") == 0 && left >= 2 && atol(words[i + 1]) > 0) {
            hold(atol(words[i + 1]), atof(words[i + 2]));
            i += 2;
        } else {
            return usage();
        }
    }
    return 0;
}
