"""What pods as they have been coming would fill of a node's free part.

Amounts of devices are per mille of one device ("milli-devices"), so that nodes of unlike cards compare.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef enum:
    MOST_ROWS = 64        # devices of a node that are looked at; the rest adds nothing
    MOST_GANG = 16        # devices of one pod that are told apart
    MOST_MAKES = 64       # makes of nodes whose draws are worked out once
    RUNS = 16             # sequences of draws
    OF_FAMILY = 1         # `Verdict`
    ELIGIBLE = 2
    IS_MIG = 4
    LARGEST_AMOUNT = 1 << 30


cdef struct Spot:
    # One device, or what is left of it.
    int32_t kind
    int32_t free          # milli: memory left of memory, plus cores left of cores; the best fit leaves least
    int32_t slots         # sharers that may still join
    int32_t cores         # percent left
    int32_t all_cores     # percent
    int32_t memory        # MiB left
    int32_t all_memory    # MiB
    int32_t idle          # 1 = nobody uses it


cdef struct State:
    # A node's free part. spots[0:count] are usable, sorted, so that equal states look equal.
    int64_t cpu           # milli-CPU; unknown = INT64_MAX
    int64_t host          # MiB of host memory; unknown = INT64_MAX
    int32_t count
    Spot[MOST_ROWS] spots


cdef struct Want:
    # One container's request of one family, as demand repeats it.
    int32_t count         # distinct devices
    int32_t memory        # MiB, or percent
    int32_t by_percent
    int32_t cores         # percent
    int32_t alone         # only devices nobody uses
    int32_t verdicts      # where its verdicts by kind start
    int32_t most          # kinds that it has verdicts for


cdef struct Case:
    # One class of pods.
    int64_t cpu           # milli-CPU
    int64_t host          # MiB
    int32_t first         # wants[first:first + count]
    int32_t count
    double weight         # of all arrivals
    double servers        # devices that could serve it, were they idle


cdef struct Draw:
    # One draw on devices that are all alike.
    int32_t cpu           # milli-CPU
    int32_t host          # MiB
    int32_t count         # devices; 0 = none
    int32_t memory        # MiB of each
    int32_t cores         # percent of each
    int32_t alone
    int32_t share         # milli-devices of all together


cdef struct Make:
    # Nodes with equally many devices, all of one kind and size, and what the draws mean there.
    int32_t kind
    int32_t all_memory
    int32_t all_cores
    int32_t count         # devices of one node
    int64_t devices       # of all nodes, at the last drawing
    uint32_t epoch        # of the draws
    bint plain            # no draw has wants of several containers, so `draws` hold
    int32_t least         # MiB that any draw wants of a device
    int32_t per_run
    int32_t* order        # case numbers: run r has order[r * per_run:(r + 1) * per_run]
    Draw* draws           # those that could ever be served: run r has `length[r]` of them from r * MOST_LENGTH on
    int32_t[RUNS] length


cdef struct Remembered:
    uint64_t check        # second hash of the state; with the index it names the state
    uint32_t epoch
    float value


cdef class Filling:
    # demand
    cdef Want* wants
    cdef Case* cases
    cdef uint8_t* verdicts
    cdef double* shares             # by case, of the draws of the make that is being worked out
    cdef int32_t cases_known
    cdef int64_t devices            # of all nodes, at the last drawing
    cdef int32_t drawn              # 0 = nothing is known of demand yet
    cdef uint32_t epoch
    cdef Make[MOST_MAKES] makes     # the first one stands for all nodes whose devices differ
    cdef int32_t makes_known
    # values
    cdef Remembered* values
    cdef readonly int64_t evaluated  # values worked out, not remembered
    cdef State filling
    cdef State undoing

    cdef int learn(self, list cases, bytes verdicts) except -1
    cdef void count_node(self, const State* state) noexcept nogil
    cdef void share_out(self) noexcept nogil
    cdef list sequences_of(self, const State* state)
    cdef double value(self, const State* state) noexcept nogil
    cdef Make* make_of(self, const State* state) noexcept nogil
    cdef Make* find_make(self, const State* state) noexcept nogil
    cdef void order_draws(self, Make* make) noexcept nogil
    cdef bint prepare(self, Make* make) noexcept nogil
    cdef int32_t serve(self, State* now, const Case* case) noexcept nogil
    cdef double fill(self, const State* state) noexcept nogil
    cdef double fill_mixed(self, const State* state, const Make* make) noexcept nogil
    cdef double fill_alike(self, const State* state, const Make* make) noexcept nogil


cdef inline int64_t bounded(int64_t amount) noexcept nogil:
    # Amounts fit 32 bit here; what is larger is as good as endless.
    return max(-LARGEST_AMOUNT, min(amount, LARGEST_AMOUNT))


cdef inline bint precedes(const Spot* a, const Spot* b) noexcept nogil:
    if a.kind != b.kind:
        return a.kind < b.kind
    if a.free != b.free:
        return a.free < b.free
    if a.memory != b.memory:
        return a.memory < b.memory
    if a.cores != b.cores:
        return a.cores < b.cores
    if a.all_memory != b.all_memory:
        return a.all_memory < b.all_memory
    if a.slots != b.slots:
        return a.slots < b.slots
    return a.idle < b.idle


cdef inline void settle(State* state, int32_t i) noexcept nogil:
    # spots[i] has changed: move it to its place among the others, which are sorted.
    cdef Spot moved = state.spots[i]
    while i > 0 and precedes(&moved, &state.spots[i - 1]):
        state.spots[i] = state.spots[i - 1]
        i -= 1
    while i + 1 < state.count and precedes(&state.spots[i + 1], &moved):
        state.spots[i] = state.spots[i + 1]
        i += 1
    state.spots[i] = moved


cdef inline void measure(Spot* spot) noexcept nogil:
    spot.free = 0
    if spot.all_memory > 0 and spot.memory > 0:
        spot.free += <int32_t>(<int64_t>spot.memory * 1000 // spot.all_memory)
    if spot.all_cores > 0 and spot.cores > 0:
        spot.free += <int32_t>(<int64_t>spot.cores * 1000 // spot.all_cores)


cdef inline int32_t give(Spot* spot, int64_t memory, int64_t cores) noexcept nogil:
    # Take that much of a device; answers its share in milli-devices.
    cdef int64_t share = 0
    if spot.all_memory > 0:
        share = memory * 1000 // spot.all_memory
    if spot.all_cores > 0:
        share = max(share, cores * 1000 // spot.all_cores)
    spot.memory -= <int32_t>memory
    spot.cores -= <int32_t>cores
    spot.slots -= 1
    spot.idle = 0
    measure(spot)
    return <int32_t>min(share, 1000)
