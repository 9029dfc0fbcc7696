"""A container's shared region, through the interposer's own C sources.

Every word is read and changed by the code that programs in the container run, so no layout is written twice and no
change misses a lock. A `Region` is one mapping; it may be used from several threads, but not closed while in use. Where
its container cuts the file under it, it reads as zeros (`replaced`); importing this module takes over SIGBUS for that.
"""

from dataclasses import dataclass

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EEXIST, errno
from libc.string cimport memset, strncpy

import os

# Programs in containers can write what they like into their regions, and this process may be root.
prim_lock_by_word()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """One device of a container."""

    uuid: str
    limit_bytes: int
    cores: int
    # What programs have allocated.
    used_bytes: int
    # What their contexts and code take beside that: estimates, until `observe`.
    overhead_bytes: int
    # Part of `used_bytes` that stands in host memory because the device was full.
    swapped_bytes: int
    launches: int
    charged_ns: int
    waited_ns: int
    debt_ns: int
    stamp_ns: int
    refused: int
    correction: int
    tenants: int
    # Percent that holds instead of `cores`, while it is renewed; 0 = none.
    lent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMemory:
    """What one process holds on one device."""

    used_bytes: int
    context_bytes: int
    module_bytes: int
    monitor_used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One process."""

    index: int
    pid: int
    host_pid: int
    memory: tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A region at one moment; words of different lines may be a few instructions apart."""

    devices: tuple
    slots: tuple
    priority: int
    sharing: bool
    recent_kernel: int
    last_kernel_unix: int
    # What its programs make of compute limits: 1 default, 2 force, 3 disable; 0 = none has said it.
    policy: int

    @property
    def blocked(self) -> bool:
        """Whether launches wait."""
        return self.recent_kernel < 0


# A container may cut its file while we read it: that must not end this process. In place before the first mapping.
if not region_guard_start():
    raise OSError(errno, "SIGBUS cannot be handled")


cdef object _failure(str path):
    cdef int code = errno
    return OSError(code, os.strerror(code), path)


cdef int _plan(region_plan* plan, list uuids, list limits, list cores, int priority) except -1:
    if len(uuids) > REGION_DEVICES or not len(uuids) == len(limits) == len(cores):
        raise ValueError(f"uuids, limits and cores: expected equal lengths of at most {REGION_DEVICES}")
    memset(plan, 0, sizeof(region_plan))
    plan.count = len(uuids)
    plan.priority = priority
    cdef int i
    for i in range(plan.count):
        encoded = (<str> uuids[i]).encode()
        if not encoded or len(encoded) >= REGION_UUID_BYTES or b"\0" in encoded:
            raise ValueError(f"uuids[{i}]: expected 1 to {REGION_UUID_BYTES - 1} bytes")
        strncpy(plan.uuids[i], encoded, REGION_UUID_BYTES - 1)
        plan.limit[i] = limits[i]
        plan.cores[i] = cores[i]
    return 0


