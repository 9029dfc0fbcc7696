"""Which cards of a node: in the policy's order, and by their links where they rank alike."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from hami.alloc._ask cimport (
    DEVICES, FAMILY, FITS, GROUPED, JOINED, LARGEST_FREE, LINKED, LINKS_NOT_FIT, MODE_NOT_FIT, NO_CORES,
    NUMA_BIND, NUMA_NOT_FIT, NUMA_UP, PULL_UP, QUOTA, SCORE_DOWN, SCORE_UP, TAKEN_UP, TALLY_WIDTH, TOO_FEW_DEVICES,
    TOO_FEW_PICKED, USED_DOWN, WHYS, Ask, Choice, Need,
)
from hami.alloc._rows cimport Rows, barred, closed, note_short, short_of, shown, write_choice
from hami.alloc._topology cimport (
    MOST_EXACT, MOST_KEYS, Links, LinkTable, Pick, choose_linked, rest_value, set_score,
)


cdef bint outranks(const Group* group, const Group* best, const Need* need) noexcept nogil:
    # Of equal groups the first one stays; where links come first, the last one is taken, as HAMi does.
    cdef int32_t i
    for i in range(8):
        if group.rank[i] != best.rank[i]:
            return group.rank[i] < best.rank[i]
    if group.links != best.links:
        return group.links > best.links
    if group.rest != best.rest:
        return group.rest > best.rest
    return (need.rules & LINKED) != 0


cdef class LinkedRows(Rows):
    def __dealloc__(self):
        free(self.link_tables)
        free(self.listed)
        free(self.spots)
        free(self.chosen)
        free(self.unused)

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

    def widen(self, int32_t rows):
        """Make room for nodes of that many rows."""
        if rows <= self.widest:
            return
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
        Rows.widen(self, rows)

    cdef int32_t pick(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil:
        # Choose the cards of one need into choices[picked:picked + count]; answers count, or -1 with the tally. Where
        # sets of cards have to be weighed against each other, all that fit are collected first.
        cdef const Need* need = &ask.needs[index]
        cdef const LinkTable* links = links_of(self, node)
        cdef bint weighed = (
            need.rules & (NUMA_BIND | JOINED | LINKED | GROUPED) or (links != NULL and not links.uniform)
        )
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
        tally[FAMILY] = need.family
        if need.rules & NUMA_BIND and links != NULL:
            self.mark_unused(ask, index, node, picked, start, devices)
        for position in range(devices - 1, -2, -1):
            # choices[start:start + found] are the passing ones of order[position + 1:devices] in this NUMA group.
            if position >= 0:
                row = self.order[position]
                verdict = ask.verdicts[need.kinds + self.kind[row]]
                why = barred(self, row, need, verdict)
                if why != FITS:
                    tally[why] = 1 if why == MODE_NOT_FIT else tally[why] + 1
                    continue
            if position < 0 or (need.rules & NUMA_BIND and self.numa[row] != numa):
                if not weighed or found < need.count:
                    tally[NUMA_NOT_FIT if position >= 0 else TOO_FEW_PICKED] += found
                elif not self.choose(need, node, picked, found, &group):
                    if need.rules & GROUPED:
                        tally[need.misfit] += 1 if need.misfit == NUMA_NOT_FIT else found
                    else:
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
            why = closed(self, row, need)
            if why == FITS:
                tally[LARGEST_FREE] = max(tally[LARGEST_FREE], shown(self, row))
                choice = &self.choices[start + found]
                write_choice(self, choice, need, index, row)
                if ask.limited and not (
                    # While cards are collected, each is judged as if it were the first.
                    self.within_quota(ask, picked, start + found, 1) if weighed
                    else self.within_quota(ask, picked, start, found + 1)
                ):
                    why = QUOTA
                else:
                    why = short_of(self, row, need, verdict)
            if why != FITS:
                if why == NO_CORES:
                    note_short(self, row, need, tally)
                else:
                    tally[why] += 1
                continue
            self.listed[found] = position
            found += 1
            if found == need.count and not weighed:
                self.add_pull(need, picked)
                return found
        if known:
            self.link_value += best.links if need.rules & LINKED else 0
            self.group_rank += best.merit
            self.add_pull(need, picked)
            if not ask.limited or self.within_quota(ask, picked, picked, need.count):
                return need.count
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[QUOTA] = need.count
        elif need.count > devices:
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[TOO_FEW_DEVICES] = 1
        return -1

    cdef void mark_unused(
        self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t start, int32_t devices
    ) noexcept nogil:
        # What a set leaves is looked for on the whole node, also where it must be of one NUMA node.
        cdef const Need* need = &ask.needs[index]
        cdef int32_t position, row
        cdef uint8_t verdict
        memset(self.unused, 0, self.length[node])
        for position in range(devices):
            row = self.order[position]
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            if (
                barred(self, row, need, verdict) != FITS or closed(self, row, need) != FITS
                or short_of(self, row, need, verdict) != FITS
            ):
                continue
            if ask.limited:
                write_choice(self, &self.choices[start], need, index, row)
                if not self.within_quota(ask, picked, start, 1):
                    continue
            self.unused[row - self.first[node]] = 1

    cdef void add_pull(self, const Need* need, int32_t picked) noexcept nogil:
        # A family that ranks its cards itself ranks nodes by them, before their use.
        cdef int32_t i
        if need.pulled:
            for i in range(need.count):
                self.group_rank += PULL_WEIGHT * self.pull[self.choices[picked + i].row]

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
            elif key == TAKEN_UP:
                if self.is_taken(left) != self.is_taken(right):
                    return False
            elif key == PULL_UP:
                if self.pull[left] != self.pull[right]:
                    return False
            elif self.numa[left] != self.numa[right]:
                return False
        return True

    cdef bint choose(
        self, const Need* need, int32_t node, int32_t picked, int32_t found, Group* group
    ) noexcept nogil:
        # The best set among listed[0:found]: `chosen` become places in `listed`, ascending. The cards before the last
        # one that would be taken by rank are in it, unless they rank like that one: among these, links decide.
        cdef const LinkTable* links = links_of(self, node)
        cdef int32_t first = self.first[node], last = need.count - 1, i, sure = 0, open_end, n = 0
        cdef Pick pick
        group.merit = 0
        if need.rules & GROUPED:
            return self.choose_group(need, node, picked, found, group)
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
            if not need.rules & NUMA_BIND:
                memset(self.unused, 0, self.length[node])
            for i in range(found):
                self.spots[i] = self.order[self.listed[i]] - first
                self.unused[self.spots[i]] = 1
            pick.order, pick.sure, pick.open, pick.want = self.spots, sure, open_end - sure, need.count
            pick.free, pick.joined, pick.keys = self.unused, (need.rules & JOINED) != 0, 0
            if not choose_linked(links, &pick, self.chosen) and not self.choose_joined(need, links, &pick, found):
                return False
            # They come in the order of `listed`.
            for i in range(found):
                if n < need.count and self.chosen[n] == self.spots[i]:
                    self.chosen[n] = i
                    n += 1
        group.links = group.rest = 0
        if links != NULL:
            for i in range(need.count):
                self.spots[i] = self.order[self.listed[self.chosen[i]]] - first
            group.links = set_score(links, self.spots, need.count)
            if need.rules & NUMA_BIND and not links.uniform:
                group.rest = rest_value(links, self.unused, self.spots, need.count)
        self.weigh_group(need, group)
        return True

    cdef bint choose_joined(
        self, const Need* need, const LinkTable* links, Pick* pick, int32_t found
    ) noexcept nogil:
        # Being joined is a must, and the cards that rank best are not: then all that were collected, which `spots` has,
        # and the best by rank among the joined sets.
        cdef double[MOST_KEYS * MOST_EXACT] worth
        cdef uint32_t ranked = need.ranked
        cdef int32_t i
        pick.sure, pick.open = 0, found
        while ranked and links.cards <= MOST_EXACT:
            for i in range(found):
                worth[pick.keys * MOST_EXACT + i] = self.worth(self.listed[i], ranked & 15)
            pick.keys += 1
            ranked >>= 4
        pick.worth = worth
        return choose_linked(links, pick, self.chosen)

    cdef void weigh_group(self, const Need* need, Group* group) noexcept nogil:
        # What the chosen cards are worth by the policy's keys.
        cdef uint32_t ranked = need.ranked
        cdef int32_t i, n
        for n in range(8):
            group.rank[n] = 0
            for i in range(need.count if ranked & 15 else 0):
                group.rank[n] += self.worth(self.listed[self.chosen[i]], ranked & 15)
            ranked >>= 4

    # Families that say which of their cards go together. How good a group is comes first; what the policy prefers
    # decides between equal ones.

    cdef uint64_t idle_spots(self, int32_t node, int32_t board) noexcept nogil:
        cdef int32_t row
        cdef uint64_t idle = 0
        for row in range(self.first[node], self.first[node] + self.length[node]):
            if self.board[row] == board and self.slots_used[row] == 0:
                idle |= <uint64_t>1 << self.spot[row]
        return idle

    cdef uint64_t own_spots(self, int32_t board, int32_t before, int32_t but) noexcept nogil:
        # Those of choices[0:before], also of init containers, which have given them back, and those that are taken,
        # without the last `but`.
        cdef int32_t i, row
        cdef uint64_t own = 0
        for i in range(before + self.undo_length - but):
            row = self.choices[i if i < before else self.undo[i - before]].row
            if self.board[row] == board:
                own |= <uint64_t>1 << self.spot[row]
        return own

    cdef bint choose_group(
        self, const Need* need, int32_t node, int32_t picked, int32_t found, Group* group
    ) noexcept nogil:
        # As `choose`; the family's own order is kept. choices[0:picked] are those of containers before.
        cdef int32_t i, board = self.board[self.order[self.listed[0]]]
        cdef uint64_t own = self.own_spots(board, picked, 0)
        if board < 0:
            return False
        for i in range(found):
            self.spots[i] = self.spot[self.order[self.listed[i]]]
        group.links = group.rest = 0
        if not self.boards.choose(
            board, need.wanted, self.spots, found, self.idle_spots(node, board), own, need.count, self.chosen,
            &group.merit,
        ):
            return False
        self.weigh_group(need, group)
        return True

    cdef bint is_group(
        self, const Need* need, int32_t node, int32_t start, bint taken, float* merit
    ) noexcept nogil:
        # Whether the need's choices from `start` on, taken already or not, are cards that go together, and how well.
        cdef int32_t i, row = self.choices[start].row, board = self.board[row]
        merit[0] = 0
        if board < 0:
            return False
        cdef uint64_t idle = self.idle_spots(node, board)
        for i in range(need.count):
            row = self.choices[start + i].row
            self.spots[i] = self.spot[row]
            if taken and self.slots_used[row] == need.slots:
                idle |= <uint64_t>1 << self.spot[row]
        cdef uint64_t own = self.own_spots(board, start if taken else 0, need.count if taken else 0)
        return self.boards.choose(board, need.wanted, self.spots, need.count, idle, own, 0, self.chosen, merit)

    cdef double worth(self, int32_t position, uint32_t key) noexcept nogil:
        # What one card adds to its set by a ranked key; lower is better, as the end of the sorted list is.
        cdef int32_t row = self.order[position]
        if key == SCORE_UP:
            return -self.score[position]
        if key == SCORE_DOWN:
            return self.score[position]
        if key == USED_DOWN:
            return <double>self.slots_used[row]
        if key == TAKEN_UP:
            return 0 if self.is_taken(row) else 1
        if key == PULL_UP:
            return -self.pull[row]
        return -self.numa[row] if key == NUMA_UP else self.numa[row]
