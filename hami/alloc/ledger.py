"""Who holds what: nodes and pods as they come, go and change, and what every device has left.

The ledger is told of whole nodes and whole pods; telling the same thing twice changes nothing. What a pod holds is
worked out once, when it arrives, and taken back exactly. A pod may be known before its node, and may hold a device that
its node does not list (replaced, or gone for the moment): such holdings wait here and count when the device appears.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from hami.alloc.demand import Demand
from hami.alloc.encode import LARGEST
from hami.alloc.slices import Taken, occupied
from hami.alloc.table import NOTHING_TO_DO, Card, Table
from hami.model.claim import Assignment, PodRecord, PodRequest, Role, Share
from hami.model.device import Device, NodeRecord
from hami.model.host import NO_HOST, Host
from hami.model.names import DeviceUuid, NodeName, PodUid, VendorWord
from hami.model.vendor import Registry


class Held(NamedTuple):
    """What a pod holds of one device, or what all pods hold of it."""

    slots: int
    memory_mib: int
    cores: int
    parts: tuple[int, int] = (0, 0)
    """Of the device's two further budgets."""

    def plus(self, other: "Held") -> "Held":
        return Held(
            self.slots + other.slots,
            self.memory_mib + other.memory_mib,
            self.cores + other.cores,
            (self.parts[0] + other.parts[0], self.parts[1] + other.parts[1]),
        )

    def largest(self, other: "Held") -> "Held":
        """The larger of each amount."""
        return Held(
            max(self.slots, other.slots),
            max(self.memory_mib, other.memory_mib),
            max(self.cores, other.cores),
            (max(self.parts[0], other.parts[0]), max(self.parts[1], other.parts[1])),
        )


NOTHING = Held(0, 0, 0)
DeviceKey = tuple[VendorWord, DeviceUuid]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUsage:
    """One device and what pods hold of it; the used amounts may exceed the device's own."""

    vendor: VendorWord
    device: Device
    cordoned: bool
    used_slots: int
    used_memory_mib: int
    used_cores: int
    used_parts: tuple[int, int]
    """Of `device.parts`."""
    taken: Taken
    """In MIG mode, the slices that instances hold. A card that is not sound takes nothing."""


def holdings(record: PodRecord) -> Mapping[DeviceKey, Held]:
    """What a pod holds of each device now.

    Plain init containers run one after another, each beside the sidecars declared before it; then all sidecars and app
    containers run together. The pod holds the larger of the two phases in every amount, and after the last plain init
    container has succeeded only the second.
    """
    peak: dict[DeviceKey, Held] = {}
    sidecars: dict[DeviceKey, Held] = {}
    apps: dict[DeviceKey, Held] = {}
    for vendor, segments in record.segments.items():
        for position, segment in enumerate(segments):
            role = record.roles[position] if position < len(record.roles) else Role.APP
            container: dict[DeviceKey, Held] = {}
            for share in segment:
                key = vendor, share.uuid
                held = Held(share.slots, _bounded(share.memory_mib), _bounded(share.cores), share.parts)
                container[key] = container.get(key, NOTHING).plus(held)
            for key, held in container.items():
                if role is Role.INIT:
                    beside = sidecars.get(key, NOTHING).plus(held)
                    peak[key] = peak.get(key, NOTHING).largest(beside)
                else:
                    phase = sidecars if role is Role.SIDECAR else apps
                    phase[key] = phase.get(key, NOTHING).plus(held)
    running = {key: sidecars.get(key, NOTHING).plus(apps.get(key, NOTHING)) for key in sidecars | apps}
    if record.inits_done:
        return running
    return {key: peak.get(key, NOTHING).largest(running.get(key, NOTHING)) for key in peak | running}


def hold_of(request: PodRequest, assignment: Assignment) -> PodRecord:
    """A decision not yet bound, as the ledger counts it."""
    return PodRecord(
        uid=request.uid,
        key=request.key,
        node=assignment.node,
        roles=tuple(container.role for container in request.containers),
        segments=assignment.segments,
        reservations=assignment.reservations,
        host=request.host,
    )


