"""Grants: from the kubelet's anonymous `Allocate` to a container's confirmed share.

A grant is *tentative* when answered, *settled* once the kubelet's own files say whose it is, or *refused* when its
owner can have nothing here. Until it is settled, what its container has mounted lets nothing through. The order of
events is the kubelet's: answer, checkpoint, perhaps the next answer, then `PreStartContainer` before every start.

Who owns a grant is found by `inquiry`, what it gets is decided by `assignments`; this module keeps the grants.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

import anyio

from hami.agent.answer import shown_devices
from hami.agent.assignments import Assignments, Standing, reserved
from hami.agent.fence import living
from hami.agent.inquiry import Inquiry
from hami.agent.mig import MigInstances, Use
from hami.agent.opening import Opening, Regions
from hami.agent.owner import Owner
from hami.agent.pb.deviceplugin_pb2 import ContainerAllocateResponse
from hami.agent.podresources import ListedPod
from hami.agent.pods import NodePod, NodePods
from hami.agent.preferred import device_of, linked_devices, preferred_ids
from hami.alloc import request
from hami.model.claim import MigReservation, PodRecord, Role, Share
from hami.model.device import MIG, NodeRecord
from hami.model.names import DeviceUuid, PodUid, WireError
from hami.node.grants import Grant, Holder, State, new_id
from hami.node.mig import MigError
from hami.node.mps import MpsError

log = logging.getLogger(__name__)

CONFIRM_S: Final = 1.0
"""How long `PreStartContainer` waits for the checkpoint, which comes 4 ms (p99 42 ms) after the answer."""
NOTICE_S: Final = 0.3
"""Pause after a device file changed just before a start: the runtime notices such files asynchronously."""
ENDED_S: Final = 3.0
"""How long to ask the API server for pods that may have ended; the others count."""
KEEP_S: Final = 30
"""Age from which a grant without pod and process is removed: our watch may show a new pod later than the kubelet."""


class NotGranted(Exception):
    """The container must not start now; the kubelet puts the text into an event of the pod."""


class Grants:
    """Every grant of one family on this node."""

    def __init__(
        self,
        opening: Opening,
        pods: NodePods,
        inquiry: Inquiry,
        assignments: Assignments,
        regions: Regions,
        node: Callable[[], NodeRecord | None],
        clock: Callable[[], float],
        mig: MigInstances | None = None,
    ) -> None:
        """`node` gives this node as it is now, None before the first probe; `clock` Unix seconds; `mig` keeps the
        instances of a node that makes them for its pods."""
        self._mig = mig
        self._pods_listed = False
        self._opening = opening
        self._wording = opening.wording
        self._store = opening.wording.store
        self._pods = pods
        self._inquiry = inquiry
        self._assignments = assignments
        self._regions = regions
        self._node = node
        self._clock = clock
        self._grants: dict[str, Grant] = {}
        self._lock = anyio.Lock()
        self._checkpoint_written = anyio.Event()

    @property
    def grants(self) -> tuple[Grant, ...]:
        return tuple(self._grants.values())

    def load(self) -> None:
        """Take over what an earlier agent granted; device files that a reboot took away are written again."""
        found = self._store.load()
        self._grants = dict(sorted(found.items(), key=lambda item: item[1].made_unix))
        for problem in self._store.problems:
            log.error("a grant cannot be read: %s", problem)
        for grant in self._grants.values():
            try:
                self._opening.restore(grant)
            except (OSError, WireError) as error:
                log.error("grant %s of %s cannot be restored: %s", grant.id, _named(grant), error)
            if grant.state is State.REFUSED and grant.holder is not None:
                self._assignments.remember_refusal(grant.holder.pod_uid)
        log.info("%d grants taken over", len(self._grants))

    # The kubelet's calls

    async def allocate(self, ids: Collection[str]) -> ContainerAllocateResponse:
        """Make a grant for `ids` and answer: quickly, and never with an error, which would fail the pod for good."""
        async with self._lock:
            await self._settle_confirmed()
            owner = await self._inquiry.likely(len(ids), self._newest())
            grant = Grant(
                id=new_id(),
                device_ids=frozenset(ids),
                made_unix=int(self._clock()),
                holder=_holder(owner),
                shares=self._thought_shares(owner),
            )
            if self._wording.strategy == "env":
                grant = await self._shown(grant, owner)
                grant = await self._sent(replace(grant, enforced_by=self._wording.answered_by(grant)))
            await anyio.to_thread.run_sync(self._opening.create, grant)
            self._grants[grant.id] = grant
            answer = self._opening.answer(grant)
            log.info("grant %s: %d ids, thought to be for %s", grant.id, len(ids), _named(grant))
            return answer

    async def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> list[str]:
        """Which ids the kubelet should choose: those of the devices that its next container was assigned if we know it,
        else those of the best linked devices."""
        owner = await self._inquiry.likely(size, self._newest())
        wanted: Sequence[DeviceUuid] = [share.uuid for share in self._assignments.shares(owner)] if owner else []
        if not wanted and (node := self._node()) is not None:
            name = self._wording.vendor.name
            links = next((inventory.links for inventory in node.inventories if inventory.vendor == name), None)
            wanted = linked_devices(available, must, size, links)
        return preferred_ids(available, must, size, wanted)

    async def prepare(self, ids: Collection[str]) -> None:
        """Before a container starts: every grant with these ids is settled, or NotGranted says why not."""
        wanted = frozenset(ids)
        with anyio.move_on_after(CONFIRM_S):
            while not self._is_confirmed(wanted):
                await self._checkpoint_written.wait()
        changed = False
        async with self._lock:
            holding = [grant for grant in self._grants.values() if grant.device_ids == wanted]
            if not holding:
                holding = await self._recover(wanted)
            if not holding:
                raise NotGranted(f"this node's agent has no grant with the devices {', '.join(sorted(wanted))}")
            for grant in holding:
                if grant.state is State.SETTLED:
                    changed |= await self._restore(grant)
                elif grant is holding[-1] or self._is_current(grant):
                    changed |= await self._settle_or_raise(grant)
        if changed:
            await anyio.sleep(NOTICE_S)

    async def _restore(self, grant: Grant) -> bool:
        """Put back what somebody took away from a settled grant; whether it was its device file."""
        if grant.mig:
            grant = await self._with_instances(grant)
        # A container that starts anew is not capped by the driver yet, unless the vendor's hook does it.
        grant = await self._sent(replace(grant, enforced_by=self._wording.enforcer(grant)))
        self._grants[grant.id] = grant
        try:
            return await anyio.to_thread.run_sync(self._opening.restore, grant)
        except (OSError, WireError) as error:
            raise NotGranted(f"the grant cannot be written on the node: {error}") from error

    async def _sent(self, grant: Grant) -> Grant:
        """The grant with a place at MPS, if MPS is to hold it; where there is none, somebody else does."""
        if grant.enforced_by != "mps":
            return grant
        try:
            await anyio.to_thread.run_sync(self._wording.admit, grant)
        except MpsError as error:
            log.error("grant %s of %s is not sent to MPS: %s", grant.id, _named(grant), error)
            return replace(grant, enforced_by=self._wording.enforcer(grant, without_mps=True))
        return grant

    async def _recover(self, ids: frozenset[str]) -> list[Grant]:
        """A grant whose record was lost, from the kubelet's copy of our answer: its paths are what the pod mounts."""
        for grant_id, entry in self._inquiry.entries().items():
            if entry.device_ids == ids and grant_id not in self._grants:
                log.warning("grant %s is not on disk any more and is made again", grant_id)
                visible = self._wording.visible_in(entry.answer)
                grant = Grant(id=grant_id, device_ids=ids, made_unix=int(self._clock()), visible=visible)
                await anyio.to_thread.run_sync(self._opening.create, grant)
                self._grants[grant_id] = grant
                return [grant]
        return []

    async def settle_confirmed(self) -> None:
        """Settle what the checkpoint confirms; to be called when it has been written."""
        self._checkpoint_written.set()
        self._checkpoint_written = anyio.Event()
        async with self._lock:
            await self._settle_confirmed()

    async def enforced(self, grant_id: str, enforcer: str) -> None:
        """Somebody else holds a running container's limits now, in the grant file's words."""
        async with self._lock:
            grant = self._grants.get(grant_id)
            pod = self._pods.get(grant.holder.pod_uid) if grant is not None and grant.holder is not None else None
            if grant is None or pod is None or grant.state is not State.SETTLED or grant.enforced_by == enforcer:
                return
            grant = replace(grant, enforced_by=enforcer)
            try:
                await anyio.to_thread.run_sync(self._opening.say_enforcer, grant, pod)
            except (OSError, WireError) as error:
                log.error("grant %s cannot be written: %s", grant_id, error)
                return
            self._grants[grant_id] = grant
            log.info("grant %s: limits are held by the %s", grant_id, enforcer)

    # The pods' lives

    def observe(self, pod: NodePod) -> None:
        """The watch has shown a pod."""
        self._assignments.observe(pod)

    def observe_all(self) -> None:
        """The watch has shown every pod of this node."""
        self._pods_listed = True

    async def sweep(self) -> None:
        """Delete grants of pods that are gone, and directories that belong to no grant."""
        async with self._lock:
            listed = await self._inquiry.listed()
            if listed is None:
                return
            await self._sweep_instances(listed)
            in_use = set(self._inquiry.entries())
            for grant in self.grants:
                if self._is_over(grant, listed, in_use):
                    log.info("grant %s of %s is over", grant.id, _named(grant))
                    await self._remove(grant.id)
                    if grant.holder is not None:
                        self._assignments.forget(grant.holder.pod_uid)
            for stray in list(self._store.strays(self._grants)):
                if not self._regions.alive(stray):
                    log.warning("removing %s, which belongs to no grant", stray)
                    await self._remove(stray)

    async def sweep_places(self) -> None:
        """End the places at MPS that no grant has any more."""
        places = self._wording.places
        if places is None:
            return
        there = await anyio.to_thread.run_sync(places.places)
        async with self._lock:  # under which a place is made, before its grant is known
            strays = [place for place in sorted(there - set(self._grants)) if not self._regions.alive(place)]
        for stray in strays:
            await anyio.to_thread.run_sync(places.dismiss, stray)

    async def _remove(self, grant_id: str) -> None:
        self._grants.pop(grant_id, None)
        self._regions.close(grant_id)
        try:
            await anyio.to_thread.run_sync(self._store.remove, grant_id)
        except OSError as error:
            log.error("grant %s cannot be removed: %s", grant_id, error)

    def _is_over(self, grant: Grant, listed: Sequence[ListedPod], in_use: Collection[str]) -> bool:
        """Whether a grant's pod has ended or gone, with its processes. `in_use` are the checkpoint's grants."""
        if self._clock() - grant.made_unix < KEEP_S or self._regions.alive(grant.id):
            return False
        if grant.holder is None:
            return grant.id not in in_use
        known = self._pods.get(grant.holder.pod_uid)
        gone = known is None or known.terminal
        return gone and grant.holder.key not in {entry.key for entry in listed}

    def _is_current(self, grant: Grant) -> bool:
        """Whether a grant's pod still is one of this node's; ids of ended pods are given out again."""
        if grant.holder is None:
            return False
        pod = self._pods.get(grant.holder.pod_uid)
        return pod is not None and not pod.terminal

    # Instances

    async def _shown(self, grant: Grant, owner: Owner | None) -> Grant:
        """The grant with what its answer shows, where the answer itself must say it. A card in MIG mode is never shown
        whole: without its owner's instances the grant shows nothing."""
        if owner is not None and (wanted := self._assignments.reserved(owner)):
            try:
                grant = replace(grant, mig=await self._ensure(owner, wanted))
            except MigError as error:
                log.warning("no instance can be shown to %s yet: %s", owner.pod.key, error)
                return replace(grant, shares=())
            return replace(grant, visible=shown_devices(grant))
        node = self._node()
        cut = (
            {device.uuid for each in node.inventories for device in each.devices if device.mode == MIG} if node else ()
        )
        shown = shown_devices(grant) or _devices_of(grant.device_ids)
        return replace(grant, visible=tuple(uuid for uuid in shown if uuid not in cut))

    async def _ensure(self, owner: Owner, wanted: Sequence[MigReservation]) -> tuple[MigReservation, ...]:
        """The container's instances, made. Raises MigError."""
        if self._mig is None:
            raise MigError("this node's operating mode makes no MIG instances")
        pod, uses = owner.pod, self._uses() if self._pods_listed else None
        return await anyio.to_thread.run_sync(self._mig.ensure, pod.uid, pod.key, wanted, uses)

    def _uses(self, listed: Collection[ListedPod] = ()) -> frozenset[Use]:
        """The instances of the pods that are there, granted or promised, and of granted ones that the kubelet lists."""
        names = {entry.key for entry in listed}
        promised = {
            (pod.uid, each.uuid, each.placement.start)
            for pod in self._pods
            if pod.record is not None and not pod.terminal
            for each in living(pod.record)
        }
        granted = {
            (grant.holder.pod_uid, each.uuid, each.placement.start)
            for grant in self._grants.values()
            if grant.holder is not None and not self._has_ended(grant.holder)
            if self._is_current(grant) or grant.holder.key in names
            for each in grant.mig
        }
        return frozenset(promised | granted)

    def _has_ended(self, holder: Holder) -> bool:
        """Whether a container is an init container of a pod whose init containers have all ended."""
        pod = self._pods.get(holder.pod_uid)
        record = pod.record if pod is not None else None
        return record is not None and record.inits_done and record.roles[holder.position] is Role.INIT

    async def _sweep_instances(self, listed: Collection[ListedPod]) -> None:
        if self._mig is None:
            return
        for pod in self._pods:
            if pod.record is not None and not pod.terminal:
                await anyio.to_thread.run_sync(self._mig.adopt, pod.uid, pod.key, pod.record.reservations)
        try:
            await anyio.to_thread.run_sync(self._mig.sweep, self._uses(listed))
        except MigError as error:
            log.error("%s", error)

    async def _with_instances(self, grant: Grant) -> Grant:
        """A settled grant whose instances exist; a reboot takes them away. Raises NotGranted."""
        pod = self._pods.get(grant.holder.pod_uid) if grant.holder else None
        asking = [each for each in pod.asking if grant.holder and each.name == grant.holder.container] if pod else []
        if pod is not None and asking:
            try:
                made = await self._ensure(Owner(pod=pod, container=asking[0]), grant.mig)
            except MigError as error:
                raise NotGranted(str(error)) from error
            grant = self._grants[grant.id] = replace(grant, mig=made)
        return grant

    # Settling

    def _newest(self) -> dict[tuple[PodUid, str], Grant]:
        """The newest grant of each container."""
        return {(g.holder.pod_uid, g.holder.container): g for g in self._grants.values() if g.holder is not None}

    def _standing(self) -> Standing:
        return Standing(grants=self._newest())

    def _is_confirmed(self, ids: frozenset[str]) -> bool:
        """Whether the checkpoint names the owner of every grant with these ids that is not settled."""
        waiting = {g.id for g in self._grants.values() if g.device_ids == ids and g.state is not State.SETTLED}
        return not waiting or waiting <= set(self._inquiry.entries())

    def _thought_shares(self, owner: Owner | None) -> tuple[Share, ...]:
        """What the thought owner gets. The environment strategy must know now, so a pod without an assignment is
        fitted now; with CDI that waits until the owner is certain."""
        if owner is None:
            return ()
        shares = self._assignments.shares(owner)
        node = self._node()
        if shares or self._wording.strategy == "cdi" or node is None:
            return shares
        decided = self._assignments.decide(owner, node, self._standing())
        return () if isinstance(decided, str) else self._assignments.shares(owner)

    async def _settle_confirmed(self) -> None:
        waiting = [grant for grant in self._grants.values() if grant.state is State.TENTATIVE]
        node = self._node()
        if not waiting or node is None:
            return
        entries = self._inquiry.entries()
        for grant in waiting:
            # A pod that is not known yet waits for its first container's start; nobody should wait for it here.
            owner = self._inquiry.known(grant, entries)
            if owner is not None:
                await self._settle(grant, owner, node)

    async def _settle_or_raise(self, grant: Grant) -> bool:
        node = self._node()
        if node is None:
            raise NotGranted("the devices of this node are not known yet")
        others = {key for key, other in self._newest().items() if other.id != grant.id}
        owner = await self._inquiry.confirmed(grant, self._inquiry.entries(), others)
        if owner is None:
            raise NotGranted(f"the kubelet does not say yet whose grant {grant.id} is")
        changed, refusal = await self._settle(grant, owner, node)
        if refusal:
            raise NotGranted(refusal)
        return changed

    async def _settle(self, grant: Grant, owner: Owner, node: NodeRecord) -> tuple[bool, str]:
        """Give the owner its share, or refuse: whether its device file changed, and the refusal's text."""
        thought, holder = grant.holder, _holder(owner)
        grant = replace(grant, holder=holder)
        if thought is not None and thought != holder:
            log.warning("grant %s was thought to be for %s and is for %s", grant.id, thought.key, _named(grant))
        self._grants[grant.id] = grant
        decided = await self._decide(grant, owner, node)
        if isinstance(decided, str):
            await self._refuse(grant, owner.pod, decided)
            return False, decided
        position = owner.container.position
        shares = decided.segments[self._wording.vendor.name][position]
        if self._wording.strategy == "env" and grant.shares != shares:
            grant = replace(grant, enforced_by="library")  # the answer's words are another's
        grant = replace(grant, state=State.SETTLED, shares=shares, mig=(), reason="")
        if wanted := reserved(decided, position):
            try:
                grant = replace(grant, mig=await self._ensure(owner, wanted))
            except MigError as error:
                # Not a refusal: a program that is ending, or a card that is busy, may be so no longer at the next try.
                log.warning("grant %s of %s waits for its instances: %s", grant.id, _named(grant), error)
                return False, str(error)
            if self._wording.strategy == "env" and set(grant.visible) != set(shown_devices(grant)):
                reason = f"{owner.pod.key} was shown other devices than its MIG instances"
                await self._refuse(grant, owner.pod, reason)
                return False, reason
            made = [each for other in self._newest().values() if _same_pod(other, grant) for each in other.mig]
            self._assignments.tell_instances(decided, [*made, *grant.mig])
        grant = await self._sent(replace(grant, enforced_by=self._wording.enforcer(grant)))
        try:
            changed = await anyio.to_thread.run_sync(self._opening.open, grant, owner.pod)
        except (OSError, WireError) as error:
            # Not a refusal: the pod may have its share, and the next try may find the disk as it should be.
            log.error("grant %s of %s cannot be written: %s", grant.id, _named(grant), error)
            return False, f"the grant cannot be written on the node: {error}"
        self._grants[grant.id] = grant
        log.info("grant %s: settled for %s", grant.id, _named(grant))
        settled = {grant.holder.container for grant in self._standing().settled(owner.pod.uid) if grant.holder}
        if all(asking.name in settled for asking in owner.pod.asking):
            self._assignments.succeed(owner.pod)
        return changed, ""

    async def _decide(self, grant: Grant, owner: Owner, node: NodeRecord) -> PodRecord | str:
        standing = self._standing()
        if not self._assignments.keeps(owner, node, standing):
            standing = replace(standing, ended=await self._ended())
        if grant.visible and not self._assignments.reserved(owner):
            return self._assignments.on_devices(owner, node, standing, grant.visible)
        return self._assignments.decide(owner, node, standing)

    async def _ended(self) -> frozenset[PodUid]:
        """Granted pods that are certainly over: the kubelet doesn't list them (a starting one lists few), no process
        of theirs lives, and the API server has no such pod."""
        listed = await self._inquiry.listed()
        if listed is None:
            return frozenset()
        names = {entry.key for entry in listed}
        held = [(grant.id, grant.holder) for grant in self._grants.values() if grant.holder is not None]
        alive = {holder.pod_uid for i, holder in held if holder.key in names or self._regions.alive(i)}
        quiet = {holder.pod_uid: holder.key for _, holder in held if holder.pod_uid not in alive}
        ended = set()
        with anyio.move_on_after(ENDED_S):
            for uid, key in quiet.items():
                if await self._inquiry.is_gone(uid, key):
                    ended.add(uid)
        return frozenset(ended)

    async def _refuse(self, grant: Grant, pod: NodePod, reason: str) -> None:
        grant = replace(grant, state=State.REFUSED, shares=(), mig=(), reason=reason)
        self._grants[grant.id] = grant
        await anyio.to_thread.run_sync(self._opening.close, grant)
        self._assignments.refuse(pod, reason, self._standing())


def _holder(owner: Owner | None) -> Holder | None:
    if owner is None:
        return None
    return Holder(
        pod_uid=owner.pod.uid,
        key=owner.pod.key,
        container=owner.container.name,
        position=owner.container.position,
        containers=len(tuple(request.containers(owner.pod.document))),
    )


def _same_pod(one: Grant, other: Grant) -> bool:
    return one.holder is not None and other.holder is not None and one.holder.pod_uid == other.holder.pod_uid


def _devices_of(ids: Collection[str]) -> tuple[DeviceUuid, ...]:
    return tuple(dict.fromkeys(device_of(device_id) for device_id in sorted(ids)))


def _named(grant: Grant) -> str:
    return f"{grant.holder.key} {grant.holder.container}" if grant.holder else "nobody known"
