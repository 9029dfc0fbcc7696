/* A region file of HAMi 2.x that somebody else has written: what is read of it is inside its bounds, whatever stands there.
 *
 * Input: layout (1 byte: even 0, odd 1), length of the file (4 bytes; beyond the layout's: whole), then changes of 10 bytes
 * each: a place among the first and the last of the file, and eight bytes that go there.
 */
#include "region_old.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

enum { CHANGE = 10, HEAD = 6000, TAIL = 56 };

static int file;

static void start_with(int layout, size_t bytes)
{
    static const int32_t ready = REGION_READY, major = REGION_MAJOR;
    static const uint64_t devices = 2;
    REQUIRE(ftruncate(file, 0) == 0 && ftruncate(file, (off_t)bytes) == 0);
    REQUIRE(pwrite(file, &ready, sizeof ready, 0) == sizeof ready);
    if (layout == 1)
        REQUIRE(pwrite(file, &major, sizeof major, 4) == sizeof major);
    REQUIRE(pwrite(file, &devices, sizeof devices, layout == 1 ? 56 : 48) == sizeof devices);
}

static void check(const struct region_old *region)
{
    REQUIRE(region->layout == 0 || region->layout == 1);
    REQUIRE(region->count >= 0 && region->count <= REGION_DEVICES);
    for (int i = 0; i < region->count; i++)
        REQUIRE(memchr(region->devices[i].uuid, 0, REGION_UUID_BYTES));
    REQUIRE(region->processes >= 0 && region->processes <= REGION_SLOTS);
    REQUIRE(region->host_pid_count >= 0 && region->host_pid_count <= region->processes);
    REQUIRE(region_old_set(file, region->layout, -1, true) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!file)
        file = memfd_create("region", 0);
    if (size < 5)
        return 0;
    int layout = data[0] & 1;
    size_t bytes = layout == 1 ? sizeof(struct region_prefix) : sizeof(struct region_v0);
    uint32_t length;
    memcpy(&length, data + 1, sizeof length);
    start_with(layout, bytes + 1); /* its writer makes the file a byte longer */
    for (size_t at = 5; at + CHANGE <= size; at += CHANGE) {
        uint16_t place;
        memcpy(&place, data + at, sizeof place);
        size_t n = place % (HEAD + TAIL - 8);
        off_t where = (off_t)(n < HEAD ? n : bytes - TAIL + (n - HEAD));
        REQUIRE(pwrite(file, data + at + sizeof place, 8, where) == 8);
    }
    if (length <= bytes)
        REQUIRE(ftruncate(file, length) == 0);
    struct region_old region;
    if (region_old_read(file, &region) == 0)
        check(&region);
    return 0;
}