class Ledger:
    """The picture of the cluster that placement decides on. Not safe for use by several threads."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.table = Table(registry)
        self._nodes: dict[NodeName, NodeRecord] = {}
        self._pods: dict[PodUid, PodRecord] = {}
        self._held: dict[PodUid, Mapping[DeviceKey, Held]] = {}
        self._on_node: dict[NodeName, dict[PodUid, None]] = {}
        self._in_namespace: dict[tuple[str, VendorWord], tuple[int, int]] = {}
        self._demand = Demand()
        self._aside: PodUid | None = None
        """A pod that counts as holding nothing for the moment."""
        self._guests: dict[PodUid, tuple[NodeName, Host]] = {}
        self._host_used: dict[NodeName, Host] = {}

    @property
    def nodes(self) -> Mapping[NodeName, NodeRecord]:
        """Every node told of, with or without devices."""
        return self._nodes

    @property
    def pods(self) -> Mapping[PodUid, PodRecord]:
        """Every pod that holds devices."""
        return self._pods

    def node(self, name: NodeName) -> NodeRecord | None:
        """A node as it was last told, or None."""
        return self._nodes.get(name)

    def pod(self, uid: PodUid) -> PodRecord | None:
        """What a pod holds, or None."""
        return self._pods.get(uid)

    def pods_on(self, node: NodeName) -> tuple[PodRecord, ...]:
        """The pods that hold devices of a node, known or not."""
        return tuple(self._pods[uid] for uid in self._on_node.get(node, ()))

    def put_node(self, record: NodeRecord) -> bool:
        """Take over a node as it is now; False if nothing about it is new.

        Families the registry does not know are left out. A node without devices is known, but not registered.
        """
        if self._nodes.get(record.name) == record:
            return False
        self._nodes[record.name] = record
        cards = self._cards(record)
        if not cards:
            self.table.drop(record.name)
            return True
        links = {inventory.vendor: inventory.links for inventory in record.inventories if inventory.links is not None}
        self.table.put(record.name, cards, links)
        self.table.offer(record.name, self.host_left(record.name))
        for uid in self._on_node.get(record.name, ()):
            self._book(record.name, self._held[uid], 1)
            self._slice(self._pods[uid])
        self._stand(record.name, {card.vendor for card in cards})
        return True

    def note(self, request: PodRequest) -> None:
        """A pod has arrived, whether it fits or not: the picture of demand learns from it."""
        self._demand.note(request)
        if self._demand.fresh or self.table.knows_new_kinds:
            self.table.draw(self._demand, self.registry)
            self._demand.drawn()

    def has_noted(self, uid: PodUid) -> bool:
        """Whether the picture of demand knows this pod."""
        return self._demand.has_noted(uid)

    def fragments(self) -> float:
        """Thousandths of devices that are free, and not to be filled by pods as they have been coming."""
        return self.table.engine.free_worth.fragments()

    def put_guest(self, uid: PodUid, node: NodeName, host: Host) -> None:
        """A pod without devices takes this much of a node; it was there before with other amounts, or not at all."""
        if self._guests.get(uid) == (node, host):
            return
        self.drop_guest(uid)
        self._guests[uid] = node, host
        self._lodge(node, host, 1)

    def drop_guest(self, uid: PodUid) -> None:
        """A pod without devices is gone; nothing happens if there was none."""
        if (known := self._guests.pop(uid, None)) is not None:
            self._lodge(*known, -1)

    def host_left(self, name: NodeName) -> Host | None:
        """What a node has left beside devices, less than nothing where pods were forced on it; None = not known."""
        record = self._nodes.get(name)
        if record is None or record.host is None:
            return None
        return record.host.minus(self._host_used.get(name, NO_HOST))

    def drop_node(self, name: NodeName) -> bool:
        """Forget a node. Its pods stay known, and count again if it comes back. False if it was not known."""
        self.table.drop(name)
        return self._nodes.pop(name, None) is not None

    def put_pod(self, record: PodRecord) -> bool:
        """Take over what a pod holds now, in place of what it held before; False if nothing is new."""
        known = self._pods.get(record.uid)
        if known == record:
            return False
        if known is not None:
            self.drop_pod(record.uid)
        self._pods[record.uid] = record
        self._held[record.uid] = holdings(record)
        self._lodge(record.node, record.host, 1)
        self._on_node.setdefault(record.node, {})[record.uid] = None
        self._count(record, 1)
        self._slice(record)
        self._stand(record.node, record.segments)
        return True

    def drop_pod(self, uid: PodUid) -> bool:
        """Give back all a pod holds; False if it held nothing."""
        record = self._pods.pop(uid, None)
        if record is None:
            return False
        self._count(record, -1)
        self._lodge(record.node, record.host, -1)
        del self._held[uid]
        siblings = self._on_node[record.node]
        del siblings[uid]
        if not siblings:
            del self._on_node[record.node]
        self._slice(record)
        self._stand(record.node, record.segments)
        return True

    def without(self, uid: PodUid | None) -> AbstractContextManager[None]:
        """Decide as if a pod held nothing, as when it is placed anew."""
        record = None if uid is None else self._pods.get(uid)
        return NOTHING_TO_DO if record is None else self._without(record)

    @contextmanager
    def _without(self, record: PodRecord) -> Iterator[None]:
        self._aside = record.uid
        self._count(record, -1)
        self._lodge(record.node, record.host, -1)
        self._slice(record, aside=True)
        self._stand(record.node, record.segments)
        try:
            yield
        finally:
            self._aside = None
            self._count(record, 1)
            self._lodge(record.node, record.host, 1)
            self._slice(record)
            self._stand(record.node, record.segments)

    def usage(self, node: NodeName) -> tuple[DeviceUsage, ...]:
        """Every registered device of a node, by family in registry order, then by index; empty when unregistered."""
        columns = self.table.columns
        return tuple(
            DeviceUsage(
                vendor=card.vendor,
                device=card.device,
                cordoned=card.cordoned,
                used_slots=columns["slots_used"][row],
                used_memory_mib=columns["memory_used"][row],
                used_cores=columns["cores_used"][row],
                used_parts=(columns["part_a_used"][row], columns["part_b_used"][row]),
                taken=self.table.taken(row),
            )
            for row in self.table.span(node)
            if (card := self.table.cards[row]) is not None
        )

    def shares_on(
        self, node: NodeName, vendor: VendorWord, aside: PodUid | None = None
    ) -> Mapping[DeviceUuid, Sequence[Share]]:
        """The shares of a family that pods hold on a node, by device; `aside` is a pod that does not count.

        What an init container had is free once all of them have ended.
        """
        found: dict[DeviceUuid, list[Share]] = {}
        for uid in self._on_node.get(node, ()):
            if uid not in (aside, self._aside):
                pod = self._pods[uid]
                for position, segment in enumerate(pod.segments.get(vendor, ())):
                    if pod.inits_done and pod.roles[position : position + 1] == (Role.INIT,):
                        continue
                    for share in segment:
                        found.setdefault(share.uuid, []).append(share)
        return found

    def strays(self, node: NodeName) -> Mapping[DeviceKey, Held]:
        """What pods hold of devices that the node does not list."""
        found: dict[DeviceKey, Held] = {}
        for uid in self._on_node.get(node, ()):
            for key, held in self._held[uid].items():
                if self.table.row(node, *key) is None:
                    found[key] = found.get(key, NOTHING).plus(held)
        return found

    def held_by(self, uid: PodUid) -> Mapping[DeviceKey, Held]:
        """What a pod holds of each device now; empty when it holds nothing."""
        return self._held.get(uid, {})

    def namespace_usage(self, namespace: str, vendor: VendorWord) -> tuple[int, int]:
        """Memory in MiB and cores in percent that a namespace's pods hold of a family."""
        return self._in_namespace.get((namespace, vendor), (0, 0))

    def _lodge(self, node: NodeName, host: Host, sign: int) -> None:
        if host == NO_HOST:
            return
        used = self._host_used.get(node, NO_HOST)
        used = used.plus(host) if sign > 0 else used.minus(host)
        if used == NO_HOST:
            self._host_used.pop(node, None)
        else:
            self._host_used[node] = used
        self.table.offer(node, self.host_left(node))

    def check(self) -> None:
        """Recount everything from the records; AssertionError names the first difference."""
        spans: list[tuple[int, int]] = []
        for name, record in self._nodes.items():
            cards = self._cards(record)
            span = self.table.span(name)
            assert [self.table.cards[row] for row in span] == cards, f"{name}: cards differ from its record"
            assert bool(cards) == (name in self.table.ids), f"{name}: registered without cards, or not with them"
            if cards:
                spans.append((span.start, span.stop))
                self._check_node(name, cards)
        assert set(self.table.ids) <= set(self._nodes), "a node is registered that is not known"
        spans.sort()
        for (_, stop), (start, _) in pairwise(spans):
            assert stop <= start, f"rows {start} to {stop} belong to two nodes"
        assert not any(self.table.columns["marks"]), "a mark outlived its request"
        lodged: dict[NodeName, Host] = {}
        for node, host in [*self._guests.values(), *((pod.node, pod.host) for pod in self._pods.values())]:
            lodged[node] = lodged.get(node, NO_HOST).plus(host)
        assert {k: v for k, v in lodged.items() if v != NO_HOST} == self._host_used, "host sums differ"
        for registered in self.table.ids:
            self.table.check_offer(NodeName(registered), self.host_left(NodeName(registered)))
        totals: dict[tuple[str, VendorWord], tuple[int, int]] = {}
        for uid, pod in self._pods.items():
            assert self._held[uid] == holdings(pod), f"{pod.key}: holdings differ from its record"
            assert uid in self._on_node[pod.node], f"{pod.key}: not listed on {pod.node}"
            for (vendor, _), held in self._held[uid].items():
                memory, cores = totals.get((pod.key.namespace, vendor), (0, 0))
                totals[pod.key.namespace, vendor] = memory + held.memory_mib, cores + held.cores
        assert sum(map(len, self._on_node.values())) == len(self._pods), "a node lists a pod that is gone"
        assert {k: v for k, v in totals.items() if v != (0, 0)} == self._in_namespace, "namespace sums differ"

    def _check_node(self, name: NodeName, cards: list[Card]) -> None:
        used: dict[DeviceKey, Held] = {}
        for uid in self._on_node.get(name, ()):
            for key, held in self._held[uid].items():
                used[key] = used.get(key, NOTHING).plus(held)
        total, total_used = NOTHING, NOTHING
        for usage, card in zip(self.usage(name), cards, strict=True):
            expected = used.get((card.vendor, card.device.uuid), NOTHING)
            counted = Held(usage.used_slots, usage.used_memory_mib, usage.used_cores, usage.used_parts)
            assert counted == expected, f"{name} {card.device.uuid}: columns say {counted}, pods hold {expected}"
            total = total.plus(Held(card.device.slots, card.device.memory_mib, card.device.cores))
            total_used = total_used.plus(expected._replace(parts=(0, 0)))
        taken = [usage.taken for usage in self.usage(name)]
        assert taken == self._taken(name), f"{name}: slices differ from what pods hold"
        self.table.check_glances(name)
        node, sums = self.table.ids[name], self.table.node_columns
        kept = Held(*(sums[f"sum_{what}"][node] for what in ("slots", "memory", "cores")))
        kept_used = Held(*(sums[f"sum_{what}_used"][node] for what in ("slots", "memory", "cores")))
        assert (kept, kept_used) == (total, total_used), f"{name}: node sums differ from its devices"

    def _slice(self, pod: PodRecord, *, aside: bool = False) -> None:
        """Work out anew what is taken of the MIG slices of a pod's node; `aside` = as if it held nothing."""
        if pod.reservations or self.table.is_cut(pod.node):
            taken = self._taken(pod.node, pod.uid if aside else None)
            for row, one in zip(self.table.span(pod.node), taken, strict=True):
                self.table.slice(row, one)

    def _stand(self, node: NodeName, families: Iterable[VendorWord]) -> None:
        """Work out anew how devices stand of families that look at who is on them."""
        for vendor in families:
            stand = self.registry[vendor].stand if self.registry.get(vendor) else None
            if stand is None:
                continue
            shares = self.shares_on(node, vendor)
            for row in self.table.span(node):
                card = self.table.cards[row]
                if card is not None and card.vendor == vendor:
                    self.table.stand(row, *stand(card.device, shares.get(card.device.uuid, ())))

    def _taken(self, node: NodeName, aside: PodUid | None = None) -> list[Taken]:
        pods = (self._pods[uid] for uid in self._on_node.get(node, ()) if uid != aside)
        return occupied([(card.device, profiles) for card, profiles in self.table.cut(node)], pods)

    def _cards(self, record: NodeRecord) -> list[Card]:
        listed = {inventory.vendor: inventory.devices for inventory in record.inventories}
        return [
            Card(vendor=vendor.name, device=device, cordoned=device.uuid in record.cordoned)
            for vendor in self.registry
            for device in sorted(listed.get(vendor.name, ()), key=lambda device: (device.index, device.uuid))
        ]

    def _count(self, record: PodRecord, sign: int) -> None:
        held = self._held[record.uid]
        self._book(record.node, held, sign)
        for (vendor, _), part in held.items():
            key = record.key.namespace, vendor
            memory, cores = self._in_namespace.get(key, (0, 0))
            memory, cores = memory + sign * part.memory_mib, cores + sign * part.cores
            if memory or cores:
                self._in_namespace[key] = memory, cores
            else:
                self._in_namespace.pop(key, None)

    def _book(self, node: NodeName, held: Mapping[DeviceKey, Held], sign: int) -> None:
        for (vendor, uuid), part in held.items():
            row = self.table.row(node, vendor, uuid)
            if row is not None:
                self.table.book(
                    node,
                    row,
                    sign * part.slots,
                    sign * part.memory_mib,
                    sign * part.cores,
                    (sign * part.parts[0], sign * part.parts[1]),
                )


def _bounded(amount: int) -> int:
    return max(0, min(amount, LARGEST))
