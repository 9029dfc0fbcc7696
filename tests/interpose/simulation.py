"""Machines for tests of the simulated driver: described inline, compiled to a state file, used by clients."""

import mmap
from pathlib import Path
from typing import Any

from hami.model.machine import read_machine
from hami.node.simulated import compile_state, environment, state_view
from tests.interpose.cuda_client import Client

A100 = "NVIDIA A100-SXM4-80GB"


class Simulation:
    """One simulated machine, of two small devices unless said otherwise."""

    def __init__(self, directory: Path, **description: Any) -> None:
        device = {"model": A100, "count": 2, "memory_mib": 4096, "context_mib": 100}
        self.machine = read_machine({"devices": [device], **description}, default_name="test")
        self.state = directory / "state"
        compile_state(self.machine, self.state)

    def environment(self, **more: str) -> dict[str, str]:
        return {**environment(self.state), **more}

    def client(self, **more: str) -> Client:
        return Client(self.environment(**more))

    @property
    def uuids(self) -> list[str]:
        return [str(device.uuid) for device in self.machine.devices]


class ManualClock:
    """The machine's clock in the test's hands."""

    def __init__(self, machine: Simulation) -> None:
        with machine.state.open("r+b") as file:
            self._state = state_view(mmap.mmap(file.fileno(), 0))
        self._state.manual_ns = 1_000_000_000

    @property
    def now(self) -> int:
        return int(self._state.manual_ns)

    @now.setter
    def now(self, value: int) -> None:
        self._state.manual_ns = value
