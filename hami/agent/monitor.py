"""Looking at every granted container's region: reap the dead, judge who waits and who shares, remember for metrics.

The verdicts are `hami.alloc.feedback`'s, `hami.alloc.correction`'s and `hami.alloc.lending`'s; a region's words are
changed by its own C code only. One look reads some fifty regions in a millisecond. It runs five times a second, and
twenty times where containers of different priority share a device, so that blocks begin and end soon, and while one's
unused share is lent to others, so that it gets it back soon. Once a second the driver is asked what
processes obtained and what they hold.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypedDict, TypeVar

import anyio

from hami.agent.instances import ContainerInstance, instances
from hami.agent.loans import FULL_CORES, Loans
from hami.agent.overhead import Books, ContainerProcesses, Overhead, ProcessBytes
from hami.agent.regions import DeviceView, RegionView
from hami.agent.shares import ProcessShares, Shares
from hami.alloc.feedback import HOLD_S, ContainerUse, Feedback, Rhythm, feedback, tenants
from hami.model.device import NodeInventory
from hami.model.names import DeviceUuid, NodeName, PodKey
from hami.node.grants import Grant, State
from hami.node.probe import ProbeError

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY_S: Final = 0.2
LOOK_CLOSELY_S: Final = 0.05
REAP_EVERY_S: Final = 1.0
HOSTS_EVERY_S: Final = 5.0
SHARES_EVERY_S: Final = 1.0
HOST_PREFIX: Final = "NVIDIA-"
"""HAMi's monitor puts this before the product name, even where that begins with NVIDIA."""


class Views(Books, Protocol):
    """What the monitor asks of regions, and tells them."""

    def view(self, grant_id: str, *, reap: bool) -> RegionView | None:
        """The region as it is now; None before it was made. Raises OSError for a file that is no region."""
        ...

    def apply(self, verdict: Feedback) -> None:
        """Set one region's switches. Raises OSError for a file that is no region."""
        ...

    def correct(self, grant_id: str, device: int, *, permille: int, tenants: int, amend_ns: int) -> None:
        """Set one device's factor on charges and its count of tenants, and put right what was charged.

        Raises OSError for a file that is no region.
        """
        ...

    def lend(self, grant_id: str, device: int, percent: int) -> None:
        """For the next second, this much of a device's time instead of its limit; 0 ends a loan.

        Raises OSError for a file that is no region.
        """
        ...


