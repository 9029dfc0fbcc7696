"""The simulated driver's memory ledger: what each path costs, across processes, and after their deaths."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import A100, Simulation

CONTEXT = 100 * MIB
TOTAL = 4096 * MIB


def used(client: Client) -> int:
    rc, free, total = client.info()
    assert (rc, total) == (0, TOTAL)
    return int(total - free)


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


@pytest.mark.parametrize(
    ("take", "cost"),
    [
        pytest.param(lambda c: c.alloc(10 * MIB), 10 * MIB, id="linear"),
        pytest.param(lambda c: c.alloc(1), 512, id="linear, one byte"),
        pytest.param(lambda c: c.alloc(10 * MIB, "cuMemAllocManaged", 1), 10 * MIB, id="managed"),
        pytest.param(lambda c: c.pitch(1000, 1024), 1 * MIB, id="pitch"),
        pytest.param(lambda c: c.alloc_async(1 * MIB), 32 * MIB, id="pool, one chunk"),
        pytest.param(lambda c: c.alloc_async(33 * MIB), 64 * MIB, id="pool, two chunks"),
    ],
)
def test_each_way_costs_what_it_holds_and_gives_it_back(
    machine: Simulation, take: Callable[[Any], list[int]], cost: int
) -> None:
    with machine.client() as client:
        assert client.use() == 0
        assert used(client) == CONTEXT
        rc, address, *_ = take(client)
        assert rc == 0
        assert used(client) == CONTEXT + cost
        assert client.free(address) == 0
        assert client.sync() == 0  # pools give back at a synchronization
        assert used(client) == CONTEXT
        assert client.free(address) == 1, "a second free names no memory"


def test_processes_share_a_device_and_out_of_memory_is_exact(machine: Simulation) -> None:
    with machine.client() as first, machine.client() as second:
        assert first.use() == 0
        assert second.use() == 0
        room = TOTAL - 2 * CONTEXT
        assert first.alloc(room - 5 * MIB)[0] == 0
        assert second.alloc(5 * MIB + 1)[0] == OUT_OF_MEMORY
        assert second.alloc(5 * MIB)[0] == 0
        assert second.alloc(1)[0] == OUT_OF_MEMORY
        assert used(first) == TOTAL


def test_a_context_that_does_not_fit_is_refused(machine: Simulation) -> None:
    with machine.client() as first, machine.client() as second:
        assert first.use() == 0
        assert first.alloc(TOTAL - CONTEXT - CONTEXT // 2)[0] == 0
        assert second.use() == OUT_OF_MEMORY


def test_releasing_the_primary_context_frees_all_it_held(machine: Simulation) -> None:
    with machine.client() as first, machine.client() as second:
        assert first.use() == 0
        assert second.use() == 0
        assert first.alloc(500 * MIB)[0] == 0
        assert first.release() == 0
        assert used(second) == CONTEXT


def test_a_killed_process_gives_its_memory_back_at_once(machine: Simulation) -> None:
    with machine.client() as survivor:
        assert survivor.use() == 0
        for _ in range(5):
            with machine.client() as victim:
                assert victim.use() == 0
                assert victim.alloc(3000 * MIB)[0] == 0
                assert survivor.alloc(2000 * MIB)[0] == OUT_OF_MEMORY
                victim.kill()
            rc, address = survivor.alloc(2000 * MIB)
            assert rc == 0
            assert survivor.free(address) == 0
            assert used(survivor) == CONTEXT


def test_killing_a_busy_process_at_any_moment_leaves_exact_totals(machine: Simulation) -> None:
    """The victim allocates and frees as fast as it can, so it dies with and without the lock, and in between."""
    with machine.client() as survivor:
        assert survivor.use() == 0
        for attempt in range(25):
            with machine.client() as victim:
                assert victim.use() == 0
                function = victim.function("sim_ns_1000")
                victim.start("launch", function, 10_000_000)
                time.sleep(0.002 * attempt)
                victim.kill()
            assert used(survivor) == CONTEXT, f"attempt {attempt}"


def test_a_forked_child_has_no_part_in_its_parents_memory(machine: Simulation) -> None:
    with machine.client() as parent, machine.client() as other:
        assert parent.use() == 0
        assert other.use() == 0
        assert parent.alloc(1000 * MIB)[0] == 0
        assert parent.forked("alloc", MIB)[0] == 3, "no context of the parent's: not initialized"
        assert parent.forked("use") == 0, "it may start over"
        assert used(other) == 2 * CONTEXT + 1000 * MIB, "and is gone again"
        parent.kill()
        assert used(other) == CONTEXT


def test_contexts_and_devices_are_separate(tmp_path: Path) -> None:
    machine = Simulation(
        tmp_path,
        devices=[{"model": A100, "count": 2, "memory_mib": [4096, 2048], "context_mib": [100, 7], "sm_count": [1, 2]}],
    )
    with machine.client() as client:
        assert client.use(1) == 0
        rc, free, total = client.info()
        assert (rc, free, total) == (0, (2048 - 7) * MIB, 2048 * MIB)
        assert client.use(0) == 0
        assert used(client) == CONTEXT


def test_many_small_blocks_and_their_reuse(machine: Simulation) -> None:
    with machine.client() as client:
        assert client.use() == 0
        blocks = [client.alloc(512 * (n % 7 + 1)) for n in range(300)]
        assert all(rc == 0 for rc, _ in blocks)
        assert len({address for _, address in blocks}) == 300
        assert used(client) == CONTEXT + sum(512 * (n % 7 + 1) for n in range(300))
        for _, address in blocks:
            assert client.free(address) == 0
        assert used(client) == CONTEXT


LIST = """
import json, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
print(json.dumps([[p.pid, p.usedGpuMemory] for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]))
"""


def listed(machine: Simulation, *prefix: str) -> list[list[int]]:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", LIST],
        env={**os.environ, **machine.environment()},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [list(map(int, row)) for row in json.loads(done.stdout)]


def test_nvml_lists_who_holds_what(machine: Simulation) -> None:
    with machine.client() as first, machine.client() as second, machine.client() as idle:
        assert first.use() == 0
        assert second.use() == 0
        assert idle.init() == 0
        assert second.alloc(5 * MIB)[0] == 0
        expected = [[first.process.pid, CONTEXT], [second.process.pid, CONTEXT + 5 * MIB]]
        assert sorted(listed(machine)) == sorted(expected)


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a pid namespace"
)
def test_pids_are_those_of_the_readers_namespace(machine: Simulation) -> None:
    apart = ["unshare", "--pid", "--fork", "--kill-child"]
    with Client(machine.environment(), *apart) as inside, machine.client() as outside:
        assert inside.use() == 0
        assert outside.use() == 0
        mine = outside.process.pid
        (child,) = Path(f"/proc/{inside.process.pid}/task/{inside.process.pid}/children").read_text().split()
        assert sorted(pid for pid, _ in listed(machine)) == sorted([mine, int(child)])
        assert listed(machine, *apart) == [], "another namespace sees neither"
        assert used(outside) == 2 * CONTEXT, "but both count"
