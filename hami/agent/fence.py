"""Does this pod's assignment hold on this node? If not: what it can have instead.

The scheduler decides from its picture and the kubelet admits from its own; between them an assignment may come here
that the node's devices cannot carry. Here is where it stops: whoever came first keeps what was promised, the other is
placed again with the same engine, or refused. Every function decides on the values it is given.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hami.alloc.ledger import Ledger, holdings
from hami.alloc.place import place_on
from hami.model.claim import Assignment, MigReservation, NodeRefusal, PodRecord, PodRequest, Role, Segments, Share
from hami.model.device import MIG, Device, NodeRecord
from hami.model.names import DeviceUuid, PodUid, VendorWord
from hami.model.vendor import Registry, Rule

CARD_POLICY: Final = "spread"
"""For pods that name none, as with the scheduler's default."""
FULL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This node, and the pods that hold devices on it."""

    node: NodeRecord
    registry: Registry
    vendor: VendorWord
    holders: tuple[PodRecord, ...]

    def ledger(self) -> Ledger:
        ledger = Ledger(self.registry)
        ledger.put_node(self.node)
        for holder in self.holders:
            ledger.put_pod(holder)
        return ledger


def overload(place: Place, record: PodRecord) -> str | None:
    """What `record` beside the holders would exceed, as text; None when the devices carry it.

    Health and cordons don't matter to a pod that is already promised its devices.
    """
    ledger = place.ledger()
    ledger.put_pod(record)
    mine = {uuid for vendor, uuid in holdings(record) if vendor == place.vendor}
    known = {usage.device.uuid: usage for usage in ledger.usage(place.node.name) if usage.vendor == place.vendor}
    for uuid in sorted(mine):
        usage = known.get(uuid)
        if usage is None:
            return f"device {uuid} is not on node {place.node.name}"
        device = usage.device
        if device.mode == MIG:
            # Slices say it all: instances of the smallest profile have more than 100 percent of compute together.
            if (trouble := _slices(place, record, device)) is not None:
                return trouble
            continue
        if any(reservation.uuid == uuid for reservation in record.reservations):
            return f"device {uuid} is not in MIG mode"
        for what, used, most in (
            ("MiB of memory", usage.used_memory_mib, device.memory_mib),
            ("percent of compute", usage.used_cores, device.cores),
            ("sharers", usage.used_slots, device.slots),
        ):
            if used > most:
                return f"device {uuid} would carry {used} {what} and has {most}"
        if usage.used_slots > 1 and _alone(place, record, uuid):
            return f"device {uuid} is promised to one pod alone and would have {usage.used_slots} sharers"
    return None


def _slices(place: Place, record: PodRecord, device: Device) -> str | None:
    """What keeps a pod's instances from being on a card in MIG mode, as text; None when nothing does."""
    mine = [reservation for reservation in record.reservations if reservation.uuid == device.uuid]
    shares: Counter[int] = Counter()
    for container, segment in enumerate(record.segments[place.vendor]):
        shares[container] += sum(share.uuid == device.uuid for share in segment)
    if +shares != Counter(reservation.container for reservation in mine):
        return f"device {device.uuid} is in MIG mode and the instances on it are not all reserved"
    offered = {(profile.name, at) for profile in device.mig_profiles for at in profile.placements}
    for reservation in mine:
        if (reservation.profile, reservation.placement) not in offered:
            return f"device {device.uuid} offers no {reservation.profile} at slice {reservation.placement.start}"
        for holder in place.holders:
            for other in living(holder):
                if other.uuid == device.uuid and _overlap(other, reservation):
                    start = reservation.placement.start
                    return f"slices of device {device.uuid} from {start} on are those of {holder.key}"
    return None


def living(record: PodRecord) -> tuple[MigReservation, ...]:
    """A pod's reservations without those of init containers that have ended."""
    return tuple(
        reservation
        for reservation in record.reservations
        if not (record.inits_done and record.roles[reservation.container : reservation.container + 1] == (Role.INIT,))
    )


def _overlap(a: MigReservation, b: MigReservation) -> bool:
    mine, other = a.placement, b.placement
    return mine.start < other.start + other.size and other.start < mine.start + mine.size


def _alone(place: Place, record: PodRecord, uuid: DeviceUuid) -> bool:
    """Whether of several pods on a device one was promised all of its compute."""
    if Rule.FULL_CORES_IS_EXCLUSIVE not in place.registry[place.vendor].rules:
        return False
    key = place.vendor, uuid
    held = [part for pod in (*place.holders, record) if (part := holdings(pod).get(key)) is not None]
    return len(held) > 1 and any(part.cores >= FULL for part in held)


def fit(place: Place, request: PodRequest) -> Assignment | NodeRefusal:
    """Devices of this node for a pod, all containers together, as the scheduler would choose them."""
    return place_on(place.ledger(), request, place.node.name, card_policy=CARD_POLICY)


def fit_container(
    place: Place, request: PodRequest, position: int, devices: Iterable[DeviceUuid]
) -> tuple[Share, ...] | None:
    """One container's shares on exactly these devices, in this order; None where they don't serve it.

    The pod's other containers are among the holders, as a pod of their own.
    """
    wanted = tuple(devices)
    selection = request.selections.get(place.vendor)
    if selection is None or (selection.uuid_in and not set(wanted) <= selection.uuid_in):
        return None
    alone = replace(
        request,
        uid=PodUid(f"{request.uid}/{position}"),
        containers=tuple(
            container if i == position else replace(container, needs=())
            for i, container in enumerate(request.containers)
        ),
        selections={**request.selections, place.vendor: replace(selection, uuid_in=frozenset(wanted))},
    )
    found = fit(place, alone)
    if isinstance(found, NodeRefusal):
        return None
    shares = {share.uuid: share for share in found.segments[place.vendor][position]}
    return tuple(shares[uuid] for uuid in wanted) if set(shares) == set(wanted) else None


def with_segment(record: PodRecord, vendor: VendorWord, position: int, shares: tuple[Share, ...]) -> PodRecord:
    """The record with one container's shares replaced."""
    old = record.segments.get(vendor, ((),) * len(record.roles))
    segments: Segments = tuple(shares if i == position else segment for i, segment in enumerate(old))
    changed: Mapping[VendorWord, Segments] = {**record.segments, vendor: segments}
    return replace(record, segments=changed)
