"""The value of a node's free part, and what a placement takes from it.

A node in state s is worth U(s): the devices expected to be used of it if pods drawn from the running picture of demand
came to it alone. It is the mean over a few fixed sequences of draws, the same for every state, so that their noise
cancels in differences, of what a best-fit filling takes; CPU and host memory run out in it as devices do. Pods that
few nodes could ever take come to each of these the more often, so every make of node has draws of its own. A placement
costs U(before) - U(after), and a price for breaking into idle devices while pods that want several whole ones are
expected to need them: a filling of one node sees such pods too rarely. Nodes with CPU to spare are a little cheaper.

States repeat, so values are remembered by state, and costs by node and kind of request. When the picture of demand is
drawn anew, all costs are outdated at once; a decision then renews the one that looks best until the best is fresh, and
a few others, so that no decision pays for all.
"""

from libc.math cimport exp, sqrt
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset


cdef enum:
    LENGTH = 80           # draws of one sequence on a node that every pod could go to
    MOST_LENGTH = 240     # and on one of few that some pods could go to
    REMEMBERED = 1 << 17  # values kept, by hash of the state
    RENEWED = 8           # outdated costs that one decision renews beside those that matter to it
    ROW_SOUND = 1         # `RowFlag` of a device that takes work: healthy, and nothing else
    OF_FAMILY = 1         # `Verdict`
    ELIGIBLE = 2
    IS_MIG = 4

# The horizon of scarcity: arrivals expected until free devices are gone, times this, because more is asked than fits.
cdef double OVERLOAD = 5.0
# What breaking into a group of idle devices costs when it is sure to be missed, of the group's own size.
cdef double GANG_WORTH = 0.1
# What a free core makes a node cheaper by, in milli-devices: about a hundredth of what stands beside one.
cdef double CORE_WORTH = 0.8
cdef int64_t LARGEST_AMOUNT = 1 << 30
FOREVER = INT64_MAX
NUMBERS = {"ROW_SOUND": ROW_SOUND, "OF_FAMILY": OF_FAMILY, "ELIGIBLE": ELIGIBLE, "IS_MIG": IS_MIG}


cdef inline uint64_t scramble(uint64_t x) noexcept nogil:
    # The finalizer of splitmix64: every input bit reaches every output bit.
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef inline int64_t bounded(int64_t amount) noexcept nogil:
    # Amounts fit 32 bit here; what is larger is as good as endless.
    return max(-LARGEST_AMOUNT, min(amount, LARGEST_AMOUNT))


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


cdef inline bint precedes(const Spot* a, const Spot* b) noexcept nogil:
    if a.kind != b.kind:
        return a.kind < b.kind
    if a.free != b.free:
        return a.free < b.free
    if a.memory != b.memory:
        return a.memory < b.memory
    if a.cores != b.cores:
        return a.cores < b.cores
    if a.all_memory != b.all_memory:
        return a.all_memory < b.all_memory
    if a.slots != b.slots:
        return a.slots < b.slots
    return a.idle < b.idle


cdef inline void settle(State* state, int32_t i) noexcept nogil:
    # spots[i] has changed: move it to its place among the others, which are sorted.
    cdef Spot moved = state.spots[i]
    while i > 0 and precedes(&moved, &state.spots[i - 1]):
        state.spots[i] = state.spots[i - 1]
        i -= 1
    while i + 1 < state.count and precedes(&state.spots[i + 1], &moved):
        state.spots[i] = state.spots[i + 1]
        i += 1
    state.spots[i] = moved


