"""Among nodes: who has room, who ranks first, and what the winner gives.

The top of the engine. A decision looks at every candidate once, without Python objects; values are made of what is
looked at afterwards.
"""

from cython cimport final
from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

from hami.alloc._ask cimport (
    BY_PERCENT, CLOSELY, DEVICES, ELIGIBLE, FAMILY, FITS, FULL_IS_EXCLUSIVE, GROUPED, INIT, IS_MIG, JOINED,
    LARGEST_FREE, LINKED, MARKED, MIG_INFEASIBLE, MODE_NOT_FIT, MUTEX, NO_CORES, NO_MEMORY, NUMA_BIND, NUMA_NOT_FIT,
    OF_FAMILY, TALLY_WIDTH, TOO_FEW_DEVICES, TOO_FEW_PICKED, WHYS, Ask, Joint, Need, Size,
)
from hami.alloc._linked cimport PULL_WEIGHT, links_of
from hami.alloc._mig cimport MOST_SLICES, NO_COST, Grid, PlanTable, plan_cost
from hami.alloc._rows cimport (
    CORES_SHIFT, LOOK_OPEN, LOOK_SHARED, LOOK_SHIFT, LOOK_SPENT, LOOK_USED, LOOK_WHOLE, MOST_NUMAS,
    NUMA_SHIFT, barred, closed, memory_of, note_short, short_of, shown,
)
from hami.alloc._sliced cimport capacity
from hami.alloc._together cimport PodRows
from hami.alloc._topology cimport MOST_EXACT, LinkTable, best_score
from hami.alloc._worth cimport Cost


cdef extern from *:
    """
    /* The gaps of a glance; and LOOK_OPEN | LOOK_CUT in its place: a card in MIG mode that takes instances. */
    #define GAPS (UINT64_C(1) << 32 | UINT64_C(1) << 43)
    #define SLICED (UINT64_C(33) << 44)
    """
    const uint64_t GAPS
    const uint64_t SLICED
    int __builtin_ctzll(unsigned long long) noexcept nogil


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    # The finalizer of splitmix64: every input bit reaches every output bit.
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef int lowest_first(const void* left, const void* right) noexcept nogil:
    cdef const Ranked* a = <const Ranked*>left
    cdef const Ranked* b = <const Ranked*>right
    if a.links != b.links:
        return -1 if a.links > b.links else 1
    if a.score != b.score:
        return -1 if a.score < b.score else 1
    if a.tie != b.tie:
        return -1 if a.tie < b.tie else 1
    return -1 if a.node < b.node else 1


cdef int highest_first(const void* left, const void* right) noexcept nogil:
    cdef const Ranked* a = <const Ranked*>left
    cdef const Ranked* b = <const Ranked*>right
    if a.links == b.links and a.score != b.score:
        return -1 if a.score > b.score else 1
    return lowest_first(left, right)


cdef inline bint ahead(const Ranked* a, const Ranked* b, bint spread) noexcept nogil:
    # As the two above say, without a call where the scores differ.
    if a.links != b.links:
        return a.links > b.links
    if a.score != b.score:
        return (a.score < b.score) == spread
    return lowest_first(a, b) < 0


cdef class Survey:
    """What all candidates answered; put into words only where somebody asks."""

    def __cinit__(self, list names, Py_ssize_t limit, bint spread):
        self.names = names
        self.unknown = []
        self.fitting = self.refused = self.best_at = 0
        self.ordered = False
        self.spread = spread
        self.compare = lowest_first if spread else highest_first
        self.toward = -1 if spread else 1
        self.ranked = <Ranked*>malloc((limit + 1) * sizeof(Ranked))
        self.refusing = <int32_t*>malloc((limit + 1) * sizeof(int32_t))
        self.tallies = <int32_t*>malloc((limit + 1) * TALLY_WIDTH * sizeof(int32_t))
        if self.ranked == NULL or self.refusing == NULL or self.tallies == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.ranked)
        free(self.refusing)
        free(self.tallies)

    @property
    def best(self):
        """The number of the node that ranks first, -1 when none fits."""
        return self.ranked[self.best_at].node if self.fitting else -1

    def ranking(self, Py_ssize_t count):
        """The first `count` fitting nodes with their scores, best first."""
        cdef Py_ssize_t i, j, best
        cdef Ranked moved
        count = min(count, self.fitting)
        if not self.ordered and count > FEW:
            qsort(self.ranked, self.fitting, sizeof(Ranked), self.compare)
            self.ordered, self.best_at = True, 0
        if not self.ordered:
            # ranked[0:i] are the best of all, in order.
            for i in range(count):
                best = i
                for j in range(i + 1, self.fitting):
                    if ahead(&self.ranked[j], &self.ranked[best], self.spread):
                        best = j
                moved = self.ranked[i]
                self.ranked[i] = self.ranked[best]
                self.ranked[best] = moved
            self.best_at = 0 if count else self.best_at
        return [(self.names[self.ranked[i].node], self.ranked[i].score) for i in range(count)]

    def refusals(self):
        """The names of the refusing nodes, in the order of the candidates."""
        return [self.names[self.refusing[i]] for i in range(self.refused)]

    def tally(self, Py_ssize_t position):
        """The tally of the refusing node at that position."""
        if not 0 <= position < self.refused:
            raise IndexError(position)
        return (<char*>&self.tallies[position * TALLY_WIDTH])[:TALLY_WIDTH * sizeof(int32_t)]


