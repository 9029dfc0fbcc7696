/* Loaded code: it takes device memory, about as much as its image is long. Counted as overhead (account.h), so the node
 * side's look at the driver puts it right. Modules belong to a context; libraries to none, but are loaded into those that
 * use them: the current one here. */
#include <string.h>
#include <sys/stat.h>

#include "live.h"
#include "process.h"

/* The unit in which the driver hands out device memory. */
#define UNIT_BYTES 512ULL

enum { ELF_SECTION_OFFSET = 0x28, ELF_SECTION_SIZE = 0x3a, ELF_SECTIONS = 0x3c };
#define ELF_MAGIC "\177ELF"
#define FATBIN_MAGIC "\x50\xed\x55\xba"
#define FATBIN_WRAPPER "\xb1\x43\x62\x46"

static uint64_t read_number(const void *image, size_t at, size_t bytes)
{
    uint64_t number = 0;
    memcpy(&number, (const char *)image + at, bytes); /* little endian, as both the images and these machines are */
    return number;
}

/* Reads no further than it must: a text may be shorter than a magic number. */
static bool begins(const void *image, const char *magic)
{
    const char *at = image;
    while (*magic && *at == *magic)
        at++, magic++;
    return *magic == 0;
}

/* The binary inside the wrapper that compilers put around it: magic, version, pointer. */
static const void *unwrapped(const void *image)
{
    if (!begins(image, FATBIN_WRAPPER))
        return image;
    return (const void *)(uintptr_t)read_number(image, 8, 8);
}

static uint64_t image_bytes(const void *image)
{
    image = unwrapped(image);
    if (begins(image, ELF_MAGIC))
        return read_number(image, ELF_SECTION_OFFSET, 8) +
               read_number(image, ELF_SECTION_SIZE, 2) * read_number(image, ELF_SECTIONS, 2);
    if (begins(image, FATBIN_MAGIC))
        return 16 + read_number(image, 8, 8);
    return strlen(image); /* PTX, a text */
}

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static bool reserve(uint64_t image, struct target *target, uint64_t *bytes)
{
    *target = target_current();
    *bytes = (image + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    return target->device < 0 ||
           account_add_overhead(&process.region, target->device, ACCOUNT_MODULE, *bytes, process_cap(target->device));
}

static CUresult settle(CUresult rc, const struct target *target, const void *module, uint64_t bytes)
{
    if (target->device >= 0 && rc != CUDA_SUCCESS)
        account_end_overhead(&process.region, target->device, ACCOUNT_MODULE, bytes);
    else if (target->device >= 0)
        live_add((struct live){.kind = LIVE_MODULE,
                               .key = (uint64_t)(uintptr_t)module,
                               .bytes = bytes,
                               .owner = target->context,
                               .device = (int16_t)target->device});
    return rc;
}

/* The bodies differ in where the image is and in the driver's function only. */
#define LOAD(function, out, source, image, call)                                                                       \
    do {                                                                                                               \
        NEED_CUDA(function);                                                                                           \
        struct target target;                                                                                          \
        uint64_t bytes;                                                                                                \
        if (!(out) || !(source))                                                                                       \
            return FORWARD(call);                                                                                      \
        if (!reserve(image, &target, &bytes))                                                                          \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                           \
        CUresult rc = FORWARD(call);                                                                                   \
        return settle(rc, &target, rc == CUDA_SUCCESS ? (const void *)*(out) : NULL, bytes);                           \
    } while (0)

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    LOAD(cuModuleLoad, module, path, file_bytes(path), cuModuleLoad(module, path));
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    LOAD(cuModuleLoadData, module, image, image_bytes(image), cuModuleLoadData(module, image));
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options,
                            void **values)
{
    LOAD(cuModuleLoadDataEx, module, image, image_bytes(image),
         cuModuleLoadDataEx(module, image, count, options, values));
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    LOAD(cuModuleLoadFatBinary, module, image, image_bytes(image), cuModuleLoadFatBinary(module, image));
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options, void **values,
                           unsigned int count, CUlibraryOption *library_options, void **library_values,
                           unsigned int library_count)
{
    LOAD(cuLibraryLoadData, library, image, image_bytes(image),
         cuLibraryLoadData(library, image, options, values, count, library_options, library_values, library_count));
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *options, void **values,
                               unsigned int count, CUlibraryOption *library_options, void **library_values,
                               unsigned int library_count)
{
    LOAD(cuLibraryLoadFromFile, library, path, file_bytes(path),
         cuLibraryLoadFromFile(library, path, options, values, count, library_options, library_values, library_count));
}

static CUresult unloaded(CUresult rc, bool ours, const struct live *entry)
{
    if (ours && rc == CUDA_SUCCESS)
        account_end_overhead(&process.region, entry->device, ACCOUNT_MODULE, entry->bytes);
    else if (ours)
        live_add(*entry);
    return rc;
}

/* Taken out before the driver acts, which may give the number to the next one. */
static bool release(const void *module, struct live *entry)
{
    return process_phase() == PROCESS_READY && hook_inside == 0 &&
           live_take(LIVE_MODULE, (uint64_t)(uintptr_t)module, entry);
}

CUresult cuModuleUnload(CUmodule module)
{
    NEED_CUDA(cuModuleUnload);
    struct live entry;
    bool ours = release(module, &entry);
    return unloaded(FORWARD(cuModuleUnload(module)), ours, &entry);
}

CUresult cuLibraryUnload(CUlibrary library)
{
    NEED_CUDA(cuLibraryUnload);
    struct live entry;
    bool ours = release(library, &entry);
    return unloaded(FORWARD(cuLibraryUnload(library)), ours, &entry);
}
