"""The engine's picture of the cluster: every column with its unit and meaning.

A device is a row; the rows of a node are adjacent and sorted by driver index, then UUID. Strings never enter: nodes,
rows and kinds are small integers handed out by `table.py`, which owns the arrays; the views here see the same memory.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from hami.alloc._mig cimport MOST_KINDS, Grid, PlanTable, WishTable
from hami.alloc._topology cimport LinkTable
from hami.alloc._worth cimport Cost, Portion, Worth


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
    WHYS = 17
    FITS = 18


cdef enum:
    # A tally is a row of int32: the counters above, then these.
    DEVICES = 17          # cards of the family on the node
    LARGEST_FREE = 18     # MiB free on the emptiest card that the pod may join
    TALLY_WIDTH = 19


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


cdef enum NeedRule:
    BY_PERCENT = 1        # `memory` is percent of the card it lands on, not MiB
    NUMA_BIND = 2         # all cards of this need on one NUMA node
    ONLY_CHOSEN = 4       # only rows marked MARK_CHOSEN
    MUTEX = 8             # only cards nobody uses
    FULL_IS_EXCLUSIVE = 16  # all cores of a card means alone on it
    LINKED = 32           # links count before everything else, also between nodes
    JOINED = 64           # all cards of this need joined by fast links
    BY_LOSS = 128         # cards are scored by the worth that a share takes from their node


cdef enum Key:
    # Sort keys of a card policy; the list is sorted ascending and tried from its end.
    KEY_NONE = 0
    SCORE_UP = 1
    SCORE_DOWN = 2
    NUMA_UP = 3
    NUMA_DOWN = 4
    USED_DOWN = 5


cdef enum Role:
    INIT = 0
    SIDECAR = 1
    APP = 2


cdef enum:
    STEPS_A_NODE = 4096   # cards tried on one node for containers that do not fit one after the other
    MOST_STEPS = 65536    # the same in one decision


cdef enum:
    FEW = 16              # so many best nodes are picked out without sorting all


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
    WishTable** wishes    # by grid number: this need on cards in MIG mode; NULL = there are none
    PlanTable** plans     # by grid number: up to `count` instances of this need


cdef struct Choice:
    int32_t need          # index into `Ask.needs`
    int32_t row
    int64_t memory        # MiB, resolved on this row
    int64_t cores         # percent, resolved on this row
    int32_t place         # in MIG mode, index into the places of the row's grid; else -1


cdef struct Joint:
    # All MIG needs of a pod as one plan. Containers that run one after the other may share an instance, so there are
    # at most as many of a kind as run at a time; the first `side` of them belong to sidecars.
    PlanTable** plans     # by grid number
    int32_t* kind         # of every need, -1 = not of the family that has MIG
    int32_t[MOST_KINDS] side


cdef struct Group:
    # What a set of cards is worth beside that of another NUMA node.
    double[8] rank        # by ranked key, summed; lower is better
    int64_t links         # sum of pair scores; higher is better


cdef struct Ranked:
    int64_t links         # for requests that put links first, the best set's sum of pair scores; else 0
    float score
    uint64_t tie          # mixed from pod and node, so that equal nodes share the load
    int32_t node


cdef class Ask:
    """One pod's needs, packed: containers in pod order, those that ask for nothing left out."""

    cdef Need* needs
    cdef readonly int32_t count
    cdef uint8_t* verdicts
    cdef int32_t verdict_count
    cdef float[3] weights   # slot, core, memory
    cdef bint limited       # some need has a quota
    cdef bint weighed       # nodes or cards are ranked by the worth that the pod takes
    cdef bint by_price      # nodes are
    cdef int32_t case       # kind of request, for remembered costs; -1 = none
    cdef int64_t cpu        # milli-CPU that the pod takes of its node
    cdef int64_t host       # MiB of host memory, likewise
    cdef list kept          # owners of the tables that pointers lead to
    cdef bint covered       # `cover` stands for all needs
    cdef Need cover
    cdef bint mig           # some need may be met by MIG instances
    cdef int32_t joints
    cdef Joint[2] joint     # in the order in which they are tried

    cdef void cover_all(self) noexcept nogil


ctypedef int (*Compare)(const void* left, const void* right) noexcept nogil