cdef inline int32_t bits(uint64_t mask) noexcept nogil:
    # No instruction of every processor counts bits, and a call costs more than this.
    mask -= mask >> 1 & <uint64_t>0x5555555555555555
    mask = (mask & <uint64_t>0x3333333333333333) + (mask >> 2 & <uint64_t>0x3333333333333333)
    return <int32_t>((mask + (mask >> 4) & <uint64_t>0x0F0F0F0F0F0F0F0F) * <uint64_t>0x0101010101010101 >> 56)


cdef inline int64_t free_on(uint64_t seen) noexcept nogil:
    # MiB by a glance, -1 where less than nothing is free.
    return <int64_t><uint32_t>seen - 1


cdef inline int32_t instances_on(Engine self, const Need* need, int32_t row) noexcept nogil:
    # How many instances of the need that is aimed at a card in MIG mode takes.
    cdef uint64_t seen = self.glances[row]
    cdef int32_t grid = seen >> 16 & 0xFFFF
    if seen & self.sight.slice_care != SLICED or need.wishes == NULL:
        return 0
    if need.wishes[grid] == NULL or need.plans[grid] == NULL:
        return 0
    if self.sight.marked and closed(self, row, need) != FITS:
        return 0
    return min(need.wishes[grid].most[seen & 0xFFFF], <int32_t>(seen >> CORES_SHIFT & 0x3FF))


cdef inline bint shows(uint64_t seen, uint64_t ask, uint64_t care, uint64_t want) noexcept nogil:
    # A gap that the subtraction has emptied: less is there than is asked.
    return not ((((seen | GAPS) - ask) & GAPS ^ GAPS) | (seen & care ^ want))


cdef inline uint64_t takers(
    Engine self, const Need* need, int32_t node, int32_t first, int32_t count, uint64_t* cut
) noexcept nogil:
    # Bit i: the card at first + i takes a share of the need that is aimed at. In `cut`, cards in MIG mode that might
    # serve it by instances. No branch depends on a card: which of them are full is as good as random.
    cdef const uint8_t* verdicts = self.sight.verdicts
    cdef uint8_t verdict
    cdef int32_t i
    cdef const uint64_t* seen = &self.glances[first]
    cdef uint64_t mask = 0, left, all_of_them = (<uint64_t>2 << (count - 1)) - 1
    cdef uint64_t ask = self.sight.ask, care = self.sight.care, want = self.sight.want
    cut[0] = 0
    if self.same_kind[node] >= 0:
        verdict = verdicts[self.same_kind[node]]
        if verdict & (OF_FAMILY | ELIGIBLE) != OF_FAMILY | ELIGIBLE:
            return 0
        if verdict & IS_MIG:
            cut[0] = all_of_them
            return 0
    for i in range(count - 1, -1, -1):
        mask = mask << 1 | <uint64_t>shows(seen[i], ask, care, want)
    if self.same_kind[node] < 0:
        for i in range(count):
            verdict = verdicts[self.kind[first + i]] & (OF_FAMILY | ELIGIBLE | IS_MIG)
            if verdict != OF_FAMILY | ELIGIBLE:
                mask &= ~(<uint64_t>1 << i)
            if verdict == OF_FAMILY | ELIGIBLE | IS_MIG:
                cut[0] |= <uint64_t>1 << i
    if self.sight.percent or self.sight.marked:
        left = mask
        while left:
            i = first + __builtin_ctzll(left)
            if closed(self, i, need) != FITS or self.memory[i] - self.memory_used[i] < memory_of(self, i, need):
                mask &= ~(left & (~left + 1))
            left &= left - 1
    return mask


