"""CPU and memory that nodes have left for pods: what kube-scheduler checks before it asks the engine.

A run asks for the nodes that fit once for every pod, and pods of a list ask for few different amounts. So each amount
keeps a mark for every node, and only nodes that changed since it was last asked for are looked at again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Final

from hami.model.host import NO_HOST, Host
from hami.model.names import NodeName

_UNKNOWN: Final = Host(cpu_milli=2**62, memory_mib=2**62)
"""What a node that does not say is taken to offer."""
_AMOUNTS: Final = 1024
"""Amounts whose marks are kept; with more, all are worked out anew."""


@dataclass(slots=True)
class _Marks:
    """Which nodes have room for one amount, as of some moment."""

    seen: int
    """How many of the changes so far were looked at."""
    fits: bytearray
    """1 for every node that fits."""


class Room:
    """Amounts by node, in columns."""

    def __init__(self, offers: Mapping[NodeName, Host | None]) -> None:
        self.names: Final = list(offers)
        self._place = {name: place for place, name in enumerate(self.names)}
        known = [_UNKNOWN if offer is None else offer for offer in offers.values()]
        self._cpu = [offer.cpu_milli for offer in known]
        self._memory = [offer.memory_mib for offer in known]
        self._changed: list[int] = []
        """Places of the nodes that changed, in the order in which they did."""
        self._marks: dict[Host, _Marks] = {}

    def fitting(self, host: Host, among: Iterable[int] | None = None) -> list[NodeName]:
        """The nodes with this much left, in file order; only those at the places `among`, if given.

        A pod that asks for nothing fits everywhere, even where pods were forced on a node beyond what it has.
        """
        names = self.names
        if host == NO_HOST:
            return names if among is None else [names[place] for place in among]
        fits = self._fits(host)
        if among is None:
            return list(compress(names, fits))
        return [names[place] for place in among if fits[place]]

    def __contains__(self, name: NodeName) -> bool:
        return name in self._place

    def take(self, name: NodeName, host: Host) -> None:
        """A pod goes there."""
        place = self._place[name]
        self._cpu[place] -= host.cpu_milli
        self._memory[place] -= host.memory_mib
        self._changed.append(place)

    def give(self, name: NodeName, host: Host) -> None:
        """A pod leaves."""
        place = self._place[name]
        self._cpu[place] += host.cpu_milli
        self._memory[place] += host.memory_mib
        self._changed.append(place)

    def _fits(self, host: Host) -> bytearray:
        cpu, memory, least_cpu, least_memory = self._cpu, self._memory, host.cpu_milli, host.memory_mib
        now = len(self._changed)
        marks = self._marks.get(host)
        if marks is None or now - marks.seen > len(self.names):
            if marks is None and len(self._marks) >= _AMOUNTS:
                self._marks.clear()
            fits = bytearray([c >= least_cpu and m >= least_memory for c, m in zip(cpu, memory, strict=True)])
            self._marks[host] = _Marks(now, fits)
            return fits
        for place in self._changed[marks.seen :]:
            marks.fits[place] = cpu[place] >= least_cpu and memory[place] >= least_memory
        marks.seen = now
        return marks.fits
