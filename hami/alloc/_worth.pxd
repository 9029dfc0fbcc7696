"""What the free part of a node is worth: the share of its devices that the running picture of demand would fill.

Amounts of devices are per mille of one device ("milli-devices"), so that nodes of unlike cards compare.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef enum:
    MOST_ROWS = 64        # devices of a node that are looked at; the rest adds nothing
    MOST_GANG = 16        # devices of one pod that are told apart
    MOST_MAKES = 64       # makes of nodes whose draws are worked out once
    RUNS = 16             # sequences of draws


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


cdef struct Portion:
    int32_t row
    int64_t memory        # MiB
    int64_t cores         # percent


cdef struct Remembered:
    uint64_t check        # second hash of the state; with the index it names the state
    uint32_t epoch
    float value


cdef struct Cost:
    uint32_t version      # of the node when this was worked out; 0 = never
    uint32_t epoch
    float loss            # milli-devices of worth that the placement takes
    int32_t whole         # idle devices that it breaks into


cdef class Worth:
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
    cdef double[MOST_GANG + 1] gangs  # share of arrivals that want so many whole devices
    cdef double mean_size           # milli-devices of one arrival
    # memory of values, and of costs by kind of request and node
    cdef Remembered* values
    cdef Cost** costs
    cdef int32_t costs_cases
    cdef int32_t costs_room         # nodes that each of `costs` has room for
    cdef readonly int64_t evaluated  # values worked out, not remembered
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
    cdef State filling
    cdef State undoing

    cdef void begin(self, int32_t case, int64_t cpu, int64_t host) noexcept nogil
    cdef void touch(self, int32_t node) noexcept nogil
    cdef void read(self, int32_t node, const Portion* picks, int32_t count, State* state) noexcept nogil
    cdef double value(self, const State* state) noexcept nogil
    cdef Make* make_of(self, const State* state) noexcept nogil
    cdef Make* find_make(self, const State* state) noexcept nogil
    cdef void spread_demand(self) noexcept nogil
    cdef void order_draws(self, Make* make) noexcept nogil
    cdef bint prepare(self, Make* make) noexcept nogil
    cdef int32_t serve(self, State* now, const Case* case) noexcept nogil
    cdef double fill(self, const State* state) noexcept nogil
    cdef double fill_mixed(self, const State* state, const Make* make) noexcept nogil
    cdef double fill_alike(self, const State* state, const Make* make) noexcept nogil
    cdef Cost* remembered(self, int32_t node, bint fresh) noexcept nogil
    cdef bint outdated(self, int32_t node) noexcept nogil
    cdef double price(self, int32_t node, const Cost* cost) noexcept nogil
    cdef void weigh(self, int32_t node, const Portion* picks, int32_t count, Cost* cost) noexcept nogil
