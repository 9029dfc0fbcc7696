"""Choices of families whose devices form groups: wings, modules, link zones, windows on a ring.

A family says in Python which of the passing devices it takes, exactly. Whether some fit, and how good they are, depends
on few bits: which devices pass, and which are idle. So among many nodes each situation is asked once and then looked
up; only the winner's devices are chosen in the order that the card policy prefers.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    # The finalizer of splitmix64.
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef class Boards:
    def __cinit__(self):
        self.known = NULL

    def __dealloc__(self):
        free(self.known)

    def forget(self):
        """Boards or needs have other numbers from now on."""
        self.filled = 0
        if self.known != NULL:
            memset(self.known, 0, SITUATIONS * sizeof(Situation))

    def tell_failure(self):
        """Raise what a family's function raised; nothing could be raised amid the survey."""
        failure, self.failure, self.failed = self.failure, None, False
        if failure is not None:
            raise failure

    cdef bint judge(self, int32_t board, int32_t wanted, uint64_t passing, uint64_t idle, float* rank) noexcept nogil:
        # Whether the need fits on the board, and what it adds to the node's rank. Equal spots stand by index, the last
        # one first; the family's choice may depend on the order, how good it is may not.
        cdef uint64_t key = ((<uint64_t><uint32_t>board) << 32 | <uint32_t>wanted) + 1
        cdef uint32_t at = <uint32_t>mix(key ^ mix(passing ^ mix(idle))) & (SITUATIONS - 1)
        cdef int32_t[MOST_SPOTS] spots
        cdef int32_t[MOST_SPOTS] chosen
        cdef int32_t spot, count = 0
        cdef Situation* known
        if self.known != NULL:
            while self.known[at].key:
                known = &self.known[at]
                if known.key == key and known.passing == passing and known.idle == idle:
                    rank[0] = known.rank
                    return known.fits
                at = (at + 1) & (SITUATIONS - 1)
        for spot in range(MOST_SPOTS - 1, -1, -1):
            if passing >> spot & 1:
                spots[count] = spot
                count += 1
        # A pod of one need has no device yet.
        cdef bint fits = self.choose(board, wanted, spots, count, idle, 0, 0, chosen, rank)
        with gil:
            if self.known == NULL:
                self.known = <Situation*>calloc(SITUATIONS, sizeof(Situation))
            elif self.filled > SITUATIONS // 2:
                self.forget()
        if self.known == NULL:
            return fits  # no memory to remember it in
        at = <uint32_t>mix(key ^ mix(passing ^ mix(idle))) & (SITUATIONS - 1)
        while self.known[at].key:
            at = (at + 1) & (SITUATIONS - 1)
        known = &self.known[at]
        known.passing, known.idle, known.key, known.rank, known.fits = passing, idle, key, rank[0], fits
        self.filled += 1
        return fits

    cdef bint choose(
        self, int32_t board, int32_t wanted, const int32_t* spots, int32_t count, uint64_t idle, uint64_t own,
        int32_t want, int32_t* chosen, float* rank
    ) noexcept nogil:
        # chosen[0:want] = positions in spots[0:count] of the devices that the family takes; want 0 = only whether.
        # `own` are spots that the pod has already.
        cdef int32_t i, j, n = 0
        rank[0] = 0
        if self.failed:
            return False
        with gil:
            try:
                answer = self.choose_by(board, wanted, tuple([spots[i] for i in range(count)]), idle, own)
                if answer is None:
                    return False
                places, rank[0] = answer
                if want:
                    for place in places:
                        j = place
                        for i in range(count):
                            if spots[i] == j and n < want:
                                chosen[n] = i
                                n += 1
                    if n != want:
                        raise ValueError(f"a family chose {places!r} for {want} devices")
            except BaseException as error:
                self.failure, self.failed = error, True
                return False
        return True
