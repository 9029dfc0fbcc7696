"""Sets of linked cards as bit masks: what a set is worth, and what it leaves.

Nodes with the same matrix of pair scores share one `Links`. Bit i of a mask is the i-th card of the node's family.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t


cdef enum:
    MOST_KEYS = 8             # of a policy
    MOST_EXACT = 16           # cards up to which every subset has its entry in the tables
    MOST_CARDS = 128          # cards of one family on one node that are chosen by their links at all
    MOST_TRIES = 100000       # combinations looked at where cards are counted by class


cdef enum:
    # What groups of 2, 4 and 8 cards count in the value of what is left: an average link counts alike in each.
    PAIR_WEIGHT = 84
    QUAD_WEIGHT = 14
    OCTET_WEIGHT = 3


cdef struct LinkTable:
    int32_t cards
    bint uniform              # all pairs score the same: no set is better than another
    int32_t* weight           # weight[i * cards + j]
    uint8_t* joined_to        # joined_to[i * cards + j]: a direct fast link
    # cards <= MOST_EXACT, by mask; NULL until first used
    int32_t* score            # sum over all pairs
    int32_t* rest             # weighted best pair, quad and octet within the mask
    uint32_t* joined          # bit k: some k cards within the mask are joined among themselves
    int32_t* best[MOST_EXACT + 1]  # by size: the best score of so many cards within the mask, -1 = fewer cards
    uint16_t* sets[MOST_EXACT + 1]  # by size: every mask of so many cards, the best score first
    int32_t[MOST_EXACT + 1] set_count
    # more cards: classes of cards that are linked alike
    int32_t classes
    int32_t* klass            # of every card
    int32_t* inner            # pair score inside a class
    int32_t* outer            # outer[a * classes + b]: pair score between classes


cdef struct Pick:
    # One question. `order` has the cards in the order of preference: first those that are taken in any case, then
    # those among which links decide; what else is free stands in `free` only.
    const int32_t* order
    int32_t sure
    int32_t open
    int32_t want              # cards in all, sure ones included
    const uint8_t* free       # by card: fits, chosen or not
    bint joined               # the chosen must be joined among themselves
    # Where the cards that count most by rank are not joined: worth[key * MOST_EXACT + i] is what the i-th card of
    # `order` adds to its set, lower is better; it counts before links. keys 0 = links alone decide.
    int32_t keys
    const double* worth


cdef bint choose_linked(const LinkTable* links, const Pick* pick, int32_t* chosen) noexcept nogil
cdef bint are_joined(const LinkTable* links, const int32_t* cards, int32_t count) noexcept nogil
cdef int64_t set_score(const LinkTable* links, const int32_t* cards, int32_t count) noexcept nogil
cdef int64_t rest_value(
    const LinkTable* links, const uint8_t* free_cards, const int32_t* cards, int32_t count
) noexcept nogil
cdef int32_t best_score(const LinkTable* links, uint32_t unused, int32_t want) noexcept nogil


cdef class Links:
    """One matrix of pair scores, and its tables."""

    cdef LinkTable table
    cdef int prepare(self, int32_t want, bint joined) except -1
    cdef int rank_sets(self, int32_t want) except -1
