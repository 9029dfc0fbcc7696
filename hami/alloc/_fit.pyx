"""Among nodes: who has room, who ranks first, and what the winner gives.

The top of the engine. A decision looks at every candidate once, without Python objects; values are made of what is
looked at afterwards.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

from hami.alloc._ask cimport (
    DEVICES, ELIGIBLE, FITS, INIT, IS_MIG, JOINED, LARGEST_FREE, LINKED, MIG_INFEASIBLE, MUTEX, NUMA_BIND,
    OF_FAMILY, ONLY_CHOSEN, ROW_HEALTHY, TALLY_WIDTH, TOO_FEW_DEVICES, TOO_FEW_PICKED, WHYS, Ask, Need,
)
from hami.alloc._linked cimport links_of
from hami.alloc._mig cimport MOST_SLICES
from hami.alloc._rows cimport barred, closed, memory_of, short_of, shown
from hami.alloc._sliced cimport capacity
from hami.alloc._together cimport PodRows
from hami.alloc._topology cimport MOST_EXACT, LinkTable, best_score
from hami.alloc._worth cimport Cost


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


cdef class Survey:
    """What all candidates answered; put into words only where somebody asks."""

    def __cinit__(self, list names, Py_ssize_t limit, bint spread):
        self.names = names
        self.unknown = []
        self.fitting = self.refused = self.best_at = 0
        self.ordered = False
        self.compare = lowest_first if spread else highest_first
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
                    if self.compare(&self.ranked[j], &self.ranked[best]) < 0:
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
        return found

    def assign(self, Ask ask, int32_t node):
        """Choose devices on one node: `(None, tally bytes)`, or `([(need, row, memory, cores, place), ...], b"")`."""
        cdef int32_t[TALLY_WIDTH] tally
        cdef int32_t i, picked
        self.reserve(ask)
        if ask.weighed:
            self.free_worth.begin(ask.case, ask.cpu, ask.host)
        picked = self.fit(ask, node, tally)
        if picked < 0:
            return None, (<char*>tally)[:TALLY_WIDTH * sizeof(int32_t)]
        return [
            (
                self.choices[i].need, self.choices[i].row, self.choices[i].memory, self.choices[i].cores,
                self.choices[i].place,
            )
            for i in range(picked)
        ], b""

    cdef void try_on(self, Ask ask, int32_t node, uint64_t pod_salt, Survey found) noexcept nogil:
        cdef Ranked* ranked
        cdef int32_t* tally = &found.tallies[found.refused * TALLY_WIDTH]
        if self.fit_quick(ask, node, tally):
            ranked = &found.ranked[found.fitting]
            ranked.links = self.link_value
            ranked.score = self.node_price(ask, node, False) if ask.by_price else self.score_now[node]
            ranked.tie = mix(self.salt[node] ^ pod_salt)
            ranked.node = node
            if found.fitting == 0 or found.compare(ranked, &found.ranked[found.best_at]) < 0:
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
            best.score = self.node_price(ask, best.node, True)
            for position in range(found.fitting):
                if found.compare(&found.ranked[position], &found.ranked[found.best_at]) < 0:
                    found.best_at = position

    cdef bint fit_quick(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        cdef const Need* need = &ask.needs[0]
        cdef const LinkTable* links
        if ask.count == 1 and not ask.limited and not need.rules & (NUMA_BIND | JOINED):
            # One need without an order-dependent check fits exactly if enough cards pass, whichever are taken.
            links = links_of(self, node) if need.rules & LINKED and need.count > 1 else NULL
            if links == NULL or links.cards <= MOST_EXACT:
                if self.has_room(ask, need, node, links):
                    return True
                self.tell(ask, node, tally)
                return False
        elif ask.covered and self.has_room(ask, &ask.cover, node, NULL):
            return True
        return self.fit(ask, node, tally) >= 0

    cdef bint has_room(self, Ask ask, const Need* need, int32_t node, const LinkTable* links) noexcept nogil:
        # Whether enough cards pass every check. With `links`, every card is looked at, for the best score that so many
        # of them could have.
        cdef const uint8_t* verdicts = &ask.verdicts[need.kinds]
        cdef uint32_t unused = 0
        cdef int32_t row, first = self.first[node], end = first + self.length[node]
        cdef int64_t fitting = 0, cores
        cdef uint8_t verdict
        self.link_value = 0
        for row in range(first, end):
            verdict = verdicts[self.kind[row]]
            if verdict & (OF_FAMILY | ELIGIBLE) != OF_FAMILY | ELIGIBLE:
                continue
            if self.flags[row] != ROW_HEALTHY or self.slots_used[row] >= self.slots[row]:
                continue
            if verdict & IS_MIG:
                if closed(self, row, need) == FITS:
                    fitting += capacity(self, row, need)
                if fitting >= need.count:
                    return True
                continue
            if self.memory[row] - self.memory_used[row] < memory_of(self, row, need):
                continue
            cores = self.cores[row] - self.cores_used[row]
            if cores < need.cores or (cores <= 0 and self.cores[row] != 0 and need.cores == 0):
                if short_of(self, row, need, verdict) != FITS:
                    continue
            if self.slots_used[row] and (need.rules & MUTEX or need.cores >= 100):
                if closed(self, row, need) != FITS or short_of(self, row, need, verdict) != FITS:
                    continue
            if (self.marks[row] or need.rules & ONLY_CHOSEN) and closed(self, row, need) != FITS:
                continue
            fitting += 1
            if links != NULL:
                unused |= <uint32_t>1 << (row - first)
            elif fitting == need.count:
                return True
        if links != NULL and fitting >= need.count:
            self.link_value = max(0, best_score(links, unused, need.count))
            return True
        return False

    cdef void tell(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        # Why a node has no room for the only need.
        cdef const Need* need = &ask.needs[0]
        cdef int32_t row, why, fitting = 0, devices = 0, cut = 0, room
        cdef bint sliced = False
        cdef uint8_t verdict
        memset(tally, 0, TALLY_WIDTH * sizeof(int32_t))
        for row in range(self.first[node], self.first[node] + self.length[node]):
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if not verdict & OF_FAMILY:
                continue
            devices += 1
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
            else:
                tally[why] += 1
        tally[DEVICES] = devices
        tally[MIG_INFEASIBLE] += cut
        if need.count > devices and not sliced:
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[TOO_FEW_DEVICES] = 1
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
                if ask.needs[self.choices[i].need].role != INIT:
                    self.picks[count].row = self.choices[i].row
                    self.picks[count].memory = self.choices[i].memory
                    self.picks[count].cores = self.choices[i].cores
                    count += 1
            self.free_worth.weigh(node, self.picks, count, cost)
            self.link_value = links
        return <float>self.free_worth.price(node, cost)

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
