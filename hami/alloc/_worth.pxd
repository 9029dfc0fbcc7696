"""What placements take from the worth of nodes."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from hami.alloc._filling cimport MOST_GANG, Filling, State


cdef struct Portion:
    int32_t row
    int64_t memory        # MiB
    int64_t cores         # percent


cdef struct Cost:
    uint32_t version      # of the node when this was worked out; 0 = never
    uint32_t epoch
    float loss            # milli-devices of worth that the placement takes
    int32_t whole         # idle devices that it breaks into


cdef class Worth(Filling):
    # columns of the table, see `_rows.pxd`
    cdef int32_t[::1] kind
    cdef uint8_t[::1] flags
    cdef int64_t[::1] slots
    cdef int64_t[::1] slots_used
    cdef int64_t[::1] memory
    cdef int64_t[::1] memory_used
    cdef int64_t[::1] cores
    cdef int64_t[::1] cores_used
    cdef int32_t[::1] grid
    cdef int32_t[::1] first
    cdef int32_t[::1] length
    cdef int64_t[::1] cpu           # milli-CPU left on the node
    cdef int64_t[::1] host          # MiB left on the node
    cdef uint32_t[::1] version      # changes with everything that a state is made of; never 0
    cdef int32_t[::1] whole         # idle devices, at most MOST_GANG
    cdef int64_t[::1] left          # milli-devices left
    cdef double[MOST_GANG + 1] gangs  # share of arrivals that want so many whole devices
    cdef double mean_size           # milli-devices of one arrival
    # costs by kind of request and node
    cdef Cost** costs
    cdef int32_t costs_cases
    cdef int32_t costs_room         # nodes that each of `costs` has room for
    # cluster totals
    cdef int64_t total_left         # milli-devices
    cdef int64_t[MOST_GANG + 1] with_whole  # nodes by idle devices
    # of the decision under way
    cdef int32_t case               # row of `costs`, -1 = nothing is remembered
    cdef int64_t ask_cpu
    cdef int64_t ask_host
    cdef int32_t budget             # outdated costs that may still be renewed
    cdef double[MOST_GANG + 1][MOST_GANG + 1] scarcity  # by idle devices of a node and those broken into
    cdef State before
    cdef State after

    cdef void begin(self, int32_t case, int64_t cpu, int64_t host) noexcept nogil
    cdef void touch(self, int32_t node) noexcept nogil
    cdef void read(self, int32_t node, const Portion* picks, int32_t count, State* state) noexcept nogil
    cdef Cost* remembered(self, int32_t node, bint fresh) noexcept nogil
    cdef bint outdated(self, int32_t node) noexcept nogil
    cdef double price(self, int32_t node, const Cost* cost) noexcept nogil
    cdef void weigh(self, int32_t node, const Portion* picks, int32_t count, Cost* cost) noexcept nogil
