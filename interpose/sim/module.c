/* Modules, libraries, functions and kernels. An image is not interpreted: a function exists if its name occurs in it. It
 * takes device memory of its own length, for as long as it is loaded and its context lasts; a library does so in the
 * context that is current when it is loaded. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_sim.h"

#define NAME 256
#define LONGEST_NS 1000000000000000u /* eleven days */

struct CUfunc_st {
    struct object object;
    CUmodule module;
    u64 fixed_ns; /* of a function named sim_ns_<n> */
    bool fixed;
    u64 threads; /* a block, for the old launch calls that say it beforehand */
    char name[NAME];
    CUfunction next;
};

/* A library is a module that belongs to no context; a kernel is a function of one. */
struct CUmod_st {
    struct object object;
    char *image;
    size_t size;
    CUfunction functions;
    CUcontext context; /* whose memory it takes; NULL = none */
    u64 cost;
    CUmodule previous, next; /* of this process's modules */
};

static CUmodule modules;
static unsigned modules_generation;

#define ROUND 512u

/* With `local` held, like the two below. */
static CUmodule *list(void)
{
    if (modules_generation != state_generation()) {
        modules_generation = state_generation();
        modules = NULL;
    }
    return &modules;
}

static void give_back(CUmodule module)
{
    if (module->context)
        ledger_give(module->context->device, KIND_MODULE, module->cost);
    module->context = NULL;
}

static void unlist(CUmodule module)
{
    CUmodule *first = list();
    if (module->previous)
        module->previous->next = module->next;
    else
        *first = module->next;
    if (module->next)
        module->next->previous = module->previous;
}

void context_modules_drop(CUcontext context)
{
    pthread_mutex_lock(&local);
    for (CUmodule module = *list(); module; module = module->next)
        if (module->context == context)
            give_back(module);
    pthread_mutex_unlock(&local);
}

/* Bytes of an image: ELF and fat binaries say their size; anything else is text that ends with a zero byte. */
static size_t image_size(const unsigned char *image)
{
    u64 section_offset;
    uint16_t section_size, sections;
    u32 header;
    u64 content;
    if (memcmp(image, "\177ELF", 4) == 0) {
        memcpy(&section_offset, image + 0x28, 8);
        memcpy(&section_size, image + 0x3a, 2);
        memcpy(&sections, image + 0x3c, 2);
        return section_offset + (size_t)section_size * sections;
    }
    memcpy(&header, image, 4);
    if (header == 0xba55ed50u) {
        memcpy(&content, image + 8, 8);
        return 16 + content;
    }
    return strlen((const char *)image);
}

/* The wrapper that compilers put around a fat binary: magic, version, pointer to the binary. */
static const void *unwrapped(const void *image)
{
    u32 magic;
    memcpy(&magic, image, 4);
    if (magic != 0x466243b1u)
        return image;
    const void *inner;
    memcpy(&inner, (const char *)image + 8, sizeof inner);
    return inner;
}

