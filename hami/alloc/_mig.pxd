"""MIG cards as bit masks: what fits where, and what a placement costs.

A *state* is the set of a card's taken memory slices, one bit each, and above them one bit for the card's single set of
media engines, which `+me` profiles need. Everything a decision asks of a state is a table look-up: tables are built
once for a list of profiles (`Grid`) and once for a wish on it (`WishTable`). The classes own the structs' memory; code
without the interpreter works on the structs.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef enum:
    MOST_PROFILES = 32
    MOST_PLACES = 96          # over all profiles of one card
    MOST_SLICES = 12          # memory slices; the finest real grid has twelve, four of them distinct
    MOST_KINDS = 8            # different wishes that one pod may have on MIG cards
    MOST_SETS = 512           # combinations of how many of each kind a card could take


cdef enum:
    # A cost is one number, compared as a whole; its parts from the most significant down: memory slices beyond the
    # smallest sufficient profile, compute slices beyond it, weighted instances that no longer fit, the policy's rank.
    MEMORY_SHIFT = 52
    COMPUTE_SHIFT = 42
    LOSS_SHIFT = 12


cdef struct Place:
    int32_t profile           # position among the usable profiles
    int32_t mask              # state bits it takes
    int32_t start             # as the driver counts


cdef struct Grid:
    int32_t slices            # memory slices in units of the grid
    int32_t states            # size of every table by state
    int32_t count             # profiles with at least one usable placement
    int32_t place_count
    Place[MOST_PLACES] places  # grouped by profile, in the order in which ties are broken
    int32_t[MOST_PROFILES] first    # places first[p]:first[p + 1] belong to profile p
    int32_t[MOST_PROFILES] index    # its position in the list the node registered
    int32_t[MOST_PROFILES] size     # memory slices of one instance, in units
    int32_t[MOST_PROFILES] compute  # compute slices
    int32_t[MOST_PROFILES] cores    # percent of the card
    int64_t[MOST_PROFILES] memory   # MiB
    int32_t[MOST_PROFILES] weight   # of one instance that no longer fits
    uint8_t* room             # room[state * count + p]: most instances of p that still fit
    int32_t* lost             # by state: weighted instances that would fit an idle card and no longer fit this one


cdef struct WishTable:
    const Grid* grid
    int32_t choices           # sufficient placements
    int32_t[MOST_PLACES] place
    int64_t[MOST_PLACES] waste  # cost without loss and rank
    int64_t* best             # by state: least cost, rank apart; NO_COST where nothing fits
    int32_t* best_place
    uint8_t* most             # by state: most instances of this wish that fit together


cdef struct Step:
    int32_t kind              # which wish was served
    int32_t place             # index into `Grid.places`


cdef struct PlanTable:
    # A set is a number in mixed radix: digit t says how many of wish t. Filled in on demand, state by state.
    const Grid* grid
    WishTable* wish[MOST_KINDS]
    int32_t kinds
    int32_t sets
    int32_t[MOST_KINDS] radix  # weight of digit t: set + radix[t] is one more of wish t
    int32_t[MOST_KINDS] count  # most of wish t
    int64_t* cost             # cost[state * sets + set]: waste and final loss, NO_COST, or UNKNOWN
    Step* step                # what to place first


cdef int64_t NO_COST
cdef int64_t UNKNOWN

cdef int64_t plan_cost(PlanTable* plan, int32_t state, int32_t chosen) noexcept nogil
cdef int32_t set_digit(const PlanTable* plan, int32_t chosen, int32_t kind) noexcept nogil
cdef int64_t divide(
    PlanTable** plans, const int32_t* states, const int32_t* rooms, int32_t cards, int64_t* total, int32_t* taken
) noexcept nogil


cdef class Profiles:
    """One list of profiles, as cards of one model and one allowlist share it."""

    cdef Grid grid
    cdef readonly int32_t unit        # driver's slices per unit


cdef class Wish:
    """One wish (memory or share of the card, compute) on one list of profiles."""

    cdef WishTable table
    cdef readonly Profiles profiles


cdef class Plan:
    """All wishes of one pod on one list of profiles."""

    cdef PlanTable table
    cdef readonly Profiles profiles
    cdef list wishes                  # keeps them alive
