"""CPU and memory that nodes have left for pods: what kube-scheduler checks before it asks the engine."""

from collections.abc import Iterable, Mapping
from typing import Final

from hami.model.host import NO_HOST, Host
from hami.model.names import NodeName

_UNKNOWN: Final = Host(cpu_milli=2**62, memory_mib=2**62)
"""What a node that does not say is taken to offer."""


class Room:
    """Amounts by node, in columns: a run asks for the nodes that fit once for every pod."""

    def __init__(self, offers: Mapping[NodeName, Host | None]) -> None:
        self.names: Final = list(offers)
        self._place = {name: place for place, name in enumerate(self.names)}
        known = [_UNKNOWN if offer is None else offer for offer in offers.values()]
        self._cpu = [offer.cpu_milli for offer in known]
        self._memory = [offer.memory_mib for offer in known]

    def fitting(self, host: Host, among: Iterable[int] | None = None) -> list[NodeName]:
        """The nodes with this much left, in file order; only those at the places `among`, if given.

        A pod that asks for nothing fits everywhere, even where pods were forced on a node beyond what it has.
        """
        cpu, memory, names = self._cpu, self._memory, self.names
        if among is not None:
            anywhere = host == NO_HOST
            return [
                names[place]
                for place in among
                if anywhere or (cpu[place] >= host.cpu_milli and memory[place] >= host.memory_mib)
            ]
        if host == NO_HOST:
            return names
        least_cpu, least_memory = host.cpu_milli, host.memory_mib
        return [name for name, c, m in zip(names, cpu, memory, strict=True) if c >= least_cpu and m >= least_memory]

    def __contains__(self, name: NodeName) -> bool:
        return name in self._place

    def take(self, name: NodeName, host: Host) -> None:
        """A pod goes there."""
        place = self._place[name]
        self._cpu[place] -= host.cpu_milli
        self._memory[place] -= host.memory_mib

    def give(self, name: NodeName, host: Host) -> None:
        """A pod leaves."""
        place = self._place[name]
        self._cpu[place] += host.cpu_milli
        self._memory[place] += host.memory_mib
