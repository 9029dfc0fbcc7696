"""What contexts and loaded code take, by the driver's own figures for whole processes.

A program's allocations are counted where they are made. What the driver takes beside them nobody counts, so the library
enters estimates; here they are replaced by what the driver says a process holds, less its allocations. Processes that
the driver does not name (their pids are not known yet, or an MPS server answers for its clients) keep their estimates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hami.model.names import DeviceUuid

ProcessBytes = Mapping[DeviceUuid, Mapping[int, int]]
"""Bytes that processes hold, by device and pid; those of which the driver does not tell are absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """One process of a container; the amounts are bytes by device, in the container's order."""

    slot: int
    host_pid: int
    """0 = not known yet."""
    used_bytes: tuple[int, ...]
    """What it has allocated."""
    module_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerProcesses:
    """The processes of one container, and its devices."""

    devices: tuple[DeviceUuid, ...]
    processes: tuple[ProcessView, ...]


class Books(Protocol):
    """What is asked of the regions of containers, and told them. Each raises OSError for a file that is no region."""

    def processes(self, grant_id: str) -> ContainerProcesses | None:
        """Who holds what now; None where nobody can tell."""
        ...

    def observe(self, grant_id: str, slot: int, device: int, held_bytes: int) -> None:
        """The process in `slot` holds this much of a device, all in all."""
        ...

    def expect_context(self, grant_id: str, device: int, context_bytes: int) -> None:
        """New contexts of a device are to be counted like this."""
        ...


@dataclass(slots=True)
class Overhead:
    """What was learned of contexts, from one look to the next."""

    books: Books
    _context_bytes: dict[DeviceUuid, int] = field(default_factory=dict)
    """The smallest overhead of a process in the last look that saw any: about one context's."""

    def learn(self, grant_id: str, before: ContainerProcesses, told: ProcessBytes) -> Mapping[DeviceUuid, int]:
        """Enter what the driver told since `before` was read; the smallest overhead seen, by device. Raises OSError."""
        now = self.books.processes(grant_id)
        if now is None or now.devices != before.devices:
            return {}
        smallest: dict[DeviceUuid, int] = {}
        earlier = {(process.slot, process.host_pid): process for process in before.processes if process.host_pid}
        for process in now.processes:
            was = earlier.get((process.slot, process.host_pid))
            if was is None:
                continue
            for index, uuid in enumerate(now.devices):
                held = told.get(uuid, {}).get(process.host_pid, 0)
                if held == 0:
                    continue
                # While the driver answered, memory may have come and gone: the larger amount makes nothing up.
                passed = max(0, was.used_bytes[index] - process.used_bytes[index])
                self.books.observe(grant_id, process.slot, index, max(0, held - passed))
                context = held - process.used_bytes[index] - process.module_bytes[index]
                if was.used_bytes[index] == process.used_bytes[index] and context > 0:
                    smallest[uuid] = min(context, smallest.get(uuid, context))
        return smallest

    def remember(self, seen: Iterable[Mapping[DeviceUuid, int]]) -> None:
        """Keep what one look learned of all containers."""
        smallest: dict[DeviceUuid, int] = {}
        for each in seen:
            for uuid, context in each.items():
                smallest[uuid] = min(context, smallest.get(uuid, context))
        self._context_bytes |= smallest

    def expect(self, grant_id: str, devices: Sequence[DeviceUuid]) -> None:
        """Tell a container what a context of its devices takes, as last seen in any. Raises OSError."""
        for index, uuid in enumerate(devices):
            if uuid in self._context_bytes:
                self.books.expect_context(grant_id, index, self._context_bytes[uuid])
