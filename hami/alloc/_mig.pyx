"""Which profile, which card, which slices: exact by tables over slice masks.

`WishTable.best` answers one instance on one card in one look-up. Several instances of a pod go through `PlanTable`,
which knows for every state the cheapest way to place every subset of them, and `divide`, which shares them out to
cards.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc

cdef int64_t NO_COST = INT64_MAX
cdef int64_t UNKNOWN = INT64_MAX - 1

NUMBERS = {
    "MOST_PROFILES": MOST_PROFILES,
    "MOST_PLACES": MOST_PLACES,
    "MOST_SLICES": MOST_SLICES,
    "MOST_KINDS": MOST_KINDS,
    "MOST_SETS": MOST_SETS,
    "MEMORY_SHIFT": MEMORY_SHIFT,
    "COMPUTE_SHIFT": COMPUTE_SHIFT,
    "LOSS_SHIFT": LOSS_SHIFT,
}


cdef inline int32_t bits(int32_t mask) noexcept nogil:
    cdef int32_t count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


cdef void measure(Grid* grid) noexcept nogil:
    # A placement only adds bits, so states are solved from the fullest down.
    cdef int32_t state, p, i, most
    for state in range(grid.states - 1, -1, -1):
        for p in range(grid.count):
            most = 0
            for i in range(grid.first[p], grid.first[p + 1]):
                if not grid.places[i].mask & state:
                    most = max(most, 1 + grid.room[(state | grid.places[i].mask) * grid.count + p])
            grid.room[state * grid.count + p] = <uint8_t>most
    add_up(grid)


cdef void add_up(Grid* grid) noexcept nogil:
    cdef int32_t state, p, most
    for state in range(grid.states):
        grid.lost[state] = 0
        for p in range(grid.count):
            most = grid.room[p] - grid.room[state * grid.count + p]
            grid.lost[state] += grid.weight[p] * most


cdef class Profiles:
    def __cinit__(self, int32_t slices, int32_t unit, bint has_media, list profiles):
        """`profiles`: (index, memory MiB, cores, compute, weight, [(start, mask), ...]) with masks in units."""
        cdef int32_t p
        cdef Grid* grid = &self.grid
        if not 0 < slices <= MOST_SLICES or len(profiles) >= MOST_PROFILES:
            raise ValueError("more slices or profiles than a table holds")
        self.unit = unit
        grid.slices = slices
        grid.states = 1 << (slices + has_media)
        grid.count = <int32_t>len(profiles)
        grid.place_count = 0
        for p in range(grid.count):
            grid.first[p] = grid.place_count
            grid.index[p], grid.memory[p], grid.cores[p], grid.compute[p], grid.weight[p], places = profiles[p]
            if not places or grid.place_count + len(places) > MOST_PLACES:
                raise ValueError("no placement, or more than a table holds")
            for start, mask in places:
                if not 0 < mask < grid.states:
                    raise ValueError("a placement outside the card")
                grid.places[grid.place_count].profile = p
                grid.places[grid.place_count].start = start
                grid.places[grid.place_count].mask = mask
                grid.place_count += 1
            grid.size[p] = bits(grid.places[grid.first[p]].mask & ((1 << slices) - 1))
        grid.first[grid.count] = grid.place_count
        grid.room = <uint8_t*>malloc(grid.states * (grid.count + 1))
        grid.lost = <int32_t*>malloc(grid.states * sizeof(int32_t))
        if grid.room == NULL or grid.lost == NULL:
            raise MemoryError
        measure(grid)

    def __dealloc__(self):
        free(self.grid.room)
        free(self.grid.lost)

    @property
    def slices(self):
        """Memory slices, in units."""
        return self.grid.slices

    @property
    def states(self):
        """Number of states: bits of the slices, and one more where a profile needs the media engines."""
        return self.grid.states

    def room(self, int32_t state):
        """By the profile's index in the registered list: how many instances still fit a card in this state."""
        cdef Grid* grid = &self.grid
        return {grid.index[p]: grid.room[state * grid.count + p] for p in range(grid.count)}

    @property
    def sizes(self):
        """Memory slices of one instance by the profile's index in the registered list, in units."""
        cdef Grid* grid = &self.grid
        return {grid.index[p]: grid.size[p] for p in range(grid.count)}

    def reweigh(self, dict weights):
        """What one instance that no longer fits counts, by the profile's index. Wishes made before do not know it."""
        cdef Grid* grid = &self.grid
        cdef int32_t p
        for p in range(grid.count):
            grid.weight[p] = weights[grid.index[p]]
        add_up(grid)

    def loss(self, int32_t state):
        """The weighted count of instances that would fit an idle card and no longer fit one in this state."""
        return self.grid.lost[state]

    def place(self, int32_t number):
        """The profile's index in the registered list, the start and the mask of one placement."""
        cdef Place found = self.grid.places[number]
        return self.grid.index[found.profile], found.start, found.mask


