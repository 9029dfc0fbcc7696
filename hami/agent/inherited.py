"""Containers that HAMi 2.x started and that go on running under this agent, so that a node can change over under them.

They have no grant of ours. The monitor sees each as one all the same: the library in them wants its activity word and
its switch from somebody, people want their metrics, and what they leave behind is cleaned up.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from hami.agent.monitor import Views
from hami.agent.overhead import ContainerProcesses
from hami.agent.regions import JUST_LAUNCHED, DeviceView, RegionView
from hami.alloc.feedback import Feedback
from hami.model.claim import Share
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.node._region_old import OldRegion
from hami.node.atomic import write_atomically
from hami.node.grants import Grant, Holder, State
from hami.node.inherited import InheritedContainer, inherited, is_busy, remove
from hami.node.installed import HookTree
from hami.vendors.nvidia import NVIDIA

log = logging.getLogger(__name__)

MIB: Final = 2**20
SCAN_EVERY_S: Final = 1.0
KEEP_S: Final = 300.0
"""Age from which the directory of an unknown pod is removed; HAMi's default."""
NAMES: Final = "inherited-pods.json"
"""File in which the process that watches pods tells the one that measures what their names are."""


@dataclass(slots=True)
class _Known:
    """One container, and its region as it was found last."""

    container: InheritedContainer
    grant: Grant
    region: OldRegion


@dataclass(slots=True)
class Inherited:
    """The containers of one node that HAMi started, as the monitor's grants and regions. Safe in several threads."""

    tree: HookTree
    key: Callable[[PodUid], PodKey | None]
    """The name of a pod by the uid that the kubelet knows; None = not known."""
    _known: dict[str, _Known] = field(default_factory=dict)
    _scanned_s: float = float("-inf")
    _told: set[Path] = field(default_factory=set)
    _lock: Any = field(default_factory=threading.Lock)

    def grants(self) -> tuple[Grant, ...]:
        """The containers whose region can be read and whose pod is known, as settled grants."""
        with self._lock:
            if time.monotonic() - self._scanned_s >= SCAN_EVERY_S:
                self._scanned_s = time.monotonic()
                self._scan()
            return tuple(known.grant for known in self._known.values())

    def has(self, grant_id: str) -> bool:
        return grant_id in self._known

    def view(self, grant_id: str) -> RegionView | None:
        """A region as it is now; its activity word is counted down. Raises OSError for a file that is no region."""
        with self._lock:
            known = self._known.get(grant_id)
            if known is None:
                return None
            view = _view(known.region)
            known.region.decay()
            return view

    def apply(self, verdict: Feedback) -> None:
        """Set one region's switches. Raises OSError for a file that is no region."""
        with self._lock:
            known = self._known.get(verdict.id)
            if known is not None:
                known.region.apply(blocked=verdict.blocked, sharing=verdict.sharing)

    def sweep(self, pods: Collection[PodUid], now_unix: float) -> None:
        """Remove what containers of pods have left that are not among `pods`, once nothing uses it any more."""
        for container in inherited(self.tree):
            if container.pod_uid in pods:
                continue
            try:
                age_s = now_unix - container.directory.stat().st_mtime
            except FileNotFoundError:
                continue
            if age_s >= KEEP_S and not is_busy(container):
                log.info("%s belongs to no pod any more and is removed", container.directory)
                remove(container)

    def close(self) -> None:
        with self._lock:
            for known in self._known.values():
                known.region.close()
            self._known.clear()

    def _scan(self) -> None:
        now = {}
        for container in inherited(self.tree):
            key = self.key(container.pod_uid)
            grant_id = container.directory.name
            before = self._known.pop(grant_id, None)
            region = self._current(container, before.region if before is not None else None)
            if before is not None and before.region is not region:
                before.region.close()
            if region is None:
                continue
            if key is None:
                region.close()
                continue
            grant = (
                before.grant if before is not None and before.region is region else _as_grant(container, key, region)
            )
            now[grant_id] = _Known(container=container, grant=grant, region=region)
        for gone in self._known.values():
            gone.region.close()
        self._known = now

    def _current(self, container: InheritedContainer, before: OldRegion | None) -> OldRegion | None:
        """The newest region with a process, else the newest; the one from before if it still is that file."""
        readable = []
        for path in container.regions():
            try:
                region = OldRegion(path)
                if before is not None and region.identity == before.identity:
                    region.close()
                    region = before
                readable.append((region, bool(region.snapshot().processes)))
            except OSError as error:
                if path not in self._told:
                    self._told.add(path)
                    log.warning("%s cannot be read: %s", path, error)
        chosen = next((region for region, used in readable if used), readable[0][0] if readable else None)
        for region, _ in readable:
            if region is not chosen and region is not before:
                region.close()
        return chosen


