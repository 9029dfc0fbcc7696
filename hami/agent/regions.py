"""The shared regions of this node's grants, kept open while their grants last.

Made when a grant is settled, so that limits and metrics exist before the first process; read by the monitor. Every word
of a region is changed by the interposer's own C code.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Self

from hami.agent.overhead import ContainerProcesses, ProcessView
from hami.alloc.feedback import Feedback
from hami.model.names import DeviceUuid
from hami.node._region import Region
from hami.node.grants import Grant, GrantStore

log = logging.getLogger(__name__)

MIB: Final = 2**20
LOW: Final = 1
"""Priority of a region that is made anew after nobody has said its grant's; programs that start write their own."""
JUST_LAUNCHED: Final = 2
"""The activity word after a launch; each look counts it down."""


class Policy(Enum):
    """Which compute limits a container's programs keep."""

    UNKNOWN = 0
    """None of its programs has said it, or what stands there is no policy."""
    DEFAULT = 1
    FORCE = 2
    DISABLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device of one container."""

    uuid: DeviceUuid
    limit_bytes: int
    """0 = no limit."""
    cores: int = 0
    """Percent of the device's time; 0 and 100 = no limit."""
    used_bytes: int
    """Allocations, contexts and code."""
    context_bytes: int
    module_bytes: int
    swapped_bytes: int = 0
    """Part of the allocations that stands in host memory because the device was full."""
    launches: int
    charged_ns: int
    """Device time obtained since the region exists."""
    waited_ns: int | None
    refused: int | None
    """None: the library in the container counts no such thing."""
    correction: int = 1000
    """Factor on what launches are charged, 1/1000."""
    tenants: int = 0
    """Containers that are active on the device, as far as the library was told."""
    stamp_ns: int = 0
    """Changes while a limit holds and a program launches, or waits to."""
    lent: int = 0
    """Percent that holds instead of `cores` meanwhile; 0 = none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionView:
    """One container's region at one moment."""

    devices: tuple[DeviceView, ...]
    processes: int
    priority: int
    blocked: bool
    idle_s: float | None
    """Seconds since the last launch; None before the first."""
    launched: bool = False
    """A launch since the look before. HAMi's libraries count no launches; this word they set, too."""
    sharing: bool = False
    """Limits of the default policy hold."""
    host_pids: tuple[int, ...] = ()
    """Of its processes, as far as they are known."""
    policy: Policy = Policy.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A mapped region, and the file as it was then."""

    region: Region
    inode: int
    size: int


POLICIES: Final = {policy.value: policy for policy in Policy}


class OpenRegions:
    """Regions by the grants' ids, kept open. Safe in several threads: grants are opened up in a worker thread."""

    def __init__(self, path: Callable[[str], Path]) -> None:
        """`path`: where a grant's region lies."""
        self._path = path
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            for known in self._open.values():
                known.region.close()
            self._open.clear()

    def close(self, grant_id: str) -> None:
        """Let go of a region that is about to be deleted."""
        with self._lock:
            self._close(grant_id)

    def view(self, grant_id: str, *, reap: bool) -> RegionView | None:
        """The region as it is now, after the dead were reaped if asked; None before it was made.

        Raises OSError for a file that is no region.
        """
        with self._lock:
            region = self._region(grant_id)
            if region is None:
                return None
            if reap:
                region.reap()
            view = _view(region)
            region.decay()
            return view

    def apply(self, verdict: Feedback) -> None:
        """Set one region's switches. Raises OSError for a file that is no region."""
        with self._lock:
            region = self._region(verdict.id)
            if region is None:
                return
            region.set_sharing(verdict.sharing)
            if verdict.blocked:
                region.block()
            else:
                region.unblock()

    def correct(self, grant_id: str, device: int, *, permille: int, tenants: int, amend_ns: int) -> None:
        """Tell one device of a region what charges are multiplied by and how many are active on it, and put right what
        was charged.

        Raises OSError for a file that is no region.
        """
        with self._lock:
            region = self._region(grant_id)
            if region is not None:
                region.set_correction(device, permille=permille, tenants=tenants)
                region.amend(device, amend_ns)

    def lend(self, grant_id: str, device: int, percent: int) -> None:
        """For the next second let a container use `percent` of a device's time instead of its limit; 0 ends a loan.

        Raises OSError for a file that is no region.
        """
        with self._lock:
            region = self._region(grant_id)
            if region is not None:
                region.lend(device, percent)

    def processes(self, grant_id: str) -> ContainerProcesses | None:
        """Who holds what now; None before the region was made. Raises OSError for a file that is no region."""
        with self._lock:
            region = self._region(grant_id)
            return None if region is None else _processes(region)

    def observe(self, grant_id: str, slot: int, device: int, held_bytes: int) -> None:
        """The driver says what a process holds of a device. Raises OSError for a file that is no region."""
        with self._lock:
            region = self._region(grant_id)
            if region is not None:
                region.observe(slot, device, held_bytes)

    def expect_context(self, grant_id: str, device: int, context_bytes: int) -> None:
        """Count new contexts of a device like this. Raises OSError for a file that is no region."""
        with self._lock:
            region = self._region(grant_id)
            if region is not None:
                region.expect_context(device, context_bytes)

    def _region(self, grant_id: str) -> Region | None:
        """The open region of the file as it is now. Raises OSError for a file that is no region.

        Its container may cut the file; touching a page that is gone kills a process, so what is mapped is compared with
        what is there before every use.
        """
        path = self._path(grant_id)
        try:
            stat = path.stat()
        except FileNotFoundError:
            self._close(grant_id)
            return None
        known = self._open.get(grant_id)
        if known is not None and (known.inode, known.size) == (stat.st_ino, min(known.size, stat.st_size)):
            return known.region
        self._close(grant_id)
        region = Region.open(path)
        self._keep(grant_id, region)
        return region

    def _keep(self, grant_id: str, region: Region) -> None:
        stat = self._path(grant_id).stat()
        self._open[grant_id] = _Open(region=region, inode=stat.st_ino, size=stat.st_size)

    def _close(self, grant_id: str) -> None:
        known = self._open.pop(grant_id, None)
        if known is not None:
            known.region.close()


