"""What a pod of this node gets: its assignment as the scheduler made it, a corrected one, its own, or a refusal.

An assignment made here counts at once and is written on the pod in the background; until the watch shows it, it is
remembered here. Refusals are values: the reason as text.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.agent import fence
from hami.agent.fence import Place
from hami.agent.owner import Owner
from hami.agent.pods import NEVER_BOUND, NodePod, NodePods
from hami.agent.writes import PodApi
from hami.alloc import record as records
from hami.alloc.explain import in_words
from hami.model.claim import Assignment, MigReservation, NodeRefusal, PodRecord, Role, Share
from hami.model.device import NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.model.vendor import Registry, Vendor
from hami.model.wire import mig as mig_wire
from hami.model.wire import pod as keys
from hami.node.grants import Grant, State

log = logging.getLogger(__name__)

REFUSED: Final = "AllocationRefused"
"""Reason word of the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Which grants and pods count at this moment."""

    grants: Mapping[tuple[PodUid, str], Grant]
    """The newest grant of each container (pod uid, name)."""
    ended: Collection[PodUid] = ()
    """Granted pods of which it is certain that they have ended, although our picture may not show it yet."""

    def settled(self, uid: PodUid) -> tuple[Grant, ...]:
        return tuple(g for (owner, _), g in self.grants.items() if owner == uid and g.state is State.SETTLED)


class Assignments:
    """Assignments of one family on one node."""

    def __init__(
        self,
        pods: NodePods,
        vendor: Vendor,
        registry: Registry,
        node: NodeName,
        api: PodApi,
        clock: Callable[[], float],
        served: Callable[[PodKey], None] = lambda _pod: None,
    ) -> None:
        """`served` hears of every pod that has been granted all it asks for, or refused."""
        self._served = served
        self._pods = pods
        self._node = node
        self._vendor = vendor
        self._registry = registry
        self._api = api
        self._clock = clock
        self._made: dict[PodUid, PodRecord] = {}
        """Assignments made here that the pods' annotations don't show yet."""
        self._refused: set[PodUid] = set()
        """Pods that hold nothing, whatever their annotations still say."""
        self._told: set[PodUid] = set()
        """Pods that have had their event."""

    def observe(self, pod: NodePod) -> None:
        """The watch has shown a pod: what its annotations say now need not be remembered."""
        made = self._made.get(pod.uid)
        if made is not None and pod.record is not None and _says(pod.record, made):
            del self._made[pod.uid]

    def remember_refusal(self, uid: PodUid) -> None:
        """An earlier agent refused the pod and said so."""
        self._told.add(uid)

    def forget(self, uid: PodUid) -> None:
        """A pod is gone."""
        self._made.pop(uid, None)
        self._refused.discard(uid)
        self._told.discard(uid)

    def shares(self, owner: Owner) -> tuple[Share, ...]:
        """What the container was assigned, as far as anything is assigned to its pod."""
        found = self._usable(owner.pod)
        return found.segments[self._vendor.name][owner.container.position] if found else ()

    def reserved(self, owner: Owner) -> tuple[MigReservation, ...]:
        """The instances of the container, as far as they are assigned."""
        found = self._usable(owner.pod)
        return () if found is None else reserved(found, owner.container.position)

    def tell_instances(self, record: PodRecord, made: Sequence[MigReservation]) -> None:
        """Write the ids of a pod's instances on it: of those in `made`, and of those that are there already."""
        ids = {(each.container, each.device): each for each in made}
        told = [ids.get((each.container, each.device), each) for each in record.reservations]
        self._api.annotate(record.key, record.uid, {keys.NVIDIA_MIG: mig_wire.write_reservations(told)})

    def decide(self, owner: Owner, node: NodeRecord, standing: Standing) -> PodRecord | str:
        """The pod's record, in which every asking container has its shares; or why it gets nothing.

        Unless `keeps` has said yes, `standing.ended` should be known: nobody should lose to a pod that has ended.
        """
        pod = owner.pod
        if pod.request is None:
            return str(pod.problem)
        found = self._usable(pod)
        if found is not None and not standing.settled(pod.uid):
            trouble = fence.overload(self._place(node, pod, standing, by_right=True), found)
            if trouble is not None:
                log.warning("the assignment of %s cannot be kept: %s", pod.key, trouble)
                found = None
        if found is not None:
            return found
        fitted = self._fit(node, pod, standing)
        if isinstance(fitted, NodeRefusal):
            return f"no room on this node: {in_words([fitted], self._registry).partition(': ')[2]}"
        return self._hold(_record(pod, fitted))

    def keeps(self, owner: Owner, node: NodeRecord, standing: Standing) -> bool:
        """Whether the pod can have exactly what it is assigned."""
        found = self._usable(owner.pod)
        if found is None or standing.settled(owner.pod.uid):
            return found is not None
        return fence.overload(self._place(node, owner.pod, standing, by_right=True), found) is None

    def on_devices(
        self, owner: Owner, node: NodeRecord, standing: Standing, shown: Sequence[DeviceUuid]
    ) -> PodRecord | str:
        """The record with the container on the devices that its answer has already shown; or why that cannot be.

        For the environment strategy, when the answer was meant for another container: both exchange devices if both
        fit, else the owner alone moves if it fits.
        """
        pod, position, vendor = owner.pod, owner.container.position, self._vendor.name
        decided = self.decide(owner, node, standing)
        if isinstance(decided, str):
            return decided
        have = tuple(share.uuid for share in decided.segments[vendor][position])
        if set(have) == set(shown):
            return decided
        if pod.request is None:
            return str(pod.problem)
        rest = fence.with_segment(decided, vendor, position, ())
        others = self._holders(pod.uid, standing, lambda other: True)
        meant = self._meant_for(shown, pod.uid, standing)
        if meant is not None:
            back = self._exchange(meant, node, (*others, rest), have)
            if back is not None:
                beside = [holder for holder in others if holder.uid != meant.pod.uid]
                place = self._at(node, (*beside, back, rest))
                if (shares := fence.fit_container(place, pod.request, position, shown)) is not None:
                    log.warning("%s and %s exchange devices", pod.key, meant.pod.key)
                    self._hold(back)
                    return self._hold(fence.with_segment(decided, vendor, position, shares))
        shares = fence.fit_container(self._at(node, (*others, rest)), pod.request, position, shown)
        if shares is not None:
            return self._hold(fence.with_segment(decided, vendor, position, shares))
        whose = f", meant for {meant.pod.key}," if meant else ""
        return f"the devices {', '.join(shown)}{whose} were shown to {pod.key}, which does not fit there"

    def refuse(self, pod: NodePod, reason: str, standing: Standing) -> None:
        """The pod holds nothing from now on, unless other containers of it were granted; one event says why."""
        if not standing.settled(pod.uid):
            self._made.pop(pod.uid, None)
            if pod.uid not in self._refused:
                self._refused.add(pod.uid)
                self._api.annotate(pod.key, pod.uid, {keys.BIND_PHASE: keys.FAILED})
                self._served(pod.key)
        if pod.uid not in self._told:
            self._told.add(pod.uid)
            log.warning("%s is refused: %s", pod.key, reason)
            if not pod.refused:
                self._api.tell(pod.key, pod.uid, REFUSED, reason)

    def succeed(self, pod: NodePod) -> None:
        """Every container of the pod has its grant."""
        self._refused.discard(pod.uid)
        self._told.discard(pod.uid)
        self._api.annotate(pod.key, pod.uid, {keys.BIND_PHASE: keys.SUCCESS})
        self._served(pod.key)

    def _usable(self, pod: NodePod) -> PodRecord | None:
        """What the pod is assigned, if it gives every asking container what that asks for."""
        found = self._made.get(pod.uid)
        if found is None and pod.uid not in self._refused:
            found = pod.record
        segments = found.segments.get(self._vendor.name, ()) if found else ()
        if not segments or any(len(segments[asking.position]) != asking.count for asking in pod.asking):
            return None
        return found

    def _fit(self, node: NodeRecord, pod: NodePod, standing: Standing) -> Assignment | NodeRefusal:
        assert pod.request is not None
        found = fence.fit(self._place(node, pod, standing, by_right=False), pod.request)
        if isinstance(found, NodeRefusal) and pod.bind_time != NEVER_BOUND:
            # A pod that a scheduler bound may displace those bound after it; they are fitted again in their turn.
            found = fence.fit(self._place(node, pod, standing, by_right=True), pod.request)
        return found

    def _hold(self, made: PodRecord) -> PodRecord:
        self._made[made.uid] = made
        self._refused.discard(made.uid)
        notes = records.annotations(
            Assignment(node=made.node, segments=made.segments, reservations=made.reservations),
            self._registry,
            now_unix=int(self._clock()),
            own_agent=frozenset({self._vendor.name}),
        )
        self._api.annotate(made.key, made.uid, notes)
        return made

    def _exchange(
        self, meant: Owner, node: NodeRecord, holders: Sequence[PodRecord], devices: Sequence[DeviceUuid]
    ) -> PodRecord | None:
        """The other container's record on `devices`, if it fits there once the owner has left them."""
        held = self._usable(meant.pod)
        if held is None or meant.pod.request is None:
            return None
        vendor, position = self._vendor.name, meant.container.position
        rest = fence.with_segment(held, vendor, position, ())
        place = self._at(node, (*(h for h in holders if h.uid != meant.pod.uid), rest))
        shares = fence.fit_container(place, meant.pod.request, position, devices)
        return None if shares is None else fence.with_segment(held, vendor, position, shares)

    def _meant_for(self, shown: Sequence[DeviceUuid], uid: PodUid, standing: Standing) -> Owner | None:
        """Another pod's container that is assigned exactly these devices and has not been settled."""
        for pod in self._pods:
            found = self._usable(pod) if pod.uid != uid else None
            for asking in pod.asking if found else ():
                grant = standing.grants.get((pod.uid, asking.name))
                if grant is not None and grant.state is State.SETTLED:
                    continue
                owner = Owner(pod=pod, container=asking)
                if tuple(share.uuid for share in self.shares(owner)) == tuple(shown):
                    return owner
        return None

    def _place(self, node: NodeRecord, pod: NodePod, standing: Standing, *, by_right: bool) -> Place:
        """The node as `pod` finds it; `by_right`: only what has been granted or came before it."""

        def counts(other: NodePod) -> bool:
            return not by_right or bool(standing.settled(other.uid)) or other.right < pod.right

        return self._at(node, self._holders(pod.uid, standing, counts))

    def _at(self, node: NodeRecord, holders: Sequence[PodRecord]) -> Place:
        return Place(node=node, registry=self._registry, vendor=self._vendor.name, holders=tuple(holders))

    def _holders(self, mine: PodUid, standing: Standing, counts: Callable[[NodePod], bool]) -> tuple[PodRecord, ...]:
        """What the other pods hold: what was granted where something was, else what is assigned."""
        found = []
        known = set()
        for pod in self._pods:
            known.add(pod.uid)
            if pod.uid == mine or pod.terminal or not counts(pod):
                continue
            settled = standing.settled(pod.uid)
            if settled and pod.uid in standing.ended:
                continue
            held = self._usable(pod) or (self._from_grants(settled, pod.record) if settled else None)
            if held is not None:
                found.append(_as_granted(held, self._vendor, settled))
        # Pods that the API has forgotten count until it is certain that they have ended.
        gone = {uid for uid, _ in standing.grants} - known - {mine}
        for uid in sorted(gone):
            settled = standing.settled(uid)
            if settled and uid not in standing.ended:
                found.append(self._from_grants(settled, None))
        return tuple(found)

    def _from_grants(self, settled: Sequence[Grant], known: PodRecord | None) -> PodRecord:
        """What a pod without a usable allocation was granted. Unknown roles count as apps: the most they can take."""
        holder = settled[0].holder
        assert holder is not None
        roles = known.roles if known is not None else (Role.APP,) * holder.containers
        empty = PodRecord(
            uid=holder.pod_uid,
            key=holder.key,
            node=self._node,
            roles=roles,
            segments={self._vendor.name: ((),) * len(roles)},
        )
        return _as_granted(empty, self._vendor, settled)


