"""What a placement takes from the value of a node's free part.

A placement costs U(before) - U(after), with U as in `_filling.pyx`, and a price for breaking into idle devices while
pods that want several whole ones are expected to need them: a filling of one node sees such pods too rarely. Nodes
with CPU to spare are a little cheaper.

States repeat, so costs are remembered by node and kind of request. When the picture of demand is drawn anew, all costs
are outdated at once; a decision then renews the one that looks best until the best is fresh, and a few others, so that
no decision pays for all.
"""

from libc.math cimport exp, sqrt
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from hami.alloc._filling cimport (
    ELIGIBLE, IS_MIG, MOST_GANG, MOST_ROWS, OF_FAMILY, Case, Filling, Spot, State, Want, bounded, give, measure, settle,
)


cdef enum:
    RENEWED = 8           # outdated costs that one decision renews beside those that matter to it
    ROW_SOUND = 1         # `RowFlag` of a device that takes work: healthy, and nothing else

# The horizon of scarcity: arrivals expected until free devices are gone, times this, because more is asked than fits.
cdef double OVERLOAD = 5.0
# What breaking into a group of idle devices costs when it is sure to be missed, of the group's own size.
cdef double GANG_WORTH = 0.1
# What a free core makes a node cheaper by, in milli-devices: about a hundredth of what stands beside one.
cdef double CORE_WORTH = 0.8
FOREVER = INT64_MAX
NUMBERS = {"ROW_SOUND": ROW_SOUND, "OF_FAMILY": OF_FAMILY, "ELIGIBLE": ELIGIBLE, "IS_MIG": IS_MIG}


cdef double at_least(double expected, int64_t count) noexcept nogil:
    # P(X >= count) of a Poisson variable; for large ones its normal approximation.
    cdef double term, total = 0
    cdef int64_t i
    if count <= 0:
        return 1
    if expected <= 0:
        return 0
    if expected > 30:
        # The logistic curve stands within 0.02 of the normal one, which is nearer than the expectation is known.
        term = (<double>count - 0.5 - expected) / sqrt(expected)
        return 1 / (1 + exp(1.702 * term)) if term < 30 else 0
    if count > expected + 8 * sqrt(expected) + 12:
        return 0
    term = exp(-expected)
    for i in range(count):
        total += term
        term *= expected / (i + 1)
    return max(0, 1 - total)


