"""Whose `Allocate` is it? The kubelet does not say, but everything around the call does.

Calls come pod by pod and container by container; during the call the kubelet's pod list already holds the pod being
admitted, with containers that have no ids yet. So the owner is the one listed pod of which not every asking container
has been granted. What is found here is a thought until the checkpoint confirms it (`hami.agent.grants`).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hami.agent.podresources import ListedPod
from hami.agent.pods import Asking, NodePod
from hami.model.names import PodKey, PodUid

Granted = Collection[tuple[PodUid, str]]
"""Containers (pod uid, name) that have a grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A container of a pod."""

    pod: NodePod
    container: Asking


def likely_owners(
    listed: Iterable[ListedPod] | None, pods: Mapping[PodKey, NodePod], granted: Granted, count: int
) -> tuple[Owner, ...]:
    """Containers that may be asking for `count` ids now, the likeliest first; usually exactly one.

    `listed` None: the kubelet's list cannot be had; then every pod bound to this node is a candidate.
    """
    seen: list[tuple[NodePod, Mapping[str, frozenset[str]]]]
    if listed is None:
        seen = [(pod, {}) for pod in pods.values()]
    else:
        seen = [(pods[entry.key], entry.devices) for entry in listed if entry.key in pods]
    alive = [(pod, devices) for pod, devices in seen if not pod.terminal]
    ungranted = [_next(pod, devices, granted) for pod, devices in alive]
    found = [owner for owner in ungranted if owner is not None and owner.container.count == count]
    if not found and listed is not None:
        # A kubelet that lost its allocations asks again for containers that have a grant.
        again = [_next(pod, devices, ()) for pod, devices in alive]
        found = [owner for owner in again if owner is not None and owner.container.count == count]
    return tuple(sorted(found, key=lambda owner: owner.pod.right))


def _next(pod: NodePod, devices: Mapping[str, frozenset[str]], granted: Granted) -> Owner | None:
    """The first container, in the kubelet's order, that has neither a grant nor ids.

    A container behind which another one already has ids has been served, too: plain init containers are never listed.
    """
    last_served = max((i for i, asking in enumerate(pod.asking) if devices.get(asking.name)), default=-1)
    for i, asking in enumerate(pod.asking):
        if i > last_served and (pod.uid, asking.name) not in granted:
            return Owner(pod=pod, container=asking)
    return None


def by_ids(
    listed: Iterable[ListedPod], pods: Mapping[PodKey, NodePod], ids: frozenset[str], granted: Granted
) -> Owner | None:
    """The one listed container that holds exactly `ids` and has no grant yet; None when there is none or several."""
    found = [
        Owner(pod=pod, container=asking)
        for entry in listed
        if (pod := pods.get(entry.key)) is not None
        for asking in pod.asking
        if entry.devices.get(asking.name) == ids and (pod.uid, asking.name) not in granted
    ]
    return found[0] if len(found) == 1 else None