@final
cdef class Engine(PodRows):
    def survey(self, Ask ask, list names, dict ids, object candidates, uint64_t pod_salt, bint spread):
        """Try the pod on every candidate (names; None = every node); a name given twice counts once.

        A request that puts links first ranks nodes by those of its set, then by score. Equal nodes rank by a mix of pod
        and node, to share the load. Where the request is ranked by price, a node's score is the worth that the
        pod takes from it, and the least is best.
        """
        cdef Py_ssize_t limit = self.length.shape[0] if candidates is None else len(candidates)
        cdef Py_ssize_t position, listed = 0
        cdef Survey found = Survey(names, limit, spread or ask.by_price)
        cdef int32_t node
        cdef int32_t* nodes = NULL
        cdef object name, number
        self.reserve(ask)
        self.aim(ask)
        if ask.weighed:
            self.free_worth.begin(ask.case, ask.cpu, ask.host)
        if candidates is None:
            with nogil:
                for position in range(limit):
                    if self.length[position]:
                        self.try_on(ask, <int32_t>position, pod_salt, found)
        else:
            nodes = <int32_t*>malloc((limit + 1) * sizeof(int32_t))
            if nodes == NULL:
                raise MemoryError
            self.survey_number += 1
            for name in candidates:
                number = ids.get(name)
                if number is None:
                    found.unknown.append(name)
                    continue
                node = number
                if self.seen[node] != self.survey_number:
                    self.seen[node] = self.survey_number
                    nodes[listed] = node
                    listed += 1
            with nogil:
                for position in range(listed):
                    self.try_on(ask, nodes[position], pod_salt, found)
            free(nodes)
        if ask.by_price:
            with nogil:
                self.renew_best(ask, found)
        self.boards.tell_failure()
        return found

    def assign(self, Ask ask, int32_t node):
        """Choose devices on one node: `(None, tally bytes)`, or `([(need, row, memory, cores, place), ...], b"")`."""
        cdef int32_t[TALLY_WIDTH] tally
        cdef int32_t i, picked
        self.reserve(ask)
        if ask.weighed:
            self.free_worth.begin(ask.case, ask.cpu, ask.host)
        self.size(ask, node)
        picked = self.fit(ask, node, tally)
        self.boards.tell_failure()
        if picked < 0:
            return None, (<char*>tally)[:TALLY_WIDTH * sizeof(int32_t)]
        return [
            (
                self.choices[i].need, self.choices[i].row, self.choices[i].memory, self.choices[i].cores,
                self.choices[i].place,
            )
            for i in range(picked)
        ], b""

    cdef void size(self, Ask ask, int32_t node) noexcept nogil:
        # Make of the needs what they come to on this node. All its cards of one family say the same.
        cdef int32_t i, row
        cdef Need* need
        cdef const Size* size
        if not ask.sized:
            return
        for i in range(ask.count):
            need = &ask.needs[i]
            if need.sizes == NULL:
                continue
            for row in range(self.first[node], self.first[node] + self.length[node]):
                if ask.verdicts[need.kinds + self.kind[row]] & OF_FAMILY:
                    size = &need.sizes[self.kind[row]]
                    need.count, need.memory, need.cores = size.count, size.memory, size.cores
                    need.part_a, need.no_class, need.wanted = size.part_a, size.no_class, size.wanted
                    break

    cdef void try_on(self, Ask ask, int32_t node, uint64_t pod_salt, Survey found) noexcept nogil:
        cdef Ranked* ranked
        cdef int32_t* tally = &found.tallies[found.refused * TALLY_WIDTH]
        self.size(ask, node)
        if self.fit_quick(ask, node, tally):
            ranked = &found.ranked[found.fitting]
            ranked.links = self.link_value
            if ask.by_price:
                ranked.score = self.node_price(ask, node, False)
            else:
                ranked.score = self.score_now[node] + found.toward * self.group_rank
            ranked.tie = mix(self.salt[node] ^ pod_salt)
            ranked.node = node
            if found.fitting == 0 or ahead(ranked, &found.ranked[found.best_at], found.spread):
                found.best_at = found.fitting
            found.fitting += 1
        else:
            found.refusing[found.refused] = node
            found.refused += 1

    cdef void renew_best(self, Ask ask, Survey found) noexcept nogil:
        # Prices of earlier draws are good enough to tell which nodes might be best, not to choose between them.
        cdef Py_ssize_t position
        cdef Ranked* best
        for _ in range(MOST_RENEWED):
            best = &found.ranked[found.best_at]
            if not found.fitting or not self.free_worth.outdated(best.node):
                return
            self.size(ask, best.node)
            best.score = self.node_price(ask, best.node, True)
            for position in range(found.fitting):
                if ahead(&found.ranked[position], &found.ranked[found.best_at], found.spread):
                    found.best_at = position

    cdef bint fit_quick(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        # As `fit`, without choosing cards where it can be told without that whether they are there.
        cdef const Need* need = &ask.needs[0]
        cdef int32_t known = -1
        self.link_value = 0
        self.group_rank = 0
        if self.sight.close:
            if self.has_close_room(ask, need, node):
                return True
            self.tell(ask, node, tally)
            return False
        if not self.sight.sharp:
            known = -1
        elif ask.count == 1 and not need.rules & (NUMA_BIND | JOINED | LINKED):
            if self.has_room(need, node):
                return True
            self.tell(ask, node, tally)
            return False
        elif ask.count == 1:
            known = self.has_best_room(need, node)
        elif ask.covered:
            known = self.has_room(&ask.cover, node)
        elif ask.sliced:
            known = self.has_slices_for_all(ask, node)
        if known > 0:
            return True
        if known == 0 and ask.count == 1 and not need.rules & (NUMA_BIND | JOINED):
            self.tell(ask, node, tally)
            return False
        return self.fit(ask, node, tally) >= 0

    cdef void aim(self, Ask ask) noexcept nogil:
        # Which card takes a share of the pod's only need, or of the one that stands for all.
        cdef const Need* need = &ask.cover if ask.covered else &ask.needs[0]
        cdef Sight* sight = &self.sight
        cdef uint64_t care = LOOK_OPEN, want = LOOK_OPEN, cores = 0
        sight.percent = (need.rules & BY_PERCENT) != 0
        sight.sharp = (
            ask.count > 0 and not ask.limited and (sight.percent or need.memory < INT32_MAX)
            and not need.rules & CLOSELY and not need.pulled
        )
        sight.close = (
            ask.count == 1 and not ask.limited and need.rules & CLOSELY
            and not (need.pulled and (need.count > 1 or need.rules & GROUPED))
            and not need.rules & (NUMA_BIND | JOINED | LINKED)
        )
        if not sight.sharp:
            return
        sight.verdicts = &ask.verdicts[need.kinds]
        sight.marked = (need.rules & MARKED) != 0
        sight.alone = not sight.percent and not sight.marked
        if need.rules & MUTEX:
            care |= LOOK_USED
        if need.cores >= 100:
            care |= LOOK_WHOLE | (LOOK_SHARED if need.rules & FULL_IS_EXCLUSIVE else 0)
            want |= LOOK_WHOLE
        elif need.cores > 0:
            cores = need.cores + 1
        else:
            care |= LOOK_SPENT
        sight.care, sight.want = care << LOOK_SHIFT, want << LOOK_SHIFT
        sight.slice_care = SLICED | (<uint64_t>LOOK_USED << LOOK_SHIFT if need.rules & MUTEX else 0)
        sight.ask = cores << CORES_SHIFT | (0 if sight.percent else <uint64_t>need.memory + 1)

    cdef bint has_close_room(self, Ask ask, const Need* need, int32_t node) noexcept nogil:
        # The same for the only need of a pod that a glance says too little of: amounts beyond the common ones, or
        # cards that go together as their family says.
        cdef const uint8_t* verdicts = &ask.verdicts[need.kinds]
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

    cdef bint has_room(self, const Need* need, int32_t node) noexcept nogil:
        # Whether enough cards take a share, whichever they are.
        cdef int32_t row = self.first[node], left = self.length[node], count
        cdef int64_t fitting = 0
        cdef uint64_t mask, cut
        cdef uint64_t ask = self.sight.ask, care = self.sight.care, want = self.sight.want
        if need.count == 1 and self.sight.alone and self.same_kind[node] >= 0:
            # The usual request on the usual node: mostly one of the first cards takes it.
            if self.sight.verdicts[self.same_kind[node]] & (OF_FAMILY | ELIGIBLE | IS_MIG) == OF_FAMILY | ELIGIBLE:
                for row in range(row, row + left):
                    if shows(self.glances[row], ask, care, want):
                        return True
                return False
        while left > 0:
            count = min(left, 64)
            mask = takers(self, need, node, row, count, &cut)
            fitting += bits(mask)
            while cut and fitting < need.count:
                fitting += instances_on(self, need, row + __builtin_ctzll(cut))
                cut &= cut - 1
            if fitting >= need.count:
                return True
            row += count
            left -= count
        return False

    cdef int32_t has_best_room(self, const Need* need, int32_t node) noexcept nogil:
        # The same for cards of one NUMA node, joined cards, and the best linked: then `link_value` is what the best set
        # scores. 1 = there is room, 0 = none, -1 = only a trial can tell.
        cdef const LinkTable* links = links_of(self, node) if need.count > 1 else NULL
        cdef bint joined = need.rules & JOINED and need.count > 1
        cdef uint64_t[MOST_NUMAS] groups
        cdef uint64_t cut, mask, left
        cdef int32_t i, numa, numas = 1, first = self.first[node], count = self.length[node], known = 0
        cdef int64_t fitting
        if joined and links == NULL:
            return 0
        if not need.rules & (JOINED | LINKED):
            links = NULL
        if count > 64 or (links != NULL and (links.cards > MOST_EXACT or (joined and need.rules & LINKED))):
            return -1
        mask = takers(self, need, node, first, count, &cut)
        if cut and links != NULL:
            # Instances have no links; how plain cards stand beside them is for a trial to say.
            return -1
        groups[0] = <uint64_t>0xFFFFFFFFFFFFFFFF
        if links != NULL and not need.rules & (NUMA_BIND | JOINED):
            # The usual question. Too few cards have no score.
            self.link_value = best_score(links, <uint32_t>mask, need.count)
            if self.link_value >= 0:
                return 1
            self.link_value = 0
            return 0
        if need.rules & NUMA_BIND:
            groups[0] = 0
            for i in range(count):
                numa = self.glances[first + i] >> NUMA_SHIFT
                if numa >= MOST_NUMAS:
                    return -1
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
                return 1
            if joined and not links.joined[mask & groups[numa]] >> need.count & 1:
                continue
            known = 1
            if need.rules & LINKED:
                self.link_value = max(
                    self.link_value, best_score(links, <uint32_t>(mask & groups[numa]), need.count)
                )
        return known

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
            if enough or seen & self.sight.slice_care != SLICED or joint.plans[seen >> 16 & 0xFFFF] == NULL:
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

    cdef float node_price(self, Ask ask, int32_t node, bint fresh) noexcept nogil:
        # What the pod takes from the node's worth, on the cards that the card policy would choose for it.
        cdef int32_t[TALLY_WIDTH] tally
        cdef int64_t links = self.link_value
        cdef int32_t i, picked, count = 0
        cdef Cost own
        cdef Cost* cost = self.free_worth.remembered(node, fresh)
        if cost == NULL:
            own.version = 0
            cost = &own
        if cost.version == 0:
            picked = self.fit(ask, node, tally)
            for i in range(picked):
                # An init container's share is free again when the others start.
                if ask.needs[self.choices[i].need].role != INIT and self.choices[i].place < 0:
                    self.picks[count].row = self.choices[i].row
                    self.picks[count].memory = self.choices[i].memory
                    self.picks[count].cores = self.choices[i].cores
                    count += 1
            self.free_worth.weigh(node, self.picks, count, cost)
            cost.loss += self.slices_lost(ask, picked)
            self.link_value = links
        return <float>self.free_worth.price(node, cost)

    cdef float slices_lost(self, Ask ask, int32_t picked) noexcept nogil:
        # What the instances among choices[0:picked] take from the worth of their cards, in milli-devices: a card that
        # takes nothing more has lost a whole one. An init container's slices are free again when the others start.
        cdef int32_t i, j, row, state
        cdef const Grid* grid
        cdef double lost = 0
        for i in range(picked):
            row = self.choices[i].row
            if self.choices[i].place < 0 or ask.needs[self.choices[i].need].role == INIT:
                continue
            grid = self.grids[self.grid[row]]
            state = self.taken[row]
            for j in range(picked):
                if self.choices[j].place < 0 or ask.needs[self.choices[j].need].role == INIT:
                    continue
                if self.choices[j].row == row:
                    if j < i:
                        # Its card is counted already.
                        break
                    state |= grid.places[self.choices[j].place].mask
            else:
                lost += 1000.0 * (grid.lost[state] - grid.lost[self.taken[row]]) / max(1, grid.lost[grid.states - 1])
        return <float>lost

    cdef int reserve(self, Ask ask) except -1:
        # Room for every pick of the pod on the widest node, and for all its cards while one need collects them.
        cdef int64_t room = self.widest + 1
        cdef int32_t i
        for i in range(ask.count):
            room += min(ask.needs[i].count, self.widest * (MOST_SLICES if ask.mig else 1))
        self.reserve_choices(<int32_t>room)
        if ask.mig:
            self.reserve_slices(<int32_t>room)
        if ask.count > 1:
            self.reserve_turns(ask.count)
        return 0
