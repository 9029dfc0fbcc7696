"""A pod's needs, packed by `table.py`: plain structs, and pointers to the MIG tables that serve them."""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from hami.alloc._mig cimport Plan, PlanTable, Wish, WishTable

cdef int64_t NO_LIMIT_C = INT64_MAX
NO_LIMIT = INT64_MAX


NUMBERS = {
    "UNHEALTHY": UNHEALTHY,
    "CORDONED": CORDONED,
    "TYPE_MISMATCH": TYPE_MISMATCH,
    "NUMA_NOT_FIT": NUMA_NOT_FIT,
    "LINKS_NOT_FIT": LINKS_NOT_FIT,
    "UUID_MISMATCH": UUID_MISMATCH,
    "SLOTS_EXHAUSTED": SLOTS_EXHAUSTED,
    "EXCLUSIVE_CONFLICT": EXCLUSIVE_CONFLICT,
    "QUOTA": QUOTA,
    "NO_MEMORY": NO_MEMORY,
    "NO_CORES": NO_CORES,
    "CORES_EXHAUSTED": CORES_EXHAUSTED,
    "MIG_INFEASIBLE": MIG_INFEASIBLE,
    "TOO_FEW_PICKED": TOO_FEW_PICKED,
    "TOO_FEW_DEVICES": TOO_FEW_DEVICES,
    "UNREGISTERED": UNREGISTERED,
    "INVALID_REQUEST": INVALID_REQUEST,
    "MODE_NOT_FIT": MODE_NOT_FIT,
    "CARD_UNHEALTHY": CARD_UNHEALTHY,
    "CLASS_MISMATCH": CLASS_MISMATCH,
    "QOS_MISMATCH": QOS_MISMATCH,
    "WHYS": WHYS,
    "DEVICES": DEVICES,
    "LARGEST_FREE": LARGEST_FREE,
    "FAMILY": FAMILY,
    "SHORT_CORES": SHORT_CORES,
    "SHORT_A": SHORT_A,
    "SHORT_B": SHORT_B,
    "TALLY_WIDTH": TALLY_WIDTH,
    "ROW_HEALTHY": ROW_HEALTHY,
    "ROW_CORDONED": ROW_CORDONED,
    "ROW_UNSOUND": ROW_UNSOUND,
    "MARK_CHOSEN": MARK_CHOSEN,
    "MARK_BARRED": MARK_BARRED,
    "OF_FAMILY": OF_FAMILY,
    "ELIGIBLE": ELIGIBLE,
    "IS_MIG": IS_MIG,
    "SCORES_REQUEST": SCORES_REQUEST,
    "WRONG_MODE": WRONG_MODE,
    "BY_PERCENT": BY_PERCENT,
    "NUMA_BIND": NUMA_BIND,
    "ONLY_CHOSEN": ONLY_CHOSEN,
    "MUTEX": MUTEX,
    "FULL_IS_EXCLUSIVE": FULL_IS_EXCLUSIVE,
    "LINKED": LINKED,
    "JOINED": JOINED,
    "BY_LOSS": BY_LOSS,
    "MARKED": MARKED,
    "CORES_AS_ASKED": CORES_AS_ASKED,
    "CORES_OF_DEVICE": CORES_OF_DEVICE,
    "CLOSELY": CLOSELY,
    "GROUPED": GROUPED,
    "MAY_BE_UNKNOWN": MAY_BE_UNKNOWN,
    "SCORE_UP": SCORE_UP,
    "SCORE_DOWN": SCORE_DOWN,
    "NUMA_UP": NUMA_UP,
    "NUMA_DOWN": NUMA_DOWN,
    "USED_DOWN": USED_DOWN,
    "TAKEN_UP": TAKEN_UP,
    "PULL_UP": PULL_UP,
    "INIT": INIT,
    "SIDECAR": SIDECAR,
    "APP": APP,
}
"""Every number of `_ask.pxd` by its name: Python reads them here instead of repeating them."""


