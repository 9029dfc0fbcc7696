"""The exact choice of k linked cards among n.

Up to 16 cards the sum of pair scores of every subset stands in a table, and so does the best that so many cards of a
subset reach; a choice goes through the sets of its size from the best one down, as far as the first that is to be had
and those that score the same. Above 16 cards those that are linked alike are counted by class, and the counts are
searched instead of the cards.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

NUMBERS = {
    "MOST_EXACT": MOST_EXACT,
    "MOST_CARDS": MOST_CARDS,
    "MOST_TRIES": MOST_TRIES,
    "PAIR_WEIGHT": PAIR_WEIGHT,
    "QUAD_WEIGHT": QUAD_WEIGHT,
    "OCTET_WEIGHT": OCTET_WEIGHT,
}


cdef extern from *:
    int __builtin_popcount(unsigned int) noexcept nogil
    int __builtin_ctz(unsigned int) noexcept nogil


cdef class Links:
    def __cinit__(self, list weights, list joined):
        """`weights` and `joined`: symmetric n x n rows of small non-negative integers, and of truths."""
        cdef int32_t n = <int32_t>len(weights), i, j
        cdef LinkTable* table = &self.table
        if not 0 < n <= MOST_CARDS:
            raise ValueError("no card, or more than are chosen by links")
        table.cards = n
        table.weight = <int32_t*>malloc(n * n * sizeof(int32_t))
        table.joined_to = <uint8_t*>malloc(n * n)
        table.klass = <int32_t*>malloc(n * sizeof(int32_t))
        table.inner = <int32_t*>calloc(n, sizeof(int32_t))
        table.outer = <int32_t*>calloc(n * n, sizeof(int32_t))
        if (
            table.weight == NULL or table.joined_to == NULL or table.klass == NULL
            or table.inner == NULL or table.outer == NULL
        ):
            raise MemoryError
        for i in range(n):
            for j in range(n):
                table.weight[i * n + j] = 0 if i == j else weights[i][j]
                table.joined_to[i * n + j] = 0 if i == j else bool(joined[i][j])
        classify(table)

    def __dealloc__(self):
        cdef int32_t k
        free(self.table.weight)
        free(self.table.joined_to)
        free(self.table.klass)
        free(self.table.inner)
        free(self.table.outer)
        free(self.table.score)
        free(self.table.rest)
        free(self.table.joined)
        for k in range(MOST_EXACT + 1):
            free(self.table.best[k])
            free(self.table.sets[k])

    cdef int prepare(self, int32_t want, bint joined) except -1:
        # Fill in what questions for `want` cards look up. Groups of 2, 4 and 8 are always needed for the rest.
        cdef LinkTable* table = &self.table
        cdef int64_t masks
        cdef int32_t k
        if table.cards > MOST_EXACT:
            return 0
        masks = <int64_t>1 << table.cards
        if table.score == NULL:
            table.score = <int32_t*>malloc(masks * sizeof(int32_t))
            if table.score == NULL:
                raise MemoryError
            fill_score(table)
        for k in (2, 4, 8, want):
            if 0 < k <= MOST_EXACT and table.best[k] == NULL:
                table.best[k] = <int32_t*>malloc(masks * sizeof(int32_t))
                if table.best[k] == NULL:
                    raise MemoryError
                fill_best(table, k)
        if 0 < want <= table.cards and table.sets[want] == NULL:
            self.rank_sets(want)
        if table.rest == NULL:
            table.rest = <int32_t*>malloc(masks * sizeof(int32_t))
            if table.rest == NULL:
                raise MemoryError
            fill_rest(table)
        if joined and table.joined == NULL:
            table.joined = <uint32_t*>malloc(masks * sizeof(uint32_t))
            if table.joined == NULL:
                raise MemoryError
            fill_joined(table)
        return 0

    cdef int rank_sets(self, int32_t want) except -1:
        # Every set of so many cards; one number a set sorts them by falling score, then rising mask.
        cdef LinkTable* table = &self.table
        cdef uint32_t mask
        cdef int32_t count = 0, i
        cdef uint64_t* keys = <uint64_t*>malloc((<size_t>1 << table.cards) * sizeof(uint64_t))
        if keys == NULL:
            raise MemoryError
        for mask in range(<uint32_t>1 << table.cards):
            if __builtin_popcount(mask) == want:
                keys[count] = <uint64_t><uint32_t>(0x7FFFFFFF - table.score[mask]) << 16 | mask
                count += 1
        qsort(keys, count, sizeof(uint64_t), rising)
        table.sets[want] = <uint16_t*>malloc(count * sizeof(uint16_t))
        if table.sets[want] == NULL:
            free(keys)
            raise MemoryError
        for i in range(count):
            table.sets[want][i] = <uint16_t>(keys[i] & 0xFFFF)
        table.set_count[want] = count
        free(keys)
        return 0

    def make_ready(self, int32_t want, bint joined):
        """Fill in the tables for questions about `want` cards, and about joined sets."""
        self.prepare(want, joined)

    @property
    def uniform(self):
        """Whether no set of cards is better linked than another."""
        return bool(self.table.uniform)

    @property
    def classes(self):
        """How many classes of cards are linked alike."""
        return self.table.classes

    def best(self, list free_cards, int32_t want):
        """The best score of `want` of these cards, without the other conditions; None when there are too few."""
        cdef uint32_t mask = 0
        cdef int32_t card, found
        if self.table.cards > MOST_EXACT:
            raise ValueError("only up to as many cards as have tables")
        self.prepare(want, False)
        for card in free_cards:
            mask |= <uint32_t>1 << card
        found = best_score(&self.table, mask, want)
        return None if found < 0 else found

    def choose(self, list order, int32_t sure, int32_t want, list others, bint joined):
        """The cards to take: all of `order[:sure]`, and of the rest of `order` those that make the best set of `want`.

        `order` is by preference; `others` are free cards that are not to be taken. None when no set is joined.
        """
        cdef int32_t n = self.table.cards, i
        cdef Pick pick
        cdef int32_t* listed = <int32_t*>malloc((len(order) + 1) * sizeof(int32_t))
        cdef int32_t* chosen = <int32_t*>malloc((want + 1) * sizeof(int32_t))
        cdef uint8_t* unused = <uint8_t*>calloc(n, 1)
        try:
            if listed == NULL or chosen == NULL or unused == NULL:
                raise MemoryError
            if not 0 <= sure <= want <= len(order):
                raise ValueError("fewer cards than wanted")
            self.prepare(want, joined)
            for i in range(len(order)):
                listed[i] = order[i]
                unused[listed[i]] = 1
            for i in others:
                unused[i] = 1
            pick.order, pick.sure, pick.open, pick.want = listed, sure, <int32_t>len(order) - sure, want
            pick.free, pick.joined, pick.keys = unused, joined, 0
            if not choose_linked(&self.table, &pick, chosen):
                return None
            return [chosen[i] for i in range(want)]
        finally:
            free(listed)
            free(chosen)
            free(unused)


cdef int rising(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const uint64_t*>left)[0], b = (<const uint64_t*>right)[0]
    return (a > b) - (a < b)


cdef void classify(LinkTable* table) noexcept nogil:
    # Cards are linked alike when they score the same with every third card, and are joined to the same ones.
    cdef int32_t n = table.cards, i, j, c
    table.classes = 0
    for i in range(n):
        table.klass[i] = -1
    for i in range(n):
        if table.klass[i] >= 0:
            continue
        c = table.classes
        table.classes += 1
        table.klass[i] = c
        for j in range(i + 1, n):
            if table.klass[j] < 0 and alike(table, i, j):
                table.klass[j] = c
                table.inner[c] = table.weight[i * n + j]
    for i in range(n):
        for j in range(n):
            if table.klass[i] != table.klass[j]:
                table.outer[table.klass[i] * table.classes + table.klass[j]] = table.weight[i * n + j]
    table.uniform = table.classes == 1


cdef bint alike(const LinkTable* table, int32_t i, int32_t j) noexcept nogil:
    cdef int32_t n = table.cards, other
    for other in range(n):
        if other == i or other == j:
            continue
        if table.weight[i * n + other] != table.weight[j * n + other]:
            return False
        if table.joined_to[i * n + other] != table.joined_to[j * n + other]:
            return False
    return True


cdef void fill_score(LinkTable* table) noexcept nogil:
    cdef uint32_t mask, others
    cdef int32_t n = table.cards, low, value
    table.score[0] = 0
    for mask in range(1, <uint32_t>1 << n):
        low = __builtin_ctz(mask)
        others = mask & (mask - 1)
        value = table.score[others]
        while others:
            value += table.weight[low * n + __builtin_ctz(others)]
            others &= others - 1
        table.score[mask] = value


cdef void fill_best(LinkTable* table, int32_t want) noexcept nogil:
    # A subset of the right size is in the mask itself or in the mask less one card.
    cdef uint32_t mask, cards
    cdef int32_t size, value
    cdef int32_t* best = table.best[want]
    for mask in range(<uint32_t>1 << table.cards):
        size = __builtin_popcount(mask)
        if size <= want:
            best[mask] = table.score[mask] if size == want else -1
            continue
        value = -1
        cards = mask
        while cards:
            value = max(value, best[mask & ~(cards & (~cards + 1))])
            cards &= cards - 1
        best[mask] = value


cdef void fill_rest(LinkTable* table) noexcept nogil:
    cdef uint32_t mask
    for mask in range(<uint32_t>1 << table.cards):
        table.rest[mask] = (
            PAIR_WEIGHT * max(0, table.best[2][mask])
            + QUAD_WEIGHT * max(0, table.best[4][mask])
            + OCTET_WEIGHT * max(0, table.best[8][mask])
        )


cdef void fill_joined(LinkTable* table) noexcept nogil:
    # A set is joined when it is joined without one card, and that card is linked into it.
    cdef uint32_t mask, cards, without, others, sizes
    cdef int32_t n = table.cards, size, card
    cdef bint whole
    table.joined[0] = 1
    for mask in range(1, <uint32_t>1 << n):
        size = __builtin_popcount(mask)
        sizes = 0
        whole = size == 1
        cards = mask
        while cards:
            card = __builtin_ctz(cards)
            cards &= cards - 1
            without = mask & ~(<uint32_t>1 << card)
            sizes |= table.joined[without]
            if whole or not table.joined[without] >> (size - 1) & 1:
                continue
            others = without
            while others:
                if table.joined_to[card * n + __builtin_ctz(others)]:
                    whole = True
                    break
                others &= others - 1
        table.joined[mask] = sizes | (<uint32_t>whole << size)


cdef int32_t best_score(const LinkTable* links, uint32_t unused, int32_t want) noexcept nogil:
    # Needs `prepare(want)`. -1 = fewer cards than wanted.
    if not 0 < want <= links.cards:
        return -1
    return links.best[want][unused]


cdef int64_t set_score(const LinkTable* links, const int32_t* cards, int32_t count) noexcept nogil:
    cdef int32_t i, j
    cdef int64_t total = 0
    for i in range(count):
        for j in range(i):
            total += links.weight[cards[i] * links.cards + cards[j]]
    return total


cdef int64_t rest_value(
    const LinkTable* links, const uint8_t* free_cards, const int32_t* cards, int32_t count
) noexcept nogil:
    # What the free cards are still worth when these of them are taken.
    cdef Search search
    cdef uint32_t left = 0
    cdef int32_t i
    if links.cards <= MOST_EXACT:
        for i in range(links.cards):
            left |= <uint32_t>(free_cards[i] != 0) << i
        for i in range(count):
            left &= ~(<uint32_t>1 << cards[i])
        return links.rest[left]
    memset(&search, 0, sizeof(Search))
    search.links = links
    for i in range(links.cards):
        search.free[links.klass[i]] += free_cards[i] != 0
    for i in range(count):
        search.taken[links.klass[cards[i]]] += 1
    return rest_of_classes(&search)


cdef bint are_joined(const LinkTable* links, const int32_t* cards, int32_t count) noexcept nogil:
    # Reach every card from the first one, over direct links.
    cdef uint8_t[MOST_CARDS] reached
    cdef int32_t i, j, found = 1
    cdef bint grew = count > 0
    memset(reached, 0, sizeof(reached))
    reached[0] = 1
    while grew:
        grew = False
        for i in range(count):
            for j in range(count):
                if reached[i] and not reached[j] and links.joined_to[cards[i] * links.cards + cards[j]]:
                    reached[j] = 1
                    found += 1
                    grew = True
    return found >= count


cdef bint choose_linked(const LinkTable* links, const Pick* pick, int32_t* chosen) noexcept nogil:
    # chosen[0:want] become the cards, in the order of preference. False when none of the sets is joined as asked.
    if links.cards > MOST_EXACT:
        return choose_by_class(links, pick, chosen)
    if pick.keys:
        return choose_by_rank(links, pick, chosen)
    return choose_exactly(links, pick, chosen)


cdef bint choose_exactly(const LinkTable* links, const Pick* pick, int32_t* chosen) noexcept nogil:
    cdef uint32_t unused = 0, sure = 0, within, mask, best = 0, places, best_places = 0, differ
    cdef int32_t i, found = 0, rest, best_rest = -1
    cdef const uint16_t* sets = links.sets[pick.want]
    for i in range(links.cards):
        if pick.free[i]:
            unused |= <uint32_t>1 << i
    for i in range(pick.sure):
        sure |= <uint32_t>1 << pick.order[i]
    within = sure
    for i in range(pick.sure, pick.sure + pick.open):
        within |= <uint32_t>1 << pick.order[i]
    for i in range(links.set_count[pick.want]):
        mask = sets[i]
        if mask & ~within or sure & ~mask:
            continue
        if pick.joined and not links.joined[mask] >> pick.want & 1:
            continue
        if best and links.score[mask] < links.score[best]:
            break
        rest = links.rest[unused & ~mask]
        if rest < best_rest:
            continue
        # Of sets that are equal in all this the one whose first different card is preferred.
        places = places_of(pick, mask)
        differ = places ^ best_places
        if rest > best_rest or places & differ & (~differ + 1):
            best, best_rest, best_places = mask, rest, places
    if not best and pick.want:
        return False
    for i in range(pick.sure + pick.open):
        if best >> pick.order[i] & 1:
            chosen[found] = pick.order[i]
            found += 1
    return True


cdef bint choose_by_rank(const LinkTable* links, const Pick* pick, int32_t* chosen) noexcept nogil:
    # Of all joined sets of the `open` cards the best by rank, then by links, rest and preference; none is sure.
    cdef uint32_t unused = 0, within = 0, mask, best = 0, places, best_places = 0, differ
    cdef double[MOST_KEYS] rank
    cdef double[MOST_KEYS] best_rank
    cdef int32_t i, s, found = 0, rest, best_rest = -1
    cdef int64_t better
    for i in range(links.cards):
        if pick.free[i]:
            unused |= <uint32_t>1 << i
    for i in range(pick.open):
        within |= <uint32_t>1 << pick.order[i]
    for s in range(links.set_count[pick.want]):
        mask = links.sets[pick.want][s]
        if mask & ~within or (pick.joined and not links.joined[mask] >> pick.want & 1):
            continue
        places = places_of(pick, mask)
        rank_set(pick, places, rank)
        better = 1
        rest = links.rest[unused & ~mask]
        if best:
            better = compare_ranks(best_rank, rank, pick.keys)
            if not better:
                better = links.score[mask] - links.score[best]
            if not better:
                better = rest - best_rest
            if not better:
                differ = places ^ best_places
                better = 1 if places & differ & (~differ + 1) else -1
        if better > 0:
            best, best_rest, best_places = mask, rest, places
            best_rank = rank
    for i in range(pick.open):
        if best >> pick.order[i] & 1:
            chosen[found] = pick.order[i]
            found += 1
    return best != 0


cdef void rank_set(const Pick* pick, uint32_t places, double* rank) noexcept nogil:
    cdef int32_t key, i
    for key in range(pick.keys):
        rank[key] = 0
        for i in range(pick.open):
            if places >> i & 1:
                rank[key] += pick.worth[key * MOST_EXACT + i]


cdef int32_t compare_ranks(const double* a, const double* b, int32_t keys) noexcept nogil:
    # 1 where `a` is higher, that is worse.
    cdef int32_t key
    for key in range(keys):
        if a[key] != b[key]:
            return 1 if a[key] > b[key] else -1
    return 0


cdef uint32_t places_of(const Pick* pick, uint32_t mask) noexcept nogil:
    # Bit i: the set has the i-th card in the order of preference.
    cdef uint32_t places = 0
    cdef int32_t i
    for i in range(pick.sure + pick.open):
        places |= (mask >> pick.order[i] & 1) << i
    return places


cdef struct Search:
    const LinkTable* links
    const Pick* pick
    int32_t[MOST_CARDS] sure  # by class: cards taken in any case
    int32_t[MOST_CARDS] open  # by class: cards among which to choose
    int32_t[MOST_CARDS] free  # by class: every free card, taken or not
    int32_t[MOST_CARDS + 1] after  # by class: cards among which to choose, in this class and the later ones
    int32_t[MOST_CARDS] taken  # by class: this combination
    int32_t[MOST_CARDS] best
    int64_t best_of
    int64_t best_rest
    int32_t tries


cdef bint choose_by_class(const LinkTable* links, const Pick* pick, int32_t* chosen) noexcept nogil:
    cdef Search search
    cdef int32_t i, c, found = 0
    memset(&search, 0, sizeof(Search))
    search.links, search.pick = links, pick
    search.best_of = search.best_rest = -1
    for i in range(pick.sure + pick.open):
        c = links.klass[pick.order[i]]
        if i < pick.sure:
            search.sure[c] += 1
        else:
            search.open[c] += 1
    for i in range(links.cards):
        if pick.free[i]:
            search.free[links.klass[i]] += 1
    for c in range(links.classes - 1, -1, -1):
        search.after[c] = search.after[c + 1] + search.open[c]
    count_classes(&search, 0, pick.want - pick.sure, 0)
    if search.best_of < 0:
        return False
    for i in range(pick.sure + pick.open):
        c = links.klass[pick.order[i]]
        if i < pick.sure or search.best[c] > search.sure[c]:
            if i >= pick.sure:
                search.best[c] -= 1
            chosen[found] = pick.order[i]
            found += 1
    return True


cdef void count_classes(Search* search, int32_t c, int32_t left, int64_t score) noexcept nogil:
    # Classes 0 to c - 1 are decided and score `score` among themselves; `left` cards are still to be chosen.
    cdef const LinkTable* links = search.links
    cdef int32_t more, other, most
    cdef int64_t linked
    if c == links.classes:
        if left == 0:
            search.tries += 1
            weigh(search, score)
        return
    most = min(left, search.open[c])
    # Most of a class first: sets that stay together are found before the tries run out.
    for more in range(most, -1, -1):
        if search.tries >= MOST_TRIES or left - more > search.after[c + 1]:
            return
        search.taken[c] = search.sure[c] + more
        linked = <int64_t>links.inner[c] * search.taken[c] * (search.taken[c] - 1) // 2
        for other in range(c):
            linked += <int64_t>links.outer[c * links.classes + other] * search.taken[c] * search.taken[other]
        count_classes(search, c + 1, left - more, score + linked)


cdef void weigh(Search* search, int64_t score) noexcept nogil:
    cdef int32_t c
    cdef int64_t rest
    if score < search.best_of or (search.pick.joined and not is_joined(search)):
        return
    rest = rest_of_classes(search)
    if score == search.best_of and rest <= search.best_rest:
        return
    search.best_of, search.best_rest = score, rest
    for c in range(search.links.classes):
        search.best[c] = search.taken[c]


cdef int64_t rest_of_classes(const Search* search) noexcept nogil:
    # What one class alone would still give to groups of 2, 4 and 8.
    cdef const LinkTable* links = search.links
    cdef int32_t c, left
    cdef int64_t pair = 0, quad = 0, octet = 0
    for c in range(links.classes):
        left = search.free[c] - search.taken[c]
        if left >= 2:
            pair = max(pair, links.inner[c])
        if left >= 4:
            quad = max(quad, 6 * <int64_t>links.inner[c])
        if left >= 8:
            octet = max(octet, 28 * <int64_t>links.inner[c])
    return PAIR_WEIGHT * pair + QUAD_WEIGHT * quad + OCTET_WEIGHT * octet


cdef bint is_joined(const Search* search) noexcept nogil:
    # Reach every class that is used from the first one, over direct links.
    cdef const LinkTable* links = search.links
    cdef uint8_t[MOST_CARDS] reached
    cdef int32_t c, other, used = 0, found = 0, first = -1
    cdef bint grew = True
    memset(reached, 0, sizeof(reached))
    for c in range(links.classes):
        if search.taken[c]:
            used += 1
            if first < 0:
                first = c
    if first < 0:
        return True
    reached[first] = 1
    found = 1
    while grew:
        grew = False
        for c in range(links.classes):
            if not reached[c]:
                continue
            for other in range(links.classes):
                if search.taken[other] and not reached[other] and class_joined(links, c, other):
                    reached[other] = 1
                    found += 1
                    grew = True
    if found < used:
        return False
    # Cards of one class that is reached over other cards are joined to these; alone they must be joined to each other.
    if used == 1 and search.taken[first] > 1:
        return class_joined(links, first, first)
    return True


cdef bint class_joined(const LinkTable* links, int32_t a, int32_t b) noexcept nogil:
    cdef int32_t i, j
    for i in range(links.cards):
        if links.klass[i] != a:
            continue
        for j in range(links.cards):
            if j != i and links.klass[j] == b:
                return links.joined_to[i * links.cards + j]
    return False