static CUresult module_new(CUmodule *out, const void *image, size_t size)
{
    if (!size)
        return CUDA_ERROR_INVALID_IMAGE;
    CUcontext context = context_current();
    u64 cost = (size + ROUND - 1) / ROUND * ROUND;
    if (context && !ledger_take(context->device, KIND_MODULE, cost))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUmodule module = object_new(sizeof *module, OBJECT_MODULE);
    char *copy = module ? malloc(size) : NULL;
    if (!copy) {
        if (module)
            object_end(module);
        if (context)
            ledger_give(context->device, KIND_MODULE, cost);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    memcpy(copy, image, size);
    module->image = copy;
    module->size = size;
    module->context = context;
    module->cost = cost;
    pthread_mutex_lock(&local);
    CUmodule *first = list();
    module->next = *first;
    if (*first)
        (*first)->previous = module;
    *first = module;
    pthread_mutex_unlock(&local);
    *out = module;
    return CUDA_SUCCESS;
}

static CUresult from_memory(CUmodule *out, const void *image)
{
    if (!out || !image)
        return CUDA_ERROR_INVALID_VALUE;
    image = unwrapped(image);
    return module_new(out, image, image_size(image));
}

static CUresult from_file(CUmodule *out, const char *path)
{
    if (!out || !path)
        return CUDA_ERROR_INVALID_VALUE;
    FILE *file = fopen(path, "re");
    if (!file)
        return CUDA_ERROR_FILE_NOT_FOUND;
    char *text_in = NULL;
    size_t room = 0;
    ssize_t length = getdelim(&text_in, &room, EOF, file);
    fclose(file);
    CUresult rc = length > 0 ? module_new(out, text_in, (size_t)length) : CUDA_ERROR_INVALID_IMAGE;
    free(text_in);
    return rc;
}

static CUresult unload(CUmodule module)
{
    if (!object_is(module, OBJECT_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&local);
    for (CUfunction function = module->functions, next; function; function = next) {
        next = function->next;
        object_end(function);
    }
    free(module->image);
    give_back(module);
    unlist(module);
    object_end(module);
    pthread_mutex_unlock(&local);
    return CUDA_SUCCESS;
}

static CUresult find(CUfunction *out, CUmodule module, const char *name)
{
    if (!out || !name || !*name || strlen(name) >= NAME)
        return CUDA_ERROR_INVALID_VALUE;
    if (!object_is(module, OBJECT_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&local);
    CUfunction function = module->functions;
    while (function && strcmp(function->name, name) != 0)
        function = function->next;
    if (!function && !memmem(module->image, module->size, name, strlen(name)))
        rc = CUDA_ERROR_NOT_FOUND;
    else if (!function && !(function = object_new(sizeof *function, OBJECT_FUNCTION)))
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    else if (!*function->name) {
        strcpy(function->name, name);
        function->fixed = sscanf(name, "sim_ns_%lu", &function->fixed_ns) == 1;
        function->threads = 1;
        function->module = module;
        function->next = module->functions;
        module->functions = function;
    }
    pthread_mutex_unlock(&local);
    *out = rc == CUDA_SUCCESS ? function : NULL;
    return rc;
}

/* 0.01 ns a thread; no kernel takes longer than LONGEST_NS, so that sums of a whole queue stay far from overflow. */
u64 function_work(CUfunction function, u64 blocks, u64 threads)
{
    u64 work = function->fixed_ns;
    if (!function->fixed)
        work = __builtin_mul_overflow(blocks, threads, &work) ? LONGEST_NS : work / 100;
    return work < LONGEST_NS ? work : LONGEST_NS;
}

SIM_API CUresult cuModuleLoad(CUmodule *out, const char *path)
{
    ENTER();
    return context_current() ? from_file(out, path) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuModuleLoadData(CUmodule *out, const void *image)
{
    ENTER();
    return context_current() ? from_memory(out, image) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned int count, CUjit_option *options,
                                    void **values)
{
    ENTER();
    if (count && (!options || !values))
        return CUDA_ERROR_INVALID_VALUE;
    return context_current() ? from_memory(out, image) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuModuleLoadFatBinary(CUmodule *out, const void *image)
{
    ENTER();
    return context_current() ? from_memory(out, image) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuModuleUnload(CUmodule module)
{
    ENTER();
    return unload(module);
}

SIM_API CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    ENTER();
    return find(out, module, name);
}

SIM_API CUresult cuModuleGetGlobal_v2(CUdeviceptr *out, size_t *size, CUmodule module, const char *name)
{
    ENTER();
    (void)size;
    return out && name && object_is(module, OBJECT_MODULE) ? CUDA_ERROR_NOT_FOUND : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    ENTER();
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = 2; /* lazy */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryLoadData(CUlibrary *out, const void *image, CUjit_option *options, void **values,
                                   unsigned int count, CUlibraryOption *library_options, void **library_values,
                                   unsigned int library_count)
{
    ENTER();
    if ((count && (!options || !values)) || (library_count && !library_options))
        return CUDA_ERROR_INVALID_VALUE;
    (void)library_values;
    return from_memory((CUmodule *)out, image);
}

SIM_API CUresult cuLibraryLoadFromFile(CUlibrary *out, const char *path, CUjit_option *options, void **values,
                                       unsigned int count, CUlibraryOption *library_options, void **library_values,
                                       unsigned int library_count)
{
    ENTER();
    if ((count && (!options || !values)) || (library_count && !library_options))
        return CUDA_ERROR_INVALID_VALUE;
    (void)library_values;
    return from_file((CUmodule *)out, path);
}

SIM_API CUresult cuLibraryUnload(CUlibrary library)
{
    ENTER();
    return unload((CUmodule)library);
}

SIM_API CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary library, const char *name)
{
    ENTER();
    return find((CUfunction *)out, (CUmodule)library, name);
}

SIM_API CUresult cuLibraryGetModule(CUmodule *out, CUlibrary library)
{
    ENTER();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUmodule)library;
    return object_is(library, OBJECT_MODULE) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuLibraryGetGlobal(CUdeviceptr *out, size_t *size, CUlibrary library, const char *name)
{
    ENTER();
    (void)size;
    return out && name && object_is(library, OBJECT_MODULE) ? CUDA_ERROR_NOT_FOUND : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuKernelGetFunction(CUfunction *out, CUkernel kernel)
{
    ENTER();
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUfunction)kernel;
    return object_is(kernel, OBJECT_FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuKernelGetLibrary(CUlibrary *out, CUkernel kernel)
{
    ENTER();
    if (!out || !object_is(kernel, OBJECT_FUNCTION))
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUlibrary)((CUfunction)kernel)->module;
    return CUDA_SUCCESS;
}

static CUresult name_of(const char **out, CUfunction function)
{
    if (!out || !object_is(function, OBJECT_FUNCTION))
        return CUDA_ERROR_INVALID_VALUE;
    *out = function->name;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuKernelGetName(const char **out, CUkernel kernel)
{
    ENTER();
    return name_of(out, (CUfunction)kernel);
}

SIM_API CUresult cuFuncGetName(const char **out, CUfunction function)
{
    ENTER();
    return name_of(out, function);
}

SIM_API CUresult cuFuncGetModule(CUmodule *out, CUfunction function)
{
    ENTER();
    if (!out || !object_is(function, OBJECT_FUNCTION))
        return CUDA_ERROR_INVALID_VALUE;
    *out = function->module;
    return CUDA_SUCCESS;
}

static CUresult attribute(int *out, int which, CUfunction function)
{
    if (!out || which < 0 || !object_is(function, OBJECT_FUNCTION))
        return CUDA_ERROR_INVALID_VALUE;
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *out = 1024; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *out = 32; break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *out = 80; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *out = 49152; break;
    default: *out = 0;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncGetAttribute(int *out, CUfunction_attribute which, CUfunction function)
{
    ENTER();
    return attribute(out, (int)which, function);
}

SIM_API CUresult cuKernelGetAttribute(int *out, CUfunction_attribute which, CUkernel kernel, CUdevice dev)
{
    ENTER();
    return cuda_device(dev) < 0 ? CUDA_ERROR_INVALID_DEVICE : attribute(out, (int)which, (CUfunction)kernel);
}

/* Tuning has no effect on a kernel that is not played. */
static CUresult accepted(CUfunction function)
{
    return object_is(function, OBJECT_FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value)
{
    ENTER();
    (void)which, (void)value;
    return accepted(function);
}

SIM_API CUresult cuKernelSetAttribute(CUfunction_attribute which, int value, CUkernel kernel, CUdevice dev)
{
    ENTER();
    (void)which, (void)value, (void)dev;
    return accepted((CUfunction)kernel);
}

SIM_API CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config)
{
    ENTER();
    (void)config;
    return accepted(function);
}

SIM_API CUresult cuFuncSetSharedMemConfig(CUfunction function, CUsharedconfig config)
{
    ENTER();
    (void)config;
    return accepted(function);
}

SIM_API CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    ENTER();
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    *state = 1;
    return accepted(function);
}

SIM_API CUresult cuFuncLoad(CUfunction function)
{
    ENTER();
    return accepted(function);
}

static CUresult occupancy(int *blocks, CUfunction function, int threads)
{
    if (!blocks || threads <= 0 || !object_is(function, OBJECT_FUNCTION))
        return CUDA_ERROR_INVALID_VALUE;
    int fit = 2048 / threads;
    *blocks = fit > 32 ? 32 : fit;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                             size_t shared)
{
    ENTER();
    (void)shared;
    return occupancy(blocks, function, threads);
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads,
                                                                      size_t shared, unsigned int flags)
{
    ENTER();
    (void)shared, (void)flags;
    return occupancy(blocks, function, threads);
}

/* ---- launches */

static CUresult launch(CUfunction function, u64 blocks, u64 threads, CUstream handle)
{
    CUstream stream = stream_of(handle);
    if (!stream)
        return context_current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (!object_is(function, OBJECT_FUNCTION))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!blocks || !threads || threads > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    return stream_work(stream, function_work(function, blocks, threads));
}

STREAM_CALL(cuLaunchKernel, _ptsz,
            (CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
             unsigned int bz, unsigned int shared, CUstream stream, void **parameters, void **extra),
            function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra)
{
    (void)shared, (void)parameters, (void)extra;
    return launch(function, (u64)gx * gy * gz, (u64)bx * by * bz, stream);
}

STREAM_CALL(cuLaunchCooperativeKernel, _ptsz,
            (CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
             unsigned int bz, unsigned int shared, CUstream stream, void **parameters),
            function, gx, gy, gz, bx, by, bz, shared, stream, parameters)
{
    (void)shared, (void)parameters;
    return launch(function, (u64)gx * gy * gz, (u64)bx * by * bz, stream);
}

static CUresult launch_ex(const CUlaunchConfig *config, CUfunction function, bool per_thread)
{
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    CUstream stream = config->hStream ? config->hStream : per_thread ? CU_STREAM_PER_THREAD : NULL;
    return launch(function, (u64)config->gridDimX * config->gridDimY * config->gridDimZ,
                  (u64)config->blockDimX * config->blockDimY * config->blockDimZ, stream);
}

SIM_API CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra)
{
    ENTER();
    (void)parameters, (void)extra;
    return launch_ex(config, function, false);
}

SIM_API CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction function, void **parameters,
                                       void **extra)
{
    ENTER();
    (void)parameters, (void)extra;
    return launch_ex(config, function, true);
}

SIM_API CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned int count,
                                                      unsigned int flags)
{
    ENTER();
    (void)flags;
    if (!launches || !count)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = CUDA_SUCCESS;
    for (unsigned i = 0; i < count && rc == CUDA_SUCCESS; i++)
        rc = launch(launches[i].function, (u64)launches[i].gridDimX * launches[i].gridDimY * launches[i].gridDimZ,
                    (u64)launches[i].blockDimX * launches[i].blockDimY * launches[i].blockDimZ, launches[i].hStream);
    return rc;
}

SIM_API CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z)
{
    ENTER();
    if (!object_is(function, OBJECT_FUNCTION) || x <= 0 || y <= 0 || z <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    function->threads = (u64)x * (u64)y * (u64)z;
    return CUDA_SUCCESS;
}

static CUresult launch_old(CUfunction function, int width, int height, CUstream stream)
{
    if (!object_is(function, OBJECT_FUNCTION) || width <= 0 || height <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    return launch(function, (u64)width * (u64)height, function->threads, stream);
}

SIM_API CUresult cuLaunch(CUfunction function)
{
    ENTER();
    return launch_old(function, 1, 1, NULL);
}

SIM_API CUresult cuLaunchGrid(CUfunction function, int width, int height)
{
    ENTER();
    return launch_old(function, width, height, NULL);
}

SIM_API CUresult cuLaunchGridAsync(CUfunction function, int width, int height, CUstream stream)
{
    ENTER();
    return launch_old(function, width, height, stream);
}
