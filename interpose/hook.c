/* The rules for all code here stand at the top of hook.h. */
#include "hook.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "genuine.h"
#include "log.h"
#include "prim.h"

struct driver real;
__thread int hook_inside __attribute__((tls_model("initial-exec")));

enum hook_stream { STREAM_legacy, STREAM_ptsz };

struct row {
    const char *symbol;
    const char *name; /* as cuGetProcAddress is asked for it */
    int version;
    enum hook_stream stream;
    enum hook_library library;
    void *stand_in;
    void **genuine; /* its place in `real` */
};

static const struct row rows[HOOK_COUNT] = {
#define HOOK(library, symbol, name, version, stream, concern)                                                          \
    {#symbol, #name, version, STREAM_##stream, LIBRARY_##library, (void *)&symbol, (void **)(void *)&real.symbol},
#include "hooks.def"
};

struct call {
    const char *symbol;
    enum hook_library library;
    void **genuine;
};

static const struct call calls[] = {
#define CALL(library, symbol) {#symbol, LIBRARY_##library, (void **)(void *)&real.symbol},
#include "hooks.def"
};

/* ---- names: open addressing, filled at the first look-up */

enum { NAME_SLOTS = 1024 }; /* at least three times the rows, so that a miss ends at once */
_Static_assert(HOOK_COUNT * 3 < NAME_SLOTS, "the name tables are too full");

struct name_table {
    int16_t row[NAME_SLOTS]; /* index + 1; 0 = nothing */
};

enum name_kind { BY_SYMBOL, BY_NAME, NAME_KINDS };

static struct name_table names[NAME_KINDS];
static bool named;

static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    return hash ^ hash >> 15;
}

static const char *key_of(enum name_kind kind, int row)
{
    return kind == BY_SYMBOL ? rows[row].symbol : rows[row].name;
}

static int look_up(const struct name_table *tables, enum name_kind kind, const char *key)
{
    for (uint32_t at = hash_of(key);; at++) {
        int row = __atomic_load_n(&tables[kind].row[at % NAME_SLOTS], __ATOMIC_RELAXED) - 1;
        if (row < 0 || strcmp(key_of(kind, row), key) == 0)
            return row;
    }
}

static void insert(struct name_table *tables, enum name_kind kind, int row)
{
    if (look_up(tables, kind, key_of(kind, row)) >= 0)
        return; /* the first row of a name stands for all */
    uint32_t at = hash_of(key_of(kind, row));
    while (tables[kind].row[at % NAME_SLOTS])
        at++;
    tables[kind].row[at % NAME_SLOTS] = (int16_t)(row + 1);
}

/* No lock, which a fork could leave held: threads that fill the tables at once write the same into them. */
__attribute__((noinline)) static void fill_names(void)
{
    struct name_table mine[NAME_KINDS] = {0};
    for (int row = 0; row < HOOK_COUNT; row++)
        for (int kind = 0; kind < NAME_KINDS; kind++)
            insert(mine, (enum name_kind)kind, row);
    for (int kind = 0; kind < NAME_KINDS; kind++)
        for (int at = 0; at < NAME_SLOTS; at++)
            __atomic_store_n(&names[kind].row[at], mine[kind].row[at], __ATOMIC_RELAXED);
    __atomic_store_n(&named, true, __ATOMIC_RELEASE);
}

static int named_row(enum name_kind kind, const char *key)
{
    if (!__atomic_load_n(&named, __ATOMIC_ACQUIRE))
        fill_names();
    return look_up(names, kind, key);
}

int hook_by_symbol(const char *symbol)
{
    /* Decided without calling anything: other libraries look up symbols before theirs or ours are ready. */
    bool cuda = symbol[0] == 'c' && symbol[1] == 'u' && symbol[2] >= 'A' && symbol[2] <= 'Z';
    bool nvml = symbol[0] == 'n' && symbol[1] == 'v' && symbol[2] == 'm' && symbol[3] == 'l';
    if (!cuda && !nvml)
        return -1;
    return named_row(BY_SYMBOL, symbol);
}

int hook_by_request(const char *name, int version, bool per_thread)
{
    int first = named_row(BY_NAME, name);
    int best = -1;
    for (int row = first; row >= 0 && row < HOOK_COUNT && strcmp(rows[row].name, name) == 0; row++) {
        bool fits = rows[row].version <= version && (per_thread || rows[row].stream == STREAM_legacy);
        /* A twin for the per-thread stream stands behind the row it is the twin of. */
        if (fits && (best < 0 || rows[row].version >= rows[best].version))
            best = row;
    }
    return best;
}

