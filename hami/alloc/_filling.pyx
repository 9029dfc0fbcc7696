"""The value of a node's free part: how much of it pods as they have been coming would fill.

A node in state s is worth U(s): the devices expected to be used of it if pods drawn from the running picture of demand
came to it alone. It is the mean over a few fixed sequences of draws, the same for every state, so that their noise
cancels in differences, of what a best-fit filling takes; CPU and host memory run out in it as devices do. Pods that
few nodes could ever take come to each of these the more often, so every make of node has draws of its own. States
repeat, so values are remembered.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset


cdef enum:
    LENGTH = 80           # draws of one sequence on a node that every pod could go to
    MOST_LENGTH = 240     # and on one of few that some pods could go to
    REMEMBERED = 1 << 17  # values kept, by hash of the state


cdef inline uint64_t scramble(uint64_t x) noexcept nogil:
    # The finalizer of splitmix64: every input bit reaches every output bit.
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


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


cdef class Filling:
    def __cinit__(self):
        self.wants = NULL
        self.cases = NULL
        self.verdicts = NULL
        self.shares = NULL
        self.cases_known = self.drawn = 0
        self.epoch = 1
        self.devices = self.evaluated = 0
        memset(self.makes, 0, sizeof(self.makes))
        self.makes_known = 1
        self.makes[0].order = <int32_t*>malloc(RUNS * MOST_LENGTH * sizeof(int32_t))
        self.values = <Remembered*>calloc(REMEMBERED, sizeof(Remembered))
        if self.makes[0].order == NULL or self.values == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int32_t i
        free(self.wants)
        free(self.cases)
        free(self.verdicts)
        free(self.shares)
        for i in range(self.makes_known):
            free(self.makes[i].draws)
            free(self.makes[i].order)
        free(self.values)

    cdef int learn(self, list cases, bytes verdicts) except -1:
        # Take a new picture of demand, see `Worth.draw`. Nodes are to be counted next.
        cdef int32_t i, at = 0, wants = 0
        cdef double total = 0
        cdef Want* want
        cdef const unsigned char[::1] source
        free(self.wants)
        free(self.cases)
        free(self.verdicts)
        free(self.shares)
        self.wants, self.cases, self.verdicts, self.shares = NULL, NULL, NULL, NULL
        self.drawn = self.cases_known = 0
        self.epoch += 1
        self.devices = 0
        for i in range(self.makes_known):
            self.makes[i].devices = 0
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
            self.cases[i].weight, self.cases[i].cpu, self.cases[i].host, asked = cases[i]
            total += self.cases[i].weight
            self.cases[i].first, self.cases[i].count = at, <int32_t>len(asked)
            for fields in asked:
                want = &self.wants[at]
                (
                    want.count, want.memory, want.by_percent, want.cores, want.alone, want.verdicts, want.most,
                ) = fields
                at += 1
        if total > 0:
            self.cases_known = <int32_t>len(cases)
        for i in range(self.cases_known):
            self.cases[i].weight /= total
        return 0

    cdef list sequences_of(self, const State* state):
        # The draws that such a node is filled with, as case numbers, a list a run.
        cdef const Make* make = self.make_of(state)
        cdef int32_t i, run
        return [
            [make.order[i] for i in range(run * make.per_run, (run + 1) * make.per_run)] for run in range(RUNS)
        ]

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

    cdef void count_node(self, const State* state) noexcept nogil:
        # One more node; after all of them comes `share_out`.
        self.find_make(state).devices += state.count
        self.devices += state.count

    cdef void share_out(self) noexcept nogil:
        # How many devices could serve each case, were they idle; then draws can be made.
        cdef int32_t i, j
        cdef Make* make
        cdef Case* case
        cdef State* idle = &self.filling
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
        self.drawn = self.cases_known > 0

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
