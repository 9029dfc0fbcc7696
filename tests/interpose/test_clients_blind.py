"""A driver that will not say which device, context or pool a call is about: limits hold all the same.

What fails here is only what the library asks to keep its books; the program's own calls succeed. Each test fails where
such memory is forwarded and not counted.
"""

import json
import mmap
import resource
import subprocess
from pathlib import Path

import pytest

from hami.node.simulated import state_view
from tests.interpose.container import PROBE, Container
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import Simulation

LIMIT_MIB = 1000
WHICH_DEVICE = ("cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetUuid_v2", "cuCtxGetCurrent", "cuCtxGetDevice")
WHICH_POOL = ("cuMemPoolGetAttribute", "cuDeviceGetMemPool", "cuStreamIsCapturing")
RESULTS = [2, 201, 719, 801, 999]


class Blind:
    """One machine and container, and the calls that fail there."""

    def __init__(self, directory: Path, devices: int = 1) -> None:
        device = {"model": "NVIDIA A100-SXM4-80GB", "count": devices, "memory_mib": 8192, "context_mib": 100}
        nothing = {"call": "cuNothing"}
        machine = Simulation(directory, devices=[device], faults=[nothing, nothing])
        self.container = Container(
            directory / "one", machine, devices=tuple(range(devices)), memory_mib=LIMIT_MIB,
            HAMI_MEMORY_ACCOUNTING="requested",
        )  # fmt: skip
        with machine.state.open("r+b") as file:
            self.state = state_view(mmap.mmap(file.fileno(), 0))

    def failing(self, *calls: str, result: int = 999, nth: int = 0) -> None:
        self.container.region.reap()
        for fault, call in zip(self.state.faults, (*calls, "cuNothing", "cuNothing"), strict=False):
            fault.call, fault.nth, fault.seen, fault.has_result, fault.result = call.encode(), nth, 0, 1, result

    def held_mib(self) -> float:
        """By the driver's own books, contexts aside."""
        processes = self.state.processes[: self.state.process_high]
        return sum(sum(process.memory[:5]) for process in processes if process.live) / MIB


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Blind:
    return Blind(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Blind:
    return Blind(tmp_path_factory.mktemp("two"), devices=2)


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("call", WHICH_DEVICE)
def test_memory_of_a_device_that_is_not_named_counts_for_the_only_one(one: Blind, call: str, result: int) -> None:
    one.failing(call, result=result)
    with Client(one.container.environment) as client:
        assert client.use() == 0
        assert client.alloc((LIMIT_MIB + 1) * MIB)[0] == OUT_OF_MEMORY
        rc, address = client.alloc(LIMIT_MIB * MIB)
        assert rc == 0
        assert client.alloc(MIB)[0] == client.alloc_async(MIB)[0] == OUT_OF_MEMORY
        assert client.free(address) == 0
        assert client.alloc(LIMIT_MIB * MIB)[0] == 0, "what was freed can be had again"
    one.container.region.reap()
    assert one.container.region.snapshot().devices[0].used_bytes == 0


@pytest.mark.parametrize("calls", [(call,) for call in WHICH_DEVICE] + [("cuDeviceGetCount", "cuCtxGetCurrent")])
def test_of_several_devices_one_that_is_not_named_is_closed(two: Blind, calls: tuple[str, ...]) -> None:
    """cuDeviceGet alone is no loss: a device's ordinal is its number."""
    two.failing(*calls)
    expected = 0 if calls == ("cuDeviceGet",) else OUT_OF_MEMORY
    with Client(two.container.environment) as client:
        assert client.use(1) == 0
        assert client.alloc(MIB)[0] == client.alloc_async(MIB)[0] == expected
        assert client.alloc((LIMIT_MIB + 1) * MIB)[0] == OUT_OF_MEMORY
        two.failing()
        assert client.alloc(LIMIT_MIB // 2 * MIB)[0] == 0, "the driver says it now"
        two.container.region.reap()
        used = [device.used_bytes // MIB for device in two.container.region.snapshot().devices]
        assert used[0] == 0
        assert used[1] >= LIMIT_MIB // 2


@pytest.mark.parametrize("call", ["cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetUuid_v2", "cuCtxGetDevice"])
def test_a_moment_of_blindness_at_the_start_passes(two: Blind, call: str) -> None:
    two.failing(call, nth=1)
    with Client(two.container.environment) as client:
        assert client.use(1) == 0
        answers = [client.alloc(10 * MIB)[0] for _ in range(3)]
        assert answers[1:] == [0, 0]
        assert two.container.region.snapshot().devices[1].used_bytes == 10 * MIB * answers.count(0)


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("calls", [*((call,) for call in WHICH_POOL), ("cuMemPoolGetAttribute", "cuDeviceGetMemPool")])
def test_a_pool_that_says_nothing_is_held_to_the_limit(one: Blind, calls: tuple[str, ...], result: int) -> None:
    one.failing(*calls, result=result)
    with Client(one.container.environment) as client:
        assert client.use() == 0
        got = 0
        while client.alloc_async(50 * MIB)[0] == 0:
            got += 50
            assert one.held_mib() <= LIMIT_MIB
        assert LIMIT_MIB // 2 <= got <= LIMIT_MIB
        assert client.alloc((LIMIT_MIB - got + 50) * MIB)[0] == OUT_OF_MEMORY, "linear memory has the same limit"
    one.container.region.reap()
    assert one.container.region.snapshot().devices[0].used_bytes == 0


def test_a_pool_that_speaks_again_is_counted_exactly(one: Blind) -> None:
    for call in WHICH_POOL:
        one.failing(call)
        with Client(one.container.environment) as client:
            assert client.use() == 0
            addresses = [client.alloc_async(20 * MIB)[1] for _ in range(4)]
            assert one.container.region.snapshot().devices[0].used_bytes >= 80 * MIB
            one.failing()
            assert client.alloc_async(MIB)[0] == 0
            assert one.container.region.snapshot().devices[0].used_bytes == one.held_mib() * MIB, call
            assert [client.free_async(address) for address in addresses] == [0] * 4
        one.container.region.reap()


def test_a_program_short_of_descriptors_has_no_more_than_its_limit(one: Blind) -> None:
    """The limits stand in the region alone, as for a program that lost its environment."""
    one.failing()
    outcomes = set()
    for most in range(4, 12):

        def starve(most: int = most) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        run = subprocess.run(
            [PROBE, "alloc", str(2 * LIMIT_MIB)], env=one.container.environment, preexec_fn=starve,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        got = max((line.get("got_mib", 0) for line in lines), default=0)
        assert got <= LIMIT_MIB, f"{most} descriptors: {run.stdout}{run.stderr}"
        outcomes.add(got)
        if got == 0 and run.returncode == 0:
            assert "device memory is refused" in run.stderr
    assert LIMIT_MIB in outcomes


def test_a_region_that_cannot_be_read_and_no_limits_from_elsewhere(one: Blind, tmp_path: Path) -> None:
    one.failing()
    nonsense = tmp_path / "region.cache"
    nonsense.write_bytes(b"nonsense")
    without = {**one.container.environment, "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(nonsense)}
    for more, got in (({}, 0), ({"CUDA_DEVICE_MEMORY_LIMIT": "64m"}, 64), ({"CUDA_DEVICE_MEMORY_LIMIT_0": "0"}, 100)):
        run = subprocess.run(
            [PROBE, "alloc", "100"], env={**without, **more}, capture_output=True, text=True, timeout=60, check=False
        )
        assert json.loads(run.stdout.splitlines()[-1])["got_mib"] == got
        assert ("device memory is refused" in run.stderr) is (got == 0)