cdef class Survey:
    cdef Ranked* ranked             # fitting nodes
    cdef readonly Py_ssize_t fitting
    cdef Py_ssize_t best_at         # the first in rank among them
    cdef bint ordered
    cdef Compare compare
    cdef int32_t* refusing          # the others, in the order of the candidates
    cdef int32_t* tallies           # theirs, `TALLY_WIDTH` each
    cdef readonly Py_ssize_t refused
    cdef list names                 # by node number, as they were
    cdef readonly list unknown      # candidates that are no registered nodes


cdef class Rows:
    # rows
    cdef int32_t[::1] kind          # interned (family, model, mode)
    cdef int32_t[::1] numa
    cdef uint8_t[::1] flags         # `RowFlag` bits
    cdef uint8_t[::1] marks         # `Mark` bits, 0 between requests
    cdef int64_t[::1] slots         # sharers that may join
    cdef int64_t[::1] slots_used    # sharers that have
    cdef int64_t[::1] memory        # MiB
    cdef int64_t[::1] memory_used   # may exceed `memory`: what pods hold is a fact, not a wish
    cdef int64_t[::1] cores         # percent of one device
    cdef int64_t[::1] cores_used
    cdef int32_t[::1] grid          # number of its list of MIG profiles, -1 = not in MIG mode, or nothing usable
    cdef int32_t[::1] taken         # MIG: state, the slices that instances hold
    # nodes
    cdef int32_t[::1] first         # node n owns rows first[n]:first[n] + length[n]
    cdef int32_t[::1] length        # 0 = no such node
    cdef uint64_t[::1] salt         # hash of the name
    cdef int32_t[::1] links         # number of the pair scores of its rows, -1 = nothing is known
    cdef float[::1] score_now       # `node_score`, kept up by every booking
    cdef uint32_t[::1] seen         # number of the last survey that met the node
    cdef int64_t[::1] sum_slots     # sums over all rows of the node, of every family
    cdef int64_t[::1] sum_slots_used
    cdef int64_t[::1] sum_memory
    cdef int64_t[::1] sum_memory_used
    cdef int64_t[::1] sum_cores
    cdef int64_t[::1] sum_cores_used
    cdef const LinkTable** link_tables  # pair scores by number; nodes of one build share them
    cdef list linked                # their owners
    cdef const Grid** grids         # profile lists by number
    cdef list profiles              # their owners
    cdef readonly Worth free_worth       # of the free part of nodes
    # working space, kept between calls
    cdef Portion* picks                # what the worth is to be weighed without, as many as `choices`
    cdef uint32_t survey_number
    cdef int32_t widest             # most rows a node may have
    cdef int32_t* order             # rows of one family on one node, as the policy sorts them
    cdef float* score               # card scores, beside `order`
    cdef Choice* choices            # picks of one pod on one node, in order
    cdef int32_t choices_room
    cdef int32_t* undo              # trial changes, newest last: indices into `choices` to give back
    cdef int32_t undo_length
    cdef int32_t* listed            # positions in `order` of the cards collected for one choice
    cdef int32_t* spots             # the same cards, as the node's pair scores number them
    cdef int32_t* chosen            # spots of the best set
    cdef uint8_t* unused            # by spot: collected
    cdef int64_t link_value         # pair scores of the set last chosen for a request that puts links first
    cdef int32_t* turns             # needs in the order in which they are tried
    cdef int32_t* lists             # by turn: how many cards it may have, and which
    cdef int32_t turns_room
    cdef int64_t lists_room
    cdef int32_t steps_left         # of this decision
    cdef int32_t node_steps         # of this node
    cdef int32_t* saved             # `taken` of a node's rows while a pod is tried
    cdef int32_t* slice_rows        # cards in MIG mode that take part in a plan, as the policy prefers them
    cdef int32_t* slice_states
    cdef int32_t* slice_rooms
    cdef PlanTable** slice_plans
    cdef int64_t* slice_costs       # (cards + 1) x sets
    cdef int32_t* slice_sets        # cards x sets
    cdef int32_t slices_room        # cards that the two above have room for
    cdef Choice* pool               # instances of a joint plan, by kind
    cdef int32_t pool_room
    cdef int32_t[MOST_KINDS + 1] pool_first

    cdef int reserve(self, Ask ask) except -1
    cdef int reserve_turns(self, int32_t needs) except -1
    cdef int reserve_slices(self, int32_t instances) except -1
    cdef void try_on(self, Ask ask, int32_t node, uint64_t pod_salt, Survey found) noexcept nogil
    cdef int32_t shown(self, int32_t row) noexcept nogil
    cdef void tell(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef float node_score(self, int32_t node) noexcept nogil
    cdef float node_price(self, Ask ask, int32_t node, bint fresh) noexcept nogil
    cdef void renew_best(self, Ask ask, Survey found) noexcept nogil
    cdef float card_price(self, int32_t node, int32_t row, const Need* need) noexcept nogil
    cdef int64_t memory_of(self, int32_t row, const Need* need) noexcept nogil
    cdef int64_t cores_of(self, int32_t row, const Need* need) noexcept nogil
    cdef int32_t barred(self, int32_t row, const Need* need, uint8_t verdict) noexcept nogil
    cdef int32_t closed(self, int32_t row, const Need* need) noexcept nogil
    cdef int32_t short_of(self, int32_t row, const Need* need, uint8_t verdict) noexcept nogil
    cdef bint within_quota(self, Ask ask, int32_t picked, int32_t start, int32_t count) noexcept nogil
    cdef float card_score(self, int32_t row, const Need* need, uint8_t verdict, Ask ask) noexcept nogil
    cdef bint comes_before(self, int32_t a, int32_t b, uint32_t keys) noexcept nogil
    cdef int32_t sort(self, int32_t node, const Need* need, Ask ask) noexcept nogil
    cdef bint fit_quick(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef bint has_room(self, Ask ask, const Need* need, int32_t node, const LinkTable* links) noexcept nogil
    cdef int32_t pick(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil
    cdef const LinkTable* links_of(self, int32_t node) noexcept nogil
    cdef bint same_rank(self, int32_t a, int32_t b, uint32_t ranked) noexcept nogil
    cdef double worth(self, int32_t position, uint32_t key) noexcept nogil
    cdef bint choose(self, const Need* need, int32_t node, int32_t found, Group* group) noexcept nogil
    cdef int32_t capacity(self, int32_t row, const Need* need) noexcept nogil
    cdef bint has_slices(self, Ask ask, const Need* need, int32_t node) noexcept nogil
    cdef int32_t pick_slices(self, Ask ask, int32_t index, int32_t node, int32_t picked, int32_t* tally) noexcept nogil
    cdef int64_t settle_slices(
        self, const Need* need, int32_t picked, int32_t cards, int32_t plain, int32_t sliced, int64_t best_cost
    ) noexcept nogil
    cdef int64_t share_out(self, int32_t cards) noexcept nogil
    cdef void instance(self, Choice* choice, int32_t card, int32_t state, int32_t place) noexcept nogil
    cdef bint plan_jointly(self, Ask ask, const Joint* joint, int32_t node) noexcept nogil
    cdef int32_t walk(self, Ask ask, const Joint* joint, int32_t node, int32_t* tally) noexcept nogil
    cdef void take(self, int32_t choice) noexcept nogil
    cdef void roll_back(self, int32_t length) noexcept nogil
    cdef int32_t fit(self, Ask ask, int32_t node, int32_t* tally) noexcept nogil
    cdef int32_t rearrange(self, Ask ask, int32_t node) noexcept nogil
    cdef bint larger(self, Ask ask, int32_t node, int32_t a, int32_t b) noexcept nogil
    cdef int32_t descend(
        self, Ask ask, int32_t node, int32_t turns, int32_t depth, int32_t chosen, int32_t start, int32_t picked
    ) noexcept nogil
    cdef bint same(self, Ask ask, const Need* need, int32_t node, int32_t a, int32_t b) noexcept nogil
    cdef bint goes_together(self, const Need* need, int32_t node, int32_t picked) noexcept nogil
    cdef int32_t add_inits(self, Ask ask, int32_t node, int32_t picked) noexcept nogil
    cdef bint holds_in_order(self, Ask ask, int32_t picked) noexcept nogil
    cdef bint all_within_quota(self, Ask ask, int32_t picked) noexcept nogil