def _record(pod: NodePod, assignment: Assignment) -> PodRecord:
    assert pod.request is not None
    return PodRecord(
        uid=pod.uid,
        key=pod.key,
        node=assignment.node,
        roles=tuple(container.role for container in pod.request.containers),
        segments=assignment.segments,
        reservations=assignment.reservations,
    )


def reserved(record: PodRecord, position: int) -> tuple[MigReservation, ...]:
    """The instances of one container, in the order of its shares."""
    mine = [each for each in record.reservations if each.container == position]
    return tuple(sorted(mine, key=lambda each: each.device))


def _says(shown: PodRecord, made: PodRecord) -> bool:
    """Whether a pod's annotations say what was assigned; the ids of its instances come later."""
    places = [[replace(each, instance=None) for each in record.reservations] for record in (shown, made)]
    return shown.segments == made.segments and places[0] == places[1]


def _as_granted(held: PodRecord, vendor: Vendor, settled: Sequence[Grant]) -> PodRecord:
    """The record with what was granted in place of what is annotated: the grant is what the container obeys."""
    for grant in settled:
        if grant.holder is not None and grant.holder.position < len(held.roles):
            position = grant.holder.position
            held = fence.with_segment(held, vendor.name, position, grant.shares)
            others = tuple(each for each in held.reservations if each.container != position)
            held = replace(held, reservations=(*others, *grant.mig))
    return held
