"""The parts of interpose/region.h and account.h that the node side uses. Layouts stay with the C compiler."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef extern from "region.h" nogil:
    enum:
        REGION_DEVICES
        REGION_SLOTS
        REGION_UUID_BYTES

    struct region_memory:
        uint64_t context
        uint64_t module
        uint64_t data
        uint64_t total

    struct region_slot:
        int32_t pid
        int32_t host_pid
        region_memory memory[16]
        uint64_t monitor_used[16]
        int32_t status

    struct region_prefix:
        int32_t minor
        uint64_t count
        char uuids[16][96]
        int32_t slot_count
        int32_t sharing
        int32_t recent_kernel
        int32_t priority
        uint64_t last_kernel
        region_slot slots[1024]

    struct region_device:
        int64_t total
        int64_t overhead
        uint64_t context_bytes
        uint64_t limit
        uint32_t cores
        uint64_t refused
        int64_t debt_ns
        uint64_t stamp_ns
        uint64_t charged_ns
        uint64_t waited_ns
        uint32_t correction
        uint32_t tenants
        uint64_t lent_until_ns
        uint32_t lent

    struct region_claim:
        int32_t pid
        int64_t used[16]
        uint64_t launches[16]

    struct region_extension:
        uint32_t policy
        region_device devices[16]
        region_claim claims[1024]

    struct region:
        region_prefix* prefix
        region_extension* ext
        int fd
        uint64_t dev
        uint64_t inode

    struct region_plan:
        int count
        char uuids[16][96]
        uint64_t limit[16]
        uint32_t cores[16]
        int32_t priority

    int region_create(const char* path, const region_plan* plan)
    int region_open(region* into, const char* path)
    void region_close(region* r)
    int region_add(region* r, const char* uuid)
    int region_reap(region* r, bint node_side)
    uint64_t region_launches(const region* r, int device)
    void region_set_limit(region* r, int device, uint64_t bytes, uint32_t cores)
    bint region_reassert(region* r, const region_plan* plan)
    void region_set_sharing(region* r, bint sharing)
    void region_set_priority(region* r, int32_t priority)
    void region_set_correction(region* r, int device, uint32_t permille, uint32_t tenants)
    void region_lend(region* r, int device, uint32_t percent)
    void region_amend(region* r, int device, int64_t ns)
    void region_set_context_bytes(region* r, int device, uint64_t bytes)
    void region_block(region* r)
    void region_unblock(region* r)
    int32_t region_decay(region* r)


cdef extern from "prim.h" nogil:
    void prim_lock_by_word()

cdef extern from "region_guard.h" nogil:
    bint region_guard_start()
    bint region_guard_lost(const void* at)


cdef extern from "account.h" nogil:
    uint64_t account_total(const region* r, int device)
    uint64_t account_overhead(const region* r, int device)
    uint64_t account_swapped(const region* r, int device)
    void account_observe(region* r, int slot, int device, uint64_t bytes)
