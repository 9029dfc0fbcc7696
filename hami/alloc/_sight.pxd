"""Whether nodes have room, told by glances: without choosing cards, many nodes at a time."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from hami.alloc._ask cimport Ask, Need
from hami.alloc._together cimport PodRows


cdef enum Answer:
    # What a look says of a node that has no room to be sure of; else it is the sum of pair scores of the best set, 0
    # where the request does not put links first.
    NO_ROOM = -1
    UNTOLD = -2               # only a trial can tell


cdef enum Way:
    # How a node is looked at.
    BY_TRIAL                  # not at all: cards are chosen
    BY_COUNT                  # enough cards take a share, whichever they are
    BY_SETS                   # of one NUMA node, joined, or the best linked ones
    BY_SLICES                 # instances for all needs together
    CLOSELY_BY_COUNT          # every column counts, and the glance says too little


cdef struct Sight:
    # What the glance of a card must show, so that it takes one share of a need.
    Way way
    const Need* need          # the pod's only one, or the one that stands for all
    const uint8_t* verdicts
    uint64_t ask              # the amounts, where a glance has them
    uint64_t care             # bits that count when they are taken away
    uint64_t want             # as they must be
    uint64_t slice_care       # the same for cards in MIG mode
    bint percent              # memory is percent of the card: the amount in `ask` says nothing
    bint marked               # marks count
    bint plain                # some kind of card would serve it without being cut into instances
    bint refuses              # where there is no room, `tell` says why without a trial


cdef class SightRows(PodRows):
    cdef Sight sight                # of the survey under way
    cdef uint64_t* passing          # by row, a bit: its glance shows what is asked
    cdef Py_ssize_t passing_room    # words
    cdef bint all_passing           # they are there for this survey

    cdef void aim(self, Ask ask) noexcept nogil
    cdef void ask_of_glances(self, Ask ask) noexcept nogil
    cdef int look_at(self, Ask ask, const int32_t* nodes, Py_ssize_t count, int64_t* answers) except -1 nogil
    cdef int pass_over(self) except -1 nogil
    cdef bint has_close_room(self, Ask ask, int32_t node) noexcept nogil
    cdef bint has_slices_for_all(self, Ask ask, int32_t node) noexcept nogil
    cdef void tell(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
