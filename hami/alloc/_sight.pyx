"""Whether nodes have room, without choosing cards: what a filter over thousands of nodes spends its time on.

The glances of all rows are passed over once, several at a time, and leave one bit a row; then each node is looked at by
the bits of its rows. What cannot be told so is left to a trial.
"""

from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from hami.alloc._ask cimport (
    BY_PERCENT, CLOSELY, DEVICES, ELIGIBLE, FAMILY, FITS, FULL_IS_EXCLUSIVE, GROUPED, IS_MIG, JOINED, LARGEST_FREE,
    LINKED, MARKED, MIG_INFEASIBLE, MODE_NOT_FIT, MUTEX, NO_CORES, NO_MEMORY, NUMA_BIND, NUMA_NOT_FIT, OF_FAMILY,
    TALLY_WIDTH, TOO_FEW_DEVICES, TOO_FEW_PICKED, WHYS, Ask, Joint, Need,
)
from hami.alloc._linked cimport PULL_WEIGHT, links_of
from hami.alloc._mig cimport NO_COST, PlanTable, plan_cost
from hami.alloc._rows cimport (
    CORES_SHIFT, GAPS, LOOK_CUT, LOOK_OPEN, LOOK_SHARED, LOOK_SHIFT, LOOK_SPENT, LOOK_USED, LOOK_WHOLE, MOST_NUMAS,
    NUMA_SHIFT, barred, closed, memory_of, note_short, short_of, shown,
)
from hami.alloc._sliced cimport capacity
from hami.alloc._together cimport PodRows
from hami.alloc._topology cimport MOST_EXACT, LinkTable, best_score


cdef extern from *:
    """
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    /* Bit i: seen[i] has what is asked, count <= 64. The bits that count all lie in the upper half of a glance: the
       gaps, of which a subtraction empties one where there is less than is asked, and what stands above them. */
    static inline uint64_t passing_glances(const uint64_t *seen, int32_t count, uint64_t ask, uint64_t care,
                                           uint64_t want)
    {
        uint64_t mask = 0;
        int32_t i = 0;
    #ifdef __SSE2__
        const __m128i asked = _mm_set1_epi64x((int64_t)ask);
        const __m128i cared = _mm_set1_epi32((int32_t)(care >> 32)), wanted = _mm_set1_epi32((int32_t)(want >> 32));
        for (; i + 4 <= count; i += 4) {
            __m128 two = _mm_castsi128_ps(_mm_sub_epi64(_mm_loadu_si128((const __m128i *)(seen + i)), asked));
            __m128 more = _mm_castsi128_ps(_mm_sub_epi64(_mm_loadu_si128((const __m128i *)(seen + i + 2)), asked));
            __m128i upper = _mm_castps_si128(_mm_shuffle_ps(two, more, _MM_SHUFFLE(3, 1, 3, 1)));
            __m128i passes = _mm_cmpeq_epi32(_mm_and_si128(upper, cared), wanted);
            mask |= (uint64_t)_mm_movemask_ps(_mm_castsi128_ps(passes)) << i;
        }
    #endif
        for (; i < count; i++)
            mask |= (uint64_t)(((seen[i] - ask) & care) == want) << i;
        return mask;
    }
    """
    uint64_t passing_glances(
        const uint64_t* seen, int32_t count, uint64_t ask, uint64_t care, uint64_t want
    ) noexcept nogil
    int __builtin_ctzll(unsigned long long) noexcept nogil


cdef enum:
    SLICED = LOOK_OPEN | LOOK_CUT  # a card in MIG mode that takes instances
    MOST_NODES_A_LOOK = 4     # passing over all rows pays where at least one of so many nodes is looked at


cdef inline int32_t bits(uint64_t mask) noexcept nogil:
    # No instruction of every processor counts bits, and a call costs more than this.
    mask -= mask >> 1 & <uint64_t>0x5555555555555555
    mask = (mask & <uint64_t>0x3333333333333333) + (mask >> 2 & <uint64_t>0x3333333333333333)
    return <int32_t>((mask + (mask >> 4) & <uint64_t>0x0F0F0F0F0F0F0F0F) * <uint64_t>0x0101010101010101 >> 56)


cdef inline int64_t free_on(uint64_t seen) noexcept nogil:
    # MiB by a glance, -1 where less than nothing is free.
    return <int64_t><uint32_t>seen - 1


