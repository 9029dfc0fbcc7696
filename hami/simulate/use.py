"""How much of the devices is handed out, in one number that several families and sizes of cards can share.

A device counts by what of it is scarcest: the larger of its shares of memory and of cores. Half the memory with all
the cores is a whole device, because nobody else can use the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hami.alloc.ledger import DeviceKey, Held
from hami.model.device import NodeRecord
from hami.model.names import NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """All devices of one model."""

    devices: int
    allocated: float
    """Percent of these devices."""
    memory: float
    """Percent of their memory."""
    cores: float
    """Percent of their cores."""


@dataclass(slots=True)
class _Card:
    model: str
    memory_mib: int
    cores: int
    used_memory: int = 0
    used_cores: int = 0

    @property
    def part(self) -> float:
        """From 0, free, to 1. Less than nothing, or more than all, is never handed out."""
        memory = self.used_memory / self.memory_mib if self.memory_mib else 0.0
        cores = self.used_cores / self.cores if self.cores else 0.0
        return min(1.0, max(0.0, memory, cores))


class DeviceUse:
    """The running sum, told of every pod that comes or goes."""

    def __init__(self, nodes: Iterable[NodeRecord]) -> None:
        self._cards: dict[tuple[NodeName, DeviceKey], _Card] = {
            (node.name, (inventory.vendor, device.uuid)): _Card(device.model, device.memory_mib, device.cores)
            for node in nodes
            for inventory in node.inventories
            for device in inventory.devices
        }
        self._sum = 0.0

    @property
    def percent(self) -> float:
        """Percent of all devices handed out."""
        return 100 * self._sum / max(1, len(self._cards))

    def change(self, node: NodeName, held: Mapping[DeviceKey, Held], sign: int) -> None:
        """A pod takes (+1) or gives back (-1) what it holds. Devices that the node does not list count nowhere."""
        for key, amounts in held.items():
            card = self._cards.get((node, key))
            if card is None:
                continue
            before = card.part
            card.used_memory += sign * amounts.memory_mib
            card.used_cores += sign * amounts.cores
            self._sum += card.part - before

    def by_model(self) -> dict[str, ModelUse]:
        """Every model, in alphabetical order."""
        models: dict[str, list[_Card]] = {}
        for card in self._cards.values():
            models.setdefault(card.model, []).append(card)
        return {
            model: ModelUse(
                devices=len(cards),
                allocated=100 * sum(card.part for card in cards) / len(cards),
                memory=100 * sum(card.used_memory for card in cards) / max(1, sum(card.memory_mib for card in cards)),
                cores=100 * sum(card.used_cores for card in cards) / max(1, sum(card.cores for card in cards)),
            )
            for model, cards in sorted(models.items())
        }
