"""Devices handed out as a vendor's own plug-in does it: whose `Allocate` it is, what is marked, what is let go.

The kubelet does not say for which pod it calls, but its list of pods has the one that it is admitting, and none that it
has yet to admit. Where it does not tell, a family with the node lock serves the pod that the lock names, one without
the pod that was bound first. Of a pod it serves the first container that still waits and asks for just so many; what
has been handed out is taken out of the pod's pending annotation, and where a family has none, remembered. Only a
restart of the agent between two containers of one pod of such a family would make it forget one.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from grpclib.exceptions import GRPCError, StreamTerminatedError

from hami.agent.compute_units import ComputeUnits
from hami.agent.family_answer import Answer, Given, Units, consumed
from hami.agent.podresources import PodList
from hami.alloc import record, request
from hami.alloc.nodelock import lock_owner
from hami.kube.client import Kube
from hami.kube.errors import Conflict
from hami.kube.resources import PODS
from hami.model.claim import Role, Segments, Share
from hami.model.device import Device
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid, VendorWord
from hami.model.quantity import whole
from hami.model.vendor import Registry, Vendor
from hami.model.wire import pod as keys

log = logging.getLogger(__name__)

Document = Mapping[str, Any]
Position = tuple[VendorWord, int]
TRIES: Final = 10
"""Attempts to let a lock go while its node changes."""


class NotServed(Exception):
    """The kubelet's call brings nothing; the text is its answer."""


class NobodyWaits(NotServed):
    """No pod of this node waits for what the kubelet asks."""


class DeviceGone(NotServed):
    """A pod waits for a device that is not there any more: the pod has been marked as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What is a family's own about handing its devices out."""

    called: str
    """What the log calls its devices."""
    answer: Callable[[Given], Answer]
    """Raises DeviceGone."""
    units: Callable[[Share, Device], Units]


@dataclass(slots=True)
class Book:
    """What the plug-ins of one node have handed out; they share it, because a pod is served by several."""

    registry: Registry
    """The families of these plug-ins."""
    kube: Kube
    node: NodeName
    folder: Path
    """Where files for containers go."""
    podlist: PodList
    """The kubelet's."""
    served: dict[PodUid, set[Position]] = field(default_factory=dict)
    units: ComputeUnits = field(init=False)
    """Of families that name single ones."""
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    """One call at a time, as the kubelet makes them."""

    def __post_init__(self) -> None:
        self.units = ComputeUnits(self.folder)

    async def pods(self) -> list[Document]:
        """The node's pods, those bound first in front; what is remembered of others is forgotten."""
        answer = await self.kube.get(PODS.path(), fieldSelector=f"spec.nodeName={self.node}")
        found = sorted(answer.get("items") or (), key=_bound_first)
        alive = {request.pod_uid(pod) for pod in found if pod.get("status", {}).get("phase") not in record.FINISHED}
        for uid in self.served.keys() - alive:
            del self.served[uid]
        self.units.keep(alive)
        await anyio.to_thread.run_sync(_sweep, self.folder, alive)
        return found

    async def admitted(self) -> frozenset[PodKey] | None:
        """The pods that the kubelet has admitted or is admitting; None where it does not tell."""
        try:
            return frozenset(pod.key for pod in await self.podlist.list())
        except (OSError, GRPCError, StreamTerminatedError, TimeoutError) as error:
            log.warning("the kubelet does not list its pods: %r", error)
            return None


def waiting(pod: Document, registry: Registry, served: Collection[Position]) -> dict[Position, tuple[Share, ...]]:
    """The shares of a bound pod that have not been handed out, by family and container, init containers first."""
    held, _ = record.read_pod(pod, registry)
    if held is None:
        return {}
    notes = request.annotations(pod)
    found = {}
    for name, segments in held.segments.items():
        vendor = registry[name]
        pending = notes.get(vendor.pending_key, "").split(";") if vendor.pending_key else None
        numbers = pieces(notes[vendor.done_key], segments)
        for position, number in numbers.items():
            if (name, position) in served:
                continue
            if pending is not None:
                open_ = number < len(pending) and bool(pending[number])
            else:
                # The phase does not tell: another family's plug-in may have been the last that it knows of.
                open_ = pod.get("status", {}).get("phase") == "Pending"
            if open_:
                found[name, position] = segments[position]
    return found