cdef class Ask:
    def __cinit__(self, list needs, bytes verdicts, tuple weights, list wishes, list plans, list joints, tuple weighed):
        """`needs` are tuples in the order of `Need`'s fields, the last one a tuple in the order of `Size`'s for every
        kind, or an empty one; `verdicts` one byte a kind and distinct selection.

        `wishes` and `plans` have a list a need: its table for every grid, or None; the lists are empty where nothing
        is in MIG mode. `joints` are (plans by grid, kind of every need, sidecars' instances by kind). `weighed` is
        (whether worth is looked at, whether nodes are ranked by it, kind of request or -1, milli-CPU, host MiB).
        """
        cdef Py_ssize_t i, j, size = len(needs)
        cdef const unsigned char[::1] source
        self.needs = <Need*>calloc(size + 1, sizeof(Need))
        self.verdicts = <uint8_t*>malloc(len(verdicts) + 1)
        if self.needs == NULL or self.verdicts == NULL:
            raise MemoryError
        self.count = <int32_t>size
        self.limited = self.sized = False
        self.weighed, self.by_price, self.case, self.cpu, self.host = weighed
        self.mig = False
        self.joints = <int32_t>len(joints)
        self.kept = [wishes, plans, joints]
        cdef Need* need
        cdef tuple sizes
        for i in range(size):
            need = &self.needs[i]
            (
                need.container, need.role, need.family, need.count, need.memory, need.cores, need.rules, need.keys,
                need.ranked, need.kinds, need.memory_left, need.cores_left, need.slots, need.part_a, need.part_b,
                need.leaves, need.no_class, need.no_qos, need.pulled, need.full_cores, need.wanted, need.misfit,
                sizes,
            ) = needs[i]
            if sizes:
                self.sized = True
                need.sizes = size_table(sizes)
            if need.memory_left != NO_LIMIT_C or need.cores_left != NO_LIMIT_C:
                self.limited = True
            if wishes[i]:
                self.mig = True
                need.wishes = wish_tables(wishes[i])
                need.plans = plan_tables(plans[i])
        self.cover_all()
        for i in range(self.joints):
            by_grid, kinds, side = joints[i]
            self.joint[i].plans = plan_tables(by_grid)
            self.joint[i].kind = <int32_t*>malloc(size * sizeof(int32_t))
            if self.joint[i].kind == NULL:
                raise MemoryError
            for j in range(size):
                self.joint[i].kind[j] = kinds[j]
            for j in range(len(side)):
                self.joint[i].side[j] = side[j]
        self.sliced = self.joints > 0 and not self.limited
        for i in range(size):
            if not self.joints or self.joint[0].kind[i] < 0 or self.needs[i].family != self.needs[0].family:
                self.sliced = False
        self.verdict_count = <int32_t>len(verdicts)
        if verdicts:
            source = verdicts
            memcpy(self.verdicts, &source[0], len(verdicts))
        for i in range(3):
            self.weights[i] = weights[i]

    cdef void cover_all(self) noexcept nogil:
        # One need that is at least as much as all of the pod's needs: so many cards of so much room serve the pod in
        # any order and by any policy. Only where no need restricts which cards go together.
        cdef int32_t i
        cdef const Need* need
        self.covered = self.count > 1 and not self.limited and not self.mig
        for i in range(self.count):
            need = &self.needs[i]
            if i == 0:
                self.cover = need[0]
            elif need.family != self.cover.family or (need.rules ^ self.cover.rules) & BY_PERCENT:
                self.covered = False
            else:
                self.cover.count += min(need.count, 1 << 20)
                self.cover.memory = max(self.cover.memory, need.memory)
                self.cover.cores = max(self.cover.cores, need.cores)
            if need.rules & (NUMA_BIND | JOINED | LINKED | CLOSELY | GROUPED) or self.cover.count > 1 << 20:
                self.covered = False

    def __dealloc__(self):
        cdef int32_t i
        if self.needs != NULL:
            for i in range(self.count):
                free(self.needs[i].wishes)
                free(self.needs[i].plans)
                free(self.needs[i].sizes)
        for i in range(2):
            free(self.joint[i].plans)
            free(self.joint[i].kind)
        free(self.needs)
        free(self.verdicts)


cdef Size* size_table(tuple sizes) except NULL:
    cdef Py_ssize_t i
    cdef Size* size
    cdef Size* table = <Size*>calloc(len(sizes), sizeof(Size))
    if table == NULL:
        raise MemoryError
    for i in range(len(sizes)):
        size = &table[i]
        size.count, size.memory, size.cores, size.part_a, size.no_class, size.wanted = sizes[i]
    return table


cdef WishTable** wish_tables(list wishes) except NULL:
    cdef Py_ssize_t i
    cdef WishTable** tables = <WishTable**>calloc(len(wishes) + 1, sizeof(WishTable*))
    if tables == NULL:
        raise MemoryError
    for i in range(len(wishes)):
        if wishes[i] is not None:
            tables[i] = &(<Wish>wishes[i]).table
    return tables


cdef PlanTable** plan_tables(list plans) except NULL:
    cdef Py_ssize_t i
    cdef PlanTable** tables = <PlanTable**>calloc(len(plans) + 1, sizeof(PlanTable*))
    if tables == NULL:
        raise MemoryError
    for i in range(len(plans)):
        if plans[i] is not None:
            tables[i] = &(<Plan>plans[i]).table
    return tables
