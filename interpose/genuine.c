#include "genuine.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"

struct genuine genuine;

/* Other preloaded libraries look up symbols before their own stand-ins for the C library's functions work, so nothing
 * here calls those. */
static bool same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static bool begins(const char *text, const char *with)
{
    while (*with && *text == *with)
        text++, with++;
    return *with == 0;
}

static const char *file_of(const char *path)
{
    const char *file = path;
    for (; *path; path++)
        if (*path == '/')
            file = path + 1;
    return file;
}

/* The tables of one loaded object that are needed to find a symbol in it. */
struct object {
    ElfW(Addr) base;
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu_hash;
    const uint32_t *sysv_hash;
};

static const void *address_of(const struct object *object, ElfW(Addr) value)
{
    /* The dynamic loader has relocated these entries on most machines, but not on all. */
    return (const void *)(value < object->base ? object->base + value : value);
}

static struct object read_object(ElfW(Addr) base, const ElfW(Dyn) * entry)
{
    struct object object = {.base = base};
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        const void *at = address_of(&object, entry->d_un.d_ptr);
        if (entry->d_tag == DT_SYMTAB)
            object.symbols = at;
        else if (entry->d_tag == DT_STRTAB)
            object.strings = at;
        else if (entry->d_tag == DT_GNU_HASH)
            object.gnu_hash = at;
        else if (entry->d_tag == DT_HASH)
            object.sysv_hash = at;
    }
    return object;
}

static uint32_t gnu_hash(const char *name)
{
    uint32_t hash = 5381;
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        hash = hash * 33 + *c;
    return hash;
}

static void *defined(const struct object *object, uint32_t index, const char *name)
{
    const ElfW(Sym) *symbol = &object->symbols[index];
    bool function = (symbol->st_info & 0xf) == STT_FUNC && symbol->st_shndx != SHN_UNDEF;
    if (!function || !same(object->strings + symbol->st_name, name))
        return NULL;
    return (void *)(object->base + symbol->st_value);
}

/* Every version of these functions does the same, so the first one found serves. */
static void *find(const struct object *object, const char *name)
{
    if (!object->symbols || !object->strings)
        return NULL;
    void *found = NULL;
    if (object->gnu_hash) {
        const uint32_t *table = object->gnu_hash;
        uint32_t buckets = table[0], first = table[1], words = table[2];
        const uint32_t *bucket = table + 4 + words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
        const uint32_t *chain = bucket + buckets;
        uint32_t hash = gnu_hash(name);
        uint32_t index = buckets ? bucket[hash % buckets] : 0;
        for (bool last = index < first; !found && !last; index++) {
            uint32_t link = chain[index - first];
            last = (link & 1) != 0;
            if ((link | 1) == (hash | 1))
                found = defined(object, index, name);
        }
    } else if (object->sysv_hash) {
        uint32_t count = object->sysv_hash[1];
        for (uint32_t index = 0; !found && index < count; index++)
            found = defined(object, index, name);
    }
    return found;
}

static bool is_glibc(const char *path)
{
    const char *file = file_of(path);
    /* Before glibc 2.34 a part of it stood in libdl and libpthread. */
    return begins(file, "libc.so.") || begins(file, "libc-") || begins(file, "libdl") || begins(file, "libpthread");
}

/* glibc's list of loaded objects. The C library was loaded with the program and stays, and so did all before it. */
extern struct r_debug _r_debug __attribute__((weak));

static void *loaded(const char *name)
{
    void *found = NULL;
    for (const struct link_map *map = &_r_debug ? _r_debug.r_map : NULL; map && !found; map = map->l_next) {
        if (!is_glibc(map->l_name))
            continue;
        struct object object = read_object(map->l_addr, map->l_ld);
        found = find(&object, name);
    }
    return found;
}

/* A function of glibc, wherever it stands. Programs of before 2.34 may run without the file that holds it; their C library
 * can load it without being asked through dlopen, which may itself be missing. */
void *genuine_function(const char *name, const char *file)
{
    enum { BY_DLOPEN = (int)0x80000000 }; /* what glibc's loader wants to see beside RTLD_NOW */
    void *found = loaded(name);
    dlopen_function load = found ? NULL : (dlopen_function)loaded("__libc_dlopen_mode");
    if (load && load(file, RTLD_NOW | BY_DLOPEN))
        found = loaded(name);
    return found;
}

static struct genuine find_in_glibc(void)
{
    struct genuine found = {
        .dlsym = (dlsym_function)genuine_function("dlsym", "libdl.so.2"),
        .dlvsym = (dlvsym_function)genuine_function("dlvsym", "libdl.so.2"),
        .dlopen = (dlopen_function)genuine_function("dlopen", "libdl.so.2"),
    };
    found.glibc = found.dlsym && found.dlvsym && found.dlopen;
    return found;
}

static void *no_dlsym(void *handle, const char *name)
{
    (void)handle, (void)name;
    return NULL;
}

static void *no_dlvsym(void *handle, const char *name, const char *version)
{
    (void)handle, (void)name, (void)version;
    return NULL;
}

static void *no_dlopen(const char *path, int flags)
{
    (void)path, (void)flags;
    return NULL;
}

static const ElfW(Dyn) * dynamic_of(const struct dl_phdr_info *info)
{
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return NULL;
}

/* Of other C libraries the names are not known: the first object that has them and is not this library. */
static int visit(struct dl_phdr_info *info, size_t size, void *into)
{
    (void)size;
    struct genuine *have = into;
    struct object object = read_object(info->dlpi_addr, dynamic_of(info));
    dlsym_function symbol = (dlsym_function)find(&object, "dlsym");
    if (!symbol || symbol == (dlsym_function)dlsym)
        return 0;
    have->dlsym = symbol;
    dlopen_function open = (dlopen_function)find(&object, "dlopen");
    have->dlopen = open ? open : no_dlopen;
    return 1;
}

void genuine_find(void)
{
    if (__atomic_load_n(&genuine.dlsym, __ATOMIC_ACQUIRE))
        return;
    struct genuine found = find_in_glibc();
    if (!found.glibc) {
        found = (struct genuine){.dlsym = no_dlsym, .dlvsym = no_dlvsym, .dlopen = no_dlopen};
        dl_iterate_phdr(visit, &found);
    }
    genuine.dlvsym = found.dlvsym;
    genuine.dlopen = found.dlopen;
    genuine.glibc = found.glibc;
    __atomic_store_n(&genuine.dlsym, found.dlsym, __ATOMIC_RELEASE);
}

bool genuine_usable(void)
{
    static int told;
    genuine_find();
    if (!genuine.glibc && !__atomic_exchange_n(&told, 1, __ATOMIC_RELAXED))
        log_line(LOG_ERROR, "limits cannot be held with this program's C library, which is not glibc: it gets no GPU driver");
    return genuine.glibc;
}
