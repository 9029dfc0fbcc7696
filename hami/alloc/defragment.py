"""Who stands in the way of a MIG instance: which pods would have to go so that a refused pod fits.

A hint for people, and for whoever is allowed to act on it; nothing is moved here. Pods whose authors allow it
(`hami.io/allow-move`) are looked for first. Looked at is one instance: the largest need of the pod that somebody bars.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from hami.alloc.ledger import Ledger
from hami.alloc.mig import CardProfiles, blockers
from hami.model.claim import Need, PodRecord, PodRequest, Role
from hami.model.device import Device, MigPlacement
from hami.model.names import DeviceUuid, NodeName, PodKey
from hami.model.vendor import Rule

MOST_NODES: Final = 64
"""Nodes that are looked at for one hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """The cheapest set of pods whose end makes room for an instance."""

    node: NodeName
    uuid: DeviceUuid
    profile: str
    pods: tuple[PodKey, ...]
    movable: bool
    """All of them may be moved."""

    @property
    def text(self) -> str:
        """`3g.20gb would fit GPU-a of n1 without ns/p (may be moved)`."""
        names = ", ".join(map(str, self.pods))
        allowed = "may be moved" if self.movable else "may not be moved"
        return f"{self.profile} would fit {self.uuid} of {self.node} without {names} ({allowed})"


def hint(ledger: Ledger, request: PodRequest, nodes: Iterable[NodeName]) -> Hint | None:
    """Whose end on one of these nodes makes room; None when no set of pods is in the way of an instance.

    Pods that may be moved come first, then those that hold least memory, then the first node and card.
    """
    best: tuple[tuple[bool, int], Hint] | None = None
    for name in islice(nodes, MOST_NODES):
        for card, profiles in ledger.table.cut(name):
            device = card.device
            if profiles is None or not device.healthy or card.cordoned:
                continue
            for need in _needs(ledger, request, card.vendor):
                found = _without(ledger, name, device, profiles, need)
                if found is not None:
                    best = found if best is None or found[0] < best[0] else best
                    break
    return None if best is None else best[1]


def _needs(ledger: Ledger, request: PodRequest, vendor: str) -> Iterable[Need]:
    """The needs that an instance could meet, the largest first."""
    staying = [
        need
        for container in request.containers
        if container.role is not Role.INIT
        for need in container.needs
        if need.vendor == vendor and Rule.MIG in ledger.registry[need.vendor].rules
    ]
    return sorted(staying, key=lambda need: (-need.memory.amount, -need.cores))


def _without(
    ledger: Ledger, node: NodeName, device: Device, profiles: CardProfiles, need: Need
) -> tuple[tuple[bool, int], Hint] | None:
    wanted = profiles.wish(need.memory, need.cores).on(0)
    if wanted is None:
        return None
    profile = profiles.instance(0, wanted[1]).profile.name
    pods = {pod.uid: pod for pod in ledger.pods_on(node)}
    taken = [
        (pod.uid, reservation.profile, reservation.placement)
        for pod in pods.values()
        for reservation in pod.reservations
        if reservation.uuid == device.uuid
    ]
    # An instance of an old release may lie anywhere on its card.
    whole = MigPlacement(start=0, size=max(p.start + p.size for each in device.mig_profiles for p in each.placements))
    taken += [(pod.uid, profile, whole) for pod in pods.values() if device.uuid in pod.old_instances]
    for movable in (True, False):
        costs = {uid: _memory(pod) for uid, pod in pods.items() if pod.movable or not movable}
        found = blockers(profiles, taken, costs, profile)
        if found:
            keys = tuple(sorted(pods[uid].key for uid in found))
            cost = sum(costs[uid] for uid in found)
            return (not movable, cost), Hint(node=node, uuid=device.uuid, profile=profile, pods=keys, movable=movable)
    return None


def _memory(pod: PodRecord) -> int:
    return sum(share.memory_mib for segments in pod.segments.values() for segment in segments for share in segment)
