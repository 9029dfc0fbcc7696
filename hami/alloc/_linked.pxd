"""The choice of cards for one need, among those of one node that fit."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from hami.alloc._ask cimport Ask, Need
from hami.alloc._rows cimport Rows
from hami.alloc._topology cimport LinkTable, Pick


cdef enum:
    PULL_WEIGHT = 10000   # a card's pull in points of the node score, which goes to 30


cdef struct Group:
    # What a set of cards is worth beside that of another NUMA node.
    double[8] rank        # by ranked key, summed; lower is better
    int64_t links         # sum of pair scores; higher is better
    int64_t rest          # what it leaves of linked cards on the whole node; higher is better
    float merit           # what a group of its family's adds to the node's rank


cdef class LinkedRows(Rows):
    cdef const LinkTable** link_tables  # pair scores by number; nodes of one build share them
    cdef list linked                # their owners
    # working space, kept between calls
    cdef int32_t* listed            # positions in `order` of the cards collected for one choice
    cdef int32_t* spots             # the same cards, as the node's pair scores number them
    cdef int32_t* chosen            # spots of the best set
    cdef uint8_t* unused            # by spot: would do for the need, chosen or not
    cdef float group_rank           # what the family's groups chosen for a request add to the node's rank
    cdef int64_t link_value         # pair scores of the set last chosen for a request that puts links first

    cdef int32_t pick(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil
    cdef void add_pull(self, const Need* need, int32_t picked) noexcept nogil
    cdef bint same_rank(self, int32_t a, int32_t b, uint32_t ranked) noexcept nogil
    cdef void mark_unused(
        self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t start, int32_t devices
    ) noexcept nogil
    cdef bint choose_joined(
        self, const Need* need, const LinkTable* links, Pick* pick, int32_t found
    ) noexcept nogil
    cdef bint choose(
        self, const Need* need, int32_t node, int32_t picked, int32_t found, Group* group
    ) noexcept nogil
    cdef void weigh_group(self, const Need* need, Group* group) noexcept nogil
    cdef bint choose_group(
        self, const Need* need, int32_t node, int32_t picked, int32_t found, Group* group
    ) noexcept nogil
    cdef bint is_group(
        self, const Need* need, int32_t node, int32_t start, bint taken, float* merit
    ) noexcept nogil
    cdef uint64_t idle_spots(self, int32_t node, int32_t board) noexcept nogil
    cdef uint64_t own_spots(self, int32_t board, int32_t before, int32_t but) noexcept nogil
    cdef double worth(self, int32_t position, uint32_t key) noexcept nogil


cdef inline const LinkTable* links_of(LinkedRows self, int32_t node) noexcept nogil:
    if self.links[node] < 0:
        return NULL
    return self.link_tables[self.links[node]]
