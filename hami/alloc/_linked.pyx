"""Which cards of a node: in the policy's order, and by their links where they rank alike."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from hami.alloc._ask cimport (
    DEVICES, FITS, JOINED, LARGEST_FREE, LINKED, LINKS_NOT_FIT, NUMA_BIND, NUMA_NOT_FIT, NUMA_UP, QUOTA,
    SCORE_DOWN, SCORE_UP, TALLY_WIDTH, TOO_FEW_DEVICES, TOO_FEW_PICKED, USED_DOWN, WHYS, Ask, Choice, Need,
)
from hami.alloc._rows cimport Rows, barred, closed, cores_of, memory_of, short_of, shown
from hami.alloc._topology cimport Links, LinkTable, Pick, choose_linked, rest_value, set_score


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
        cdef bint weighed = need.rules & (NUMA_BIND | JOINED | LINKED) or (links != NULL and not links.uniform)
        cdef int32_t position, row, why, found = 0, numa = -1
        cdef int32_t start = picked + min(need.count, self.widest) if weighed else picked
        cdef uint8_t verdict
        cdef Choice* choice
        cdef int32_t devices = self.sort(node, need, ask)
        memset(tally, 0, TALLY_WIDTH * sizeof(int32_t))
        tally[DEVICES] = devices
        for position in range(devices - 1, -1, -1):
            # choices[start:start + found] are the passing ones of order[position + 1:devices].
            row = self.order[position]
            verdict = ask.verdicts[need.kinds + self.kind[row]]
            why = barred(self, row, need, verdict)
            if why != FITS:
                tally[why] += 1
                continue
            numa = self.numa[row]
            why = closed(self, row, need)
            if why == FITS:
                tally[LARGEST_FREE] = max(tally[LARGEST_FREE], shown(self, row))
                choice = &self.choices[start + found]
                choice.need = index
                choice.row = row
                choice.memory = memory_of(self, row, need)
                choice.cores = cores_of(self, row, need)
                choice.place = -1
                if ask.limited and not (
                    # While cards are collected, each is judged as if it were the first.
                    self.within_quota(ask, picked, start + found, 1) if weighed
                    else self.within_quota(ask, picked, start, found + 1)
                ):
                    why = QUOTA
                else:
                    why = short_of(self, row, need, verdict)
            if why != FITS:
                tally[why] += 1
                continue
            self.listed[found] = position
            found += 1
            if found == need.count and not weighed:
                return found
        if not weighed:
            tally[TOO_FEW_PICKED] += found
        elif self.settle(need, node, picked, found, numa, tally):
            if not ask.limited or self.within_quota(ask, picked, picked, need.count):
                return need.count
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[QUOTA] = need.count
            return -1
        if need.count > devices:
            memset(tally, 0, WHYS * sizeof(int32_t))
            tally[TOO_FEW_DEVICES] = 1
        return -1

    cdef bint settle(
        self, const Need* need, int32_t node, int32_t picked, int32_t found, int32_t numa, int32_t* tally
    ) noexcept nogil:
        # Of the cards listed[0:found], whose choices stand behind those to come, the best set into
        # choices[picked:picked + count]. Cards of one NUMA node stand together; `numa` is the one visited last.
        cdef int32_t start = picked + min(need.count, self.widest), begin = 0, end, i
        cdef bint known = False, last
        cdef Group group, best
        memset(&best, 0, sizeof(Group))
        while begin < found:
            end = found
            if need.rules & NUMA_BIND:
                end = begin + 1
                while end < found and self.numa_at(end) == self.numa_at(begin):
                    end += 1
            if end - begin < need.count:
                last = end == found and (not need.rules & NUMA_BIND or self.numa_at(begin) == numa)
                tally[TOO_FEW_PICKED if last else NUMA_NOT_FIT] += end - begin
            elif not self.choose(need, node, begin, end, found, &group):
                tally[LINKS_NOT_FIT] += end - begin
            elif not known or outranks(&group, &best, need):
                known = True
                best = group
                for i in range(need.count):
                    self.choices[picked + i] = self.choices[start + self.chosen[i]]
            begin = end
        self.link_value += best.links if known and need.rules & LINKED else 0
        return known

    cdef inline int32_t numa_at(self, int32_t place) noexcept nogil:
        return self.numa[self.order[self.listed[place]]]

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

    cdef bint choose(
        self, const Need* need, int32_t node, int32_t begin, int32_t end, int32_t found, Group* group
    ) noexcept nogil:
        # The best set among listed[begin:end], of all listed[0:found] that are free: `chosen` become places in
        # `listed`, ascending. The cards before the last one that would be taken by rank are in it, unless they rank
        # like that one: among these, links decide.
        cdef const LinkTable* links = links_of(self, node)
        cdef int32_t first = self.first[node], last = begin + need.count - 1, i, place, sure = begin, open_end, n = 0
        cdef uint32_t ranked
        cdef Pick pick
        while sure < last and not self.same_rank(self.listed[sure], self.listed[last], need.ranked):
            sure += 1
        open_end = begin + need.count
        while open_end < end and self.same_rank(self.listed[open_end], self.listed[last], need.ranked):
            open_end += 1
        group.links = group.rest = 0
        if links == NULL or (links.uniform and not need.rules & JOINED):
            if need.rules & JOINED and need.count > 1:
                return False
            for i in range(need.count):
                self.chosen[i] = begin + i
        else:
            memset(self.unused, 0, self.length[node])
            for i in range(found):
                self.spots[i] = self.order[self.listed[i]] - first
                self.unused[self.spots[i]] = 1
            pick.order, pick.want = &self.spots[begin], need.count
            pick.sure, pick.open = sure - begin, open_end - sure
            pick.free, pick.joined = self.unused, (need.rules & JOINED) != 0
            if not choose_linked(links, &pick, self.chosen):
                # Being joined is a must: then among all, whatever their rank.
                pick.sure, pick.open = 0, end - begin
                if not choose_linked(links, &pick, self.chosen):
                    return False
            group.rest = rest_value(links, self.unused, self.chosen, need.count)
            # They come in the order of `listed`.
            for i in range(begin, end):
                if n < need.count and self.chosen[n] == self.spots[i]:
                    self.chosen[n] = i
                    n += 1
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