enum hook_library hook_library(int id)
{
    return rows[id].library;
}

void *hook_stand_in(int id)
{
    return rows[id].stand_in;
}

void *hook_genuine(int id)
{
    return *rows[id].genuine;
}

/* ---- addresses: from the driver's function to ours */

enum { ADDRESS_SLOTS = 512 };

static struct {
    const void *address;
    void *stand_in;
} addresses[ADDRESS_SLOTS];

static uint32_t address_slot(const void *address)
{
    uint64_t bits = (uint64_t)(uintptr_t)address;
    return (uint32_t)((bits >> 4) * 0x9e3779b97f4a7c15ULL >> 40);
}

void *hook_for_address(const void *address)
{
    for (uint32_t at = address_slot(address);; at++) {
        const void *seen = addresses[at % ADDRESS_SLOTS].address;
        if (!seen)
            return NULL;
        if (seen == address)
            return addresses[at % ADDRESS_SLOTS].stand_in;
    }
}

static void note_address(const void *address, void *stand_in)
{
    if (hook_for_address(address))
        return; /* two symbols of one function have one ABI: either stand-in serves */
    uint32_t at = address_slot(address);
    while (addresses[at % ADDRESS_SLOTS].address)
        at++;
    addresses[at % ADDRESS_SLOTS].stand_in = stand_in;
    addresses[at % ADDRESS_SLOTS].address = address;
}

/* ---- finding the driver */

static const char *const file_names[LIBRARY_COUNT] = {"libcuda.so", "libnvidia-ml.so"};
static const char *const load_names[LIBRARY_COUNT] = {"libcuda.so.1", "libnvidia-ml.so.1"};
static bool bound[LIBRARY_COUNT];
static pthread_mutex_t binding = PTHREAD_MUTEX_INITIALIZER;

/* With `binding` held. The pointers of `real` are stored last: a stand-in that sees its own sees everything else. */
static void bind_handle(enum hook_library library, void *handle)
{
    if (bound[library])
        return;
    int found = 0;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].library == library)
            *calls[i].genuine = genuine.dlsym(handle, calls[i].symbol);
    for (int row = 0; row < HOOK_COUNT; row++) {
        if (rows[row].library != library)
            continue;
        void *address = genuine.dlsym(handle, rows[row].symbol);
        if (!address || address == rows[row].stand_in)
            continue;
        if (library == LIBRARY_cuda)
            note_address(address, rows[row].stand_in);
        __atomic_store_n(rows[row].genuine, address, __ATOMIC_RELEASE);
        found++;
    }
    log_line(LOG_INFORMATION, "%s: %d functions found", file_names[library], found);
    __atomic_store_n(&bound[library], true, __ATOMIC_RELEASE);
}

static void after_fork(void)
{
    pthread_mutex_init(&binding, NULL);
}

static bool bind_path(enum hook_library library, const char *path, int flags)
{
    if (!genuine_usable())
        return false;
    static bool forks_known;
    prim_after_fork(&forks_known, after_fork);
    hook_inside++; /* constructors of the driver look up symbols */
    void *handle = genuine.dlopen(path, RTLD_LAZY | flags);
    hook_inside--;
    if (!handle)
        return false;
    pthread_mutex_lock(&binding);
    bind_handle(library, handle);
    pthread_mutex_unlock(&binding);
    return true; /* our reference keeps the library loaded: `real` must stay valid */
}

bool hook_bind(enum hook_library library, bool load)
{
    if (__atomic_load_n(&bound[library], __ATOMIC_ACQUIRE))
        return true;
    if (hook_inside > 0)
        return false;
    return bind_path(library, load_names[library], RTLD_NOLOAD) ||
           (load && bind_path(library, load_names[library], 0));
}

int hook_library_of_path(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash ? slash + 1 : path;
    for (int library = 0; library < LIBRARY_COUNT; library++)
        if (strncmp(file, file_names[library], strlen(file_names[library])) == 0)
            return library;
    return -1;
}

bool hook_bind_address(enum hook_library library, const void *address)
{
    if (__atomic_load_n(&bound[library], __ATOMIC_ACQUIRE))
        return true;
    Dl_info info;
    if (hook_inside > 0 || !dladdr(address, &info) || !info.dli_fname)
        return false;
    if (hook_library_of_path(info.dli_fname) != (int)library)
        return false;
    return bind_path(library, info.dli_fname, RTLD_NOLOAD);
}
