"""The loop over devices: eligible, score, choose, undo.

A call is synchronous and awaits nothing, so within one event loop it sees one consistent cluster without a lock. A pod
of several containers is tried in place: what a container takes is noted in `undo`, and given back when the trial ends.
Columns and structs are described in `_fit.pxd`; `table.py` is the only importer.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from hami.alloc._mig cimport (
    MOST_KINDS, MOST_SETS, MOST_SLICES, NO_COST, Grid, Plan, PlanTable, Profiles, Step, Wish, WishTable, divide,
    plan_cost,
)
from hami.alloc._topology cimport MOST_EXACT, Links, LinkTable, Pick, are_joined, best_score, choose_linked, set_score
from hami.alloc._worth cimport Cost, Portion, Worth

cdef int32_t MOST_RENEWED = 64  # outdated prices of nodes that looked best, in one decision

cdef int64_t NO_LIMIT_C = INT64_MAX
NO_LIMIT = INT64_MAX


NUMBERS = {
    "UNHEALTHY": UNHEALTHY,
    "CORDONED": CORDONED,
    "TYPE_MISMATCH": TYPE_MISMATCH,
    "NUMA_NOT_FIT": NUMA_NOT_FIT,
    "LINKS_NOT_FIT": LINKS_NOT_FIT,
    "UUID_MISMATCH": UUID_MISMATCH,
    "SLOTS_EXHAUSTED": SLOTS_EXHAUSTED,
    "EXCLUSIVE_CONFLICT": EXCLUSIVE_CONFLICT,
    "QUOTA": QUOTA,
    "NO_MEMORY": NO_MEMORY,
    "NO_CORES": NO_CORES,
    "CORES_EXHAUSTED": CORES_EXHAUSTED,
    "MIG_INFEASIBLE": MIG_INFEASIBLE,
    "TOO_FEW_PICKED": TOO_FEW_PICKED,
    "TOO_FEW_DEVICES": TOO_FEW_DEVICES,
    "UNREGISTERED": UNREGISTERED,
    "INVALID_REQUEST": INVALID_REQUEST,
    "WHYS": WHYS,
    "DEVICES": DEVICES,
    "LARGEST_FREE": LARGEST_FREE,
    "TALLY_WIDTH": TALLY_WIDTH,
    "ROW_HEALTHY": ROW_HEALTHY,
    "ROW_CORDONED": ROW_CORDONED,
    "ROW_UNSOUND": ROW_UNSOUND,
    "MARK_CHOSEN": MARK_CHOSEN,
    "MARK_BARRED": MARK_BARRED,
    "OF_FAMILY": OF_FAMILY,
    "ELIGIBLE": ELIGIBLE,
    "IS_MIG": IS_MIG,
    "SCORES_REQUEST": SCORES_REQUEST,
    "BY_PERCENT": BY_PERCENT,
    "NUMA_BIND": NUMA_BIND,
    "ONLY_CHOSEN": ONLY_CHOSEN,
    "MUTEX": MUTEX,
    "FULL_IS_EXCLUSIVE": FULL_IS_EXCLUSIVE,
    "LINKED": LINKED,
    "JOINED": JOINED,
    "BY_LOSS": BY_LOSS,
    "SCORE_UP": SCORE_UP,
    "SCORE_DOWN": SCORE_DOWN,
    "NUMA_UP": NUMA_UP,
    "NUMA_DOWN": NUMA_DOWN,
    "USED_DOWN": USED_DOWN,
    "INIT": INIT,
    "SIDECAR": SIDECAR,
    "APP": APP,
}
"""Every number of `_fit.pxd` by its name: Python reads them here instead of repeating them."""


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


cdef bint outranks(const Group* group, const Group* best, const Need* need) noexcept nogil:
    # Of equal groups the first one stays; where links come first, the last one is taken, as HAMi does.
    cdef int32_t i
    for i in range(8):
        if group.rank[i] != best.rank[i]:
            return group.rank[i] < best.rank[i]
    if group.links != best.links:
        return group.links > best.links
    return (need.rules & LINKED) != 0


cdef class Ask:
    def __cinit__(self, list needs, bytes verdicts, tuple weights, list wishes, list plans, list joints, tuple weighed):
        """`needs` are tuples in the order of `Need`'s fields; `verdicts` one byte a kind and distinct selection.

        `wishes` and `plans` have a list a need: its table for every grid, or None; the lists are empty where nothing
        is in MIG mode. `joints` are (plans by grid, kind of every need, sidecars' instances by kind). `weighed` is
        (whether worth is looked at, whether nodes are ranked by it, kind of request or -1, milli-CPU, host MiB).
        """
        cdef Py_ssize_t i, j, size = len(needs)
        cdef const unsigned char[::1] source
        self.needs = <Need*>calloc(size + 1, sizeof(Need))
        self.verdicts = <uint8_t*>malloc(len(verdicts) + 1)
        if self.needs == NULL or self.verdicts == NULL:
            raise MemoryError
        self.count = <int32_t>size
        self.limited = False
        self.weighed, self.by_price, self.case, self.cpu, self.host = weighed
        self.mig = False
        self.joints = <int32_t>len(joints)
        self.kept = [wishes, plans, joints]
        cdef Need* need
        for i in range(size):
            need = &self.needs[i]
            (
                need.container, need.role, need.family, need.count, need.memory, need.cores, need.rules, need.keys,
                need.ranked, need.kinds, need.memory_left, need.cores_left,
            ) = needs[i]
            if need.memory_left != NO_LIMIT_C or need.cores_left != NO_LIMIT_C:
                self.limited = True
            if wishes[i]:
                self.mig = True
                need.wishes = wish_tables(wishes[i])
                need.plans = plan_tables(plans[i])
        self.cover_all()
        for i in range(self.joints):
            by_grid, kinds, side = joints[i]
            self.joint[i].plans = plan_tables(by_grid)
            self.joint[i].kind = <int32_t*>malloc(size * sizeof(int32_t))
            if self.joint[i].kind == NULL:
                raise MemoryError
            for j in range(size):
                self.joint[i].kind[j] = kinds[j]
            for j in range(len(side)):
                self.joint[i].side[j] = side[j]
        self.verdict_count = <int32_t>len(verdicts)
        if verdicts:
            source = verdicts
            memcpy(self.verdicts, &source[0], len(verdicts))
        for i in range(3):
            self.weights[i] = weights[i]

    cdef void cover_all(self) noexcept nogil:
        # One need that is at least as much as all of the pod's needs: so many cards of so much room serve the pod in
        # any order and by any policy. Only where no need restricts which cards go together.
        cdef int32_t i
        cdef const Need* need
        self.covered = self.count > 1 and not self.limited and not self.mig
        for i in range(self.count):
            need = &self.needs[i]
            if i == 0:
                self.cover = need[0]
            elif need.family != self.cover.family or (need.rules ^ self.cover.rules) & BY_PERCENT:
                self.covered = False
            else:
                self.cover.count += min(need.count, 1 << 20)
                self.cover.memory = max(self.cover.memory, need.memory)
                self.cover.cores = max(self.cover.cores, need.cores)
            if need.rules & (NUMA_BIND | JOINED | LINKED) or self.cover.count > 1 << 20:
                self.covered = False

    def __dealloc__(self):
        cdef int32_t i
        if self.needs != NULL:
            for i in range(self.count):
                free(self.needs[i].wishes)
                free(self.needs[i].plans)
        for i in range(2):
            free(self.joint[i].plans)
            free(self.joint[i].kind)
        free(self.needs)
        free(self.verdicts)


cdef WishTable** wish_tables(list wishes) except NULL:
    cdef Py_ssize_t i
    cdef WishTable** tables = <WishTable**>calloc(len(wishes) + 1, sizeof(WishTable*))
    if tables == NULL:
        raise MemoryError
    for i in range(len(wishes)):
        if wishes[i] is not None:
            tables[i] = &(<Wish>wishes[i]).table
    return tables


cdef PlanTable** plan_tables(list plans) except NULL:
    cdef Py_ssize_t i
    cdef PlanTable** tables = <PlanTable**>calloc(len(plans) + 1, sizeof(PlanTable*))
    if tables == NULL:
        raise MemoryError
    for i in range(len(plans)):
        if plans[i] is not None:
            tables[i] = &(<Plan>plans[i]).table
    return tables


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


cdef class Rows:
    def __cinit__(self):
        self.survey_number = 0
        self.widest = 0
        self.order = NULL
        self.score = NULL
        self.choices = NULL
        self.undo = NULL
        self.choices_room = 0
        self.undo_length = 0
        self.listed = NULL
        self.spots = NULL
        self.chosen = NULL
        self.unused = NULL
        self.link_tables = NULL
        self.link_value = 0
        self.turns = NULL
        self.lists = NULL
        self.turns_room = 0
        self.lists_room = 0
        self.steps_left = 0
        self.grids = NULL
        self.saved = NULL
        self.slice_rows = NULL
        self.slice_states = NULL
        self.slice_rooms = NULL
        self.slice_plans = NULL
        self.slice_costs = NULL
        self.slice_sets = NULL
        self.slices_room = 0
        self.pool = NULL
        self.pool_room = 0
        self.picks = NULL
        self.free_worth = Worth()

    def __dealloc__(self):
        free(self.picks)
        free(self.grids)
        free(self.saved)
        free(self.slice_rows)
        free(self.slice_states)
        free(self.slice_rooms)
        free(self.slice_plans)
        free(self.slice_costs)
        free(self.slice_sets)
        free(self.pool)
        free(self.listed)
        free(self.spots)
        free(self.chosen)
        free(self.unused)
        free(self.link_tables)
        free(self.turns)
        free(self.lists)
        free(self.order)
        free(self.score)
        free(self.choices)
        free(self.undo)

    def attach_rows(
        self, *, int32_t[::1] kind, int32_t[::1] numa, uint8_t[::1] flags, uint8_t[::1] marks,
        int64_t[::1] slots, int64_t[::1] slots_used, int64_t[::1] memory, int64_t[::1] memory_used,
        int64_t[::1] cores, int64_t[::1] cores_used, int32_t[::1] grid, int32_t[::1] taken,
    ):
        """See these arrays from now on; the old ones may then be resized or dropped."""
        self.kind, self.numa, self.flags, self.marks = kind, numa, flags, marks
        self.slots, self.slots_used = slots, slots_used
        self.memory, self.memory_used = memory, memory_used
        self.cores, self.cores_used = cores, cores_used
        self.grid, self.taken = grid, taken

    def attach_nodes(
        self, *, int32_t[::1] first, int32_t[::1] length, uint64_t[::1] salt, uint32_t[::1] seen, int32_t[::1] links,
        float[::1] score_now,
        int64_t[::1] sum_slots, int64_t[::1] sum_slots_used, int64_t[::1] sum_memory, int64_t[::1] sum_memory_used,
        int64_t[::1] sum_cores, int64_t[::1] sum_cores_used,
    ):
        """As `attach_rows`, for the columns of nodes."""
        self.first, self.length, self.salt, self.seen, self.links = first, length, salt, seen, links
        self.score_now = score_now
        self.sum_slots, self.sum_slots_used = sum_slots, sum_slots_used
        self.sum_memory, self.sum_memory_used = sum_memory, sum_memory_used
        self.sum_cores, self.sum_cores_used = sum_cores, sum_cores_used

    def attach_links(self, list tables):
        """The pair scores by number, None where a number is free."""
        cdef Py_ssize_t i
        cdef const LinkTable** found = <const LinkTable**>calloc(len(tables) + 1, sizeof(LinkTable*))
        if found == NULL:
            raise MemoryError
        for i in range(len(tables)):
            if tables[i] is not None:
                found[i] = &(<Links>tables[i]).table
        free(self.link_tables)
        self.link_tables = found
        self.linked = list(tables)

    def attach_grids(self, list profiles):
        """The profile lists by number, None where a number is free."""
        cdef Py_ssize_t i
        cdef const Grid** grids = <const Grid**>calloc(len(profiles) + 1, sizeof(Grid*))
        if grids == NULL:
            raise MemoryError
        for i in range(len(profiles)):
            if profiles[i] is not None:
                grids[i] = &(<Profiles>profiles[i]).grid
        free(self.grids)
        self.grids = grids
        self.profiles = list(profiles)

    def widen(self, int32_t rows):
        """Make room for nodes of that many rows."""
        if rows <= self.widest:
            return
        cdef int32_t* order = <int32_t*>realloc(self.order, rows * sizeof(int32_t))
        if order == NULL:
            raise MemoryError
        self.order = order
        cdef float* score = <float*>realloc(self.score, rows * sizeof(float))
        if score == NULL:
            raise MemoryError
        self.score = score
        cdef int32_t* spots = <int32_t*>realloc(self.spots, rows * sizeof(int32_t))
        if spots == NULL:
            raise MemoryError
        self.spots = spots
        cdef int32_t* listed = <int32_t*>realloc(self.listed, rows * sizeof(int32_t))
        if listed == NULL:
            raise MemoryError
        self.listed = listed
        cdef int32_t* chosen = <int32_t*>realloc(self.chosen, rows * sizeof(int32_t))
        if chosen == NULL:
            raise MemoryError
        self.chosen = chosen
        cdef uint8_t* unused = <uint8_t*>realloc(self.unused, rows)
        if unused == NULL:
            raise MemoryError
        self.unused = unused
        self.widest = rows

    def book(self, int32_t node, int32_t row, int64_t slots, int64_t memory, int64_t cores):
        """Add what a pod holds of a row, or take it away with negative numbers; the node's sums follow."""
        self.slots_used[row] += slots
        self.memory_used[row] += memory
        self.cores_used[row] += cores
        self.sum_slots_used[node] += slots
        self.sum_memory_used[node] += memory
        self.sum_cores_used[node] += cores
        self.score_now[node] = self.node_score(node)
        self.free_worth.touch(node)

    def rescore(self, int32_t node):
        """The node's sums have been set anew."""
        self.score_now[node] = self.node_score(node)

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

    cdef bint fit_quick(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        cdef const Need* need = &ask.needs[0]
        cdef const LinkTable* links
        if ask.count == 1 and not ask.limited and not need.rules & (NUMA_BIND | JOINED):
            # One need without an order-dependent check fits exactly if enough cards pass, whichever are taken.
            links = self.links_of(node) if need.rules & LINKED and need.count > 1 else NULL
            if links == NULL or links.cards <= MOST_EXACT:
                if self.has_room(ask, need, node, links):
                    return True
                self.tell(ask, node, tally)
                return False
        elif ask.covered and self.has_room(ask, &ask.cover, node, NULL):
            return True
        return self.fit(ask, node, tally) >= 0

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

    def score_of(self, int32_t node) -> float:
        """The node's score now: 0 idle, 30 full in slots, memory and cores."""
        return self.score_now[node]

    cdef int reserve(self, Ask ask) except -1:
        # Room for every pick of the pod on the widest node, and for all its cards while one need collects them.
        cdef int64_t room = self.widest + 1
        cdef int32_t i
        for i in range(ask.count):
            room += min(ask.needs[i].count, self.widest * (MOST_SLICES if ask.mig else 1))
        if ask.mig:
            self.reserve_slices(<int32_t>room)
        if ask.count > 1:
            self.reserve_turns(ask.count)
        self.steps_left = MOST_STEPS
        if room <= self.choices_room:
            return 0
        cdef Choice* choices = <Choice*>realloc(self.choices, room * sizeof(Choice))
        if choices == NULL:
            raise MemoryError
        self.choices = choices
        cdef int32_t* undo = <int32_t*>realloc(self.undo, room * sizeof(int32_t))
        if undo == NULL:
            raise MemoryError
        self.undo = undo
        cdef Portion* picks = <Portion*>realloc(self.picks, room * sizeof(Portion))
        if picks == NULL:
            raise MemoryError
        self.picks = picks
        self.choices_room = <int32_t>room
        return 0

    cdef int reserve_turns(self, int32_t needs) except -1:
        # Working space of a search over all needs of a pod.
        cdef int64_t rows = <int64_t>needs * (self.widest + 1)
        if self.turns_room < needs:
            self.turns_room = 0
            free(self.turns)
            self.turns = <int32_t*>malloc(needs * sizeof(int32_t))
            if self.turns == NULL:
                raise MemoryError
            self.turns_room = needs
        if self.lists_room < rows:
            self.lists_room = 0
            free(self.lists)
            self.lists = <int32_t*>malloc(rows * sizeof(int32_t))
            if self.lists == NULL:
                raise MemoryError
            self.lists_room = rows
        return 0

    cdef int reserve_slices(self, int32_t instances) except -1:
        # Working space of plans for the widest node, and for so many instances of a joint plan.
        cdef int64_t cards = self.widest
        if self.slices_room < cards:
            self.slices_room = 0
            free(self.saved)
            free(self.slice_rows)
            free(self.slice_states)
            free(self.slice_rooms)
            free(self.slice_plans)
            free(self.slice_costs)
            free(self.slice_sets)
            self.saved = <int32_t*>malloc(cards * sizeof(int32_t))
            self.slice_rows = <int32_t*>malloc(cards * sizeof(int32_t))
            self.slice_states = <int32_t*>malloc(cards * sizeof(int32_t))
            self.slice_rooms = <int32_t*>malloc(cards * sizeof(int32_t))
            self.slice_plans = <PlanTable**>malloc(cards * sizeof(PlanTable*))
            self.slice_costs = <int64_t*>malloc((cards + 1) * MOST_SETS * sizeof(int64_t))
            self.slice_sets = <int32_t*>malloc(cards * MOST_SETS * sizeof(int32_t))
            if (
                self.saved == NULL or self.slice_rows == NULL or self.slice_states == NULL or self.slice_rooms == NULL
                or self.slice_plans == NULL or self.slice_costs == NULL or self.slice_sets == NULL
            ):
                raise MemoryError
            self.slices_room = <int32_t>cards
        if self.pool_room < instances:
            self.pool_room = 0
            free(self.pool)
            self.pool = <Choice*>malloc(instances * sizeof(Choice))
            if self.pool == NULL:
                raise MemoryError
            self.pool_room = instances
        return 0

    cdef float node_score(self, int32_t node) noexcept nogil:
        # Single precision, term by term, as HAMi reckons: rankings agree even where they hang on rounding.
        if self.sum_slots[node] == 0 or self.sum_cores[node] == 0 or self.sum_memory[node] == 0:
            return 0
        cdef float used = <float>self.sum_slots_used[node] / <float>self.sum_slots[node]
        used += <float>self.sum_cores_used[node] / <float>self.sum_cores[node]
        used += <float>self.sum_memory_used[node] / <float>self.sum_memory[node]
        return <float>10 * used

    cdef inline int32_t shown(self, int32_t row) noexcept nogil:
        # MiB free on a card, as a tally holds it.
        return <int32_t>max(-2147483647, min(2147483647, self.memory[row] - self.memory_used[row]))

    cdef void renew_best(self, Ask ask, Survey found) noexcept nogil:
        # Prices of earlier draws are good enough to tell which nodes might be best, not to choose between them.
        cdef int32_t renewed
        cdef Py_ssize_t position
        cdef Ranked* best
        for renewed in range(MOST_RENEWED):
            best = &found.ranked[found.best_at]
            if not found.fitting or not self.free_worth.outdated(best.node):
                return
            best.score = self.node_price(ask, best.node, True)
            for position in range(found.fitting):
                if found.compare(&found.ranked[position], &found.ranked[found.best_at]) < 0:
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
                if ask.needs[self.choices[i].need].role != INIT:
                    self.picks[count].row = self.choices[i].row
                    self.picks[count].memory = self.choices[i].memory
                    self.picks[count].cores = self.choices[i].cores
                    count += 1
            self.free_worth.weigh(node, self.picks, count, cost)
            self.link_value = links
        return <float>self.free_worth.price(node, cost)

    cdef float card_price(self, int32_t node, int32_t row, const Need* need) noexcept nogil:
        # What one share of the need takes from the node's worth on this card.
        cdef Cost cost
        cdef Portion part
        part.row, part.memory, part.cores = row, self.memory_of(row, need), self.cores_of(row, need)
        self.free_worth.weigh(node, &part, 1, &cost)
        return <float>self.free_worth.price(node, &cost)

    cdef inline int64_t memory_of(self, int32_t row, const Need* need) noexcept nogil:
        if not need.rules & BY_PERCENT:
            return need.memory
        # Never 0: the library inside the container reads 0 as no limit.
        return max(1, self.memory[row] * need.memory // 100)

    cdef inline int64_t cores_of(self, int32_t row, const Need* need) noexcept nogil:
        # The whole card is all the card has, also where core scaling below 1 leaves it less than 100.
        if need.cores >= 100:
            return self.cores[row] if 0 < self.cores[row] < 100 else 100
        return need.cores

    # The checks of one card, in HAMi's order; the first that fails is the reason. Between `barred` and `closed` stands
    # the NUMA group, between `closed` and `short_of` the quota: both depend on what the pod has picked so far.

    cdef inline int32_t barred(self, int32_t row, const Need* need, uint8_t verdict) noexcept nogil:
        if self.flags[row] & (ROW_HEALTHY | ROW_UNSOUND) != ROW_HEALTHY:
            return UNHEALTHY
        if self.flags[row] & ROW_CORDONED:
            return CORDONED
        if not verdict & ELIGIBLE:
            return TYPE_MISMATCH
        return FITS

    cdef inline int32_t closed(self, int32_t row, const Need* need) noexcept nogil:
        if self.marks[row] & MARK_BARRED or (need.rules & ONLY_CHOSEN and not self.marks[row] & MARK_CHOSEN):
            return UUID_MISMATCH
        if self.slots[row] <= self.slots_used[row]:
            return SLOTS_EXHAUSTED
        if need.rules & MUTEX and self.slots_used[row] > 0:
            return EXCLUSIVE_CONFLICT
        return FITS

    cdef inline int32_t short_of(self, int32_t row, const Need* need, uint8_t verdict) noexcept nogil:
        cdef int64_t cores = self.cores_of(row, need)
        if self.memory[row] - self.memory_used[row] < self.memory_of(row, need):
            return NO_MEMORY
        if self.cores[row] - self.cores_used[row] < cores:
            return NO_CORES
        if (
            need.rules & FULL_IS_EXCLUSIVE and need.cores >= 100
            and self.cores[row] <= 100 and self.slots_used[row] > 0
        ):
            return EXCLUSIVE_CONFLICT
        if self.cores[row] != 0 and self.cores_used[row] >= self.cores[row] and cores == 0:
            return CORES_EXHAUSTED
        if verdict & IS_MIG:
            return MIG_INFEASIBLE
        return FITS

    cdef bint within_quota(self, Ask ask, int32_t picked, int32_t start, int32_t count) noexcept nogil:
        # What the pod would book of the family with choices[0:picked] and choices[start:start + count], collapsed by
        # card as its record will be: the larger of the init phase (a plain init container with the sidecars before it)
        # and of the running phase.
        cdef const Need* need = &ask.needs[self.choices[start].need]
        cdef const Need* other
        cdef const Choice* choice
        cdef int32_t i, j, row
        cdef int64_t memory = 0, cores = 0
        cdef int64_t peak_memory, peak_cores, side_memory, side_cores, app_memory, app_cores
        if need.memory_left == NO_LIMIT_C and need.cores_left == NO_LIMIT_C:
            return True
        for i in range(picked + count):
            choice = &self.choices[i if i < picked else start + i - picked]
            row = choice.row
            if ask.needs[choice.need].family != need.family:
                continue
            for j in range(i):
                if self.choices[j if j < picked else start + j - picked].row == row:
                    break
            else:
                peak_memory = peak_cores = side_memory = side_cores = app_memory = app_cores = 0
                for j in range(i, picked + count):
                    choice = &self.choices[j if j < picked else start + j - picked]
                    if choice.row != row:
                        continue
                    other = &ask.needs[choice.need]
                    if other.role == INIT:
                        peak_memory = max(peak_memory, side_memory + choice.memory)
                        peak_cores = max(peak_cores, side_cores + choice.cores)
                    elif other.role == SIDECAR:
                        side_memory += choice.memory
                        side_cores += choice.cores
                    else:
                        app_memory += choice.memory
                        app_cores += choice.cores
                memory += max(peak_memory, side_memory + app_memory)
                cores += max(peak_cores, side_cores + app_cores)
        # An amount that is not asked for is never over its limit.
        return (memory == 0 or memory <= need.memory_left) and (cores == 0 or cores <= need.cores_left)

    cdef float card_score(self, int32_t row, const Need* need, uint8_t verdict, Ask ask) noexcept nogil:
        cdef int64_t slots = self.slots_used[row]
        cdef int64_t cores = self.cores_used[row]
        cdef int64_t memory = self.memory_used[row]
        cdef float score
        if self.slots[row] == 0 or self.cores[row] == 0 or self.memory[row] == 0:
            return 0
        if verdict & SCORES_REQUEST:
            slots += need.count
            cores += need.cores
            memory += self.memory_of(row, need)
        score = ask.weights[0] * (<float>slots / <float>self.slots[row])
        score += ask.weights[1] * (<float>cores / <float>self.cores[row])
        score += ask.weights[2] * (<float>memory / <float>self.memory[row])
        return <float>10 * score

    cdef inline bint comes_before(self, int32_t a, int32_t b, uint32_t keys) noexcept nogil:
        # Positions in `order`; a complete tie stands in row order, and the end of the list is tried first.
        cdef int32_t left = self.order[a], right = self.order[b]
        cdef uint32_t key
        while keys:
            key = keys & 15
            keys >>= 4
            if key == SCORE_UP or key == SCORE_DOWN:
                if self.score[a] != self.score[b]:
                    return (self.score[a] < self.score[b]) == (key == SCORE_UP)
            elif key == USED_DOWN:
                if self.slots_used[left] != self.slots_used[right]:
                    return self.slots_used[left] > self.slots_used[right]
            elif self.numa[left] != self.numa[right]:
                return (self.numa[left] < self.numa[right]) == (key == NUMA_UP)
        return left < right

    cdef int32_t sort(self, int32_t node, const Need* need, Ask ask) noexcept nogil:
        # order[0:n] = the family's rows, ascending by the policy; answers n. Insertion: a node has a dozen rows.
        cdef int32_t row, moved, n = 0, i
        cdef float score
        cdef uint8_t verdict
        for row in range(self.first[node], self.first[node] + self.length[node]):
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if not verdict & OF_FAMILY:
                continue
            self.order[n] = row
            if need.rules & BY_LOSS:
                self.score[n] = self.card_price(node, row, need)
            else:
                self.score[n] = self.card_score(row, need, verdict, ask)
            i = n
            # order[0:i] is sorted and the new row stands at i.
            while i > 0 and self.comes_before(i, i - 1, need.keys):
                moved, score = self.order[i], self.score[i]
                self.order[i], self.score[i] = self.order[i - 1], self.score[i - 1]
                self.order[i - 1], self.score[i - 1] = moved, score
                i -= 1
            n += 1
        return n

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
                if self.closed(row, need) == FITS:
                    fitting += self.capacity(row, need)
                if fitting >= need.count:
                    return True
                continue
            if self.memory[row] - self.memory_used[row] < self.memory_of(row, need):
                continue
            cores = self.cores[row] - self.cores_used[row]
            if cores < need.cores or (cores <= 0 and self.cores[row] != 0 and need.cores == 0):
                if self.short_of(row, need, verdict) != FITS:
                    continue
            if self.slots_used[row] and (need.rules & MUTEX or need.cores >= 100):
                if self.closed(row, need) != FITS or self.short_of(row, need, verdict) != FITS:
                    continue
            if (self.marks[row] or need.rules & ONLY_CHOSEN) and self.closed(row, need) != FITS:
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
            why = self.barred(row, need, verdict)
            if why == FITS:
                if verdict & IS_MIG and need.wishes != NULL:
                    sliced = True
                why = self.closed(row, need)
            if why == FITS:
                tally[LARGEST_FREE] = max(tally[LARGEST_FREE], self.shown(row))
                room = self.capacity(row, need) if verdict & IS_MIG else 0
                if room:
                    fitting += room
                    cut += 1
                    continue
                why = self.short_of(row, need, verdict)
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

    cdef int32_t pick(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil:
        # Choose the cards of one need into choices[picked:picked + count]; answers count, or -1 with the tally. Where
        # sets of cards have to be weighed against each other, all that fit are collected first.
        cdef const Need* need = &ask.needs[index]
        cdef const LinkTable* links = self.links_of(node)
        cdef bint weighed = need.rules & (NUMA_BIND | JOINED | LINKED) or (links != NULL and not links.uniform)
        cdef int32_t position, row, why, i, found = 0, numa = -1
        cdef int32_t start = picked + min(need.count, self.widest) if weighed else picked
        cdef uint8_t verdict
        cdef bint known = False
        cdef Choice* choice
        cdef Group group, best
        cdef int32_t devices = self.sort(node, need, ask)
        memset(&best, 0, sizeof(Group))
        memset(tally, 0, TALLY_WIDTH * sizeof(int32_t))
        tally[DEVICES] = devices
        for position in range(devices - 1, -2, -1):
            # choices[start:start + found] are the passing ones of order[position + 1:devices] in this NUMA group.
            if position >= 0:
                row = self.order[position]
                verdict = ask.verdicts[need.kinds + self.kind[row]]
                why = self.barred(row, need, verdict)
                if why != FITS:
                    tally[why] += 1
                    continue
            if position < 0 or (need.rules & NUMA_BIND and self.numa[row] != numa):
                if not weighed or found < need.count:
                    tally[NUMA_NOT_FIT if position >= 0 else TOO_FEW_PICKED] += found
                elif not self.choose(need, node, found, &group):
                    tally[LINKS_NOT_FIT] += found
                elif not known or outranks(&group, &best, need):
                    known = True
                    best = group
                    for i in range(need.count):
                        self.choices[picked + i] = self.choices[start + self.chosen[i]]
                if position < 0:
                    break
                found = 0
                numa = self.numa[row]
            why = self.closed(row, need)
            if why == FITS:
                tally[LARGEST_FREE] = max(tally[LARGEST_FREE], self.shown(row))
                choice = &self.choices[start + found]
                choice.need = index
                choice.row = row
                choice.memory = self.memory_of(row, need)
                choice.cores = self.cores_of(row, need)
                choice.place = -1
                if ask.limited and not (
                    # While cards are collected, each is judged as if it were the first.
                    self.within_quota(ask, picked, start + found, 1) if weighed
                    else self.within_quota(ask, picked, start, found + 1)
                ):
                    why = QUOTA
                else:
                    why = self.short_of(row, need, verdict)
            if why != FITS:
                tally[why] += 1
                continue
            self.listed[found] = position
            found += 1
            if found == need.count and not weighed:
                return found
        if known:
            self.link_value += best.links if need.rules & LINKED else 0
            if not ask.limited or self.within_quota(ask, picked, picked, need.count):
                return need.count
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[QUOTA] = need.count
        elif need.count > devices:
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[TOO_FEW_DEVICES] = 1
        return -1

    cdef inline const LinkTable* links_of(self, int32_t node) noexcept nogil:
        if self.links[node] < 0:
            return NULL
        return self.link_tables[self.links[node]]

    cdef bint same_rank(self, int32_t a, int32_t b, uint32_t ranked) noexcept nogil:
        # Positions in `order`: equal in every key that counts before links.
        cdef int32_t left = self.order[a], right = self.order[b]
        cdef uint32_t key
        while ranked:
            key = ranked & 15
            ranked >>= 4
            if key == SCORE_UP or key == SCORE_DOWN:
                if self.score[a] != self.score[b]:
                    return False
            elif key == USED_DOWN:
                if self.slots_used[left] != self.slots_used[right]:
                    return False
            elif self.numa[left] != self.numa[right]:
                return False
        return True

    cdef bint choose(self, const Need* need, int32_t node, int32_t found, Group* group) noexcept nogil:
        # The best set among listed[0:found]: `chosen` become places in `listed`, ascending. The cards before the last
        # one that would be taken by rank are in it, unless they rank like that one: among these, links decide.
        cdef const LinkTable* links = self.links_of(node)
        cdef int32_t first = self.first[node], last = need.count - 1, i, place, sure = 0, open_end, n = 0
        cdef uint32_t ranked
        cdef Pick pick
        while sure < last and not self.same_rank(self.listed[sure], self.listed[last], need.ranked):
            sure += 1
        open_end = need.count
        while open_end < found and self.same_rank(self.listed[open_end], self.listed[last], need.ranked):
            open_end += 1
        if links == NULL or (links.uniform and not need.rules & JOINED):
            if need.rules & JOINED and need.count > 1:
                return False
            for i in range(need.count):
                self.chosen[i] = i
        else:
            memset(self.unused, 0, self.length[node])
            for i in range(found):
                self.spots[i] = self.order[self.listed[i]] - first
                self.unused[self.spots[i]] = 1
            pick.order, pick.sure, pick.open, pick.want = self.spots, sure, open_end - sure, need.count
            pick.free, pick.joined = self.unused, (need.rules & JOINED) != 0
            if not choose_linked(links, &pick, self.chosen):
                # Being joined is a must: then among all, whatever their rank.
                pick.sure, pick.open = 0, found
                if not choose_linked(links, &pick, self.chosen):
                    return False
            # They come in the order of `listed`.
            for i in range(found):
                if n < need.count and self.chosen[n] == self.spots[i]:
                    self.chosen[n] = i
                    n += 1
        group.links = 0
        if links != NULL:
            for i in range(need.count):
                self.spots[i] = self.order[self.listed[self.chosen[i]]] - first
            group.links = set_score(links, self.spots, need.count)
        ranked = need.ranked
        for n in range(8):
            group.rank[n] = 0
            for i in range(need.count if ranked & 15 else 0):
                place = self.listed[self.chosen[i]]
                group.rank[n] += self.worth(place, ranked & 15)
            ranked >>= 4
        return True

    cdef double worth(self, int32_t position, uint32_t key) noexcept nogil:
        # What one card adds to its set by a ranked key; lower is better, as the end of the sorted list is.
        cdef int32_t row = self.order[position]
        if key == SCORE_UP:
            return -self.score[position]
        if key == SCORE_DOWN:
            return self.score[position]
        if key == USED_DOWN:
            return <double>self.slots_used[row]
        return -self.numa[row] if key == NUMA_UP else self.numa[row]

    # Cards in MIG mode: one of them may serve several instances of one need. What a need or a whole pod asks is shared
    # out to the node's cards at the least total cost (`divide`); plain cards of a mixed node count as one each.

    cdef inline int32_t capacity(self, int32_t row, const Need* need) noexcept nogil:
        cdef const WishTable* wish
        if need.wishes == NULL or self.grid[row] < 0:
            return 0
        wish = need.wishes[self.grid[row]]
        if wish == NULL or need.plans[self.grid[row]] == NULL:
            return 0
        return <int32_t>min(wish.most[self.taken[row]], self.slots[row] - self.slots_used[row])

    cdef bint has_slices(self, Ask ask, const Need* need, int32_t node) noexcept nogil:
        # Some card in MIG mode may serve the need, as far as health, model and mode go.
        cdef int32_t row
        cdef uint8_t verdict
        if need.wishes == NULL:
            return False
        for row in range(self.first[node], self.first[node] + self.length[node]):
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if verdict & OF_FAMILY and verdict & IS_MIG and self.barred(row, need, verdict) == FITS:
                return True
        return False

    cdef void instance(self, Choice* choice, int32_t card, int32_t state, int32_t place) noexcept nogil:
        cdef const Grid* grid = self.slice_plans[card].grid
        cdef int32_t profile = grid.places[place].profile
        choice.row = self.slice_rows[card]
        choice.memory = grid.memory[profile]
        choice.cores = grid.cores[profile]
        choice.place = place

    cdef int64_t share_out(self, int32_t cards) noexcept nogil:
        return divide(
            self.slice_plans, self.slice_states, self.slice_rooms, cards, self.slice_costs, self.slice_sets
        )

    cdef int32_t pick_slices(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil:
        # As `pick`, for a need that cards in MIG mode may serve: choices[picked:picked + count] become instances, or
        # shares of plain cards. Of several NUMA groups the cheapest one is taken.
        cdef const Need* need = &ask.needs[index]
        cdef int32_t position, row, why, room, group = -1, cards = 0, plain = 0, found = 0, sliced = 0
        cdef int64_t cost, best_cost = NO_COST
        cdef uint8_t verdict
        cdef Choice* choice
        # Plain choices of the group being looked at stand behind those of the best group so far.
        cdef int32_t behind = picked + min(need.count, self.widest * MOST_SLICES)
        cdef int32_t devices = self.sort(node, need, ask)
        memset(tally, 0, TALLY_WIDTH * sizeof(int32_t))
        tally[DEVICES] = devices
        for position in range(devices - 1, -2, -1):
            # Of this NUMA group: slice_rows[0:cards] have room, choices[behind:behind + plain] are plain cards that
            # fit, and `found` of the count are served so, `sliced` of them by instances.
            if position < 0:
                group = -2
            else:
                row = self.order[position]
                verdict = ask.verdicts[need.kinds + self.kind[row]]
                why = self.barred(row, need, verdict)
                if why != FITS:
                    tally[why] += 1
                    continue
            if group == -2 or (need.rules & NUMA_BIND and self.numa[row] != group):
                if found == need.count:
                    cost = self.settle_slices(need, picked, cards, plain, sliced, best_cost)
                    if cost < best_cost:
                        best_cost = cost
                else:
                    tally[NUMA_NOT_FIT if position >= 0 else TOO_FEW_PICKED] += found
                    tally[MIG_INFEASIBLE] += cards
                if position < 0:
                    break
                cards = plain = found = sliced = 0
                group = self.numa[row]
            why = self.closed(row, need)
            if why != FITS:
                tally[why] += 1
                continue
            tally[LARGEST_FREE] = max(tally[LARGEST_FREE], self.shown(row))
            room = self.capacity(row, need) if verdict & IS_MIG else 0
            if room:
                self.slice_rows[cards] = row
                self.slice_states[cards] = self.taken[row]
                self.slice_rooms[cards] = room
                self.slice_plans[cards] = need.plans[self.grid[row]]
                cards += 1
                sliced += min(room, need.count - found)
                found += min(room, need.count - found)
                continue
            why = self.short_of(row, need, verdict)
            if why != FITS:
                tally[why] += 1
            elif found < need.count:
                choice = &self.choices[behind + plain]
                choice.need = index
                choice.row = row
                choice.memory = self.memory_of(row, need)
                choice.cores = self.cores_of(row, need)
                choice.place = -1
                plain += 1
                found += 1
        if best_cost == NO_COST:
            return -1
        for position in range(picked, picked + need.count):
            self.choices[position].need = index
        if ask.limited and not self.within_quota(ask, picked, picked, need.count):
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[QUOTA] = need.count
            return -1
        return need.count

    cdef int64_t settle_slices(
        self, const Need* need, int32_t picked, int32_t cards, int32_t plain, int32_t sliced, int64_t best_cost
    ) noexcept nogil:
        # Place `sliced` instances on slice_rows[0:cards] and move the plain choices beside them, if that is cheaper.
        cdef int32_t card, chosen, state, sets = 0, at = picked + plain, left = sliced
        cdef int64_t cost = 0
        cdef PlanTable* plan
        cdef Step step
        if sliced:
            sets = self.slice_plans[0].sets
            self.share_out(cards)
            cost = self.slice_costs[cards * sets + sliced]
        if cost >= best_cost:
            return cost
        memcpy(&self.choices[picked], &self.choices[picked + need.count], plain * sizeof(Choice))
        for card in range(cards - 1, -1, -1):
            if not left:
                break
            plan = self.slice_plans[card]
            chosen = self.slice_sets[card * sets + left]
            left -= chosen
            state = self.slice_states[card]
            while chosen:
                plan_cost(plan, state, chosen)
                step = plan.step[<int64_t>state * sets + chosen]
                self.instance(&self.choices[at], card, state, step.place)
                at += 1
                state |= plan.grid.places[step.place].mask
                chosen -= 1
        return cost

    cdef bint plan_jointly(self, Ask ask, const Joint* joint, int32_t node) noexcept nogil:
        # All MIG needs of the pod on the node's cards in MIG mode: `pool` gets the instances, by kind. Only where no
        # plain card could serve as well, so that nothing but slices has to be weighed.
        cdef int32_t index = 0, position, row, devices, card, chosen, state, t, sets, cards = 0, whole, at
        cdef const Need* need
        cdef uint8_t verdict
        cdef PlanTable* plan
        cdef Step step
        cdef int32_t[MOST_KINDS] filled
        while joint.kind[index] < 0:
            index += 1
        need = &ask.needs[index]
        devices = self.sort(node, need, ask)
        for position in range(devices - 1, -1, -1):
            row = self.order[position]
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if self.barred(row, need, verdict) != FITS or self.closed(row, need) != FITS:
                continue
            if not verdict & IS_MIG:
                return False
            if self.grid[row] < 0 or joint.plans[self.grid[row]] == NULL:
                continue
            self.slice_rows[cards] = row
            self.slice_states[cards] = self.taken[row]
            self.slice_rooms[cards] = <int32_t>min(self.slots[row] - self.slots_used[row], 1 << 20)
            self.slice_plans[cards] = joint.plans[self.grid[row]]
            cards += 1
        if not cards or self.share_out(cards) == NO_COST:
            return False
        plan = self.slice_plans[0]
        sets = plan.sets
        at = 0
        for t in range(plan.kinds):
            self.pool_first[t] = at
            filled[t] = at
            at += plan.count[t]
        whole = sets - 1
        for card in range(cards - 1, -1, -1):
            plan = self.slice_plans[card]
            chosen = self.slice_sets[card * sets + whole]
            whole -= chosen
            state = self.slice_states[card]
            while chosen:
                plan_cost(plan, state, chosen)
                step = plan.step[<int64_t>state * sets + chosen]
                self.instance(&self.pool[filled[step.kind]], card, state, step.place)
                filled[step.kind] += 1
                state |= plan.grid.places[step.place].mask
                chosen -= plan.radix[step.kind]
        return True

    cdef void take(self, int32_t choice) noexcept nogil:
        cdef int32_t row = self.choices[choice].row
        self.slots_used[row] += 1
        self.memory_used[row] += self.choices[choice].memory
        self.cores_used[row] += self.choices[choice].cores
        if self.choices[choice].place >= 0:
            self.taken[row] |= self.grids[self.grid[row]].places[self.choices[choice].place].mask
        self.undo[self.undo_length] = choice
        self.undo_length += 1

    cdef void roll_back(self, int32_t length) noexcept nogil:
        # Give back undo[length:undo_length], newest first.
        cdef int32_t choice, row
        while self.undo_length > length:
            self.undo_length -= 1
            choice = self.undo[self.undo_length]
            row = self.choices[choice].row
            self.slots_used[row] -= 1
            self.memory_used[row] -= self.choices[choice].memory
            self.cores_used[row] -= self.choices[choice].cores

    cdef int32_t fit(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil:
        # All needs of the pod; answers the number of choices, or -1. The columns are as before afterwards.
        cdef int32_t i, picked = -1
        if not ask.mig:
            picked = self.walk(ask, NULL, node, tally)
            return picked if picked >= 0 else self.rearrange(ask, node)
        # An instance of an init container stays when the container has ended: only the end of the trial frees slices.
        memcpy(self.saved, &self.taken[self.first[node]], self.length[node] * sizeof(int32_t))
        for i in range(ask.joints):
            if self.plan_jointly(ask, &ask.joint[i], node):
                picked = self.walk(ask, &ask.joint[i], node, tally)
                memcpy(&self.taken[self.first[node]], self.saved, self.length[node] * sizeof(int32_t))
                if picked >= 0:
                    return picked
        picked = self.walk(ask, NULL, node, tally)
        memcpy(&self.taken[self.first[node]], self.saved, self.length[node] * sizeof(int32_t))
        if picked < 0:
            picked = self.rearrange(ask, node)
            memcpy(&self.taken[self.first[node]], self.saved, self.length[node] * sizeof(int32_t))
        return picked

    # Several containers that compete for cards: where they do not fit one after the other, another way is looked for.
    # First the largest goes first; then all ways are tried, up to `STEPS_A_NODE` cards on a node and `MOST_STEPS` in a
    # decision. Plain init containers come last, each beside the sidecars before it, because they leave before the
    # others start. Of cards that are the same only the first one is tried.

    cdef int32_t rearrange(self, Ask ask, int32_t node) noexcept nogil:
        cdef int32_t turns = 0, i, index, found, position, picked = 0
        cdef int32_t[TALLY_WIDTH] unread
        cdef const Need* need
        cdef bint sliced = False
        if ask.count < 2:
            return -1
        for index in range(ask.count):
            need = &ask.needs[index]
            if need.role != INIT:
                self.turns[turns] = index
                i = turns
                # turns[0:i] is sorted, the largest first.
                while i > 0 and self.larger(ask, node, index, self.turns[i - 1]):
                    self.turns[i] = self.turns[i - 1]
                    i -= 1
                self.turns[i] = index
                turns += 1
                sliced = sliced or self.has_slices(ask, need, node)
        if turns < 2 or self.steps_left <= 0:
            return -1
        self.link_value = 0
        for i in range(turns):
            index = self.turns[i]
            need = &ask.needs[index]
            if self.has_slices(ask, need, node):
                found = self.pick_slices(ask, index, node, picked, unread)
            else:
                found = self.pick(ask, index, node, picked, unread)
            if found < 0:
                if i == 0:
                    # Not even alone.
                    return -1
                picked = -1
                break
            for position in range(picked, picked + found):
                self.take(position)
            picked += found
        if picked > 0:
            picked = self.add_inits(ask, node, picked)
        if picked < 0 and not sliced:
            self.roll_back(0)
            self.node_steps = STEPS_A_NODE
            picked = self.descend(ask, node, turns, 0, 0, 0, 0)
            self.steps_left -= STEPS_A_NODE - max(0, self.node_steps)
        self.roll_back(0)
        if picked > 0 and ask.limited and not self.all_within_quota(ask, picked):
            return -1
        return picked

    cdef bint larger(self, Ask ask, int32_t node, int32_t a, int32_t b) noexcept nogil:
        # Percentages are compared on the node's first card: an order of trials needs no more.
        cdef const Need* left = &ask.needs[a]
        cdef const Need* right = &ask.needs[b]
        cdef int64_t more = self.memory_of(self.first[node], left) - self.memory_of(self.first[node], right)
        if more:
            return more > 0
        if left.cores != right.cores:
            return left.cores > right.cores
        return left.count > right.count

    cdef int32_t descend(
        self, Ask ask, int32_t node, int32_t turns, int32_t depth, int32_t chosen, int32_t start, int32_t picked
    ) noexcept nogil:
        # choices[0:picked] are taken, the last `chosen` of them for the need whose turn it is. lists[depth] has the
        # cards that it may have, as the policy prefers them; the next one stands at `start` or later. Answers all
        # picks, or -1.
        cdef int32_t index = self.turns[depth], devices, position, row, i, j, done
        cdef const Need* need = &ask.needs[index]
        cdef int32_t* cards = &self.lists[<int64_t>depth * (self.widest + 1)]
        cdef uint8_t verdict
        cdef Choice* choice
        if chosen == 0:
            cards[0] = 0
            devices = self.sort(node, need, ask)
            for position in range(devices - 1, -1, -1):
                row = self.order[position]
                verdict = ask.verdicts[need.kinds + self.kind[row]]
                if (
                    self.barred(row, need, verdict) == FITS and self.closed(row, need) == FITS
                    and self.short_of(row, need, verdict) == FITS
                ):
                    cards[0] += 1
                    cards[cards[0]] = row
        for i in range(start, cards[0] - (need.count - chosen) + 1):
            row = cards[i + 1]
            if need.rules & NUMA_BIND and chosen and self.numa[row] != self.numa[self.choices[picked - 1].row]:
                continue
            for j in range(start, i):
                if self.same(ask, need, node, cards[j + 1], row):
                    break
            else:
                self.node_steps -= 1
                if self.node_steps < 0:
                    return -1
                choice = &self.choices[picked]
                choice.need = index
                choice.row = row
                choice.memory = self.memory_of(row, need)
                choice.cores = self.cores_of(row, need)
                choice.place = -1
                self.take(picked)
                done = -1
                if chosen + 1 < need.count:
                    done = self.descend(ask, node, turns, depth, chosen + 1, i + 1, picked + 1)
                elif self.goes_together(need, node, picked + 1):
                    if depth + 1 < turns:
                        done = self.descend(ask, node, turns, depth + 1, 0, 0, picked + 1)
                    else:
                        done = self.add_inits(ask, node, picked + 1)
                        if done < 0:
                            self.roll_back(0)
                            for j in range(picked + 1):
                                self.take(j)
                if done > 0:
                    return done
                self.roll_back(self.undo_length - 1)
        return -1

    cdef bint same(self, Ask ask, const Need* need, int32_t node, int32_t a, int32_t b) noexcept nogil:
        # Whether it makes no difference which of two cards is taken.
        return (
            self.kind[a] == self.kind[b] and self.numa[a] == self.numa[b] and self.marks[a] == self.marks[b]
            and self.slots[a] - self.slots_used[a] == self.slots[b] - self.slots_used[b]
            and (self.slots_used[a] > 0) == (self.slots_used[b] > 0)
            and self.memory[a] == self.memory[b] and self.memory_used[a] == self.memory_used[b]
            and self.cores[a] == self.cores[b] and self.cores_used[a] == self.cores_used[b]
            and not need.rules & JOINED
        )

    cdef bint goes_together(self, const Need* need, int32_t node, int32_t picked) noexcept nogil:
        # The last `count` choices are joined, if they have to be.
        cdef const LinkTable* links = self.links_of(node)
        cdef int32_t i
        if not need.rules & JOINED or need.count == 1:
            return True
        if links == NULL:
            return False
        for i in range(need.count):
            self.spots[i] = self.choices[picked - need.count + i].row - self.first[node]
        return are_joined(links, self.spots, need.count)

    cdef int32_t add_inits(self, Ask ask, int32_t node, int32_t picked) noexcept nogil:
        # choices[0:picked] serve the sidecars and apps; answers all choices, in the order of the needs, or -1.
        cdef int32_t index, found, i, j, kept = picked
        cdef int32_t[TALLY_WIDTH] unread
        cdef const Need* need
        cdef Choice moved
        if not self.holds_in_order(ask, picked):
            return -1
        for index in range(ask.count):
            need = &ask.needs[index]
            if need.role != INIT:
                continue
            if index == 0 or need.container != ask.needs[index - 1].container:
                self.roll_back(0)
                for i in range(kept):
                    if ask.needs[self.choices[i].need].role == SIDECAR and self.choices[i].need < index:
                        self.take(i)
            if self.has_slices(ask, need, node):
                found = self.pick_slices(ask, index, node, picked, unread)
            else:
                found = self.pick(ask, index, node, picked, unread)
            if found < 0:
                return -1
            for i in range(picked, picked + found):
                self.take(i)
            picked += found
        # `undo` names choices by their place.
        self.roll_back(0)
        for i in range(1, picked):
            # choices[0:i] are sorted by need; those of one need keep their order.
            moved = self.choices[i]
            j = i
            while j > 0 and self.choices[j - 1].need > moved.need:
                self.choices[j] = self.choices[j - 1]
                j -= 1
            self.choices[j] = moved
        return picked

    cdef bint holds_in_order(self, Ask ask, int32_t picked) noexcept nogil:
        # Some checks depend on who comes first (a card whose compute is all given away takes nobody): what was found in
        # another order must also pass container by container. Takes nothing.
        cdef int32_t index, i, row
        cdef const Need* need
        cdef bint passes = True
        self.roll_back(0)
        for index in range(ask.count):
            need = &ask.needs[index]
            for i in range(picked):
                if self.choices[i].need != index:
                    continue
                row = self.choices[i].row
                if self.closed(row, need) != FITS:
                    passes = False
                elif self.choices[i].place < 0 and self.short_of(row, need, 0) != FITS:
                    passes = False
            for i in range(picked):
                if self.choices[i].need == index:
                    self.take(i)
        self.roll_back(0)
        return passes

    cdef bint all_within_quota(self, Ask ask, int32_t picked) noexcept nogil:
        cdef int32_t i
        for i in range(picked):
            if not self.within_quota(ask, i, i, 1):
                return False
        return True

    cdef int32_t walk(self, Ask ask, const Joint* joint, int32_t node, int32_t* tally) noexcept nogil:
        # Container by container; with a joint plan, its instances are dealt out. A plain init container ends before the
        # next one starts, so it gives back what it took at once, and sees only the sidecars before it; sidecars and app
        # containers run together and add up.
        cdef int32_t index, found, i, kind, role, picked = 0, before = 0
        cdef int32_t[3 * MOST_KINDS] dealt
        cdef const Need* need
        self.link_value = 0
        if joint != NULL:
            # Sidecars keep theirs; what is left belongs to the app containers, and to each init container before them.
            for kind in range(MOST_KINDS):
                dealt[SIDECAR * MOST_KINDS + kind] = 0
                dealt[APP * MOST_KINDS + kind] = joint.side[kind]
        for index in range(ask.count):
            need = &ask.needs[index]
            role = need.role
            if index == 0 or need.container != ask.needs[index - 1].container:
                before = self.undo_length
                if joint != NULL:
                    for kind in range(MOST_KINDS):
                        dealt[INIT * MOST_KINDS + kind] = joint.side[kind]
            if joint != NULL and joint.kind[index] >= 0:
                kind = joint.kind[index]
                found = need.count
                for i in range(found):
                    self.choices[picked + i] = self.pool[self.pool_first[kind] + dealt[role * MOST_KINDS + kind]]
                    self.choices[picked + i].need = index
                    dealt[role * MOST_KINDS + kind] += 1
                if ask.limited and not self.within_quota(ask, picked, picked, found):
                    found = -1
            elif self.has_slices(ask, need, node):
                found = self.pick_slices(ask, index, node, picked, tally)
            else:
                found = self.pick(ask, index, node, picked, tally)
            if found < 0:
                picked = -1
                break
            for i in range(picked, picked + found):
                self.take(i)
            picked += found
            if role == INIT and (index + 1 == ask.count or ask.needs[index + 1].container != need.container):
                self.roll_back(before)
        self.roll_back(0)
        return picked
