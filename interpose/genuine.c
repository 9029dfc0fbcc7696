#include "genuine.h"

#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

static struct object read_object(const struct dl_phdr_info *info)
{
    struct object object = {.base = info->dlpi_addr};
    const ElfW(Dyn) *entry = NULL;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
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

static int visit(struct dl_phdr_info *info, size_t size, void *into)
{
    (void)size;
    struct genuine *have = into;
    const char *file = file_of(info->dlpi_name);
    /* libdl held them before glibc 2.34 */
    if (!begins(file, "libc.so.") && !begins(file, "libc-") && !begins(file, "libdl"))
        return 0;
    struct object object = read_object(info);
    void *symbol = find(&object, "dlsym");
    if (!have->dlsym && symbol) {
        have->dlsym = (dlsym_function)symbol;
        have->dlvsym = (dlvsym_function)find(&object, "dlvsym");
        have->dlopen = (dlopen_function)find(&object, "dlopen");
    }
    return 0;
}

void genuine_find(void)
{
    if (__atomic_load_n(&genuine.dlsym, __ATOMIC_ACQUIRE))
        return;
    struct genuine found = {0};
    dl_iterate_phdr(visit, &found);
    genuine.dlvsym = found.dlvsym;
    genuine.dlopen = found.dlopen;
    __atomic_store_n(&genuine.dlsym, found.dlsym, __ATOMIC_RELEASE);
}