cdef inline bint cut_open(SightRows self, uint64_t seen) noexcept nogil:
    # Whether it is a card in MIG mode that takes instances of this pod.
    return seen & self.sight.slice_care == <uint64_t>SLICED << LOOK_SHIFT


cdef inline int32_t instances_on(SightRows self, const Need* need, int32_t row) noexcept nogil:
    # How many instances of the need that is aimed at a card in MIG mode takes.
    cdef uint64_t seen = self.glances[row]
    cdef int32_t grid = seen >> 16 & 0xFFFF
    if not cut_open(self, seen) or need.wishes == NULL:
        return 0
    if need.wishes[grid] == NULL or need.plans[grid] == NULL:
        return 0
    if self.sight.marked and closed(self, row, need) != FITS:
        return 0
    return min(need.wishes[grid].most[seen & 0xFFFF], <int32_t>(seen >> CORES_SHIFT & 0x3FF))


cdef inline uint64_t takers(
    SightRows self, const Need* need, int32_t node, int32_t first, int32_t count, uint64_t* cut
) noexcept nogil:
    # Bit i: the card at first + i takes a share of the need that is aimed at. In `cut`, cards in MIG mode that might
    # serve it by instances. No branch depends on a card: which of them are full is as good as random.
    cdef const Sight* sight = &self.sight
    cdef const uint64_t* word
    cdef uint64_t mask, left, all_of_them = (<uint64_t>2 << (count - 1)) - 1
    cdef uint8_t verdict
    cdef int32_t i, kind = self.same_kind[node]
    cut[0] = 0
    if kind >= 0:
        verdict = sight.verdicts[kind]
        if verdict & (OF_FAMILY | ELIGIBLE) != OF_FAMILY | ELIGIBLE:
            return 0
        if verdict & IS_MIG:
            cut[0] = all_of_them
            return 0
    if self.all_passing:
        word = &self.passing[first >> 6]
        mask = (word[0] >> (first & 63) | word[1] << 1 << (~first & 63)) & all_of_them
    else:
        mask = passing_glances(&self.glances[first], count, sight.ask, sight.care, sight.want)
    if kind < 0:
        for i in range(count):
            verdict = sight.verdicts[self.kind[first + i]] & (OF_FAMILY | ELIGIBLE | IS_MIG)
            if verdict != OF_FAMILY | ELIGIBLE:
                mask &= ~(<uint64_t>1 << i)
            if verdict == OF_FAMILY | ELIGIBLE | IS_MIG:
                cut[0] |= <uint64_t>1 << i
    if sight.percent or sight.marked:
        left = mask
        while left:
            i = first + __builtin_ctzll(left)
            if closed(self, i, need) != FITS or self.memory[i] - self.memory_used[i] < memory_of(self, i, need):
                mask &= ~(left & (~left + 1))
            left &= left - 1
    return mask


cdef inline int64_t count_room(SightRows self, const Need* need, int32_t node) noexcept nogil:
    # Whether enough cards take a share, whichever they are.
    cdef int32_t row = self.first[node], left = self.length[node], count
    cdef int64_t fitting = 0
    cdef uint64_t mask, cut
    while left > 0:
        count = min(left, 64)
        mask = takers(self, need, node, row, count, &cut)
        if mask and need.count == 1:
            return 0
        fitting += bits(mask)
        while cut and fitting < need.count:
            fitting += instances_on(self, need, row + __builtin_ctzll(cut))
            cut &= cut - 1
        if fitting >= need.count:
            return 0
        row += count
        left -= count
    return NO_ROOM


