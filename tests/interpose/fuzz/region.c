/* A region whose bytes somebody else has written, before it is opened and while it is mapped: the node side's use of it
 * ends, stays inside the mapping and does not end the reader.
 *
 * Input: a length of the file (4 bytes; beyond the region's: whole), then changes of 10 bytes each: a place, and eight bytes
 * that go there. Places are counted through the parts that hold something. Every other change is made after the file is
 * open.
 */
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "account.h"
#include "fuzz.h"

enum { CHANGE = 10 };

#define SLOT(n) (offsetof(struct region_prefix, slots) + (n) * sizeof(struct region_slot))
#define CLAIM(n)                                                                                                       \
    (REGION_EXTENSION_AT + offsetof(struct region_extension, claims) + (n) * sizeof(struct region_claim))
static const struct {
    size_t from, to;
} parts[] = {
    {0, SLOT(3)},
    {SLOT(REGION_OVERFLOW), sizeof(struct region_prefix)},
    {REGION_EXTENSION_AT, CLAIM(3)},
    {CLAIM(REGION_OVERFLOW), REGION_BYTES - 8},
};

/* The n-th byte of all parts, from the first again behind the last. */
static size_t place(size_t n)
{
    for (size_t part = 0;; part = (part + 1) % (sizeof parts / sizeof *parts)) {
        size_t size = parts[part].to - parts[part].from;
        if (n < size)
            return parts[part].from + n;
        n -= size;
    }
}

struct change {
    size_t at;
    const uint8_t *bytes;
};

static char path[64];
static int file;
static uint8_t *fresh; /* what every run starts from: two devices, a slot of ours, one of a process that is gone */

static void prepare(void)
{
    const char *made = "/tmp/hami-fuzz-region.cache";
    struct region_plan plan = {.count = 2, .uuids = {"GPU-a", "GPU-b"}, .limit = {1 << 20, 0}, .cores = {50, 0}};
    struct region region;
    prim_lock_by_word();
    unlink(made);
    REQUIRE(region_create(made, &plan) == 0 && region_open(&region, made) == 0);
    unlink(made);
    region_join(&region);
    REQUIRE(account_charge(&region, 0, 1000, ACCOUNT_REFUSE));
    region.ext->claims[1] = region.ext->claims[0];
    region.ext->claims[1].pid = 999999999;
    region.prefix->slot_count = 2;
    fresh = malloc(REGION_BYTES);
    REQUIRE(fresh);
    memcpy(fresh, region.prefix, REGION_BYTES);
    region_close(&region);
    file = memfd_create("region", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
}

static struct change change_at(const uint8_t *data)
{
    uint16_t n;
    memcpy(&n, data, sizeof n);
    return (struct change){.at = place(n), .bytes = data + sizeof n};
}

static void use(struct region *region)
{
    struct account_view driver = {1 << 30, 1 << 20, (1 << 30) - (1 << 20)};
    for (int i = 0; i < REGION_DEVICES; i++) {
        account_total(region, i);
        account_view(region, i, &driver, true);
        region_launches(region, i);
        account_overhead(region, i);
        account_swapped(region, i);
        account_context_bytes(region, i);
        account_observe(region, 0, i, 1 << 20);
    }
    region_find(region, "GPU-b");
    region_add(region, "GPU-c");
    region_join(region);
    if (account_charge(region, 0, 4096, ACCOUNT_REFUSE))
        account_refund(region, 0, 4096);
    region_set_limit(region, 1, 1 << 20, 10);
    region_block(region);
    region_unblock(region);
    region_decay(region);
    region_reap(region, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!fresh)
        prepare();
    if (size < 4)
        return 0;
    uint32_t length;
    memcpy(&length, data, 4);
    REQUIRE(ftruncate(file, 0) == 0 && pwrite(file, fresh, REGION_BYTES, 0) == (ssize_t)REGION_BYTES);
    for (size_t at = 4; at + CHANGE <= size; at += 2 * CHANGE) {
        struct change change = change_at(data + at);
        REQUIRE(pwrite(file, change.bytes, 8, (off_t)change.at) == 8);
    }
    if (length < REGION_BYTES)
        REQUIRE(ftruncate(file, length) == 0);
    struct region region;
    if (region_open(&region, path) != 0)
        return 0;
    for (size_t at = 4 + CHANGE; at + CHANGE <= size; at += 2 * CHANGE) {
        struct change change = change_at(data + at);
        memcpy((uint8_t *)region.prefix + change.at, change.bytes, 8);
    }
    use(&region);
    region_close(&region);
    return 0;
}
