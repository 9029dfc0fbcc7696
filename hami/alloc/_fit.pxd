"""The engine's face to `table.py` and `place.py`: a survey of nodes, and the choice on one of them."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from hami.alloc._ask cimport Ask, Need
from hami.alloc._together cimport PodRows
from hami.alloc._topology cimport LinkTable


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
    cdef Compare compare
    cdef int32_t* refusing          # the others, in the order of the candidates
    cdef int32_t* tallies           # theirs, `TALLY_WIDTH` each
    cdef readonly Py_ssize_t refused
    cdef list names                 # by node number, as they were
    cdef readonly list unknown      # candidates that are no registered nodes


cdef class Engine(PodRows):
    cdef uint32_t survey_number

    cdef void try_on(self, Ask ask, int32_t node, uint64_t pod_salt, Survey found) noexcept nogil
    cdef void renew_best(self, Ask ask, Survey found) noexcept nogil
    cdef bint fit_quick(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef bint has_room(self, Ask ask, const Need* need, int32_t node, const LinkTable* links) noexcept nogil
    cdef void tell(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef float node_price(self, Ask ask, int32_t node, bint fresh) noexcept nogil
    cdef int reserve(self, Ask ask) except -1