class HostProbe(Protocol):
    """What the monitor asks the driver."""

    def inventory(self) -> NodeInventory: ...

    def usage(self) -> Mapping[DeviceUuid, tuple[int, int, int]]:
        """Bytes used, percent busy, percent of time memory was busy; -1 where it cannot be told."""
        ...

    def shares(self) -> ProcessShares:
        """Percent of the last second that each process had, by device and pid."""
        ...

    def process_bytes(self) -> ProcessBytes:
        """Bytes that each process holds of a device, contexts and code included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """One card as the driver shows it; None where it cannot tell."""

    node: NodeName
    index: int
    uuid: DeviceUuid
    kind: str
    memory_used_bytes: int | None
    busy_percent: int | None
    memory_busy_percent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDevice:
    """One device of one container as its region shows it."""

    key: PodKey
    container: str
    index: int
    uuid: DeviceUuid
    limit_bytes: int
    used_bytes: int
    context_bytes: int
    module_bytes: int
    buffer_bytes: int
    swapped_bytes: int
    """Part of the buffers that stands in host memory."""
    busy_percent: float
    """Of the device's time in the last second, 0 to 100."""
    idle_s: float | None
    allowed_percent: int | None
    """Of the device's time: its limit, or more while others leave theirs unused; None = not limited."""
    throttled_s: float | None
    refused: int | None
    blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen, and when (monotonic seconds)."""

    monotonic_s: float
    hosts: tuple[HostDevice, ...] = ()
    containers: tuple[ContainerDevice, ...] = ()
    instances: tuple[ContainerInstance, ...] = ()
    errors: int = 0
    """Regions that could not be read, since the start."""


@dataclass(slots=True)
class _Activity:
    """What one container has done until the last look."""

    launches: int
    stamps: tuple[int, ...]
    rhythm: Rhythm
    busy_ns: dict[DeviceUuid, int]
    busy_since_s: float
    busy_percent: dict[DeviceUuid, float]


class Monitor:
    """The looks, one after another."""

    def __init__(
        self,
        regions: Views,
        grants: Callable[[], Sequence[Grant]],
        probe: HostProbe,
        node: NodeName,
        clock: Callable[[], float] = time.monotonic,
        held: Callable[[Grant], Mapping[DeviceUuid, int]] | None = None,
    ) -> None:
        """`held`: bytes that a container holds by the driver's own count, where the driver caps it."""
        self._held_by = held
        self._held: Mapping[str, Mapping[DeviceUuid, int]] = {}
        self._regions = regions
        self._grants = grants
        self._probe = probe
        self._node = node
        self._clock = clock
        self._activity: dict[str, _Activity] = {}
        self._reaped_s = float("-inf")
        self._errors = 0
        self._spoiled: set[str] = set()
        self._shares = Shares()
        self._loans = Loans()
        self._overhead = Overhead(regions)
        self._closely = False
        self.look = Look(monotonic_s=clock())

    async def run(self) -> None:
        """Look for ever."""
        hosts: tuple[HostDevice, ...] = ()
        hosts_s = shares_s = float("-inf")
        while True:
            shares: ProcessShares | None = None
            try:
                if self._clock() - hosts_s >= HOSTS_EVERY_S:
                    hosts_s = self._clock()
                    hosts = await anyio.to_thread.run_sync(self.see_hosts)
                if self._clock() - shares_s >= SHARES_EVERY_S:
                    shares_s = self._clock()
                    shares = await anyio.to_thread.run_sync(self._probe.shares)
                    self.hold(await anyio.to_thread.run_sync(self.see_held))
                    await anyio.to_thread.run_sync(self.see_overhead)
            except ProbeError as error:
                log.warning("the driver cannot be asked: %s", error)
                hosts = ()
            self.see(hosts, shares)
            await anyio.sleep(LOOK_CLOSELY_S if self._closely else LOOK_EVERY_S)

    def see(self, hosts: tuple[HostDevice, ...] = (), shares: ProcessShares | None = None) -> None:
        """One look at every settled grant's region, and what follows from it; `shares` if the driver was just asked."""
        now = self._clock()
        reap = now - self._reaped_s >= REAP_EVERY_S
        if reap:
            self._reaped_s = now
        views: dict[str, tuple[Grant, RegionView]] = {}
        grants = self._grants()
        for grant in grants:
            if grant.state is not State.SETTLED:
                continue
            try:
                view = self._regions.view(grant.id, reap=reap)
            except OSError as error:
                self._fail(grant.id, error)
                continue
            if view is not None:
                views[grant.id] = grant, view
        self._activity = {
            grant_id: self._follow(self._activity.get(grant_id), view, now) for grant_id, (_, view) in views.items()
        }
        self._judge(views, shares, now)
        self.look = Look(
            monotonic_s=now,
            hosts=hosts,
            containers=tuple(
                device for grant_id, (grant, view) in views.items() for device in self._devices(grant, view)
            ),
            instances=tuple(instances(grants)),
            errors=self._errors,
        )

    def see_hosts(self) -> tuple[HostDevice, ...]:
        """The cards by the driver. Raises ProbeError."""
        usage = self._probe.usage()
        return tuple(
            HostDevice(
                node=self._node,
                index=device.index,
                uuid=device.uuid,
                kind=device.model if device.model.startswith(HOST_PREFIX) else HOST_PREFIX + device.model,
                memory_used_bytes=_told(usage.get(device.uuid, (-1, -1, -1))[0]),
                busy_percent=_told(usage.get(device.uuid, (-1, -1, -1))[1]),
                memory_busy_percent=_told(usage.get(device.uuid, (-1, -1, -1))[2]),
            )
            for device in self._probe.inventory().devices
        )

    def see_held(self) -> Mapping[str, Mapping[DeviceUuid, int]]:
        """What containers hold by the driver's own count, by grant; only those that it caps."""
        if self._held_by is None:
            return {}
        settled = [grant for grant in self._grants() if grant.state is State.SETTLED and not grant.mig]
        return {grant.id: held for grant in settled if (held := self._held_by(grant))}

    def hold(self, held: Mapping[str, Mapping[DeviceUuid, int]]) -> None:
        """Take what `see_held` saw into the looks from now on."""
        self._held = held

    def see_overhead(self) -> None:
        """Enter what the driver says that processes hold into their containers' regions. Raises ProbeError."""
        before: dict[str, ContainerProcesses] = {}
        for grant in self._grants():
            if grant.state is State.SETTLED and (found := self._booked(grant.id, self._regions.processes)) is not None:
                before[grant.id] = found
        told = self._probe.process_bytes()
        learned = [
            self._booked(grant_id, partial(self._overhead.learn, before=container, told=told))
            for grant_id, container in before.items()
        ]
        self._overhead.remember(each for each in learned if each is not None)
        for grant_id, container in before.items():
            self._booked(grant_id, partial(self._overhead.expect, devices=container.devices))

    def _booked(self, grant_id: str, step: Callable[[str], T]) -> T | None:
        """One step with one region; None where its file is none."""
        try:
            return step(grant_id)
        except OSError as error:
            self._fail(grant_id, error)
            return None

    def _follow(self, before: _Activity | None, view: RegionView, now: float) -> _Activity:
        launches = sum(device.launches for device in view.devices)
        stamps = tuple(device.stamp_ns for device in view.devices)
        busy_ns = {device.uuid: device.charged_ns for device in view.devices}
        if before is None:
            # An agent that starts again sees old counters: only what grows from now on is activity.
            return _Activity(launches, stamps, Rhythm(), busy_ns, now, dict.fromkeys(busy_ns, 0.0))
        # A program that its own limit holds back is at work, too.
        launched = launches > before.launches or view.launched or stamps != before.stamps
        rhythm = before.rhythm.launched(now) if launched else before.rhythm
        span_s = now - before.busy_since_s
        if span_s < REAP_EVERY_S:
            return _Activity(launches, stamps, rhythm, before.busy_ns, before.busy_since_s, before.busy_percent)
        percent = {
            uuid: min(100.0, max(0.0, (ns - before.busy_ns.get(uuid, ns)) / (span_s * 1e7)))
            for uuid, ns in busy_ns.items()
        }
        return _Activity(launches, stamps, rhythm, busy_ns, now, percent)

    def _judge(self, views: Mapping[str, tuple[Grant, RegionView]], shares: ProcessShares | None, now: float) -> None:
        """Set every region's words by how its devices are used."""
        uses = [
            ContainerUse(
                id=grant_id,
                devices=frozenset(device.uuid for device in view.devices),
                priority=view.priority,
                idle_s=self._activity[grant_id].rhythm.idle_s(now),
                hold_s=self._activity[grant_id].rhythm.hold_s(),
            )
            for grant_id, (_, view) in views.items()
        ]
        priorities: dict[DeviceUuid, set[int]] = {}
        for use in uses:
            for device in use.devices:
                priorities.setdefault(device, set()).add(use.priority)
        for verdict in feedback(uses):
            try:
                self._regions.apply(verdict)
            except OSError as error:
                self._fail(verdict.id, error)
        seen = {grant_id: view for grant_id, (_, view) in views.items()}
        self._lend(seen, uses, now)
        self._closely = self._loans.standing or any(len(several) > 1 for several in priorities.values())
        if shares is None:
            return
        for told in self._shares.learn(seen, shares, tenants(uses), now):
            try:
                self._regions.correct(
                    told.grant_id,
                    told.device,
                    permille=told.permille,
                    tenants=told.tenants,
                    amend_ns=told.amend_ns,
                )
            except OSError as error:
                self._fail(told.grant_id, error)

    def _lend(self, views: Mapping[str, RegionView], uses: Sequence[ContainerUse], now: float) -> None:
        """Tell regions what of others' unused shares is theirs meanwhile."""
        active = {use.id for use in uses if use.idle_s is not None and use.idle_s < HOLD_S}
        for loan in self._loans.learn(views, active, now):
            try:
                self._regions.lend(loan.grant_id, loan.device, loan.percent)
            except OSError as error:
                self._fail(loan.grant_id, error)

    def _fail(self, grant_id: str, error: OSError) -> None:
        """Count a region that cannot be read, and say so once: its container can spoil it for ever."""
        self._errors += 1
        if grant_id not in self._spoiled:
            self._spoiled.add(grant_id)
            log.warning("the region of grant %s cannot be read: %s", grant_id, error)

    def _devices(self, grant: Grant, view: RegionView) -> list[ContainerDevice]:
        if grant.holder is None:
            return []
        held = self._held.get(grant.id, {})
        return [
            ContainerDevice(
                key=grant.holder.key,
                container=grant.holder.container,
                index=index,
                uuid=device.uuid,
                limit_bytes=device.limit_bytes,
                **_parts(device, held.get(device.uuid)),
                swapped_bytes=device.swapped_bytes,
                busy_percent=self._busy(grant.id, device.uuid),
                idle_s=view.idle_s,
                allowed_percent=(device.lent or device.cores) if 0 < device.cores < FULL_CORES else None,
                throttled_s=None if device.waited_ns is None else device.waited_ns / 1e9,
                refused=device.refused,
                blocked=view.blocked,
            )
            for index, device in enumerate(view.devices)
        ]

    def _busy(self, grant_id: str, uuid: DeviceUuid) -> float:
        """By the driver; else by what was charged, which is nothing while no limit holds."""
        told = self._shares.percent(grant_id, uuid)
        return self._activity[grant_id].busy_percent.get(uuid, 0.0) if told is None else told


class _Parts(TypedDict):
    """What a container uses of a device, bytes."""

    used_bytes: int
    context_bytes: int
    module_bytes: int
    buffer_bytes: int


def _parts(device: DeviceView, held: int | None) -> _Parts:
    """Use by the region; where the driver counts it (`held`), what the region does not know of is contexts."""
    buffers = max(0, device.used_bytes - device.context_bytes - device.module_bytes)
    used, context = device.used_bytes, device.context_bytes
    if held is not None:
        used, context = held, max(0, held - device.module_bytes - buffers)
    return _Parts(used_bytes=used, context_bytes=context, module_bytes=device.module_bytes, buffer_bytes=buffers)


def _told(value: int) -> int | None:
    return None if value < 0 else value
