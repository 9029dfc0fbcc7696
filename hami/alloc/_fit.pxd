"""The engine's face to `table.py` and `place.py`: a survey of nodes, and the choice on one of them."""

from cython cimport final
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from hami.alloc._ask cimport Ask
from hami.alloc._sight cimport SightRows


cdef enum:
    FEW = 16              # so many best nodes are picked out without sorting all
    MOST_RENEWED = 64     # outdated prices of nodes that looked best, in one decision


cdef struct Ranked:
    int64_t links         # for requests that put links first, the best set's sum of pair scores; else 0
    float score
    uint64_t tie          # mixed from pod and node, so that equal nodes share the load
    int32_t node


ctypedef int (*Compare)(const void* left, const void* right) noexcept nogil


cdef class Survey:
    cdef Ranked* ranked             # fitting nodes
    cdef readonly Py_ssize_t fitting
    cdef Py_ssize_t best_at         # the first in rank among them
    cdef bint ordered
    cdef bint spread                # the lowest score first
    cdef Compare compare
    cdef float toward               # 1 where the highest score ranks first, -1 where the lowest does
    cdef int32_t* refusing          # the others, in the order of the candidates
    cdef int32_t* tallies           # theirs, `TALLY_WIDTH` each
    cdef readonly Py_ssize_t refused
    cdef list names                 # by node number, as they were
    cdef readonly list unknown      # candidates that are no registered nodes


@final
cdef class Engine(SightRows):
    cdef uint32_t survey_number
    # working space, kept between calls
    cdef int32_t* listed            # the candidates by number
    cdef int64_t* answers           # what a look at them says
    cdef Py_ssize_t listed_room
    cdef int32_t* follower          # by node + 1: the node named next by the last filter; 0 = the first one of all
    cdef Py_ssize_t follower_room

    cdef Py_ssize_t list_named(self, list names, dict ids, object candidates, Survey found) except -1
    cdef int reserve_nodes(self, Py_ssize_t count) except -1
    cdef void size(self, Ask ask, int32_t node) noexcept nogil
    cdef void sum_up(self, Ask ask, Py_ssize_t count, uint64_t pod_salt, Survey found) noexcept nogil
    cdef bint try_closely(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef void renew_best(self, Ask ask, Survey found) noexcept nogil
    cdef float node_price(self, Ask ask, int32_t node, bint fresh) noexcept nogil
    cdef float slices_lost(self, Ask ask, int32_t picked) noexcept nogil
    cdef int reserve(self, Ask ask) except -1
