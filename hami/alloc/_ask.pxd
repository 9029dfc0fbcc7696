"""One pod's request as the engine reads it, and the numbers that stand for rules and reasons.

Strings never enter the engine: nodes, rows, kinds and reasons are small integers.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from hami.alloc._mig cimport MOST_KINDS, PlanTable, WishTable


cdef enum:
    # `hami.model.claim.Why`, number by number: they index the counters of a refusal (anonymous, or they could not).
    UNHEALTHY = 0
    CORDONED = 1
    TYPE_MISMATCH = 2
    NUMA_NOT_FIT = 3
    LINKS_NOT_FIT = 4
    UUID_MISMATCH = 5
    SLOTS_EXHAUSTED = 6
    EXCLUSIVE_CONFLICT = 7
    QUOTA = 8
    NO_MEMORY = 9
    NO_CORES = 10
    CORES_EXHAUSTED = 11
    MIG_INFEASIBLE = 12
    TOO_FEW_PICKED = 13
    TOO_FEW_DEVICES = 14
    UNREGISTERED = 15
    INVALID_REQUEST = 16
    MODE_NOT_FIT = 17
    CARD_UNHEALTHY = 18
    CLASS_MISMATCH = 19
    QOS_MISMATCH = 20
    WHYS = 21
    FITS = 22


cdef enum:
    # A tally is a row of int32: the counters above, then these.
    DEVICES = 21          # cards of the family on the node
    LARGEST_FREE = 22     # MiB free on the emptiest card that the pod may join
    FAMILY = 23           # whose need it was, as the pod's families are numbered
    # Plus one, 0 = none: the most that a card which is short of it has left of its cores and of its further budgets.
    SHORT_CORES = 24
    SHORT_A = 25
    SHORT_B = 26
    TALLY_WIDTH = 27


cdef enum RowFlag:
    ROW_HEALTHY = 1
    ROW_CORDONED = 2
    ROW_UNSOUND = 4       # what pods hold of its slices is not known, so nothing of it is given out


cdef enum Mark:
    # Set on rows for the time of one request, by its UUID selection.
    MARK_CHOSEN = 1       # named by the allow list
    MARK_BARRED = 2       # named by the deny list


cdef enum Verdict:
    # What a need says of a kind (family, model, mode), worked out once a request.
    OF_FAMILY = 1         # the kind belongs to the family asked for; without it the row does not count
    ELIGIBLE = 2          # model and mode are accepted
    IS_MIG = 4            # cards of this kind are cut into hardware instances
    SCORES_REQUEST = 8    # the request itself enters the card's score
    WRONG_MODE = 16       # it is the mode of the whole node that is not accepted


cdef enum NeedRule:
    BY_PERCENT = 1        # `memory` is percent of the card it lands on, not MiB
    NUMA_BIND = 2         # all cards of this need on one NUMA node
    ONLY_CHOSEN = 4       # only rows marked MARK_CHOSEN
    MUTEX = 8             # only cards nobody uses
    FULL_IS_EXCLUSIVE = 16  # all cores of a card means alone on it
    LINKED = 32           # links count before everything else, also between nodes
    JOINED = 64           # all cards of this need joined by fast links
    BY_LOSS = 128         # cards are scored by the worth that a share takes from their node
    MARKED = 256          # rows carry marks for this need
    CORES_AS_ASKED = 512  # 100 cores are 100, also on a card that has less
    CORES_OF_DEVICE = 1024  # `cores` is percent of what the card is registered with, at least one unit
    CLOSELY = 2048        # amounts or units beyond the common ones: no short cuts
    GROUPED = 4096        # the family says which cards go together
    MAY_BE_UNKNOWN = 8192  # a card without memory is one whose memory is not known


cdef enum Key:
    # Sort keys of a card policy; the list is sorted ascending and tried from its end.
    KEY_NONE = 0
    SCORE_UP = 1
    SCORE_DOWN = 2
    NUMA_UP = 3
    NUMA_DOWN = 4
    USED_DOWN = 5
    TAKEN_UP = 6          # cards that containers of this pod have come last
    PULL_UP = 7


cdef enum Role:
    INIT = 0
    SIDECAR = 1
    APP = 2


cdef struct Size:
    # A need on cards of one kind, of families whose nodes differ in what a request comes to.
    int32_t count
    int64_t memory
    int64_t cores
    int64_t part_a
    uint32_t no_class
    int32_t wanted


cdef struct Need:
    int32_t container     # position in the pod, init containers first
    int32_t role          # `Role`
    int32_t family        # number of the family within the pod, for its quota
    int32_t count         # distinct cards wanted
    int64_t memory        # MiB or percent of each
    int64_t cores         # percent of each, 0..100
    uint32_t rules        # `NeedRule` bits
    uint32_t keys         # `Key`s of its card policy, four bits each, most significant key lowest
    uint32_t ranked       # those that count before links, likewise
    int32_t kinds         # where this need's verdicts start in `Ask.verdicts`
    int64_t memory_left   # MiB the namespace may still book of this family, quota; NO_LIMIT = no quota
    int64_t cores_left    # percent, likewise
    int64_t slots         # sharers that each card is taken by
    int64_t part_a        # of each card's first further budget
    int64_t part_b        # of the second
    uint32_t leaves       # marks that a share leaves on its card
    uint32_t no_class     # not beside these marks: classes of work that do not go together
    uint32_t no_qos       # nor these: ways of sharing that do not go together
    bint pulled           # the node ranks by the pull of the cards chosen
    int64_t full_cores    # what counts as all cores of a card; 0 = what it is registered with
    int32_t wanted        # number of the need for `Boards`, where GROUPED
    int32_t misfit        # the reason where its cards cannot go together
    Size* sizes           # by kind: what the need comes to on a node of such cards; NULL = the same everywhere
    WishTable** wishes    # by grid number: this need on cards in MIG mode; NULL = there are none
    PlanTable** plans     # by grid number: up to `count` instances of this need


cdef struct Choice:
    int32_t need          # index into `Ask.needs`
    int32_t row
    int64_t memory        # MiB, resolved on this row
    int64_t cores         # percent, resolved on this row
    int64_t slots
    int64_t part_a
    int64_t part_b
    uint32_t left         # marks that it leaves
    uint32_t found        # the card's marks before
    int32_t place         # in MIG mode, index into the places of the row's grid; else -1


cdef struct Joint:
    # All MIG needs of a pod as one plan. Containers that run one after the other may share an instance, so there are
    # at most as many of a kind as run at a time; the first `side` of them belong to sidecars.
    PlanTable** plans     # by grid number
    int32_t* kind         # of every need, -1 = not of the family that has MIG
    int32_t[MOST_KINDS] side


cdef int64_t NO_LIMIT_C


cdef class Ask:
    """One pod's needs, packed: containers in pod order, those that ask for nothing left out."""

    cdef Need* needs
    cdef readonly int32_t count
    cdef uint8_t* verdicts
    cdef int32_t verdict_count
    cdef float[3] weights   # slot, core, memory
    cdef bint limited       # some need has a quota
    cdef bint sized         # some need has `sizes`
    cdef bint weighed       # nodes or cards are ranked by the worth that the pod takes
    cdef bint by_price      # nodes are
    cdef int32_t case       # kind of request, for remembered costs; -1 = none
    cdef int64_t cpu        # milli-CPU that the pod takes of its node
    cdef int64_t host       # MiB of host memory, likewise
    cdef list kept          # owners of the tables that pointers lead to
    cdef bint covered       # `cover` stands for all needs
    cdef Need cover
    cdef bint mig           # some need may be met by MIG instances
    cdef bint sliced        # all of them only by these, and they are planned jointly
    cdef int32_t joints
    cdef Joint[2] joint     # in the order in which they are tried

    cdef void cover_all(self) noexcept nogil