cdef inline int64_t best_room(SightRows self, const Need* need, int32_t node) noexcept nogil:
    # The same for cards of one NUMA node, joined cards, and the best linked: then the answer is what the best set
    # scores.
    cdef const LinkTable* links = links_of(self, node) if need.count > 1 else NULL
    cdef bint joined = need.rules & JOINED and need.count > 1
    cdef uint64_t[MOST_NUMAS] groups
    cdef uint64_t cut, mask, left
    cdef int32_t i, numa, numas = 1, first = self.first[node], count = self.length[node]
    cdef int64_t fitting, best = NO_ROOM
    if joined and links == NULL:
        return NO_ROOM
    if not need.rules & (JOINED | LINKED):
        links = NULL
    if count > 64 or (links != NULL and (links.cards > MOST_EXACT or (joined and need.rules & LINKED))):
        return UNTOLD
    mask = takers(self, need, node, first, count, &cut)
    if cut and links != NULL:
        # Instances have no links; how plain cards stand beside them is for a trial to say.
        return UNTOLD
    if links != NULL and not need.rules & (NUMA_BIND | JOINED):
        # The usual question. Too few cards have no score.
        return best_score(links, <uint32_t>mask, need.count)
    groups[0] = <uint64_t>0xFFFFFFFFFFFFFFFF
    if need.rules & NUMA_BIND:
        groups[0] = 0
        for i in range(count):
            numa = self.glances[first + i] >> NUMA_SHIFT
            if numa >= MOST_NUMAS:
                return UNTOLD
            if numa == numas:
                groups[numas] = 0
                numas += 1
            groups[numa] |= <uint64_t>1 << i
    for numa in range(numas):
        fitting = bits(mask & groups[numa])
        left = cut & groups[numa]
        while left:
            fitting += instances_on(self, need, first + __builtin_ctzll(left))
            left &= left - 1
        if fitting < need.count:
            continue
        if links == NULL:
            return 0
        if joined and not links.joined[mask & groups[numa]] >> need.count & 1:
            continue
        best = max(best, 0)
        if need.rules & LINKED:
            best = max(best, best_score(links, <uint32_t>(mask & groups[numa]), need.count))
    return best


cdef inline bint all_short(SightRows self, const Need* need, int32_t node, int32_t* tally) noexcept nogil:
    # What most nodes of a full cluster say: all its cards are alike, take new work, and have too little memory. Then
    # the tally, which is empty, is told without a look at the columns.
    cdef int32_t row, first = self.first[node], count = self.length[node], short = 0
    cdef int64_t there, largest = 0, asked = need.memory
    cdef uint64_t seen
    if (
        self.same_kind[node] < 0
        or self.sight.verdicts[self.same_kind[node]] & (OF_FAMILY | ELIGIBLE | IS_MIG) != OF_FAMILY | ELIGIBLE
    ):
        return False
    for row in range(first, first + count):
        seen = self.glances[row]
        there = free_on(seen)
        if self.sight.percent:
            asked = memory_of(self, row, need)
        short += (seen >> LOOK_SHIFT & LOOK_OPEN) & (there < asked)
        largest = max(largest, there)
    if short < count:
        return False
    tally[DEVICES], tally[FAMILY], tally[LARGEST_FREE] = count, need.family, <int32_t>largest
    if need.count > count:
        tally[TOO_FEW_DEVICES] = 1
    else:
        tally[NO_MEMORY] = count
    return True


