"""Simulated devices of any family: what its plug-in would say of them on the node, read back by its declaration.

Families say it in an annotation (in one of HAMi's two forms, or in one of their own), or only by how much of a resource
the node has. What is written here and what the declaration makes of it are two readings of one contract: a device comes
out as described, or the probe fails.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hami.model.device import Device, NodeInventory
from hami.model.machine_cards import MachineCard
from hami.model.names import DeviceUuid, NodeName, WireError
from hami.model.registration import registered
from hami.model.vendor import NodeFacts, Vendor
from hami.model.wire import gojson
from hami.model.wire import node as wire
from hami.node.probe import ProbeError

COLON: Final = frozenset({"hygon", "iluvatars"})
"""Sections of families whose plug-ins write cards between colons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a family's plug-in tells the API server and the kubelet."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The kubelet's ids by resource; the node's capacity is how many."""


def published(vendor: Vendor, cards: Sequence[MachineCard], node: NodeName) -> Published:
    """All that there is to say of `cards`, all of them of `vendor`'s family."""
    names = vendor.resources
    own = _OWN.get(vendor.name)
    slots = {names.count: tuple(f"{card.uuid}-{i}" for card in cards for i in range(card.slots))}
    if own is not None:
        key, write = own
        return Published(annotations={key: gojson.encode(write(cards))}, ids=slots)
    if vendor.node_key:
        form = wire.write_inventory(
            list(map(_registered, cards)), "colon" if vendor.config_section in COLON else "json"
        )
        return Published(annotations={vendor.node_key: form}, ids=slots)
    if vendor.resources.memory:
        # Shares of all cards together, each in its units.
        memory = sum(card.memory_mib for card in cards) // max(1, vendor.memory_factor)
        amounts = {names.memory: memory, names.cores: sum(card.cores for card in cards)}
        return Published(ids={**slots, **{name: _counted(node, name, amount) for name, amount in amounts.items()}})
    whole = {names.count: tuple(f"{card.uuid}-0" for card in cards)}
    cores = [name for name in (names.cores, *names.also) if name and name != names.count]
    units = sum(card.cores for card in cards)
    return Published(ids={**whole, **{name: _counted(node, name, units) for name in cores}})


class SimulatedProbe:
    """A `Probe` of one family's simulated devices."""

    def __init__(self, vendor: Vendor, cards: Sequence[MachineCard], node: NodeName) -> None:
        self.vendor = vendor
        self.cards = tuple(cards)
        self.published = published(vendor, cards, node)
        self._node = node

    def inventory(self) -> NodeInventory:
        """The devices as the declaration reads what is published. ProbeError where it would not see each of them."""
        facts = NodeFacts(
            name=self._node,
            annotations=self.published.annotations,
            labels={},
            capacity={name: str(len(ids)) for name, ids in self.published.ids.items()},
        )
        problems: list[WireError] = []
        try:
            devices = (self.vendor.read or registered)(facts, self.vendor, problems)
        except WireError as error:
            raise ProbeError(f"simulated {self.vendor.name}: {error}") from error
        if problems or devices is None or len(devices) != len(self.cards):
            told = problems[0] if problems else f"{len(devices or ())} devices of {len(self.cards)}"
            raise ProbeError(f"simulated {self.vendor.name}: {told}")
        return NodeInventory(vendor=self.vendor.name, devices=devices)

    def health(self) -> Mapping[DeviceUuid, str]:
        """Devices that are described as unhealthy."""
        return {device.uuid: "described so" for device in self.inventory().devices if not device.healthy}

    def wait(self, timeout_s: float) -> bool:
        """Nothing changes: what is described stays."""
        time.sleep(timeout_s)
        return False


def _registered(card: MachineCard) -> Device:
    return Device(
        uuid=card.uuid,
        index=card.index,
        slots=card.slots,
        memory_mib=card.memory_mib,
        cores=card.cores,
        model=card.model,
        numa=card.numa,
        healthy=card.healthy,
        custom=tuple(sorted(card.facts.items())),
    )


def _counted(node: NodeName, resource: str, amount: int) -> tuple[str, ...]:
    short = resource.rpartition("/")[2]
    return tuple(f"{node}-{short}-{i}" for i in range(amount))


def _metax(cards: Sequence[MachineCard]) -> list[dict[str, Any]]:
    """MetaX lists its cards under names of its own."""
    return [
        {
            "uuid": card.uuid,
            "bdf": f"0000:{card.index + 1:02x}:00.0",
            "model": card.model,
            "totalDevCount": card.slots,
            "totalCompute": card.cores,
            "totalVRam": card.memory_mib,
            "availableDevCount": card.slots,
            "availableCompute": card.cores,
            "availableVRam": card.memory_mib,
            "numa": card.numa,
            "healthy": card.healthy,
            "qosPolicy": card.facts.get("qosPolicy", ""),
            "linkZone": card.facts.get("linkZone", 0),
        }
        for card in cards
    ]


def _slices(cards: Sequence[MachineCard]) -> dict[str, Any]:
    """Enflame tells how many slices a card has, and the profiles of all of them."""
    most = max(card.slots for card in cards)
    each_gib = max(1, cards[0].memory_mib // 1024 // most)
    sizes = [size for size in (1, 2, 3, 6) if size <= most]
    return {
        "devices": [{"index": str(c.index), "minor": str(c.index), "capacity": c.slots} for c in cards],
        "profiles": {f"{size}g.{size * each_gib}gb": str(i) for i, size in enumerate(sizes)},
    }


_Write = Callable[[Sequence[MachineCard]], Any]
_OWN: Final[Mapping[str, tuple[str, _Write]]] = {
    "Metax-SGPU": ("metax-tech.com/node-gpu-devices", _metax),
    "Enflame": ("enflame.com/gcu-drs-capacity", _slices),
}
"""Families that have a format of their own, with the annotation that carries it."""