def pieces(text: str, segments: Segments) -> dict[int, int]:
    """Which piece of an allocation text is whose: its number, by the position of the container.

    They are the same but in texts of HAMi 2.10, which leave out what containers without a device would have had.
    """
    owners = [position for position, segment in enumerate(segments) if segment]
    written = [number for number, piece in enumerate(text.split(";")) if _has_card(piece)]
    return dict(zip(owners, written if len(written) == len(owners) else owners, strict=True))


def _has_card(piece: str) -> bool:
    """Releases up to 2.6 wrote a card without a name where a container has none."""
    return any(card and not card.startswith(",") for card in piece.split(":"))


def without(text: str, number: int) -> str:
    """A pending annotation after the container of one piece has been served."""
    return ";".join("" if i == number else piece for i, piece in enumerate(text.split(";")))


class Family:
    """One family's devices on this node."""

    def __init__(
        self, vendor: Vendor, devices: Callable[[], Mapping[DeviceUuid, Device]], book: Book, maker: Maker
    ) -> None:
        """`devices`: what there is now."""
        self.vendor = vendor
        self._devices = devices
        self._book = book
        self._maker = maker

    async def allocate(self, resource: str, count: int) -> Answer:
        """What the container gets for which the kubelet asks `count` of `resource`. Raises NotServed, KubeError, and
        OSError where files cannot be written."""
        if resource not in self._asked_by():
            # An amount of what the devices have: those come with the devices' own resource.
            return Answer()
        async with self._book.turn:
            pod, position, shares = await self._find(resource, count)
            try:
                found = await self._answer(pod, position, shares)
            except DeviceGone:
                await self._give_up(pod)
                raise
            for mount in found.mounts:
                await anyio.Path(mount.host).mkdir(parents=True, exist_ok=True)
            for path, text in found.files.items():
                await anyio.Path(path).write_text(text)
            await self._mark(pod, position)
            return found

    async def assigned(self, resource: str, count: int) -> tuple[DeviceUuid, ...]:
        """The devices that such a call would bring now; none where nobody waits. Raises KubeError."""
        if resource not in self._asked_by():
            return ()
        try:
            async with self._book.turn:
                _, _, shares = await self._find(resource, count)
        except NobodyWaits:
            return ()
        return tuple(share.uuid for share in shares)

    def _asked_by(self) -> tuple[str, ...]:
        """Resources whose `Allocate` brings devices."""
        names = self.vendor.resources
        return names.count, *names.also, *(() if names.memory else (names.cores,))

    async def _find(self, resource: str, count: int) -> tuple[Document, int, tuple[Share, ...]]:
        pods, admitted = await self._book.pods(), await self._book.admitted()
        if admitted is not None:
            pods = [pod for pod in pods if request.pod_key(pod) in admitted]
        elif self.vendor.lock_key == keys.NODE_LOCK:
            node = await self._book.kube.node(self._book.node)
            owner = lock_owner(request.annotations(node).get(keys.NODE_LOCK))
            pods.sort(key=lambda pod: request.pod_key(pod) != owner)
        for pod in pods:
            served = self._book.served.get(request.pod_uid(pod), ())
            for (name, position), shares in waiting(pod, self._book.registry, served).items():
                if name == self.vendor.name and self._asks(pod, position, resource) == count:
                    return pod, position, shares
        raise NobodyWaits(f"no pod of node {self._book.node} waits for {count} {resource}")

    def _asks(self, pod: Document, position: int, resource: str) -> int | None:
        """How much of `resource` a container's devices are asked by."""
        container = list(request.containers(pod))[position]
        names = self.vendor.resources
        if resource != names.count and request.amount(container, names.count):
            return None
        found = request.amount(container, resource)
        return whole(found[0]) if found else None

    async def _answer(self, pod: Document, position: int, shares: tuple[Share, ...]) -> Answer:
        uid, devices = request.pod_uid(pod), self._devices()
        missing = [share.uuid for share in shares if share.uuid not in devices]
        if missing:
            raise DeviceGone(f"{self._maker.called} {', '.join(missing)} of pod {request.pod_key(pod)} is not there")
        containers = list(request.containers(pod))
        folder = self._book.folder / f"{uid}_{containers[position].name}" / self.vendor.config_section
        ended = [(uid, i) for i, container in enumerate(containers) if container.role is Role.INIT]
        chosen = {}
        for share in shares:
            asked = self._maker.units(share, devices[share.uuid])
            if asked.want:
                chosen[share.uuid] = self._book.units.choose(
                    share.uuid, asked.want, asked.total, (uid, position), pairs=asked.pairs, ended=ended
                )
        if chosen:
            await anyio.to_thread.run_sync(self._book.units.save)
        return self._maker.answer(
            Given(
                vendor=self.vendor,
                shares=shares,
                devices=devices,
                notes=request.annotations(pod),
                folder=str(folder),
                units=chosen,
            )
        )

    async def _mark(self, pod: Document, position: int) -> None:
        """Say on the pod what it has been given; with its last part, that it is served, and let the locks go."""
        uid, key, notes = request.pod_uid(pod), request.pod_key(pod), request.annotations(pod)
        served = self._book.served.setdefault(uid, set())
        served.add((self.vendor.name, position))
        container = list(request.containers(pod))[position]
        left = {name for name, _ in waiting(pod, self._book.registry, served)}
        last = self.vendor.name not in left
        patch: dict[str, str | None] = {**consumed(self.vendor, notes, container.name, last=last)}
        if self.vendor.pending_key:
            patch[self.vendor.pending_key] = self._pending(pod, served)
        if not left:
            patch[keys.BIND_PHASE] = keys.SUCCESS
        await self._book.kube.annotate_pod(*key, patch, uid=uid)
        log.info("%s: pod %s, container %s is served", self._maker.called, key, container.name)
        lock = self.vendor.lock_key
        if lock and not any(self._book.registry[name].lock_key == lock for name in left):
            await self._release(lock, key)

    def _pending(self, pod: Document, served: Collection[Position]) -> str:
        """The pod's pending annotation without what has been served."""
        notes = request.annotations(pod)
        held, _ = record.read_pod(pod, self._book.registry)
        segments = held.segments.get(self.vendor.name, ()) if held is not None else ()
        numbers = pieces(notes.get(self.vendor.done_key, ""), segments)
        text = notes.get(self.vendor.pending_key, "")
        for name, position in served:
            if name == self.vendor.name and position in numbers:
                text = without(text, numbers[position])
        return text

    async def _give_up(self, pod: Document) -> None:
        """Say on the pod that it failed, which ends it: the kubelet does not ask again."""
        key = request.pod_key(pod)
        await self._book.kube.annotate_pod(*key, {keys.BIND_PHASE: keys.FAILED}, uid=request.pod_uid(pod))
        if self.vendor.lock_key:
            await self._release(self.vendor.lock_key, key)

    async def _release(self, lock: str, pod: PodKey) -> None:
        """Let go of a lock: the common one only where it names the pod; a family's own names nobody."""
        for _ in range(TRIES):
            node = await self._book.kube.node(self._book.node)
            text = request.annotations(node).get(lock)
            if not text or lock_owner(text) not in (pod, None):
                return
            version = str(node.get("metadata", {}).get("resourceVersion") or "")
            try:
                await self._book.kube.annotate_node(self._book.node, {lock: None}, resource_version=version)
            except Conflict:
                continue
            return
        log.warning("%s: lock %s is not let go, its node changes all the time", self._maker.called, lock)


def _sweep(folder: Path, alive: Collection[PodUid]) -> None:
    """Remove the directories of pods that are gone."""
    for path in folder.glob("*_*/"):
        if PodUid(path.name.partition("_")[0]) not in alive:
            shutil.rmtree(path, ignore_errors=True)


def _bound_first(pod: Document) -> tuple[bool, str, str, str]:
    """Pods that nobody has called served come first."""
    notes = request.annotations(pod)
    bound = notes.get(keys.BIND_TIME, "~")
    return (
        notes.get(keys.BIND_PHASE) == keys.SUCCESS,
        bound,
        str(request.metadata(pod).get("creationTimestamp") or ""),
        request.pod_uid(pod),
    )
