"""The engine's picture of the cluster: every column with its unit and meaning.

A device is a row; the rows of a node are adjacent and sorted by driver index, then UUID. `table.py` owns the arrays;
the views here see the same memory. The classes above this one add a way of choosing each: linked cards (`_linked`),
slices (`_sliced`), all containers of a pod (`_together`), and among nodes (`_fit`).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from hami.alloc._ask cimport (
    BY_PERCENT, CLASS_MISMATCH, CORDONED, CORES_AS_ASKED, CORES_EXHAUSTED, CORES_OF_DEVICE, ELIGIBLE,
    EXCLUSIVE_CONFLICT, FITS, FULL_IS_EXCLUSIVE, IS_MIG, MARK_BARRED, MARK_CHOSEN, MAY_BE_UNKNOWN, MIG_INFEASIBLE,
    MODE_NOT_FIT, MUTEX, NO_CORES, NO_MEMORY, ONLY_CHOSEN, QOS_MISMATCH, ROW_CORDONED, ROW_HEALTHY, ROW_UNSOUND,
    SHORT_A, SHORT_B, SHORT_CORES, SLOTS_EXHAUSTED, TYPE_MISMATCH, UNHEALTHY, UUID_MISMATCH, WRONG_MODE, Ask,
    Choice, Need,
)
from hami.alloc._boards cimport Boards
from hami.alloc._mig cimport Grid
from hami.alloc._worth cimport Portion, Worth


cdef enum:
    MOST_NUMAS = 15           # NUMA nodes of one machine that a glance tells apart


# A glance is a row in one word: what most decisions need to know of it, kept up by every booking. From the lowest bit:
# 32 bits of MiB free plus one (0 = less than nothing is free), a gap, 10 bits of percent of cores free plus one, a gap,
# `Look` bits, four bits with the number of its NUMA node within the machine (MOST_NUMAS = there are too many). In MIG
# mode the first two are the state (16 bits) and the number of the list of profiles, and the sharers that may still
# join. The gaps, always set, are for subtracting what is asked from both amounts at once.

cdef extern from *:
    """
    #define GAPS (UINT64_C(1) << 32 | UINT64_C(1) << 43)
    """
    const uint64_t GAPS


cdef enum:
    AMOUNT_LIMIT = 0x3FE      # sharers and percent are cut here
    CORES_SHIFT = 33
    LOOK_SHIFT = 44
    NUMA_SHIFT = 56


cdef enum Look:
    # What of a card does not depend on the request.
    LOOK_OPEN = 1             # healthy, not cordoned, sound, and another sharer may join
    LOOK_USED = 2             # somebody has joined
    LOOK_SPENT = 4            # takes nobody who asks for no cores: all are given away
    LOOK_WHOLE = 8            # all its cores are free
    LOOK_SHARED = 16          # used, and has no more cores than one request can take
    LOOK_CUT = 32             # in MIG mode, with profiles that can be used


cdef class Rows:
    # rows
    cdef int32_t[::1] kind          # interned (family, model, mode)
    cdef int32_t[::1] numa
    cdef uint8_t[::1] flags         # `RowFlag` bits
    cdef uint8_t[::1] marks         # `Mark` bits, 0 between requests
    cdef int64_t[::1] slots         # sharers that may join
    cdef int64_t[::1] slots_used    # sharers that have
    cdef int64_t[::1] memory        # MiB
    cdef int64_t[::1] memory_used   # may exceed `memory`: what pods hold is a fact, not a wish
    cdef int64_t[::1] cores         # percent of one device, or the units that its family counts in
    cdef int64_t[::1] cores_used
    cdef int32_t[::1] part_a        # two further budgets, 0 where the family has none
    cdef int32_t[::1] part_a_used
    cdef int32_t[::1] part_b
    cdef int32_t[::1] part_b_used
    cdef uint32_t[::1] left         # marks that the shares of pods have left: classes of work, ways of sharing
    cdef int32_t[::1] pull          # how much a family that ranks its cards itself prefers this one
    cdef int32_t[::1] board         # number of the family's devices on its node, as `Boards` knows them; -1 = none
    cdef int32_t[::1] spot          # position among them
    cdef int32_t[::1] grid          # number of its list of MIG profiles, -1 = not in MIG mode, or nothing usable
    cdef int32_t[::1] taken         # MIG: state, the slices that instances hold
    # nodes
    cdef int32_t[::1] first         # node n owns rows first[n]:first[n] + length[n]
    cdef int32_t[::1] length        # 0 = no such node
    cdef uint64_t[::1] salt         # hash of the name
    cdef int32_t[::1] same_kind     # kind of all its rows, -1 = they differ
    cdef int32_t[::1] links         # number of the pair scores of its rows, -1 = nothing is known
    cdef float[::1] score_now       # `node_score`, kept up by every booking
    cdef uint32_t[::1] seen         # number of the last survey that met the node
    cdef int64_t[::1] sum_slots     # sums over all rows of the node, of every family
    cdef int64_t[::1] sum_slots_used
    cdef int64_t[::1] sum_memory
    cdef int64_t[::1] sum_memory_used
    cdef int64_t[::1] sum_cores
    cdef int64_t[::1] sum_cores_used
    cdef uint64_t* glances          # by row
    cdef Py_ssize_t glances_room
    cdef Py_ssize_t rows            # behind the last one that a node has ever had
    # shared by rows
    cdef const Grid** grids         # profile lists by number
    cdef list profiles              # their owners
    cdef readonly Worth free_worth       # of the free part of nodes
    cdef readonly Boards boards     # which devices go together, of families that say so
    # working space, kept between calls
    cdef int32_t widest             # most rows a node may have
    cdef int32_t* order             # rows of one family on one node, as the policy sorts them
    cdef float* score               # card scores, beside `order`
    cdef Choice* choices            # picks of one pod on one node, in order
    cdef int32_t choices_room
    cdef int32_t* undo              # trial changes, newest last: indices into `choices` to give back
    cdef int32_t undo_length
    cdef Portion* picks                # what the worth is to be weighed without, as many as `choices`

    cdef int reserve_choices(self, int32_t room) except -1
    cdef void look(self, int32_t row) noexcept nogil
    cdef float node_score(self, int32_t node) noexcept nogil
    cdef float card_price(self, int32_t node, int32_t row, const Need* need) noexcept nogil
    cdef bint within_quota(self, Ask ask, int32_t picked, int32_t start, int32_t count) noexcept nogil
    cdef float card_score(self, int32_t row, const Need* need, uint8_t verdict, Ask ask) noexcept nogil
    cdef bint comes_before(self, int32_t a, int32_t b, uint32_t keys) noexcept nogil
    cdef int32_t sort(self, int32_t node, const Need* need, Ask ask) noexcept nogil
    cdef bint is_taken(self, int32_t row) noexcept nogil
    cdef void take(self, int32_t choice) noexcept nogil
    cdef void roll_back(self, int32_t length) noexcept nogil


cdef inline int32_t shown(Rows self, int32_t row) noexcept nogil:
    # MiB free on a card, as a tally holds it.
    return <int32_t>max(-2147483647, min(2147483647, self.memory[row] - self.memory_used[row]))


cdef inline int64_t memory_of(Rows self, int32_t row, const Need* need) noexcept nogil:
    if not need.rules & BY_PERCENT:
        return need.memory
    # Never 0: the library inside the container reads 0 as no limit.
    if need.rules & MAY_BE_UNKNOWN and self.memory[row] == 0:
        return 0
    return max(1, self.memory[row] * need.memory // 100)


cdef inline int64_t cores_of(Rows self, int32_t row, const Need* need) noexcept nogil:
    if need.rules & CORES_OF_DEVICE:
        return max(1, self.cores[row] * need.cores // 100)
    # The whole card is all the card has, also where core scaling below 1 leaves it less than 100.
    if need.cores >= 100 and not need.rules & CORES_AS_ASKED:
        return self.cores[row] if 0 < self.cores[row] < 100 else 100
    return need.cores


# The checks of one card, in HAMi's order; the first that fails is the reason. Between `barred` and `closed` stands
# the NUMA group, between `closed` and `short_of` the quota: both depend on what the pod has picked so far.

cdef inline int32_t barred(Rows self, int32_t row, const Need* need, uint8_t verdict) noexcept nogil:
    if self.flags[row] & (ROW_HEALTHY | ROW_UNSOUND) != ROW_HEALTHY:
        return UNHEALTHY
    if self.flags[row] & ROW_CORDONED:
        return CORDONED
    if not verdict & ELIGIBLE:
        return MODE_NOT_FIT if verdict & WRONG_MODE else TYPE_MISMATCH
    return FITS


cdef inline int32_t closed(Rows self, int32_t row, const Need* need) noexcept nogil:
    if self.left[row] & (need.no_class | need.no_qos):
        return CLASS_MISMATCH if self.left[row] & need.no_class else QOS_MISMATCH
    if self.marks[row] & MARK_BARRED or (need.rules & ONLY_CHOSEN and not self.marks[row] & MARK_CHOSEN):
        return UUID_MISMATCH
    if self.slots[row] - self.slots_used[row] < need.slots:
        return SLOTS_EXHAUSTED
    if need.rules & MUTEX and self.slots_used[row] > 0:
        return EXCLUSIVE_CONFLICT
    return FITS


cdef inline int32_t short_of(Rows self, int32_t row, const Need* need, uint8_t verdict) noexcept nogil:
    cdef int64_t cores = cores_of(self, row, need), total = need.full_cores if need.full_cores else self.cores[row]
    if self.memory[row] - self.memory_used[row] < memory_of(self, row, need):
        return NO_MEMORY
    if total - self.cores_used[row] < cores:
        return NO_CORES
    if (
        self.part_a[row] - self.part_a_used[row] < need.part_a
        or self.part_b[row] - self.part_b_used[row] < need.part_b
    ):
        return NO_CORES
    if need.rules & FULL_IS_EXCLUSIVE and need.cores >= 100 and total <= 100 and self.slots_used[row] > 0:
        return EXCLUSIVE_CONFLICT
    if total != 0 and self.cores_used[row] >= total and cores == 0:
        return CORES_EXHAUSTED
    if verdict & IS_MIG:
        return MIG_INFEASIBLE
    return FITS


cdef inline void note_short(Rows self, int32_t row, const Need* need, int32_t* tally) noexcept nogil:
    # One more card that is short of compute, and what it has left of what it is short of.
    cdef int64_t left = (need.full_cores if need.full_cores else self.cores[row]) - self.cores_used[row]
    tally[NO_CORES] += 1
    if left < cores_of(self, row, need):
        tally[SHORT_CORES] = max(tally[SHORT_CORES], <int32_t>max(0, left) + 1)
    left = self.part_a[row] - self.part_a_used[row]
    if left < need.part_a:
        tally[SHORT_A] = max(tally[SHORT_A], <int32_t>max(0, left) + 1)
    left = self.part_b[row] - self.part_b_used[row]
    if left < need.part_b:
        tally[SHORT_B] = max(tally[SHORT_B], <int32_t>max(0, left) + 1)


cdef inline void write_choice(Rows self, Choice* choice, const Need* need, int32_t index, int32_t row) noexcept nogil:
    # A share of the need number `index` on one card, not cut into instances.
    choice.need = index
    choice.row = row
    choice.memory = memory_of(self, row, need)
    choice.cores = cores_of(self, row, need)
    choice.slots = need.slots
    choice.part_a = need.part_a
    choice.part_b = need.part_b
    choice.left = need.leaves
    choice.place = -1
