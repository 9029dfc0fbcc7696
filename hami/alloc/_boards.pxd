"""Which devices of a node go together, as their family says; asked in Python once for every situation."""

from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef enum:
    MOST_SPOTS = 64       # devices of one family on a node: a situation is two words of bits
    SITUATIONS = 65536    # remembered at a time; a power of two


cdef struct Situation:
    uint64_t passing      # spots that pass every check
    uint64_t idle         # spots that nobody holds
    uint64_t key          # board and kind of need, plus one; 0 = a free place
    float rank
    bint fits


cdef class Boards:
    cdef public object choose_by    # (board, wanted, spots as preferred, idle, own) -> (spots, rank) or None
    cdef object failure             # what `choose_by` raised, until it is told
    cdef bint failed
    cdef Situation* known           # open addressing, SITUATIONS places
    cdef uint32_t filled

    cdef bint judge(self, int32_t board, int32_t wanted, uint64_t passing, uint64_t idle, float* rank) noexcept nogil
    cdef bint choose(
        self, int32_t board, int32_t wanted, const int32_t* spots, int32_t count, uint64_t idle, uint64_t own,
        int32_t want, int32_t* chosen, float* rank
    ) noexcept nogil
