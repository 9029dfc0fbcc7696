/* Names and versions as programs may ask for them: the tables answer as a search of all rows, one by one, would.
 *
 * Input: version (4 bytes), flags (1), and the name.
 */
#include "hook.h"

#include <string.h>

#include "fuzz.h"

struct plain_row {
    const char *symbol, *name;
    int version;
    bool per_thread;
};

enum { stream_legacy, stream_ptsz };
static const struct plain_row plain[] = {
#define HOOK(library, symbol, name, version, stream, concern) {#symbol, #name, version, stream_##stream == stream_ptsz},
#include "hooks.def"
};

static int by_symbol(const char *symbol)
{
    for (int row = 0; row < HOOK_COUNT; row++)
        if (strcmp(plain[row].symbol, symbol) == 0)
            return row;
    return -1;
}

/* The newest that is not too new; of two of one version the twin for the per-thread stream, where that is asked. */
static int by_request(const char *name, int version, bool per_thread)
{
    int best = -1;
    for (int row = 0; row < HOOK_COUNT; row++) {
        const struct plain_row *at = &plain[row];
        if (strcmp(at->name, name) != 0 || at->version > version || (at->per_thread && !per_thread))
            continue;
        if (best < 0 || at->version > plain[best].version ||
            (at->version == plain[best].version && at->per_thread))
            best = row;
    }
    return best;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5)
        return 0;
    int version;
    memcpy(&version, data, sizeof version);
    char *name = strndup((const char *)data + 5, size - 5);
    REQUIRE(name);
    REQUIRE(hook_by_symbol(name) == by_symbol(name));
    REQUIRE(hook_by_request(name, version, data[4] & 2) == by_request(name, version, data[4] & 2));
    int library = hook_library_of_path(name);
    REQUIRE(library >= -1 && library < LIBRARY_COUNT);
    REQUIRE(hook_for_address(name) == NULL); /* no driver is bound here */
    free(name);
    return 0;
}