cdef inline void measure(Spot* spot) noexcept nogil:
    spot.free = 0
    if spot.all_memory > 0 and spot.memory > 0:
        spot.free += <int32_t>(<int64_t>spot.memory * 1000 // spot.all_memory)
    if spot.all_cores > 0 and spot.cores > 0:
        spot.free += <int32_t>(<int64_t>spot.cores * 1000 // spot.all_cores)


cdef inline void copy_state(State* to, const State* source) noexcept nogil:
    to.cpu, to.host, to.count = source.cpu, source.host, source.count
    memcpy(to.spots, source.spots, source.count * sizeof(Spot))


cdef inline int32_t memory_wanted(const Want* want, const Spot* spot) noexcept nogil:
    if not want.by_percent:
        return want.memory
    return <int32_t>max(1, <int64_t>spot.all_memory * want.memory // 100)


cdef inline int32_t cores_wanted(const Want* want, const Spot* spot) noexcept nogil:
    if want.cores >= 100:
        return spot.all_cores if 0 < spot.all_cores < 100 else 100
    return want.cores


cdef inline bint serves(const Spot* spot, const Want* want, const uint8_t* verdicts) noexcept nogil:
    # The engine's own checks of a card, without those that name single cards.
    cdef int32_t cores
    if spot.slots <= 0 or (want.alone and not spot.idle):
        return False
    if spot.memory < memory_wanted(want, spot):
        return False
    cores = cores_wanted(want, spot)
    if spot.cores < cores or (cores == 0 and spot.all_cores != 0 and spot.cores <= 0):
        return False
    return spot.kind < want.most and verdicts[want.verdicts + spot.kind] & (ELIGIBLE | IS_MIG) == ELIGIBLE


cdef inline int32_t give(Spot* spot, int64_t memory, int64_t cores) noexcept nogil:
    # Take that much of a device; answers its share in milli-devices.
    cdef int64_t share = 0
    if spot.all_memory > 0:
        share = memory * 1000 // spot.all_memory
    if spot.all_cores > 0:
        share = max(share, cores * 1000 // spot.all_cores)
    spot.memory -= <int32_t>memory
    spot.cores -= <int32_t>cores
    spot.slots -= 1
    spot.idle = 0
    measure(spot)
    return <int32_t>min(share, 1000)


cdef inline void make_idle(const Make* make, State* idle) noexcept nogil:
    # A node of this make that nobody uses.
    cdef int32_t i
    cdef Spot* spot = &idle.spots[0]
    memset(spot, 0, sizeof(Spot))
    spot.kind, spot.idle, spot.slots = make.kind, 1, 1
    spot.memory = spot.all_memory = make.all_memory
    spot.cores = spot.all_cores = make.all_cores
    measure(spot)
    idle.count = make.count
    for i in range(1, make.count):
        idle.spots[i] = idle.spots[0]


cdef inline int32_t with_room(const State* state) noexcept nogil:
    cdef int32_t j, count = 0
    for j in range(state.count):
        if state.spots[j].slots > 0 and state.spots[j].memory >= 0:
            count += 1
    return count


cdef class Worth:
    def __cinit__(self):
        self.wants = NULL
        self.cases = NULL
        self.verdicts = NULL
        self.costs = NULL
        self.costs_cases = self.costs_room = 0
        self.drawn = 0
        self.epoch = 1
        self.case = -1
        self.budget = 0
        memset(self.makes, 0, sizeof(self.makes))
        self.cases_known = 0
        self.devices = 0
        self.shares = NULL
        self.total_left = 0
        self.evaluated = 0
        memset(self.gangs, 0, sizeof(self.gangs))
        memset(self.with_whole, 0, sizeof(self.with_whole))
        memset(self.scarcity, 0, sizeof(self.scarcity))
        self.makes_known = 1
        self.makes[0].order = <int32_t*>malloc(RUNS * MOST_LENGTH * sizeof(int32_t))
        self.values = <Remembered*>calloc(REMEMBERED, sizeof(Remembered))
        if self.makes[0].order == NULL or self.values == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int32_t i
        for i in range(self.costs_cases):
            free(self.costs[i])
        free(self.costs)
        free(self.wants)
        free(self.cases)
        free(self.verdicts)
        for i in range(self.makes_known):
            free(self.makes[i].draws)
            free(self.makes[i].order)
        free(self.shares)
        free(self.values)

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
        cdef int32_t i, at = 0, wants = 0
        cdef double total = 0, size
        cdef Want* want
        cdef const unsigned char[::1] source
        free(self.wants)
        free(self.cases)
        free(self.verdicts)
        free(self.shares)
        self.wants, self.cases, self.verdicts, self.shares = NULL, NULL, NULL, NULL
        self.drawn = 0
        self.epoch += 1
        memset(self.gangs, 0, sizeof(self.gangs))
        self.mean_size = 0
        for _, _, _, asked in cases:
            wants += len(asked)
        self.wants = <Want*>calloc(wants + 1, sizeof(Want))
        self.cases = <Case*>calloc(len(cases) + 1, sizeof(Case))
        self.verdicts = <uint8_t*>malloc(len(verdicts) + 1)
        self.shares = <double*>malloc((len(cases) + 1) * sizeof(double))
        if self.wants == NULL or self.cases == NULL or self.verdicts == NULL or self.shares == NULL:
            raise MemoryError
        if verdicts:
            source = verdicts
            memcpy(self.verdicts, &source[0], len(verdicts))
        for i in range(len(cases)):
            weight, self.cases[i].cpu, self.cases[i].host, asked = cases[i]
            self.cases[i].weight = weight
            total += weight
            self.cases[i].first, self.cases[i].count = at, <int32_t>len(asked)
            size = 0
            for fields in asked:
                want = &self.wants[at]
                (
                    want.count, want.memory, want.by_percent, want.cores, want.alone, want.verdicts, want.most,
                ) = fields
                at += 1
                if want.by_percent:
                    size += want.count * 10 * want.memory
                else:
                    size += want.count * min(1000, max(10 * want.cores, 1000 * want.memory / max(1, card_mib)))
                if want.count > 1 and (want.alone or (want.by_percent and want.memory >= 100)):
                    self.gangs[min(want.count, MOST_GANG)] += weight
            self.mean_size += weight * size
        if not total:
            return
        for i in range(MOST_GANG + 1):
            self.gangs[i] /= total
        self.mean_size /= total
        for i in range(len(cases)):
            self.cases[i].weight /= total
        self.cases_known = <int32_t>len(cases)
        self.spread_demand()
        self.drawn = 1

    def sequences(self, int32_t node) -> list:
        """The draws that the node is filled with, as case numbers, a list a run; empty before the first drawing."""
        cdef const Make* make
        cdef int32_t i, run
        if not self.drawn:
            return []
        self.read(node, NULL, 0, &self.before)
        make = self.make_of(&self.before)
        return [
            [make.order[i] for i in range(run * make.per_run, (run + 1) * make.per_run)] for run in range(RUNS)
        ]

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

    cdef double value(self, const State* state) noexcept nogil:
        cdef uint64_t one = <uint64_t>state.cpu, two = <uint64_t>state.host + <uint64_t>state.count
        cdef const uint64_t* words = <const uint64_t*>state.spots
        cdef int64_t i
        cdef Remembered* known
        if not self.drawn:
            return 0
        for i in range(state.count * <int64_t>(sizeof(Spot) // sizeof(uint64_t))):
            one = (one ^ words[i]) * <uint64_t>0x9E3779B97F4A7C15
            one ^= one >> 29
            two = (two + words[i]) * <uint64_t>0xD6E8FEB86659FD93
            two ^= two >> 32
        one = scramble(one ^ two)
        known = &self.values[one & (REMEMBERED - 1)]
        if known.epoch == self.epoch and known.check == two:
            return known.value
        known.value = <float>self.fill(state)
        known.epoch, known.check = self.epoch, two
        self.evaluated += 1
        return known.value

    cdef double fill(self, const State* state) noexcept nogil:
        cdef const Make* make = self.make_of(state)
        if make.plain:
            return self.fill_alike(state, make)
        return self.fill_mixed(state, make)

    cdef Make* make_of(self, const State* state) noexcept nogil:
        # The make of node, its draws worked out; the first one is that of nodes whose devices differ.
        cdef Make* make = self.find_make(state)
        if make.epoch != self.epoch:
            self.order_draws(make)
            make.plain = make != &self.makes[0] and self.prepare(make)
            make.epoch = self.epoch
        return make

    cdef Make* find_make(self, const State* state) noexcept nogil:
        cdef const Spot* one = &state.spots[0]
        cdef Make* make
        cdef int32_t i
        if not state.count:
            return &self.makes[0]
        for i in range(1, state.count):
            if (
                state.spots[i].kind != one.kind or state.spots[i].all_memory != one.all_memory
                or state.spots[i].all_cores != one.all_cores
            ):
                return &self.makes[0]
        for i in range(1, self.makes_known):
            make = &self.makes[i]
            if (
                make.kind == one.kind and make.all_memory == one.all_memory and make.all_cores == one.all_cores
                and make.count == state.count
            ):
                return make
        if self.makes_known == MOST_MAKES:
            return &self.makes[0]
        make = &self.makes[self.makes_known]
        make.draws = <Draw*>malloc(RUNS * MOST_LENGTH * sizeof(Draw))
        make.order = <int32_t*>malloc(RUNS * MOST_LENGTH * sizeof(int32_t))
        if make.draws == NULL or make.order == NULL:
            free(make.draws)
            free(make.order)
            return &self.makes[0]
        self.makes_known += 1
        make.kind, make.all_memory, make.all_cores, make.epoch = one.kind, one.all_memory, one.all_cores, 0
        make.count, make.devices = state.count, 0
        return make

    cdef void spread_demand(self) noexcept nogil:
        # How many devices could serve each case, were they idle.
        cdef int32_t i, j, node
        cdef Make* make
        cdef Case* case
        cdef State* idle = &self.filling
        self.devices = 0
        for i in range(self.makes_known):
            self.makes[i].devices = 0
        for node in range(self.length.shape[0]):
            if self.length[node]:
                self.read(node, NULL, 0, &self.before)
                self.find_make(&self.before).devices += self.before.count
                self.devices += self.before.count
        for i in range(self.cases_known):
            # Nodes whose devices differ are few; they are taken to serve everybody.
            case = &self.cases[i]
            case.servers = self.makes[0].devices
            for j in range(1, self.makes_known):
                make = &self.makes[j]
                if make.devices:
                    make_idle(make, idle)
                    if self.serve(idle, case) >= 0:
                        case.servers += make.devices

    cdef void order_draws(self, Make* make) noexcept nogil:
        # One draw from each of equally many equal parts of the weights, then shuffled: hardly any noise in how often a
        # case comes, and as little change as possible from one drawing to the next.
        cdef State* idle = &self.filling
        cdef bint differing = make == &self.makes[0]
        cdef const Case* case
        cdef double total = 0, passed, step
        cdef int32_t i, j, n, draws
        cdef uint64_t seed = 12345
        for i in range(self.cases_known):
            case = &self.cases[i]
            self.shares[i] = 0
            if not differing:
                make_idle(make, idle)
            if differing:
                self.shares[i] = case.weight
            elif self.serve(idle, case) >= 0:
                self.shares[i] = case.weight * self.devices / max(case.servers, 1)
            total += self.shares[i]
        make.per_run = <int32_t>min(MOST_LENGTH, LENGTH * total + 0.5)
        draws = RUNS * make.per_run
        if not draws:
            return
        n = 0
        passed = self.shares[0]
        step = total / draws
        for i in range(draws):
            while (i + 0.5) * step >= passed and n + 1 < self.cases_known:
                n += 1
                passed += self.shares[n]
            make.order[i] = n
        for i in range(draws - 1, 0, -1):
            seed += <uint64_t>0x9E3779B97F4A7C15
            j = <int32_t>(scramble(seed) % <uint64_t>(i + 1))
            make.order[i], make.order[j] = make.order[j], make.order[i]

    cdef bint prepare(self, Make* make) noexcept nogil:
        # Work every draw out once; False if some draw is more than one want on its own.
        cdef const Case* case
        cdef const Want* want
        cdef Draw* draw
        cdef State* idle = &self.filling
        cdef Spot* spot = &idle.spots[0]
        cdef int64_t share
        cdef int32_t run, i, n
        make.least = LARGEST_AMOUNT
        for run in range(RUNS):
            n = 0
            for i in range(run * make.per_run, (run + 1) * make.per_run):
                case = &self.cases[make.order[i]]
                if case.count > 1:
                    return False
                draw = &make.draws[run * MOST_LENGTH + n]
                draw.cpu, draw.host = <int32_t>bounded(case.cpu), <int32_t>bounded(case.host)
                draw.count = draw.memory = draw.cores = draw.alone = draw.share = 0
                if case.count:
                    want = &self.wants[case.first]
                    make_idle(make, idle)
                    if not serves(spot, want, self.verdicts):
                        continue
                    draw.count, draw.alone = want.count, want.alone
                    draw.memory, draw.cores = memory_wanted(want, spot), cores_wanted(want, spot)
                    make.least = min(make.least, draw.memory)
                    share = give(spot, draw.memory, draw.cores)
                    draw.share = <int32_t>min(share * want.count, LARGEST_AMOUNT)
                n += 1
            make.length[run] = n
        return True

    cdef double fill_alike(self, const State* state, const Make* make) noexcept nogil:
        # As `fill_mixed`, and with the same result, for the usual node; most of all time goes here.
        cdef int32_t[MOST_ROWS] memory
        cdef int32_t[MOST_ROWS] cores
        cdef int32_t[MOST_ROWS] slots
        cdef int32_t[MOST_ROWS] picked
        cdef const Draw* draw
        cdef const Draw* end
        cdef int32_t run, j, n, best, most, count = state.count
        cdef int64_t cpu, host, total = 0
        cdef uint64_t idle, open, free_of_use
        cdef int64_t left, least_left
        cdef int64_t per_memory = max(1, make.all_memory), per_core = max(1, make.all_cores)
        free_of_use = 0
        for j in range(count):
            if state.spots[j].idle:
                free_of_use |= <uint64_t>1 << j
        for run in range(RUNS):
            cpu, host, idle, most = state.cpu, state.host, free_of_use, -1
            for j in range(count):
                memory[j], cores[j] = state.spots[j].memory, state.spots[j].cores
                slots[j] = state.spots[j].slots
                if slots[j] > 0 and memory[j] > most:
                    most = memory[j]
            draw = &make.draws[run * MOST_LENGTH]
            end = draw + make.length[run]
            while draw < end:
                if draw.cpu > cpu or draw.host > host or draw.memory > most:
                    draw += 1
                    continue
                open = 0
                n = 0
                while n < draw.count:
                    best = -1
                    least_left = INT64_MAX
                    for j in range(count):
                        if (
                            memory[j] < draw.memory or slots[j] <= 0 or cores[j] < draw.cores or open >> j & 1
                            or (draw.alone and not idle >> j & 1)
                            or (draw.cores == 0 and cores[j] <= 0 and make.all_cores != 0)
                        ):
                            continue
                        left = memory[j] * 1000 // per_memory
                        if cores[j] > 0:
                            left += cores[j] * 1000 // per_core
                        if left < least_left:
                            best, least_left = j, left
                    if best < 0:
                        break
                    picked[n] = best
                    open |= <uint64_t>1 << best
                    n += 1
                if n == draw.count:
                    cpu -= 0 if cpu == INT64_MAX else draw.cpu
                    host -= 0 if host == INT64_MAX else draw.host
                    total += draw.share
                    if n:
                        idle &= ~open
                        for j in range(n):
                            memory[picked[j]] -= draw.memory
                            cores[picked[j]] -= draw.cores
                            slots[picked[j]] -= 1
                        most = -1
                        for j in range(count):
                            if slots[j] > 0 and memory[j] > most:
                                most = memory[j]
                        if most < make.least:
                            break
                draw += 1
        return <double>total / RUNS

    cdef double fill_mixed(self, const State* state, const Make* make) noexcept nogil:
        cdef State* now = &self.filling
        cdef State* back = &self.undoing
        cdef const Case* case
        cdef int32_t run, i, roomy, got
        cdef int64_t total = 0
        for run in range(RUNS):
            copy_state(now, state)
            roomy = with_room(now)
            for i in range(run * make.per_run, (run + 1) * make.per_run):
                if not roomy:
                    break
                case = &self.cases[make.order[i]]
                if case.cpu > now.cpu or case.host > now.host:
                    continue
                if case.count > 1 or (case.count and self.wants[case.first].count > 1):
                    copy_state(back, now)
                    got = self.serve(now, case)
                    if got < 0:
                        copy_state(now, back)
                        continue
                else:
                    # The usual case, which takes nothing where it does not fit.
                    got = self.serve(now, case)
                    if got < 0:
                        continue
                if got:
                    roomy = with_room(now)
                total += got
                if now.cpu != INT64_MAX:
                    now.cpu -= case.cpu
                if now.host != INT64_MAX:
                    now.host -= case.host
        return <double>total / RUNS

    cdef int32_t serve(self, State* now, const Case* case) noexcept nogil:
        # Give a pod of this case what it wants of the devices, by best fit; answers milli-devices, or -1 where it does
        # not fit, with part of it taken if it wants several devices.
        cdef const Want* want
        cdef int32_t j, w, _turn, best, got = 0
        cdef uint64_t used
        for w in range(case.first, case.first + case.count):
            want = &self.wants[w]
            used = 0
            for _turn in range(want.count):
                best = -1
                for j in range(now.count):
                    if (
                        not used >> j & 1 and (best < 0 or now.spots[j].free < now.spots[best].free)
                        and serves(&now.spots[j], want, self.verdicts)
                    ):
                        best = j
                if best < 0:
                    return -1
                used |= <uint64_t>1 << best
                got += give(
                    &now.spots[best], memory_wanted(want, &now.spots[best]), cores_wanted(want, &now.spots[best])
                )
        return got

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
