/* The table of live allocations agrees with an array searched from end to end, over random histories. */
#include <string.h>

#include "check.h"
#include "live.h"

enum { KEYS = 3000, STEPS = 400000 };

static struct live model[KEYS];
static bool held[KEYS];
static uint64_t taken_bytes;

static void count_taken(const struct live *entry)
{
    taken_bytes += entry->bytes;
}

static struct live random_entry(int key)
{
    return (struct live){.kind = LIVE_LINEAR,
                         .key = 0x7f0000000000ULL + (uint64_t)key * 512,
                         .bytes = (uint64_t)(rand() % 100000 + 1),
                         .owner = (uint64_t)(rand() % 3 + 1),
                         .device = (int16_t)(rand() % 16)};
}

int main(void)
{
    srand(42);
    struct live entry;
    for (int step = 0; step < STEPS; step++) {
        int key = rand() % KEYS;
        struct live fresh = random_entry(key);
        switch (rand() % 3) {
        case 0:
            if (!held[key]) {
                CHECK(live_add(fresh));
                model[key] = fresh;
                held[key] = true;
            }
            break;
        case 1:
            CHECK_EQUAL(live_take(LIVE_LINEAR, fresh.key, &entry), held[key]);
            CHECK(!held[key] || memcmp(&entry, &model[key], sizeof entry) == 0);
            held[key] = false;
            break;
        default:
            CHECK_EQUAL(live_find(LIVE_LINEAR, fresh.key, &entry), held[key]);
            CHECK(!held[key] || entry.bytes == model[key].bytes);
            CHECK(!live_find(LIVE_ARRAY, fresh.key, &entry));
        }
    }
    uint64_t owned = 0;
    for (int key = 0; key < KEYS; key++)
        owned += held[key] && model[key].owner == 2 ? model[key].bytes : 0;
    live_take_owned(LIVE_LINEAR, 2, count_taken);
    CHECK_EQUAL(taken_bytes, owned);
    for (int key = 0; key < KEYS; key++)
        CHECK_EQUAL(live_find(LIVE_LINEAR, 0x7f0000000000ULL + (uint64_t)key * 512, &entry),
                    held[key] && model[key].owner != 2);

    CHECK(live_add((struct live){.kind = LIVE_PHYSICAL, .key = 7, .bytes = 9, .references = 1}));
    CHECK_EQUAL(live_refer(LIVE_PHYSICAL, 7, 1, &entry), 2);
    CHECK_EQUAL(live_refer(LIVE_PHYSICAL, 7, -1, &entry), 1);
    CHECK_EQUAL(live_refer(LIVE_PHYSICAL, 7, -1, &entry), 0);
    CHECK_EQUAL(entry.bytes, 9);
    CHECK_EQUAL(live_refer(LIVE_PHYSICAL, 7, -1, &entry), -1);
    live_forget();
    for (int key = 0; key < KEYS; key++)
        CHECK(!live_find(LIVE_LINEAR, 0x7f0000000000ULL + (uint64_t)key * 512, &entry));
    CHECK(live_add(random_entry(1)));
    return 0;
}
