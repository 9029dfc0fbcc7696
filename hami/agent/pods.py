"""The pods of this node as grants need them: who asks, in which order the kubelet asks, who came first.

Folded from the watch over this node's pods. A pod the watch has not shown yet is fetched by the caller and put in here.
Documents come from anyone, so whatever cannot be read costs that pod alone, with the field named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hami.alloc import record, request
from hami.model.claim import PodRecord, PodRequest, Role
from hami.model.names import PodKey, PodUid, WireError
from hami.model.quantity import whole
from hami.model.vendor import Registry, Vendor
from hami.model.wire import pod as wire

CONFIG_HASH: Final = "kubernetes.io/config.hash"
"""On a static pod's mirror: the uid under which the kubelet itself knows the pod."""
NEVER_BOUND: Final = 2**62
"""Bind time of a pod that no scheduler of ours bound: behind all that have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A container for which the kubelet will call `Allocate`."""

    position: int
    """Its segment: init containers first, then app containers."""
    name: str
    role: Role
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePod:
    """One pod of this node. `document` is the object as the API server has it."""

    uid: PodUid
    key: PodKey
    kubelet_uid: PodUid
    """The uid in the kubelet's own files."""
    asking: tuple[Asking, ...]
    request: PodRequest | None
    """None where it cannot be read; then `problem` says why."""
    problem: WireError | None
    record: PodRecord | None
    """What its annotations say it holds; None when they say nothing usable."""
    bind_time: int
    created: str
    terminal: bool
    refused: bool
    """An earlier attempt ended in `bind-phase=failed`."""
    document: Mapping[str, Any]

    @property
    def right(self) -> tuple[int, str, str]:
        """Sorts pods by who may keep what both were promised: bound first, created first, then by uid."""
        return self.bind_time, self.created, self.uid


def read_node_pod(document: Mapping[str, Any], registry: Registry, vendor: Vendor) -> NodePod:
    """The pod as far as it can be read. Raises WireError when it has not even a readable shape."""
    notes = request.annotations(document)
    status = document.get("status")
    asked, problem = None, None
    try:
        asked = request.read_request(document, registry)
    except WireError as error:
        problem = error
    held, complaints = record.read_pod(document, registry)
    uid = request.pod_uid(document)
    return NodePod(
        uid=uid,
        key=request.pod_key(document),
        kubelet_uid=PodUid(notes.get(CONFIG_HASH, uid)),
        asking=tuple(_asking(document, vendor)),
        request=asked,
        problem=problem or (complaints[0] if complaints else None),
        record=held,
        bind_time=_bind_time(notes),
        created=str(request.metadata(document).get("creationTimestamp") or ""),
        terminal=isinstance(status, Mapping) and status.get("phase") in record.FINISHED,
        refused=notes.get(wire.BIND_PHASE) == wire.FAILED,
        document=document,
    )


def _asking(document: Mapping[str, Any], vendor: Vendor) -> Iterator[Asking]:
    """Containers with a limit on the count resource; the API server lets only whole numbers through."""
    for position, container in enumerate(request.containers(document)):
        found = request.amount(container, vendor.resources.count)
        count = whole(found[0]) if found else None
        if count:
            yield Asking(position=position, name=container.name, role=container.role, count=count)


def _bind_time(notes: Mapping[str, str]) -> int:
    try:
        return wire.read_unix(notes[wire.BIND_TIME], wire.BIND_TIME)
    except (KeyError, WireError):
        return NEVER_BOUND


class NodePods:
    """The pods of this node by uid, and by name."""

    def __init__(self, registry: Registry, vendor: Vendor) -> None:
        self._registry = registry
        self._vendor = vendor
        self._pods: dict[PodUid, NodePod] = {}

    def __iter__(self) -> Iterator[NodePod]:
        return iter(tuple(self._pods.values()))

    def put(self, document: Mapping[str, Any]) -> NodePod | None:
        """Take a pod's newest state; None for a document that is no pod."""
        try:
            pod = read_node_pod(document, self._registry, self._vendor)
        except WireError:
            return None
        self._pods[pod.uid] = pod
        return pod

    def drop(self, uid: PodUid) -> None:
        self._pods.pop(uid, None)

    def get(self, uid: PodUid) -> NodePod | None:
        return self._pods.get(uid)

    def by_kubelet_uid(self, uid: PodUid) -> NodePod | None:
        """The pod that the kubelet's files call `uid`."""
        return self._pods.get(uid) or next((pod for pod in self._pods.values() if pod.kubelet_uid == uid), None)

    def by_key(self) -> dict[PodKey, NodePod]:
        """The pods by name; the youngest where an old one of the same name is still known."""
        return {pod.key: pod for pod in sorted(self._pods.values(), key=lambda pod: (not pod.terminal, pod.created))}