cdef class Worth(Filling):
    def __cinit__(self):
        self.costs = NULL
        self.costs_cases = self.costs_room = 0
        self.case = -1
        self.budget = 0
        self.total_left = 0
        memset(self.gangs, 0, sizeof(self.gangs))
        memset(self.with_whole, 0, sizeof(self.with_whole))
        memset(self.scarcity, 0, sizeof(self.scarcity))

    def __dealloc__(self):
        cdef int32_t i
        for i in range(self.costs_cases):
            free(self.costs[i])
        free(self.costs)

    def attach_rows(
        self, *, int32_t[::1] kind, uint8_t[::1] flags, int64_t[::1] slots, int64_t[::1] slots_used,
        int64_t[::1] memory, int64_t[::1] memory_used, int64_t[::1] cores, int64_t[::1] cores_used,
        int32_t[::1] grid,
    ):
        """See these arrays from now on, as `Rows` does."""
        self.kind, self.flags = kind, flags
        self.slots, self.slots_used = slots, slots_used
        self.memory, self.memory_used = memory, memory_used
        self.cores, self.cores_used = cores, cores_used
        self.grid = grid

    def attach_nodes(
        self, *, int32_t[::1] first, int32_t[::1] length, int64_t[::1] cpu, int64_t[::1] host,
        uint32_t[::1] version, int32_t[::1] whole, int64_t[::1] left,
    ):
        """As `attach_rows`, for the columns of nodes."""
        self.first, self.length, self.cpu, self.host = first, length, cpu, host
        self.version, self.whole, self.left = version, whole, left

    def touched(self, int32_t node):
        """Something that the node's worth depends on has changed."""
        self.touch(node)

    def remember(self, int32_t case):
        """Make room for the costs of one more kind of request, and forget what stood there."""
        cdef int32_t i, nodes = <int32_t>self.length.shape[0]
        cdef Cost** costs
        cdef Cost* row
        if case >= self.costs_cases:
            costs = <Cost**>realloc(self.costs, (case + 1) * sizeof(Cost*))
            if costs == NULL:
                raise MemoryError
            self.costs = costs
            for i in range(self.costs_cases, case + 1):
                self.costs[i] = <Cost*>calloc(max(1, self.costs_room), sizeof(Cost))
                if self.costs[i] == NULL:
                    raise MemoryError
                self.costs_cases = i + 1
        memset(self.costs[case], 0, self.costs_room * sizeof(Cost))
        if nodes > self.costs_room:
            for i in range(self.costs_cases):
                row = <Cost*>realloc(self.costs[i], nodes * sizeof(Cost))
                if row == NULL:
                    raise MemoryError
                memset(&row[self.costs_room], 0, (nodes - self.costs_room) * sizeof(Cost))
                self.costs[i] = row
            self.costs_room = nodes

    def draw(self, list cases, bytes verdicts, double card_mib):
        """Draw the sequences anew.

        `cases` are `(weight, cpu, host, [want, ...])` in a fixed order, wants in the order of `Want`'s fields;
        `verdicts` one byte a kind for each of them. `card_mib` is the memory of a usual device.
        """
        cdef int32_t i, w, node
        cdef double size
        cdef const Case* case
        cdef const Want* want
        self.learn(cases, verdicts)
        for node in range(self.length.shape[0]):
            if self.length[node]:
                self.read(node, NULL, 0, &self.before)
                self.count_node(&self.before)
        self.share_out()
        memset(self.gangs, 0, sizeof(self.gangs))
        self.mean_size = 0
        for i in range(self.cases_known):
            case = &self.cases[i]
            size = 0
            for w in range(case.first, case.first + case.count):
                want = &self.wants[w]
                if want.by_percent:
                    size += want.count * 10 * want.memory
                else:
                    size += want.count * min(1000, max(10 * want.cores, 1000 * want.memory / max(1, card_mib)))
                if want.count > 1 and (want.alone or (want.by_percent and want.memory >= 100)):
                    self.gangs[min(want.count, MOST_GANG)] += case.weight
            self.mean_size += case.weight * size

    def sequences(self, int32_t node) -> list:
        """The draws that the node is filled with, as case numbers, a list a run; empty before the first drawing."""
        if not self.drawn:
            return []
        self.read(node, NULL, 0, &self.before)
        return self.sequences_of(&self.before)

    def totals_hold(self) -> bool:
        """Whether the cluster's sums are those of its nodes."""
        cdef int32_t node
        cdef int64_t left = 0
        cdef int64_t[MOST_GANG + 1] found
        memset(found, 0, sizeof(found))
        for node in range(self.length.shape[0]):
            left += self.left[node]
            found[self.whole[node]] += 1
        return left == self.total_left and all([found[i] == self.with_whole[i] for i in range(1, MOST_GANG + 1)])

    def fragments(self) -> float:
        """Milli-devices that are free, and not to be filled by pods as they have been coming."""
        cdef int32_t node
        cdef double lost = 0
        if not self.drawn:
            return 0
        for node in range(self.length.shape[0]):
            if self.length[node] and self.left[node]:
                self.read(node, NULL, 0, &self.before)
                lost += max(0, self.left[node] - self.value(&self.before))
        return lost

    def state_value(self, int32_t node) -> float:
        """What the node's free part is worth now, in milli-devices."""
        self.read(node, NULL, 0, &self.before)
        return self.value(&self.before)

    cdef void begin(self, int32_t case, int64_t cpu, int64_t host) noexcept nogil:
        # A decision starts: pods of that kind, asking that much of the host.
        cdef int32_t n, w, t, lost, i
        cdef int64_t groups
        cdef double expected, arrivals
        cdef double[MOST_GANG] missed
        self.case, self.ask_cpu, self.ask_host = case, cpu, host
        self.budget = RENEWED
        memset(self.scarcity, 0, sizeof(self.scarcity))
        if not self.drawn or self.mean_size <= 0:
            return
        arrivals = OVERLOAD * self.total_left / self.mean_size
        for n in range(2, MOST_GANG + 1):
            expected = self.gangs[n] * arrivals
            if expected <= 0:
                continue
            groups = 0
            for w in range(n, MOST_GANG + 1):
                groups += self.with_whole[w] * (w // n)
            for i in range(MOST_GANG):
                missed[i] = at_least(expected, groups - i)
            for w in range(1, MOST_GANG + 1):
                for t in range(1, w + 1):
                    if t != n:
                        lost = w // n - (w - t) // n
                        for i in range(lost):
                            self.scarcity[w][t] += GANG_WORTH * 1000 * n * missed[i]

    cdef void touch(self, int32_t node) noexcept nogil:
        cdef int32_t row, whole = 0
        cdef int64_t left = 0
        self.version[node] += 1
        if self.version[node] == 0:
            self.version[node] = 1
        for row in range(self.first[node], self.first[node] + self.length[node]):
            if self.flags[row] != ROW_SOUND or self.grid[row] >= 0 or self.memory[row] <= 0:
                continue
            if self.slots_used[row] == 0:
                whole += 1
            if self.slots_used[row] < self.slots[row] and self.memory_used[row] < self.memory[row]:
                left += (self.memory[row] - self.memory_used[row]) * 1000 // self.memory[row]
        whole = min(whole, MOST_GANG)
        self.with_whole[self.whole[node]] -= 1
        self.with_whole[whole] += 1
        self.total_left += left - self.left[node]
        self.whole[node], self.left[node] = whole, left

    cdef void read(self, int32_t node, const Portion* picks, int32_t count, State* state) noexcept nogil:
        # The node as it would be with these picks, and with the pod's part of the host gone if there are any.
        cdef int32_t row, i
        cdef Spot* spot
        state.cpu, state.host, state.count = self.cpu[node], self.host[node], 0
        if picks != NULL:
            if state.cpu != INT64_MAX:
                state.cpu -= self.ask_cpu
            if state.host != INT64_MAX:
                state.host -= self.ask_host
        for row in range(self.first[node], self.first[node] + self.length[node]):
            if self.flags[row] != ROW_SOUND or self.grid[row] >= 0 or state.count == MOST_ROWS:
                continue
            spot = &state.spots[state.count]
            spot.kind = self.kind[row]
            spot.slots = <int32_t>bounded(self.slots[row] - self.slots_used[row])
            spot.all_memory = <int32_t>bounded(self.memory[row])
            spot.memory = <int32_t>bounded(self.memory[row] - self.memory_used[row])
            spot.all_cores = <int32_t>bounded(self.cores[row])
            spot.cores = <int32_t>bounded(self.cores[row] - self.cores_used[row])
            spot.idle = self.slots_used[row] == 0
            measure(spot)
            for i in range(count):
                if picks[i].row == row:
                    give(spot, bounded(picks[i].memory), bounded(picks[i].cores))
            state.count += 1
            settle(state, state.count - 1)

    cdef bint outdated(self, int32_t node) noexcept nogil:
        # Whether the node's cost for this kind of request stems from earlier draws.
        if self.case < 0 or node >= self.costs_room:
            return False
        return self.costs[self.case][node].epoch != self.epoch

    cdef Cost* remembered(self, int32_t node, bint fresh) noexcept nogil:
        # The node's cost for this kind of request, or an empty one to fill in; NULL when nothing is remembered.
        cdef Cost* cost
        if self.case < 0 or node >= self.costs_room:
            return NULL
        cost = &self.costs[self.case][node]
        if cost.epoch != self.epoch and (fresh or self.budget > 0):
            self.budget -= 1
            cost.version = 0
        elif cost.version != self.version[node]:
            cost.version = 0
        return cost

    cdef double price(self, int32_t node, const Cost* cost) noexcept nogil:
        # In milli-devices. Equal costs go to the node with less left: a thousandth, too little to outweigh anything.
        cdef double price = cost.loss + self.scarcity[self.whole[node]][min(cost.whole, self.whole[node])]
        if self.drawn and self.cpu[node] != INT64_MAX:
            price -= CORE_WORTH * 1e-3 * self.cpu[node]
        return price + self.left[node] * 1e-3

    cdef void weigh(self, int32_t node, const Portion* picks, int32_t count, Cost* cost) noexcept nogil:
        # What these picks take from the node.
        cdef int32_t i, j
        cdef double worth
        self.read(node, NULL, 0, &self.before)
        worth = self.value(&self.before)
        self.read(node, picks, count, &self.after)
        cost.loss = <float>(worth - self.value(&self.after))
        cost.whole = 0
        for i in range(count):
            if self.slots_used[picks[i].row]:
                continue
            for j in range(i):
                if picks[j].row == picks[i].row:
                    break
            else:
                cost.whole += 1
        cost.version, cost.epoch = self.version[node], self.epoch