cdef class Region:
    cdef region _region
    cdef readonly str path

    def __cinit__(self):
        memset(&self._region, 0, sizeof(region))
        self._region.fd = -1

    def __dealloc__(self):
        region_close(&self._region)

    @staticmethod
    def create(path, uuids, memory_limits_bytes, core_limits, *, int priority=1):
        """The region at `path` with these devices and limits, made if there is none.

        An existing one keeps its processes; devices are added and limits set. Raises OSError.
        """
        cdef str name = os.fspath(path)
        cdef bytes encoded = os.fsencode(name)
        cdef list names = list(uuids)
        cdef list limits = list(memory_limits_bytes)
        cdef list cores = list(core_limits)
        cdef region_plan* plan = <region_plan*> PyMem_Malloc(sizeof(region_plan))
        if plan == NULL:
            raise MemoryError
        try:
            _plan(plan, names, limits, cores, priority)
            if region_create(encoded, plan) != 0 and errno != EEXIST:
                raise _failure(name)
        finally:
            PyMem_Free(plan)
        cdef Region made = Region.open(name)
        cdef int index
        for i in range(len(names)):
            index = region_add(&made._region, (<str> names[i]).encode())
            if index < 0:
                raise OSError(f"{name}: no room for another device")
            region_set_limit(&made._region, index, limits[i], cores[i])
        region_set_priority(&made._region, priority)
        return made

    @staticmethod
    def open(path):
        """An existing region. Raises OSError; EPROTO: the file is no region of a known version."""
        cdef Region opened = Region.__new__(Region)
        opened.path = os.fspath(path)
        if region_open(&opened._region, os.fsencode(opened.path)) != 0:
            raise _failure(opened.path)
        return opened

    cdef region* _mapped(self) except NULL:
        if self._region.prefix == NULL:
            raise ValueError(f"{self.path}: region is closed")
        return &self._region

    cdef int _device(self, int device) except -1:
        if not 0 <= device < <int> self._mapped().prefix.count:
            raise IndexError(f"{self.path}: no device {device}")
        return device

    def close(self):
        """Let go of the mapping; more than once is harmless."""
        region_close(&self._region)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def replaced(self):
        """Whether `path` names another file by now, or none, or the file was cut: this mapping says nothing then."""
        cdef region* r = self._mapped()
        if region_guard_lost(r.prefix):
            return True
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            return True
        return now.st_dev != r.dev or now.st_ino != r.inode

    def snapshot(self):
        """Limits, use and processes as they are now."""
        cdef region* r = self._mapped()
        cdef int count = min(<int> r.prefix.count, <int> REGION_DEVICES)
        cdef int i
        devices = []
        for i in range(count):
            devices.append(DeviceUse(
                uuid=(<bytes> r.prefix.uuids[i]).decode(errors="replace"),
                limit_bytes=r.ext.devices[i].limit,
                cores=r.ext.devices[i].cores,
                used_bytes=account_total(r, i),
                overhead_bytes=account_overhead(r, i),
                swapped_bytes=account_swapped(r, i),
                launches=region_launches(r, i),
                charged_ns=r.ext.devices[i].charged_ns,
                waited_ns=r.ext.devices[i].waited_ns,
                debt_ns=r.ext.devices[i].debt_ns,
                stamp_ns=r.ext.devices[i].stamp_ns,
                refused=r.ext.devices[i].refused,
                correction=r.ext.devices[i].correction or 1000,
                tenants=r.ext.devices[i].tenants,
                lent=r.ext.devices[i].lent,
            ))
        return Snapshot(
            devices=tuple(devices),
            slots=self._slots(count),
            priority=r.prefix.priority,
            sharing=r.prefix.sharing != 0,
            recent_kernel=r.prefix.recent_kernel,
            last_kernel_unix=r.prefix.last_kernel,
            policy=r.ext.policy,
        )

    cdef tuple _slots(self, int count):
        cdef region* r = &self._region
        cdef int slot, i
        cdef list slots = []
        for slot in range(min(<int> r.prefix.slot_count, <int> REGION_SLOTS)):
            if r.ext.claims[slot].pid == 0:
                continue
            memory = []
            for i in range(count):
                memory.append(SlotMemory(
                    used_bytes=r.ext.claims[slot].used[i],
                    context_bytes=r.prefix.slots[slot].memory[i].context,
                    module_bytes=r.prefix.slots[slot].memory[i].module,
                    monitor_used_bytes=r.prefix.slots[slot].monitor_used[i],
                ))
            slots.append(Slot(
                index=slot,
                pid=r.ext.claims[slot].pid,
                host_pid=r.prefix.slots[slot].host_pid,
                memory=tuple(memory),
            ))
        return tuple(slots)

    def reap(self):
        """Take back what dead processes held; how many there were. Fills in host pids of living ones."""
        return region_reap(self._mapped(), True)

    def set_limit(self, int device, bytes_, cores):
        """Limits of one device: bytes (0 = none) and percent of its time (0 and 100 = none)."""
        region_set_limit(self._mapped(), self._device(device), bytes_, cores)

    def set_priority(self, int priority):
        """0 high, 1 low."""
        region_set_priority(self._mapped(), priority)

    def reassert(self, uuids, memory_limits_bytes, core_limits, *, int priority):
        """Put back devices, limits, priority and what makes the file a region; whether any of them had been changed."""
        cdef region* r = self._mapped()
        cdef region_plan* plan = <region_plan*> PyMem_Malloc(sizeof(region_plan))
        if plan == NULL:
            raise MemoryError
        try:
            _plan(plan, list(uuids), list(memory_limits_bytes), list(core_limits), priority)
            return bool(region_reassert(r, plan))
        finally:
            PyMem_Free(plan)

    def set_sharing(self, bint sharing):
        """Whether others use the devices too: compute limits of the default policy hold only then."""
        region_set_sharing(self._mapped(), sharing)

    def observe(self, int slot, int device, bytes_):
        """The driver says that the process in `slot` holds `bytes_` of a device, all in all.

        What is beside its allocations becomes its overhead, and what new contexts there are counted with.
        """
        if not 0 <= slot < REGION_SLOTS:
            raise IndexError(f"{self.path}: no slot {slot}")
        account_observe(self._mapped(), slot, self._device(device), bytes_)

    def expect_context(self, int device, bytes_):
        """What a context takes on a device, as measured elsewhere; 0 = not known."""
        region_set_context_bytes(self._mapped(), self._device(device), bytes_)

    def set_correction(self, int device, *, permille, tenants):
        """Factor on what launches are charged (1000 = 1); busy containers on the device (0 = unknown)."""
        region_set_correction(self._mapped(), self._device(device), permille, tenants)

    def lend(self, int device, percent):
        """For the next second, this much of the device's time instead of the limit; 0 ends a loan."""
        region_lend(self._mapped(), self._device(device), percent)

    def amend(self, int device, ns):
        """Charge device time that was had beyond what was charged; negative: take back."""
        region_amend(self._mapped(), self._device(device), ns)

    def block(self):
        """Launches wait until `unblock`."""
        region_block(self._mapped())

    def unblock(self):
        """Launches that wait go on, at once."""
        region_unblock(self._mapped())

    def decay(self):
        """Count the activity word down by one, as HAMi's monitor does; what it is then (2 = just launched)."""
        return region_decay(self._mapped())
