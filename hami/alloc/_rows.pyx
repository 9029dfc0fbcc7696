"""The columns of every device and node, and what one card says to one need.

A call is synchronous and awaits nothing, so within one event loop it sees one consistent cluster without a lock. What a
trial takes is noted in `undo`, and given back when the trial ends.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from hami.alloc._ask cimport (
    BY_LOSS, INIT, NO_LIMIT_C, NUMA_UP, OF_FAMILY, PULL_UP, ROW_HEALTHY, SCORE_DOWN, SCORE_UP, SCORES_REQUEST, SIDECAR,
    TAKEN_UP,
    USED_DOWN, Ask, Choice, Need,
)
from hami.alloc._boards cimport Boards
from hami.alloc._mig cimport Grid, Profiles
from hami.alloc._worth cimport Cost, Portion, Worth


cdef class Rows:
    def __cinit__(self):
        self.free_worth = Worth()
        self.boards = Boards()

    def __dealloc__(self):
        PyMem_Free(self.glances)
        free(self.grids)
        free(self.order)
        free(self.score)
        free(self.choices)
        free(self.undo)
        free(self.picks)

    def attach_rows(
        self, *, int32_t[::1] kind, int32_t[::1] numa, uint8_t[::1] flags, uint8_t[::1] marks,
        int64_t[::1] slots, int64_t[::1] slots_used, int64_t[::1] memory, int64_t[::1] memory_used,
        int64_t[::1] cores, int64_t[::1] cores_used, int32_t[::1] grid, int32_t[::1] taken,
        int32_t[::1] part_a, int32_t[::1] part_a_used, int32_t[::1] part_b, int32_t[::1] part_b_used,
        uint32_t[::1] left, int32_t[::1] pull, int32_t[::1] board, int32_t[::1] spot,
    ):
        """See these arrays from now on; the old ones may then be resized or dropped."""
        cdef uint64_t* glances
        if self.glances_room != kind.shape[0]:
            glances = <uint64_t*>PyMem_Realloc(self.glances, kind.shape[0] * sizeof(uint64_t))
            if glances == NULL:
                raise MemoryError
            self.glances, self.glances_room = glances, kind.shape[0]
        self.kind, self.numa, self.flags, self.marks = kind, numa, flags, marks
        self.slots, self.slots_used = slots, slots_used
        self.memory, self.memory_used = memory, memory_used
        self.cores, self.cores_used = cores, cores_used
        self.grid, self.taken = grid, taken
        self.part_a, self.part_a_used = part_a, part_a_used
        self.part_b, self.part_b_used = part_b, part_b_used
        self.left, self.pull, self.board, self.spot = left, pull, board, spot

    def attach_nodes(
        self, *, int32_t[::1] first, int32_t[::1] length, uint64_t[::1] salt, uint32_t[::1] seen,
        int32_t[::1] same_kind, int32_t[::1] links,
        float[::1] score_now,
        int64_t[::1] sum_slots, int64_t[::1] sum_slots_used, int64_t[::1] sum_memory, int64_t[::1] sum_memory_used,
        int64_t[::1] sum_cores, int64_t[::1] sum_cores_used,
    ):
        """As `attach_rows`, for the columns of nodes."""
        self.first, self.length, self.salt, self.seen = first, length, salt, seen
        self.same_kind, self.links = same_kind, links
        self.score_now = score_now
        self.sum_slots, self.sum_slots_used = sum_slots, sum_slots_used
        self.sum_memory, self.sum_memory_used = sum_memory, sum_memory_used
        self.sum_cores, self.sum_cores_used = sum_cores, sum_cores_used

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
        self.look(row)
        self.free_worth.touch(node)

    def renew(self, int32_t node):
        """The node's rows and sums have been set anew."""
        cdef int32_t row, before, number, first = self.first[node]
        self.rows = max(self.rows, first + self.length[node])
        self.same_kind[node] = self.kind[first]
        for row in range(first, first + self.length[node]):
            if self.kind[row] != self.kind[first]:
                self.same_kind[node] = -1
            # Its NUMA node has the number of an earlier row there, or the next one.
            number = 0
            for before in range(first, row):
                if self.numa[before] == self.numa[row]:
                    number = self.glances[before] >> NUMA_SHIFT
                    break
                number = max(number, min(MOST_NUMAS, <int32_t>(self.glances[before] >> NUMA_SHIFT) + 1))
            self.glances[row] = <uint64_t>number << NUMA_SHIFT
            self.look(row)
        self.score_now[node] = self.node_score(node)

    def relook(self, int32_t row):
        """The row's flags or slices have been set anew."""
        self.look(row)

    def glance(self, int32_t row):
        """A row in one word, for checks."""
        return self.glances[row]

    def score_of(self, int32_t node) -> float:
        """The node's score now: 0 idle, 30 full in slots, memory and cores."""
        return self.score_now[node]

    cdef int reserve_choices(self, int32_t room) except -1:
        # Room for so many picks of one pod.
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
        self.choices_room = room
        return 0

    cdef void look(self, int32_t row) noexcept nogil:
        # Write a row's glance anew, its NUMA number apart.
        cdef int64_t cores = self.cores[row] - self.cores_used[row]
        cdef int64_t slots = self.slots[row] - self.slots_used[row]
        cdef int64_t room = self.memory[row] - self.memory_used[row] + 1, share = cores + 1
        cdef uint64_t look = 0
        if self.flags[row] == ROW_HEALTHY and slots > 0:
            look |= LOOK_OPEN
        if self.slots_used[row] > 0:
            look |= LOOK_USED
            if self.cores[row] <= 100:
                look |= LOOK_SHARED
        if cores < 0 or (cores == 0 and self.cores[row] != 0):
            look |= LOOK_SPENT
        if cores >= (self.cores[row] if 0 < self.cores[row] < 100 else 100):
            look |= LOOK_WHOLE
        if self.grid[row] >= 0:
            look |= LOOK_CUT
            room = self.grid[row] << 16 | self.taken[row]
            share = slots
        self.glances[row] = (
            (self.glances[row] >> NUMA_SHIFT << NUMA_SHIFT) | GAPS | look << LOOK_SHIFT
            | <uint64_t>max(0, min(AMOUNT_LIMIT, share)) << CORES_SHIFT
            | <uint64_t>max(0, min(<int64_t>INT32_MAX + 1, room))
        )

    cdef float node_score(self, int32_t node) noexcept nogil:
        # Single precision, term by term, as HAMi reckons: rankings agree even where they hang on rounding.
        # What no card of the node is known to have says nothing about its use.
        cdef float used = 0
        if self.sum_slots[node]:
            used = <float>self.sum_slots_used[node] / <float>self.sum_slots[node]
        if self.sum_cores[node]:
            used += <float>self.sum_cores_used[node] / <float>self.sum_cores[node]
        if self.sum_memory[node]:
            used += <float>self.sum_memory_used[node] / <float>self.sum_memory[node]
        return <float>10 * used

    cdef float card_price(self, int32_t node, int32_t row, const Need* need) noexcept nogil:
        # What one share of the need takes from the node's worth on this card.
        cdef Cost cost
        cdef Portion part
        part.row, part.memory, part.cores = row, memory_of(self, row, need), cores_of(self, row, need)
        self.free_worth.weigh(node, &part, 1, &cost)
        return <float>self.free_worth.price(node, &cost)

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
        cdef float score = 0
        if verdict & SCORES_REQUEST:
            slots += need.count
            cores += need.cores
            memory += memory_of(self, row, need)
        # What a card is not known to have says nothing about its use.
        if self.slots[row]:
            score = ask.weights[0] * (<float>slots / <float>self.slots[row])
        if self.cores[row]:
            score += ask.weights[1] * (<float>cores / <float>self.cores[row])
        if self.memory[row]:
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
            elif key == TAKEN_UP:
                if self.is_taken(left) != self.is_taken(right):
                    return self.is_taken(right)
            elif key == PULL_UP:
                if self.pull[left] != self.pull[right]:
                    return self.pull[left] < self.pull[right]
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

    cdef bint is_taken(self, int32_t row) noexcept nogil:
        # Whether a container of the pod under trial has this card.
        cdef int32_t i
        for i in range(self.undo_length):
            if self.choices[self.undo[i]].row == row:
                return True
        return False

    cdef void take(self, int32_t choice) noexcept nogil:
        cdef int32_t row = self.choices[choice].row
        self.slots_used[row] += self.choices[choice].slots
        self.memory_used[row] += self.choices[choice].memory
        self.cores_used[row] += self.choices[choice].cores
        self.part_a_used[row] += self.choices[choice].part_a
        self.part_b_used[row] += self.choices[choice].part_b
        self.choices[choice].found = self.left[row]
        self.left[row] |= self.choices[choice].left
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
            self.slots_used[row] -= self.choices[choice].slots
            self.memory_used[row] -= self.choices[choice].memory
            self.cores_used[row] -= self.choices[choice].cores
            self.part_a_used[row] -= self.choices[choice].part_a
            self.part_b_used[row] -= self.choices[choice].part_b
            self.left[row] = self.choices[choice].found
