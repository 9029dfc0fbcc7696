"""What the region says against what the simulated machine really gave, under random work and random death."""

import mmap
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hami.node._region import Region
from hami.node.simulated import state_view
from tests.interpose.build import built
from tests.interpose.simulation import Simulation

MIB = 1 << 20
LIMIT_MIB = 100
CONTEXT_MIB = 100  # of the machines of these tests
KINDS = 8
OVERHEAD = (5, 6)  # kinds of memory in the machine's ledger that are no allocations: contexts, code


class Truth:
    """The machine's own ledger."""

    def __init__(self, machine: Simulation) -> None:
        with open(machine.state, "r+b") as file:
            self._state: Any = state_view(mmap.mmap(file.fileno(), 0))

    def held(self, pid: int) -> int:
        """Bytes of device 0 that a process has allocated."""
        return sum(held for kind, held in enumerate(self._memory(pid)) if kind not in OVERHEAD)

    def overhead(self, pid: int) -> int:
        """Bytes that its contexts and its code take."""
        return sum(self._memory(pid)[kind] for kind in OVERHEAD)

    def _memory(self, pid: int) -> list[int]:
        processes = (self._state.processes[i] for i in range(self._state.process_high))
        (memory,) = (list(p.memory[:KINDS]) for p in processes if p.live and p.pid == pid)
        return memory


@pytest.fixture(scope="module")
def churn() -> tuple[Path, Path]:
    """The program, and the directory of the library."""
    where = built("")
    return where / "driven" / "driven_churn", where


def _environment(where: Path, machine: Simulation, region: Path, seed: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        **machine.environment(),
        "LD_PRELOAD": str(where / "libvgpu.so"),
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(region),
        "REGION": str(region),
        "CHURN_SEED": str(seed),
        "CHURN_HOLD": "1",
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ledger_equals_the_machine_after_random_work(churn: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    program, where = churn
    machine = Simulation(tmp_path)
    path = tmp_path / "region.cache"
    region = Region.create(path, machine.uuids, [LIMIT_MIB * MIB, 0], [0, 0])
    environment = _environment(where, machine, path, seed)
    with subprocess.Popen([program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "holding\n"
        truth = Truth(machine)
        held = truth.held(run.pid)
        assert held > 0
        assert region.snapshot().devices[0].used_bytes == held, f"seed {seed}"
        # Overhead is an estimate until the driver's word is known.
        total = held + truth.overhead(run.pid)
        (slot,) = region.snapshot().slots
        region.observe(slot.index, 0, total)
        device = region.snapshot().devices[0]
        assert (device.used_bytes, device.overhead_bytes) == (held, truth.overhead(run.pid))
        assert device.overhead_bytes >= CONTEXT_MIB * MIB
    assert run.returncode == 0
    assert region.reap() == 1
    assert region.snapshot().devices[0].used_bytes == 0


def test_nothing_stays_counted_for_killed_processes(churn: tuple[Path, Path], tmp_path: Path) -> None:
    program, where = churn
    machine = Simulation(tmp_path)
    path = tmp_path / "region.cache"
    region = Region.create(path, machine.uuids, [LIMIT_MIB * MIB, 0], [0, 0])
    pick = random.Random(7)
    for seed in range(20):
        environment = _environment(where, machine, path, seed)
        runs = [subprocess.Popen([program], env=environment, stdin=subprocess.DEVNULL) for _ in range(3)]
        time.sleep(pick.uniform(0.0, 0.1))
        assert region.snapshot().devices[0].used_bytes <= LIMIT_MIB * MIB
        for run in runs:
            run.kill()
            run.wait()
        region.reap()
        assert region.snapshot().devices[0].used_bytes == 0, f"seed {seed}"
        assert region.snapshot().slots == ()
