"""The choice for all needs of a pod on one node."""

from libc.stdint cimport int32_t, int64_t

from hami.alloc._ask cimport Ask, Joint, Need
from hami.alloc._sliced cimport SlicedRows


cdef enum:
    STEPS_A_NODE = 4096   # cards tried on one node for containers that do not fit one after the other
    MOST_STEPS = 65536    # the same in one decision


cdef class PodRows(SlicedRows):
    # working space, kept between calls
    cdef int32_t* turns             # needs in the order in which they are tried
    cdef int32_t* lists             # by turn: how many cards it may have, and which
    cdef int32_t turns_room
    cdef int64_t lists_room
    cdef int32_t steps_left         # of this decision
    cdef int32_t node_steps         # of this node

    cdef int reserve_turns(self, int32_t needs) except -1
    cdef int32_t fit(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef int32_t walk(self, Ask ask, const Joint* joint, int32_t node, int32_t* tally) noexcept nogil
    cdef int32_t rearrange(self, Ask ask, int32_t node) noexcept nogil
    cdef bint larger(self, Ask ask, int32_t node, int32_t a, int32_t b) noexcept nogil
    cdef int32_t descend(
        self, Ask ask, int32_t node, int32_t turns, int32_t depth, int32_t chosen, int32_t start, int32_t picked
    ) noexcept nogil
    cdef bint same(self, Ask ask, const Need* need, int32_t node, int32_t a, int32_t b) noexcept nogil
    cdef bint goes_together(self, const Need* need, int32_t node, int32_t picked) noexcept nogil
    cdef int32_t add_inits(self, Ask ask, int32_t node, int32_t picked) noexcept nogil
    cdef bint holds_in_order(self, Ask ask, int32_t node, int32_t picked) noexcept nogil
    cdef void add_links(self, Ask ask, const Need* need, int32_t node, int32_t start) noexcept nogil
    cdef bint all_within_quota(self, Ask ask, int32_t picked) noexcept nogil