cdef class Wish:
    def __cinit__(self, Profiles profiles, int64_t memory, bint by_percent, int64_t cores):
        """`memory` in MiB, or percent of the card where `by_percent`; `cores` percent of the card.

        A share of the card is met by the profile with that share of its memory slices.
        """
        cdef const Grid* grid = &profiles.grid
        cdef WishTable* table = &self.table
        cdef int32_t p, i
        cdef int32_t least_size = -1, least_compute = -1
        cdef bint enough
        self.profiles = profiles
        table.grid = grid
        table.choices = 0
        table.best = <int64_t*>malloc(grid.states * sizeof(int64_t))
        table.best_place = <int32_t*>malloc(grid.states * sizeof(int32_t))
        table.most = <uint8_t*>malloc(grid.states)
        if table.best == NULL or table.best_place == NULL or table.most == NULL:
            raise MemoryError
        for p in range(grid.count):
            if by_percent:
                enough = grid.size[p] * 100 >= memory * grid.slices
            else:
                enough = grid.memory[p] >= memory
            if not enough or grid.cores[p] < cores:
                continue
            if (
                least_size < 0 or grid.size[p] < least_size
                or (grid.size[p] == least_size and grid.compute[p] < least_compute)
            ):
                least_size, least_compute = grid.size[p], grid.compute[p]
            for i in range(grid.first[p], grid.first[p + 1]):
                table.place[table.choices] = i
                table.choices += 1
        for i in range(table.choices):
            p = grid.places[table.place[i]].profile
            table.waste[i] = (<int64_t>(grid.size[p] - least_size)) << MEMORY_SHIFT
            # A larger profile may have less compute than the smallest one; that is no gain.
            table.waste[i] += (<int64_t>max(0, grid.compute[p] - least_compute)) << COMPUTE_SHIFT
        solve_wish(table)

    def __dealloc__(self):
        free(self.table.best)
        free(self.table.best_place)
        free(self.table.most)

    @property
    def signature(self):
        """Equal for wishes that the same placements serve at the same costs."""
        cdef WishTable* table = &self.table
        return tuple([(table.place[i], table.waste[i]) for i in range(table.choices)])

    def on(self, int32_t state):
        """The least cost and its placement's number on a card in this state; None when nothing fits."""
        if self.table.best_place[state] < 0:
            return None
        return self.table.best[state], self.table.best_place[state]

    def most_on(self, int32_t state):
        """How many instances of this wish fit a card in this state together."""
        return self.table.most[state]


cdef void solve_wish(WishTable* table) noexcept nogil:
    cdef const Grid* grid = table.grid
    cdef int32_t state, i, mask, most
    cdef int64_t cost
    for state in range(grid.states - 1, -1, -1):
        table.best[state] = NO_COST
        table.best_place[state] = -1
        most = 0
        for i in range(table.choices):
            mask = grid.places[table.place[i]].mask
            if mask & state:
                continue
            most = max(most, 1 + table.most[state | mask])
            cost = table.waste[i] + ((<int64_t>(grid.lost[state | mask] - grid.lost[state])) << LOSS_SHIFT)
            if cost < table.best[state]:
                table.best[state] = cost
                table.best_place[state] = table.place[i]
        table.most[state] = <uint8_t>most


cdef class Plan:
    def __cinit__(self, list wishes, list counts):
        """`wishes` on one list of profiles, and how many instances of each."""
        cdef PlanTable* table = &self.table
        cdef int32_t t
        cdef int64_t sets = 1, i
        if not 0 < len(wishes) <= MOST_KINDS or len(wishes) != len(counts):
            raise ValueError("as many counts as wishes, and no more than a plan holds")
        self.profiles = (<Wish>wishes[0]).profiles
        self.wishes = wishes
        table.grid = &self.profiles.grid
        table.kinds = <int32_t>len(wishes)
        for t in range(table.kinds):
            if (<Wish>wishes[t]).profiles is not self.profiles or counts[t] < 0:
                raise ValueError("wishes on one list of profiles")
            table.wish[t] = &(<Wish>wishes[t]).table
            table.count[t] = counts[t]
            table.radix[t] = <int32_t>sets
            sets *= counts[t] + 1
            if sets > MOST_SETS:
                raise ValueError("more combinations than a plan holds")
        table.sets = <int32_t>sets
        table.cost = <int64_t*>malloc(table.grid.states * sets * sizeof(int64_t))
        table.step = <Step*>malloc(table.grid.states * sets * sizeof(Step))
        if table.cost == NULL or table.step == NULL:
            raise MemoryError
        for i in range(table.grid.states * sets):
            table.cost[i] = UNKNOWN

    def __dealloc__(self):
        free(self.table.cost)
        free(self.table.step)

    def digits(self, int32_t chosen):
        """How many of each wish a set holds."""
        return [set_digit(&self.table, chosen, t) for t in range(self.table.kinds)]

    def places(self, int32_t state, int32_t chosen):
        """How a set is placed on a card in this state: (kind, placement's number) each; None when it does not fit."""
        cdef Step step
        cdef list found = []
        if plan_cost(&self.table, state, chosen) == NO_COST:
            return None
        while chosen:
            plan_cost(&self.table, state, chosen)
            step = self.table.step[<int64_t>state * self.table.sets + chosen]
            found.append((step.kind, step.place))
            state |= self.table.grid.places[step.place].mask
            chosen -= self.table.radix[step.kind]
        return found


