"""The choice of MIG slices for one need, and for all needs of a pod."""

from libc.stdint cimport int32_t, int64_t

from hami.alloc._ask cimport Ask, Choice, Joint, Need
from hami.alloc._linked cimport LinkedRows
from hami.alloc._mig cimport MOST_KINDS, PlanTable, WishTable


cdef class SlicedRows(LinkedRows):
    # working space, kept between calls
    cdef int32_t* saved             # `taken` of a node's rows while a pod is tried
    cdef int32_t* slice_rows        # cards in MIG mode that take part in a plan, as the policy prefers them
    cdef int32_t* slice_states
    cdef int32_t* slice_rooms
    cdef PlanTable** slice_plans
    cdef int64_t* slice_costs       # (cards + 1) x sets
    cdef int32_t* slice_sets        # cards x sets
    cdef int32_t slices_room        # cards that the two above have room for
    cdef Choice* pool               # instances of a joint plan, by kind
    cdef int32_t pool_room
    cdef int32_t[MOST_KINDS + 1] pool_first

    cdef int reserve_slices(self, int32_t instances) except -1
    cdef bint has_slices(self, Ask ask, const Need* need, int32_t node) noexcept nogil
    cdef void instance(self, Choice* choice, int32_t card, int32_t state, int32_t place) noexcept nogil
    cdef int64_t share_out(self, int32_t cards) noexcept nogil
    cdef int32_t pick_slices(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil
    cdef int64_t settle_slices(
        self, const Need* need, int32_t picked, int32_t cards, int32_t plain, int32_t sliced, int64_t best_cost
    ) noexcept nogil
    cdef bint plan_jointly(self, Ask ask, const Joint* joint, int32_t node) noexcept nogil


# Cards in MIG mode: one of them may serve several instances of one need. What a need or a whole pod asks is shared
# out to the node's cards at the least total cost (`divide`); plain cards of a mixed node count as one each.

cdef inline int32_t capacity(SlicedRows self, int32_t row, const Need* need) noexcept nogil:
    cdef const WishTable* wish
    if need.wishes == NULL or self.grid[row] < 0:
        return 0
    wish = need.wishes[self.grid[row]]
    if wish == NULL or need.plans[self.grid[row]] == NULL:
        return 0
    return <int32_t>min(wish.most[self.taken[row]], self.slots[row] - self.slots_used[row])
