"""Among nodes: who has room, who ranks first, and what the winner gives.

The top of the engine. A decision looks at every candidate once, without Python objects; values are made of what is
looked at afterwards.
"""

from cython cimport final
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memset

from hami.alloc._ask cimport INIT, OF_FAMILY, TALLY_WIDTH, Ask, Need, Size
from hami.alloc._mig cimport MOST_SLICES, Grid
from hami.alloc._sight cimport CLOSELY_BY_COUNT, NO_ROOM, SightRows
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


cdef inline bint is_same_text(object a, object b):
    return isinstance(a, str) and isinstance(b, str) and <str>a == <str>b


@final
cdef class Engine(SightRows):
    def __dealloc__(self):
        free(self.listed)
        free(self.answers)
        free(self.follower)

    def survey(self, Ask ask, list names, dict ids, object candidates, uint64_t pod_salt, bint spread):
        """Try the pod on every candidate (names; None = every node); a name given twice counts once.

        A request that puts links first ranks nodes by those of its set, then by score. Equal nodes rank by a mix of pod
        and node, to share the load. Where the request is ranked by price, a node's score is the worth that the
        pod takes from it, and the least is best.
        """
        cdef Py_ssize_t limit = self.length.shape[0] if candidates is None else len(candidates)
        cdef Py_ssize_t position, count = 0
        cdef Survey found = Survey(names, limit, spread or ask.by_price)
        self.reserve(ask)
        self.reserve_nodes(limit)
        self.aim(ask)
        if ask.weighed:
            self.free_worth.begin(ask.case, ask.cpu, ask.host)
        if candidates is None:
            for position in range(limit):
                self.listed[count] = <int32_t>position
                count += self.length[position] > 0
        else:
            count = self.list_named(names, ids, candidates, found)
        with nogil:
            self.look_at(ask, self.listed, count, self.answers)
            self.sum_up(ask, count, pod_salt, found)
            if ask.by_price:
                self.renew_best(ask, found)
        self.boards.tell_failure()
        return found

    cdef Py_ssize_t list_named(self, list names, dict ids, object candidates, Survey found) except -1:
        # The candidates by number into `listed`, each once; answers how many. Filters mostly name the nodes in the
        # order of the last one, so each name is first compared with that of the node that came next then: a text that
        # was just read has no hash yet, and finding it in a table costs several times more.
        cdef Py_ssize_t count = 0, known = len(names)
        cdef int32_t node, before = -1
        cdef object name, number
        self.survey_number += 1
        for name in candidates:
            node = self.follower[before + 1]
            if not (node < known and self.length[node] > 0 and is_same_text(names[node], name)):
                number = ids.get(name)
                if number is None:
                    found.unknown.append(name)
                    continue
                node = number
                self.follower[before + 1] = node
            before = node
            if self.seen[node] != self.survey_number:
                self.seen[node] = self.survey_number
                self.listed[count] = node
                count += 1
        return count

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

    cdef void sum_up(self, Ask ask, Py_ssize_t count, uint64_t pod_salt, Survey found) noexcept nogil:
        # Rank the nodes listed[0:count] that have room, and tell why the others have none.
        cdef Py_ssize_t position
        cdef int32_t node
        cdef bint fits
        cdef Ranked* ranked
        cdef int32_t* tally
        for position in range(count):
            node = self.listed[position]
            if self.answers[position] < 0:
                self.size(ask, node)
                tally = &found.tallies[found.refused * TALLY_WIDTH]
                if self.answers[position] == NO_ROOM:
                    self.tell(ask, node, tally)
                    fits = False
                else:
                    fits = self.try_closely(ask, node, tally)
                if not fits:
                    found.refusing[found.refused] = node
                    found.refused += 1
                    continue
            else:
                self.link_value, self.group_rank = self.answers[position], 0
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

    cdef bint try_closely(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        # Whether a node has room that glances say too little of; `link_value` and `group_rank` are what it adds.
        self.link_value = 0
        self.group_rank = 0
        if self.sight.way != CLOSELY_BY_COUNT:
            return self.fit(ask, node, tally) >= 0
        if self.has_close_room(ask, node):
            return True
        self.tell(ask, node, tally)
        return False

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

    cdef int reserve_nodes(self, Py_ssize_t count) except -1:
        # Room for so many candidates, and for all nodes there are.
        cdef Py_ssize_t nodes = self.length.shape[0]
        cdef int32_t* follower
        if nodes > self.follower_room:
            follower = <int32_t*>realloc(self.follower, (nodes + 1) * sizeof(int32_t))
            if follower == NULL:
                raise MemoryError
            memset(follower, 0, (nodes + 1) * sizeof(int32_t))
            self.follower, self.follower_room = follower, nodes
        if count <= self.listed_room:
            return 0
        cdef int32_t* listed = <int32_t*>realloc(self.listed, count * sizeof(int32_t))
        if listed == NULL:
            raise MemoryError
        self.listed = listed
        cdef int64_t* answers = <int64_t*>realloc(self.answers, count * sizeof(int64_t))
        if answers == NULL:
            raise MemoryError
        self.answers, self.listed_room = answers, count
        return 0

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
