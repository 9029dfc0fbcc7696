"""Cards in MIG mode: one of them may serve several instances of one need.

What a need or a whole pod asks is shared out to the node's cards at the least total cost (`_mig.divide`); plain cards
of a mixed node count as one each.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from hami.alloc._ask cimport (
    DEVICES, FAMILY, FITS, IS_MIG, LARGEST_FREE, MIG_INFEASIBLE, NO_CORES, NUMA_BIND, NUMA_NOT_FIT, OF_FAMILY, QUOTA,
    TALLY_WIDTH, TOO_FEW_PICKED, WHYS, Ask, Choice, Joint, Need,
)
from hami.alloc._linked cimport LinkedRows
from hami.alloc._mig cimport MOST_KINDS, MOST_SETS, MOST_SLICES, NO_COST, Grid, PlanTable, Step, divide, plan_cost
from hami.alloc._rows cimport barred, closed, note_short, short_of, shown, write_choice


cdef class SlicedRows(LinkedRows):
    def __dealloc__(self):
        free(self.saved)
        free(self.slice_rows)
        free(self.slice_states)
        free(self.slice_rooms)
        free(self.slice_plans)
        free(self.slice_costs)
        free(self.slice_sets)
        free(self.pool)

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

    cdef bint has_slices(self, Ask ask, const Need* need, int32_t node) noexcept nogil:
        # Some card in MIG mode may serve the need, as far as health, model and mode go.
        cdef int32_t row
        cdef uint8_t verdict
        if need.wishes == NULL:
            return False
        for row in range(self.first[node], self.first[node] + self.length[node]):
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if verdict & OF_FAMILY and verdict & IS_MIG and barred(self, row, need, verdict) == FITS:
                return True
        return False

    cdef void instance(self, Choice* choice, int32_t card, int32_t state, int32_t place) noexcept nogil:
        cdef const Grid* grid = self.slice_plans[card].grid
        cdef int32_t profile = grid.places[place].profile
        choice.row = self.slice_rows[card]
        choice.memory = grid.memory[profile]
        choice.cores = grid.cores[profile]
        choice.slots = 1
        choice.part_a = choice.part_b = 0
        choice.left = 0
        choice.place = place

    cdef int64_t share_out(self, int32_t cards) noexcept nogil:
        return divide(
            self.slice_plans, self.slice_states, self.slice_rooms, cards, self.slice_costs, self.slice_sets
        )

    cdef int32_t pick_slices(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil:
        # As `pick`, for a need that cards in MIG mode may serve: choices[picked:picked + count] become instances, or
        # shares of plain cards. Of several NUMA groups the cheapest one is taken.
        cdef const Need* need = &ask.needs[index]
        cdef int32_t position, row = 0, why, room, group = -1, cards = 0, plain = 0, found = 0, sliced = 0
        cdef int64_t cost, best_cost = NO_COST
        cdef uint8_t verdict = 0
        cdef Choice* choice
        # Plain choices of the group being looked at stand behind those of the best group so far.
        cdef int32_t behind = picked + min(need.count, self.widest * MOST_SLICES)
        cdef int32_t devices = self.sort(node, need, ask)
        memset(tally, 0, TALLY_WIDTH * sizeof(int32_t))
        tally[DEVICES] = devices
        tally[FAMILY] = need.family
        for position in range(devices - 1, -2, -1):
            # Of this NUMA group: slice_rows[0:cards] have room, choices[behind:behind + plain] are plain cards that
            # fit, and `found` of the count are served so, `sliced` of them by instances.
            if position < 0:
                group = -2
            else:
                row = self.order[position]
                verdict = ask.verdicts[need.kinds + self.kind[row]]
                why = barred(self, row, need, verdict)
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
            why = closed(self, row, need)
            if why != FITS:
                tally[why] += 1
                continue
            tally[LARGEST_FREE] = max(tally[LARGEST_FREE], shown(self, row))
            room = capacity(self, row, need) if verdict & IS_MIG else 0
            if room:
                self.slice_rows[cards] = row
                self.slice_states[cards] = self.taken[row]
                self.slice_rooms[cards] = room
                self.slice_plans[cards] = need.plans[self.grid[row]]
                cards += 1
                sliced += min(room, need.count - found)
                found += min(room, need.count - found)
                continue
            why = short_of(self, row, need, verdict)
            if why == NO_CORES:
                note_short(self, row, need, tally)
            elif why != FITS:
                tally[why] += 1
            elif found < need.count:
                choice = &self.choices[behind + plain]
                write_choice(self, choice, need, index, row)
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
            if barred(self, row, need, verdict) != FITS or closed(self, row, need) != FITS:
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
