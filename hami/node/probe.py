"""What a driver tells of this machine's devices, in one shape for every family."""

from collections.abc import Mapping
from typing import Protocol

from hami.model.device import NodeInventory
from hami.model.names import DeviceUuid


class ProbeError(Exception):
    """The driver cannot be asked: not installed, not loaded, or it refuses. The text says which."""


class Probe(Protocol):
    """One family's devices on this machine. Calls may block for milliseconds: run them in a worker thread."""

    def inventory(self) -> NodeInventory:
        """Every usable card, sorted by index then UUID, with its present health. Raises ProbeError."""
        ...

    def health(self) -> Mapping[DeviceUuid, str]:
        """Why cards are unhealthy, by UUID; healthy ones are absent. Raises ProbeError."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Block until a card's health may have changed (True) or the time is over (False)."""
        ...