cdef int64_t plan_cost(PlanTable* plan, int32_t state, int32_t chosen) noexcept nogil:
    # The order in which a card's instances are placed changes nothing, so the last kind goes first.
    cdef int64_t at = <int64_t>state * plan.sets + chosen
    cdef int64_t best = NO_COST, cost
    cdef int32_t t = plan.kinds - 1, i, mask
    cdef const WishTable* wish
    if plan.cost[at] != UNKNOWN:
        return plan.cost[at]
    if chosen == 0:
        plan.cost[at] = (<int64_t>plan.grid.lost[state]) << LOSS_SHIFT
        return plan.cost[at]
    while plan.radix[t] > chosen:
        t -= 1
    wish = plan.wish[t]
    for i in range(wish.choices):
        mask = plan.grid.places[wish.place[i]].mask
        if mask & state:
            continue
        cost = plan_cost(plan, state | mask, chosen - plan.radix[t])
        if cost != NO_COST and cost + wish.waste[i] < best:
            best = cost + wish.waste[i]
            plan.step[at].kind = t
            plan.step[at].place = wish.place[i]
    plan.cost[at] = best
    return best


cdef int32_t set_digit(const PlanTable* plan, int32_t chosen, int32_t kind) noexcept nogil:
    return (chosen // plan.radix[kind]) % (plan.count[kind] + 1)


cdef int32_t set_size(const PlanTable* plan, int32_t chosen) noexcept nogil:
    cdef int32_t t, size = 0
    for t in range(plan.kinds):
        size += set_digit(plan, chosen, t)
    return size


cdef bint is_part(const PlanTable* plan, int32_t part, int32_t whole) noexcept nogil:
    cdef int32_t t
    for t in range(plan.kinds):
        if set_digit(plan, part, t) > set_digit(plan, whole, t):
            return False
    return True


cdef int64_t divide(
    PlanTable** plans, const int32_t* states, const int32_t* rooms, int32_t cards, int64_t* total, int32_t* taken
) noexcept nogil:
    # The least cost of all instances on these cards, in the policy's order; taken[c * sets + s] leads back to the set
    # of card c when cards 0 to c share out set s. `total` has room for (cards + 1) * sets. Afterwards
    # total[cards * sets + s] is the cost of every set s, so that the largest possible one can be told.
    cdef int32_t card, whole, part, size
    cdef int32_t sets = plans[0].sets
    cdef int64_t cost, before, idle
    for whole in range(sets):
        total[whole] = NO_COST if whole else 0
    for card in range(cards):
        idle = plan_cost(plans[card], states[card], 0)
        for whole in range(sets):
            total[(card + 1) * sets + whole] = total[card * sets + whole]
            taken[card * sets + whole] = 0
        for part in range(1, sets):
            size = set_size(plans[0], part)
            if size > rooms[card]:
                continue
            cost = plan_cost(plans[card], states[card], part)
            if cost == NO_COST:
                continue
            # The rank of a card counts for each of its instances, below every other part of the cost.
            cost += card * size - idle
            for whole in range(part, sets):
                before = total[card * sets + whole - part]
                if before == NO_COST or before + cost >= total[(card + 1) * sets + whole]:
                    continue
                if is_part(plans[0], part, whole):
                    total[(card + 1) * sets + whole] = before + cost
                    taken[card * sets + whole] = part
    return total[(cards + 1) * sets - 1]


def share_out(list plans, list states, list rooms):
    """Divide a pod's instances over cards at the least total cost: that cost and the set each card takes, or None.

    `plans` by card (equal wishes and counts in all), in the order in which the policy prefers the cards; `states` and
    `rooms` (how many more sharers each takes) beside. Equal costs prefer earlier cards, by the sum of positions.
    """
    cdef int32_t cards = <int32_t>len(plans), card, whole
    if not cards:
        return None
    cdef int32_t sets = (<Plan>plans[0]).table.sets
    cdef PlanTable** tables = <PlanTable**>malloc(cards * sizeof(PlanTable*))
    cdef int32_t* numbers = <int32_t*>malloc(2 * cards * sizeof(int32_t))
    cdef int64_t* total = <int64_t*>malloc((cards + 1) * sets * sizeof(int64_t))
    cdef int32_t* taken = <int32_t*>malloc(cards * sets * sizeof(int32_t))
    cdef int64_t cost
    try:
        if tables == NULL or numbers == NULL or total == NULL or taken == NULL:
            raise MemoryError
        for card in range(cards):
            tables[card] = &(<Plan>plans[card]).table
            numbers[card], numbers[cards + card] = states[card], rooms[card]
        cost = divide(tables, numbers, &numbers[cards], cards, total, taken)
        if cost == NO_COST:
            return None
        found = [0] * cards
        whole = sets - 1
        for card in range(cards - 1, -1, -1):
            found[card] = taken[card * sets + whole]
            whole -= found[card]
        return cost, found
    finally:
        free(tables)
        free(numbers)
        free(total)
        free(taken)