cdef class SightRows(PodRows):
    def __dealloc__(self):
        free(self.passing)

    cdef void aim(self, Ask ask) noexcept nogil:
        # How nodes are looked at for this request, and what their cards must show.
        cdef Sight* sight = &self.sight
        cdef const Need* need = &ask.cover if ask.covered else &ask.needs[0]
        cdef bint grouping = need.rules & (NUMA_BIND | JOINED | LINKED), alone = ask.count == 1
        memset(sight, 0, sizeof(Sight))
        sight.way, sight.need, sight.verdicts = BY_TRIAL, need, &ask.verdicts[need.kinds]
        sight.percent = (need.rules & BY_PERCENT) != 0
        sight.marked = (need.rules & MARKED) != 0
        if ask.count == 0 or ask.limited:
            return
        if need.rules & CLOSELY:
            if alone and not grouping and not (need.pulled and (need.count > 1 or need.rules & GROUPED)):
                sight.way, sight.refuses = CLOSELY_BY_COUNT, True
        elif not need.pulled and (sight.percent or need.memory < INT32_MAX):
            if alone:
                sight.way = BY_SETS if grouping else BY_COUNT
                # Of a NUMA node, or joined: choosing the cards tells the reasons.
                sight.refuses = not need.rules & (NUMA_BIND | JOINED)
            elif ask.covered:
                sight.way = BY_COUNT
            elif ask.sliced:
                sight.way = BY_SLICES
            self.ask_of_glances(ask)

    cdef void ask_of_glances(self, Ask ask) noexcept nogil:
        # The need as bits of a glance.
        cdef Sight* sight = &self.sight
        cdef int32_t i
        cdef const Need* need = sight.need
        cdef uint64_t care = LOOK_OPEN, want = LOOK_OPEN, cores = 0
        if need.rules & MUTEX:
            care |= LOOK_USED
        if need.cores >= 100:
            care |= LOOK_WHOLE | (LOOK_SHARED if need.rules & FULL_IS_EXCLUSIVE else 0)
            want |= LOOK_WHOLE
        elif need.cores > 0:
            cores = need.cores + 1
        else:
            care |= LOOK_SPENT
        # Kinds of other families may stand behind those of this one.
        for i in range(ask.verdict_count - need.kinds):
            if sight.verdicts[i] & (OF_FAMILY | ELIGIBLE | IS_MIG) == OF_FAMILY | ELIGIBLE:
                sight.plain = True
        sight.care, sight.want = care << LOOK_SHIFT | GAPS, want << LOOK_SHIFT | GAPS
        sight.slice_care = <uint64_t>(SLICED | (LOOK_USED if need.rules & MUTEX else 0)) << LOOK_SHIFT
        sight.ask = cores << CORES_SHIFT | (0 if sight.percent else <uint64_t>need.memory + 1)

    cdef int pass_over(self) except -1 nogil:
        # One bit a row for all rows there are, and a word behind them, so that a node's bits can be read by two words.
        cdef Py_ssize_t words = (self.rows + 63) // 64, i
        cdef uint64_t* passing
        if self.passing_room < words + 1:
            passing = <uint64_t*>realloc(self.passing, (words + 1) * sizeof(uint64_t))
            if passing == NULL:
                raise MemoryError
            self.passing, self.passing_room = passing, words + 1
        for i in range(words):
            self.passing[i] = passing_glances(
                &self.glances[i * 64], <int32_t>min(64, self.rows - i * 64), self.sight.ask, self.sight.care,
                self.sight.want,
            )
        self.passing[words] = 0
        self.all_passing = True
        return 0

    cdef int look_at(self, Ask ask, const int32_t* nodes, Py_ssize_t count, int64_t* answers) except -1 nogil:
        # Look at nodes[0:count]; answers[i] is an `Answer` or what the best set of nodes[i] scores.
        cdef const Need* need = self.sight.need
        cdef Py_ssize_t i
        self.all_passing = False
        if (
            self.sight.way in (BY_COUNT, BY_SETS) and self.sight.plain
            and count * MOST_NODES_A_LOOK >= self.length.shape[0]
        ):
            self.pass_over()
        if self.sight.way == BY_COUNT:
            for i in range(count):
                answers[i] = count_room(self, need, nodes[i])
        elif self.sight.way == BY_SETS:
            for i in range(count):
                answers[i] = best_room(self, need, nodes[i])
        elif self.sight.way == BY_SLICES:
            for i in range(count):
                answers[i] = 0 if self.has_slices_for_all(ask, nodes[i]) else UNTOLD
        else:
            for i in range(count):
                answers[i] = UNTOLD
        if not self.sight.refuses:
            for i in range(count):
                answers[i] = UNTOLD if answers[i] == NO_ROOM else answers[i]
        return 0

    cdef bint has_close_room(self, Ask ask, int32_t node) noexcept nogil:
        # For the only need of a pod that a glance says too little of: amounts beyond the common ones, or cards that go
        # together as their family says.
        cdef const Need* need = self.sight.need
        cdef const uint8_t* verdicts = self.sight.verdicts
        cdef uint64_t passing = 0, idle = 0
        cdef int32_t row, board = -1, pull = INT32_MIN
        cdef int64_t fitting = 0
        cdef bint grouped = need.rules & GROUPED
        cdef uint8_t verdict
        for row in range(self.first[node], self.first[node] + self.length[node]):
            verdict = verdicts[self.kind[row]]
            if grouped and verdict & OF_FAMILY and self.slots_used[row] == 0:
                idle |= <uint64_t>1 << self.spot[row]
            if (
                barred(self, row, need, verdict) == FITS and verdict & OF_FAMILY and closed(self, row, need) == FITS
                and short_of(self, row, need, verdict) == FITS
            ):
                fitting += 1
                passing |= <uint64_t>1 << self.spot[row]
                board = self.board[row]
                pull = max(pull, self.pull[row])
                if fitting == need.count and not grouped and not need.pulled:
                    return True
        if grouped and fitting >= need.count and board >= 0:
            return self.boards.judge(board, need.wanted, passing, idle, &self.group_rank)
        if need.pulled and fitting:
            # It is the card that its family prefers most.
            self.group_rank = PULL_WEIGHT * pull
            return True
        return False

    cdef bint has_slices_for_all(self, Ask ask, int32_t node) noexcept nogil:
        # Whether it is plain to see that the needs, all to be met by instances, are: by cards that each take some of
        # them if they are all alike, else by one card that takes them all. False = only a trial can tell.
        cdef const Joint* joint = &ask.joint[0]
        cdef PlanTable* plan
        cdef uint64_t seen
        cdef uint8_t verdict
        cdef int32_t row, t, state, slots, first = self.first[node]
        cdef int64_t all_of_them, fitting = 0
        cdef bint enough = False
        for row in range(first, first + self.length[node]):
            seen = self.glances[row]
            verdict = self.sight.verdicts[self.kind[row]]
            if verdict & (OF_FAMILY | ELIGIBLE) != OF_FAMILY | ELIGIBLE or not seen >> LOOK_SHIFT & LOOK_OPEN:
                continue
            if self.sight.marked and closed(self, row, &ask.needs[0]) != FITS:
                continue
            if not verdict & IS_MIG:
                return False
            if enough or not cut_open(self, seen) or joint.plans[seen >> 16 & 0xFFFF] == NULL:
                continue
            plan = joint.plans[seen >> 16 & 0xFFFF]
            state, slots = seen & 0xFFFF, seen >> CORES_SHIFT & 0x3FF
            all_of_them = 0
            for t in range(plan.kinds):
                all_of_them += plan.count[t]
            if plan.kinds == 1:
                fitting += min(plan.wish[0].most[state], slots)
                enough = fitting >= all_of_them
            elif slots >= all_of_them:
                enough = plan_cost(plan, state, plan.sets - 1) != NO_COST
        return enough

    cdef void tell(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        # Why a node has no room for the only need.
        cdef const Need* need = &ask.needs[0]
        cdef uint64_t seen
        cdef int32_t row, why, fitting = 0, devices = 0, cut = 0, room
        cdef bint sliced = False, picky = need.rules & (MUTEX | MARKED | CLOSELY) != 0
        cdef uint8_t verdict
        memset(tally, 0, TALLY_WIDTH * sizeof(int32_t))
        if not picky and all_short(self, need, node, tally):
            return
        for row in range(self.first[node], self.first[node] + self.length[node]):
            seen = self.glances[row]
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if not verdict & OF_FAMILY:
                continue
            devices += 1
            if seen >> LOOK_SHIFT & LOOK_OPEN and verdict & (ELIGIBLE | IS_MIG) == ELIGIBLE and not picky:
                # What most cards of a full cluster say, without a look at their columns.
                if free_on(seen) < (memory_of(self, row, need) if self.sight.percent else need.memory):
                    tally[LARGEST_FREE] = max(tally[LARGEST_FREE], <int32_t>free_on(seen))
                    tally[NO_MEMORY] += 1
                    continue
            why = barred(self, row, need, verdict)
            if why == FITS:
                if verdict & IS_MIG and need.wishes != NULL:
                    sliced = True
                why = closed(self, row, need)
            if why == FITS:
                tally[LARGEST_FREE] = max(tally[LARGEST_FREE], shown(self, row))
                room = capacity(self, row, need) if verdict & IS_MIG else 0
                if room:
                    fitting += room
                    cut += 1
                    continue
                why = short_of(self, row, need, verdict)
            if why == FITS:
                fitting += 1
            elif why == NO_CORES:
                note_short(self, row, need, tally)
            else:
                tally[why] = 1 if why == MODE_NOT_FIT else tally[why] + 1
        tally[DEVICES] = devices
        tally[FAMILY] = need.family
        tally[MIG_INFEASIBLE] += cut
        if need.count > devices and not sliced:
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[TOO_FEW_DEVICES] = 1
        elif need.rules & GROUPED and fitting >= need.count:
            tally[need.misfit] += 1 if need.misfit == NUMA_NOT_FIT else fitting
        else:
            tally[TOO_FEW_PICKED] = fitting