def _as_grant(container: InheritedContainer, key: PodKey, region: OldRegion) -> Grant:
    devices = region.snapshot().devices
    return Grant(
        id=container.directory.name,
        device_ids=frozenset(),
        made_unix=0,
        state=State.SETTLED,
        holder=Holder(pod_uid=container.pod_uid, key=key, container=container.container, position=0, containers=1),
        shares=tuple(
            Share(
                uuid=DeviceUuid(device.uuid),
                kind=NVIDIA.name,
                memory_mib=device.limit_bytes // MIB,
                cores=device.cores,
            )
            for device in devices
        ),
    )


def _view(region: OldRegion) -> RegionView:
    """What HAMi's library tells; it counts neither launches nor waits nor refusals."""
    snapshot = region.snapshot()
    last = snapshot.last_kernel_unix
    return RegionView(
        devices=tuple(
            DeviceView(
                uuid=DeviceUuid(device.uuid),
                limit_bytes=device.limit_bytes,
                used_bytes=device.total_bytes,
                context_bytes=device.context_bytes,
                module_bytes=device.module_bytes,
                launches=0,
                charged_ns=0,
                waited_ns=None,
                refused=None,
            )
            for device in snapshot.devices
        ),
        processes=snapshot.processes,
        priority=snapshot.priority,
        blocked=snapshot.recent_kernel < 0,
        idle_s=max(0.0, time.time() - last) if last else None,
        launched=snapshot.recent_kernel >= JUST_LAUNCHED,
        host_pids=snapshot.host_pids,
    )


@dataclass(frozen=True, slots=True)
class AllRegions:
    """The monitor's view of our grants' regions and of inherited ones."""

    own: Views
    inherited: Inherited

    def view(self, grant_id: str, *, reap: bool) -> RegionView | None:
        if self.inherited.has(grant_id):
            return self.inherited.view(grant_id)
        return self.own.view(grant_id, reap=reap)

    def apply(self, verdict: Feedback) -> None:
        if self.inherited.has(verdict.id):
            self.inherited.apply(verdict)
        else:
            self.own.apply(verdict)

    def correct(self, grant_id: str, device: int, *, permille: int, tenants: int, amend_ns: int) -> None:
        # HAMi's library has no such words.
        if not self.inherited.has(grant_id):
            self.own.correct(grant_id, device, permille=permille, tenants=tenants, amend_ns=amend_ns)

    def lend(self, grant_id: str, device: int, percent: int) -> None:
        self.own.lend(grant_id, device, percent)

    def processes(self, grant_id: str) -> ContainerProcesses | None:
        # HAMi's library counts contexts by itself.
        return None if self.inherited.has(grant_id) else self.own.processes(grant_id)

    def observe(self, grant_id: str, slot: int, device: int, held_bytes: int) -> None:
        self.own.observe(grant_id, slot, device, held_bytes)

    def expect_context(self, grant_id: str, device: int, context_bytes: int) -> None:
        self.own.expect_context(grant_id, device, context_bytes)


class PodNames:
    """Names of inherited containers' pods, from one process to another."""

    def __init__(self, tree: HookTree) -> None:
        self._path = tree.vgpu / NAMES
        self._tree = tree
        self._written: Mapping[str, list[str]] | None = None
        self._read_s = float("-inf")
        self._names: Mapping[str, PodKey] = {}

    def write(self, key: Callable[[PodUid], PodKey | None]) -> None:
        """Tell the names of the pods that have directories here, if they have changed. Raises OSError."""
        names = {
            str(each.pod_uid): [name.namespace, name.name]
            for each in inherited(self._tree)
            if (name := key(each.pod_uid)) is not None
        }
        if names != self._written:
            write_atomically(self._path, orjson.dumps(names))
            self._written = names

    def read(self, uid: PodUid) -> PodKey | None:
        """The name of a pod as the other process told it."""
        if time.monotonic() - self._read_s >= SCAN_EVERY_S:
            self._read_s = time.monotonic()
            try:
                found = orjson.loads(self._path.read_bytes())
                self._names = {uid: PodKey(str(namespace), str(name)) for uid, (namespace, name) in found.items()}
            except FileNotFoundError:
                self._names = {}
            except (OSError, ValueError, TypeError, AttributeError) as error:
                log.warning("%s cannot be read: %s", self._path, error)
                self._names = {}
        return self._names.get(uid)
