"""What the cluster looks like, folded from watch events into the ledger.

The picture knows nothing of watches or of the API: it is given events and changes itself, in one synchronous step each.
What a pod holds counts from the moment it is bound. A pod that is not bound yet belongs to whoever decides about it
(the scheduler's holds), so such an event changes nothing here and is only reported.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hami.alloc import host, record
from hami.alloc.ledger import Ledger
from hami.alloc.quota import Quotas
from hami.alloc.record import FINISHED, ForeignHold
from hami.alloc.request import RequestError, read_request
from hami.kube.watch import Added, Deleted, Event, Listed, Modified
from hami.model.claim import PodRecord
from hami.model.names import NodeName, PodKey, PodUid, WireError
from hami.model.vendor import Registry
from hami.model.wire import pod as keys

Document = Mapping[str, Any]

SHOWN: Final = 3
"""Errors of one object that are put into words; all of one cause usually look alike."""


class Kind(enum.Enum):
    """The kinds of objects a picture is made of, by their path word."""

    NODES = "nodes"
    PODS = "pods"
    QUOTAS = "resourcequotas"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What of an object cannot be used, all that is new in one event. Told once for as long as the object says it."""

    kind: str
    """`Node`, `Pod`, `ResourceQuota`."""
    namespace: str
    name: str
    uid: str
    errors: tuple[WireError, ...]

    @property
    def text(self) -> str:
        """The first few errors, and how many there are beside them."""
        shown = "; ".join(map(str, self.errors[:SHOWN]))
        return shown if len(self.errors) <= SHOWN else f"{shown}; and {len(self.errors) - SHOWN} more"