class RegionFiles(OpenRegions):
    """The regions of this node's grants: made, shown to containers, put right."""

    def __init__(self, store: GrantStore) -> None:
        super().__init__(store.own_region)
        self._store = store
        self._priorities: dict[str, int] = {}

    def ensure(self, grant: Grant, priority: int) -> None:
        """Have a region with the grant's devices and limits; one with live processes is never made anew."""
        uuids, limits, cores = _plan(grant)
        with self._lock:
            self._priorities[grant.id] = priority
            self._store.adopt_region(grant.id)
            try:
                region = self._region(grant.id)
            except OSError as error:
                log.warning("the region of grant %s is made anew: %s", grant.id, error)
                region = None
            if region is not None and [device.uuid for device in region.snapshot().devices] == uuids:
                for i, (limit, percent) in enumerate(zip(limits, cores, strict=True)):
                    region.set_limit(i, limit, percent)
                region.set_priority(priority)
            else:
                self._close(grant.id)
                path = self._store.own_region(grant.id)
                path.unlink(missing_ok=True)
                self._keep(grant.id, Region.create(path, uuids, limits, cores, priority=priority))
            self._store.show_region(grant.id)

    def reassert(self, grant: Grant) -> str:
        """Put back what the grant's container may have done to its region: limits, or the file itself.

        Says what had been changed; empty where nothing was. A region whose pages are gone is made anew: the programs
        that have it mapped cannot go on with it either way. Raises OSError where the node's disk is the trouble.
        """
        with self._lock:
            try:
                region = self._region(grant.id)
                if region is None:
                    return ""  # it was not made yet
                changed = "the file of the shared region" if self._store.show_region(grant.id) else ""
                uuids, limits, cores = _plan(grant)
                priority = self._priorities.get(grant.id, region.snapshot().priority)
                if region.reassert(uuids, limits, cores, priority=priority):
                    changed = "the limits in the shared region"
                return changed
            except OSError as error:
                log.warning("the region of grant %s cannot be used: %s", grant.id, error)
        self.ensure(grant, self._priorities.get(grant.id, LOW))
        return "the file of the shared region"

    def alive(self, grant_id: str) -> bool:
        """Whether a process of the grant's container still runs; the dead are reaped on the way.

        A file that its container has spoiled says nothing: then the kubelet's list and the API decide alone.
        """
        with self._lock:
            try:
                region = self._region(grant_id)
            except OSError:
                return False
            if region is None:
                return False
            region.reap()
            return bool(region.snapshot().slots)

    def close(self, grant_id: str) -> None:
        """Let go of a region that is about to be deleted."""
        with self._lock:
            self._priorities.pop(grant_id, None)
            self._close(grant_id)


def _plan(grant: Grant) -> tuple[list[str], list[int], list[int]]:
    """A grant's devices, bytes and percent."""
    shares = grant.shares
    return (
        [str(share.uuid) for share in shares],
        [share.memory_mib * MIB for share in shares],
        [share.cores for share in shares],
    )


def _processes(region: Region) -> ContainerProcesses:
    snapshot = region.snapshot()
    return ContainerProcesses(
        devices=tuple(DeviceUuid(device.uuid) for device in snapshot.devices),
        processes=tuple(
            ProcessView(
                slot=slot.index,
                host_pid=slot.host_pid,
                used_bytes=tuple(memory.used_bytes for memory in slot.memory),
                module_bytes=tuple(memory.module_bytes for memory in slot.memory),
            )
            for slot in snapshot.slots
        ),
    )


def _view(region: Region) -> RegionView:
    snapshot = region.snapshot()
    last = snapshot.last_kernel_unix
    return RegionView(
        devices=tuple(
            DeviceView(
                uuid=DeviceUuid(device.uuid),
                limit_bytes=device.limit_bytes,
                cores=device.cores,
                used_bytes=device.used_bytes + device.overhead_bytes,
                context_bytes=sum(slot.memory[i].context_bytes for slot in snapshot.slots),
                module_bytes=sum(slot.memory[i].module_bytes for slot in snapshot.slots),
                swapped_bytes=device.swapped_bytes,
                launches=device.launches,
                charged_ns=device.charged_ns,
                waited_ns=device.waited_ns,
                refused=device.refused,
                correction=device.correction,
                tenants=device.tenants,
                stamp_ns=device.stamp_ns,
                lent=device.lent,
            )
            for i, device in enumerate(snapshot.devices)
        ),
        processes=len(snapshot.slots),
        priority=snapshot.priority,
        blocked=snapshot.blocked,
        idle_s=max(0.0, time.time() - last) if last else None,
        launched=snapshot.recent_kernel >= JUST_LAUNCHED,
        sharing=snapshot.sharing,
        host_pids=tuple(slot.host_pid for slot in snapshot.slots if slot.host_pid),
        policy=POLICIES.get(snapshot.policy, Policy.UNKNOWN),
    )
