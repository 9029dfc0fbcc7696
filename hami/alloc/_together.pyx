"""All containers of a pod on one node: one after the other, and in another way where that fails."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hami.alloc._ask cimport (
    APP, FITS, GROUPED, INIT, JOINED, LINKED, NUMA_BIND, SIDECAR, TALLY_WIDTH, Ask, Choice, Joint, Need,
)
from hami.alloc._linked cimport links_of
from hami.alloc._mig cimport MOST_KINDS
from hami.alloc._rows cimport barred, closed, memory_of, short_of, write_choice
from hami.alloc._sliced cimport SlicedRows
from hami.alloc._topology cimport LinkTable, are_joined, set_score


cdef class PodRows(SlicedRows):
    def __dealloc__(self):
        free(self.turns)
        free(self.lists)

    cdef int reserve_turns(self, int32_t needs) except -1:
        # Working space of a search over all needs of a pod, and the steps that it may take.
        cdef int64_t rows = <int64_t>needs * (self.widest + 1)
        self.steps_left = MOST_STEPS
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

    cdef int32_t walk(self, Ask ask, const Joint* joint, int32_t node, int32_t* tally) noexcept nogil:
        # Container by container; with a joint plan, its instances are dealt out. A plain init container ends before the
        # next one starts, so it gives back what it took at once, and sees only the sidecars before it; sidecars and app
        # containers run together and add up.
        cdef int32_t index, found, i, kind, role, picked = 0, before = 0
        cdef int32_t[3 * MOST_KINDS] dealt
        cdef const Need* need
        self.link_value = 0
        self.group_rank = 0
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

    # Several containers that compete for cards: where they do not fit one after the other, another way is looked for.
    # First the largest goes first; then all ways are tried, up to `STEPS_A_NODE` cards on a node and `MOST_STEPS` in a
    # decision. Plain init containers come last, each beside the sidecars before it, because they leave before the
    # others start. Of cards that are the same only the first one is tried.

    cdef int32_t rearrange(self, Ask ask, int32_t node) noexcept nogil:
        cdef int32_t turns = 0, i, index, found, position, picked = 0
        cdef int32_t[TALLY_WIDTH] unread
        cdef const Need* need
        cdef bint sliced = False, bound = False
        if ask.count < 2:
            return -1
        for index in range(ask.count):
            need = &ask.needs[index]
            if need.role == INIT:
                # What it takes may bind those after it, of families that give a pod's containers the same cards.
                bound = bound or need.rules & GROUPED != 0
            else:
                self.turns[turns] = index
                i = turns
                # turns[0:i] is sorted, the largest first.
                while i > 0 and self.larger(ask, node, index, self.turns[i - 1]):
                    self.turns[i] = self.turns[i - 1]
                    i -= 1
                self.turns[i] = index
                turns += 1
                sliced = sliced or self.has_slices(ask, need, node)
        if turns < (1 if bound else 2) or self.steps_left <= 0:
            return -1
        self.link_value = 0
        self.group_rank = 0
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
        cdef int64_t more = memory_of(self, self.first[node], left) - memory_of(self, self.first[node], right)
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
        if chosen == 0:
            cards[0] = 0
            devices = self.sort(node, need, ask)
            for position in range(devices - 1, -1, -1):
                row = self.order[position]
                verdict = ask.verdicts[need.kinds + self.kind[row]]
                if (
                    barred(self, row, need, verdict) == FITS and closed(self, row, need) == FITS
                    and short_of(self, row, need, verdict) == FITS
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
                write_choice(self, &self.choices[picked], need, index, row)
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
            and self.part_a[a] - self.part_a_used[a] == self.part_a[b] - self.part_a_used[b]
            and self.part_b[a] - self.part_b_used[a] == self.part_b[b] - self.part_b_used[b]
            and self.left[a] == self.left[b] and self.pull[a] == self.pull[b]
            and not need.rules & (JOINED | GROUPED)
        )

    cdef bint goes_together(self, const Need* need, int32_t node, int32_t picked) noexcept nogil:
        # The last `count` choices are joined, or a group of their family's, if they have to be.
        cdef const LinkTable* links = links_of(self, node)
        cdef int32_t i
        cdef float merit
        if need.rules & GROUPED:
            return self.is_group(need, node, picked - need.count, True, &merit)
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
        if not self.holds_in_order(ask, node, picked):
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

    cdef bint holds_in_order(self, Ask ask, int32_t node, int32_t picked) noexcept nogil:
        # Some checks depend on who comes first (a card whose compute is all given away takes nobody): what was found in
        # another order must also pass container by container. What groups and links are worth is reckoned here, too, as
        # if they had been found in order. Takes nothing.
        cdef int32_t index, i, row, start
        cdef const Need* need
        cdef float merit
        cdef bint passes = True
        self.roll_back(0)
        self.link_value = 0
        self.group_rank = 0
        for index in range(ask.count):
            need = &ask.needs[index]
            start = -1
            for i in range(picked):
                if self.choices[i].need != index:
                    continue
                # The choices of one need stand side by side.
                start = i if start < 0 else start
                row = self.choices[i].row
                if closed(self, row, need) != FITS:
                    passes = False
                elif self.choices[i].place < 0 and short_of(self, row, need, 0) != FITS:
                    passes = False
            if start >= 0 and need.rules & GROUPED:
                passes = self.is_group(need, node, start, False, &merit) and passes
                self.group_rank += merit
            if start >= 0:
                self.add_pull(need, start)
                self.add_links(ask, need, node, start)
            for i in range(picked):
                if self.choices[i].need == index:
                    self.take(i)
        self.roll_back(0)
        return passes

    cdef void add_links(self, Ask ask, const Need* need, int32_t node, int32_t start) noexcept nogil:
        # What `pick` would have added for the choices of one need.
        cdef const LinkTable* links = links_of(self, node)
        cdef int32_t i
        if not need.rules & LINKED or links == NULL or self.has_slices(ask, need, node):
            return
        for i in range(need.count):
            self.spots[i] = self.choices[start + i].row - self.first[node]
        self.link_value += set_score(links, self.spots, need.count)

    cdef bint all_within_quota(self, Ask ask, int32_t picked) noexcept nogil:
        cdef int32_t i
        for i in range(picked):
            if not self.within_quota(ask, i, i, 1):
                return False
        return True