class Where(enum.Enum):
    """Where a pod stands."""

    UNBOUND = "unbound"
    BOUND = "bound"
    GONE = "gone"
    """Deleted, ended, or deleted before it was bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodChange:
    """What one pod event meant."""

    uid: PodUid
    key: PodKey
    where: Where
    node: NodeName | None = None
    """Where it is bound."""
    foreign: ForeignHold | None = None
    """What another scheduler has written on it before binding it."""
    freed: bool = False
    """Devices were given back."""
    label_missing: bool = False
    """Bound with devices, but without the label by which monitors select it."""


class Picture:
    """Nodes, bound pods and quotas. `ledger` is complete once `listed`."""

    def __init__(
        self,
        registry: Registry,
        *,
        tell: Callable[[Problem], None] = lambda problem: None,
        needs: tuple[Kind, ...] = (Kind.NODES, Kind.PODS),
        node_labels: Mapping[str, str] | None = None,
        learns: bool = False,
    ) -> None:
        """`tell` hears of every unusable object once; `needs` must be listed before the picture counts as complete.

        Only nodes with all of `node_labels` are registered. `learns`: what pods ask for is kept as well, for policies
        that value what is left of a node by it.
        """
        self.registry = registry
        self.ledger = Ledger(registry)
        self.quotas = Quotas(registry)
        self.quota_namespaces: set[str] = set()
        """Namespaces that have, or had, a quota."""
        self._tell = tell
        self._told: dict[str, frozenset[str]] = {}
        self._node_labels = dict(node_labels or {})
        self._learns = learns
        self._rounds: Final = dict.fromkeys(needs, 0)
        self._wanted: Final = dict.fromkeys(needs, 1)

    @property
    def listed(self) -> bool:
        """Everything that existed when we last asked for a listing is in the ledger."""
        return all(self._rounds[kind] >= wanted for kind, wanted in self._wanted.items())

    def expect(self, kind: Kind, round_: int) -> None:
        """Count as incomplete until this round of listing (`Watch.relist`) has come in."""
        if kind in self._wanted:
            self._wanted[kind] = round_

    def note_listed(self, kind: Kind, listed: Listed) -> None:
        if kind in self._rounds:
            self._rounds[kind] = max(self._rounds[kind], listed.round)

    def fold_node(self, event: Event) -> bool:
        """Take a node event over; whether the ledger changed."""
        match event:
            case Listed():
                self.note_listed(Kind.NODES, event)
                return False
            case Deleted(node):
                name = NodeName(_metadata(node).get("name", ""))
                self._forget_problems(node)
                return self.ledger.drop_node(name)
            case Added(node) | Modified(node):
                return self._put_node(node)

    def fold_pod(self, event: Event) -> PodChange | None:
        """Take a pod event over. None when no pod is concerned, or one that never had to do with devices."""
        match event:
            case Listed():
                self.note_listed(Kind.PODS, event)
                return None
            case Deleted(pod):
                self._forget_problems(pod)
                return self._gone(pod)
            case Added(pod) | Modified(pod):
                return self._put_pod(pod)

    def fold_quota(self, event: Event) -> None:
        """Take an event about a ResourceQuota over."""
        match event:
            case Listed():
                self.note_listed(Kind.QUOTAS, event)
            case Deleted(quota):
                self._forget_problems(quota)
                self.quotas.drop(_metadata(quota).get("namespace", ""), _metadata(quota).get("name", ""))
            case Added(quota) | Modified(quota):
                self.quota_namespaces.add(str(_metadata(quota).get("namespace") or ""))
                self._tell_all("ResourceQuota", quota, self.quotas.put(quota))

    def _put_node(self, node: Document) -> bool:
        metadata = _metadata(node)
        name = NodeName(metadata.get("name", ""))
        labels = _texts(metadata, "labels")
        if any(labels.get(key) != value for key, value in self._node_labels.items()):
            return self.ledger.drop_node(name)
        found, problems = record.read_node(node, self.registry)
        if not found.inventories:
            # Not kept without devices: a cluster has many nodes that never get any.
            self._tell_all("Node", node, problems)
            return self.ledger.drop_node(name)
        changed = self.ledger.put_node(found)
        self._tell_all("Node", node, (*problems, *self._missing(name)))
        return changed

    def _missing(self, name: NodeName) -> tuple[WireError, ...]:
        """Cards that pods hold and their node does not list: gone for the moment, or replaced."""
        return tuple(
            WireError(f"metadata.annotations[{self.registry[vendor].node_key}]", f"the card {uuid}, which pods hold")
            for vendor, uuid in self.ledger.strays(name)
        )

    def _put_pod(self, pod: Document) -> PodChange | None:
        spec, status, metadata = _part(pod, "spec"), _part(pod, "status"), _metadata(pod)
        node = spec.get("nodeName")
        if status.get("phase") in FINISHED or (not node and metadata.get("deletionTimestamp")):
            return self._gone(pod)
        if not node:
            foreign, problems = record.read_foreign_hold(pod, self.registry)
            self._tell_all("Pod", pod, problems)
            self._learn(pod, None)
            return PodChange(uid=_uid(pod), key=_key(pod), where=Where.UNBOUND, foreign=foreign)
        found, problems = record.read_pod(pod, self.registry)
        self._tell_all("Pod", pod, problems)
        before = self.ledger.pod(_uid(pod))
        self._learn(pod, NodeName(node))
        if found is None:
            self.ledger.put_guest(_uid(pod), NodeName(node), host.asked(pod))
        else:
            self.ledger.drop_guest(_uid(pod))
        if found is None and before is None:
            return PodChange(uid=_uid(pod), key=_key(pod), where=Where.BOUND, node=NodeName(node))
        if found is None:
            self.ledger.drop_pod(_uid(pod))
        else:
            self.ledger.put_pod(found)
        return PodChange(
            uid=_uid(pod),
            key=_key(pod),
            where=Where.BOUND,
            node=NodeName(node),
            freed=before is not None and (found is None or _holds(found) != _holds(before)),
            label_missing=found is not None and _lacks_label(metadata, node),
        )

    def _learn(self, pod: Document, node: NodeName | None) -> None:
        """Let the picture of demand know of a pod once: if it asks for devices, or takes room beside them.

        Pods without devices mostly run elsewhere, so they count once they are on a node with devices; those that every
        node gets say nothing about what is still to come.
        """
        if not self._learns or self.ledger.has_noted(_uid(pod)) or _comes_with_its_node(pod):
            return
        try:
            request = read_request(pod, self.registry)
        except RequestError:
            return  # told where it is decided about
        if request.vendors or (node is not None and self.ledger.node(node) is not None):
            self.ledger.note(request)

    def _gone(self, pod: Document) -> PodChange:
        self.ledger.drop_guest(_uid(pod))
        return PodChange(uid=_uid(pod), key=_key(pod), where=Where.GONE, freed=self.ledger.drop_pod(_uid(pod)))

    def _tell_all(self, kind: str, document: Document, problems: tuple[WireError, ...]) -> None:
        metadata = _metadata(document)
        uid = str(metadata.get("uid") or f"{kind}/{metadata.get('namespace', '')}/{metadata.get('name', '')}")
        told = self._told.get(uid, frozenset())
        if not problems and not told:
            return
        texts = {str(error): error for error in problems}
        if new := tuple(error for text, error in texts.items() if text not in told):
            namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
            self._tell(Problem(kind=kind, namespace=namespace, name=name, uid=uid, errors=new))
        if problems:
            self._told[uid] = frozenset(texts)
        else:
            del self._told[uid]

    def _forget_problems(self, document: Document) -> None:
        self._told.pop(str(_metadata(document).get("uid") or ""), None)


def _holds(pod: PodRecord) -> object:
    """The part of a record that decides how much of which devices it takes."""
    return pod.node, pod.segments, pod.inits_done


def _lacks_label(metadata: Document, node: str) -> bool:
    return len(node) <= keys.MAX_LABEL and _texts(metadata, "labels").get(keys.NODE) != node


def _comes_with_its_node(pod: Document) -> bool:
    """Made for one node: by a DaemonSet, or by the node itself."""
    owners = _metadata(pod).get("ownerReferences")
    listed = owners if isinstance(owners, list) else []
    return any(isinstance(owner, Mapping) and owner.get("kind") in ("DaemonSet", "Node") for owner in listed)


def _part(document: Document, name: str) -> Document:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _metadata(document: Document) -> Document:
    return _part(document, "metadata")


def _texts(document: Document, name: str) -> Mapping[str, str]:
    return _part(document, name)


def _uid(pod: Document) -> PodUid:
    return PodUid(str(_metadata(pod).get("uid") or ""))


def _key(pod: Document) -> PodKey:
    metadata = _metadata(pod)
    return PodKey(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
