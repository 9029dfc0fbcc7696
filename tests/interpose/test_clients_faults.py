"""The library over a driver that fails: it never crashes, hides no error, makes up none, and loses no memory.

`clients/everything.c` makes each kind of call once and says what was answered. It runs with and without the library
over the same fault, and the answers must be the same: also when the fault is in a call that only the library makes, to
keep its accounts. Afterwards the region must count just what the driver's own ledger says is held.
"""

import json
import mmap
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hami.node.simulated import state_view
from tests.interpose.compiled import INTERPOSE, SOURCES, compiled
from tests.interpose.container import Container
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.older_driver import without
from tests.interpose.simulation import ManualClock, Simulation

LIMIT_MIB = 1000
UNKNOWN = 999
KIND_CONTEXT = 5  # of `enum sim_kind`: this and what follows is the driver's own, not counted as requested memory
MOST_SECONDS = 20


def known_calls(library: str = "cuda") -> list[str]:
    """Every function of the driver that the library stands in for or calls."""
    rows = (INTERPOSE / "hooks.def").read_text()
    return sorted(set(re.findall(rf"^(?:HOOK|CALL)\({library}, (\w+)", rows, flags=re.MULTILINE)))


def own_calls() -> list[str]:
    """Those of them that `everything.c` never makes."""
    return sorted(set(known_calls()) - set(calls_made()))


def calls_made() -> list[str]:
    """The functions that `everything.c` calls."""
    return re.findall(r"TRY\((\w+)", (SOURCES / "everything.c").read_text())


def newer_than(version: int) -> set[str]:
    """Functions of which every calling convention is newer than that CUDA version."""
    rows = [row.split() for row in (INTERPOSE / "sim" / "cuda_symbols.txt").read_text().splitlines() if row[0] != "#"]
    return {symbol for symbol, _, since, _ in rows if int(since) > version}


class Answers(NamedTuple):
    """What one run said, and what was held at its end."""

    results: list[list[Any]]
    counted_mib: float
    held_mib: float


class Bench:
    """One machine and container whose one fault is changed from run to run."""

    def __init__(
        self,
        directory: Path,
        driver: dict[str, str] | None = None,
        faults: Sequence[dict[str, Any]] = ({"call": "cuNothing"}, {"call": "cuNothing"}),
    ) -> None:
        described = {"driver": driver} if driver else {}
        machine = Simulation(directory, faults=list(faults), **described)
        # Contexts and code are counted apart and rounded up; here it is about what programs ask for.
        self.container = Container(
            directory / "one", machine, memory_mib=LIMIT_MIB, cores=50, HAMI_MEMORY_ACCOUNTING="requested"
        )
        self.alone = machine.environment()
        with machine.state.open("r+b") as file:
            self.state = state_view(mmap.mmap(file.fileno(), 0))
        self.program = compiled(directory, "everything")

    def fault(
        self,
        call: str,
        *,
        row: int = 0,
        result: int | None = UNKNOWN,
        nth: int = 0,
        delay_ms: int = 0,
        random_ms: int = 0,
        crash: bool = False,
    ) -> None:
        fault = self.state.faults[row]
        fault.call, fault.nth, fault.seen = call.encode(), nth, 0
        fault.has_result, fault.result = result is not None, result or 0
        fault.delay_ns, fault.random_ns, fault.crash = delay_ms * 1_000_000, random_ms * 1_000_000, crash

    def lacking(self, names: set[str], directory: Path) -> dict[str, str]:
        """Environment in which the driver has none of these functions."""
        return {"LD_LIBRARY_PATH": str(without(names, directory))}

    def run(self, *, limited: bool, rounds: int = 1, lacking: dict[str, str] | None = None) -> Answers:
        """One run, stopped before its end to look at the books."""
        for fault in self.state.faults:
            fault.seen = 0
        self.container.region.reap()
        environment = self.container.environment if limited else self.alone
        with subprocess.Popen(
            [self.program, str(rounds)],
            env={**environment, **(lacking or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            counted, held = self.counted(), self.held()
            _, err = process.communicate("\n", timeout=MOST_SECONDS)
        assert (process.returncode, err) == (0, ""), line
        return Answers(json.loads(line), counted, held)

    def left(self) -> float:
        """MiB that stand in the region when the dead are swept."""
        self.container.region.reap()
        return self.counted()

    def counted(self) -> float:
        """MiB of device 0 by the region's books."""
        return self.container.region.snapshot().devices[0].used_bytes / 2**20

    def held(self) -> float:
        """MiB of device 0 that living programs have asked for and hold, by the driver's own books."""
        processes = self.state.processes[: self.state.process_high]
        return sum(sum(process.memory[:KIND_CONTEXT]) for process in processes if process.live) / 2**20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"))


def test_without_a_fault_all_is_well(bench: Bench) -> None:
    bench.fault("cuNothing")
    alone, limited = bench.run(limited=False), bench.run(limited=True)
    assert limited.results == alone.results
    failed = {name: result for name, result in limited.results if result}
    assert failed == {"cuMemFree_v2": 1}, "of an address nobody has"
    assert (limited.counted_mib, limited.held_mib) == (0, 0)


BLINDING = {"cuMemPoolGetAttribute", "cuDeviceGetMemPool", "cuCtxGetCurrent"}
"""Where these fail, nobody can tell what a pool has, or what ends with a context: rather too much is counted."""


def check_books(answers: Answers, *faulty: str) -> None:
    """All that is held is counted; and no more, where the driver says what there is."""
    assert answers.counted_mib >= answers.held_mib - 0.01, faulty
    if BLINDING.isdisjoint(faulty):
        assert answers.counted_mib <= answers.held_mib + 0.01, faulty


@pytest.mark.parametrize("result", [UNKNOWN, OUT_OF_MEMORY], ids=["unknown", "out-of-memory"])
@pytest.mark.parametrize("call", known_calls())
def test_a_call_that_always_fails(bench: Bench, call: str, result: int) -> None:
    bench.fault(call, result=result)
    alone = bench.run(limited=False)
    limited = bench.run(limited=True)
    assert limited.results == alone.results
    assert limited.held_mib == pytest.approx(alone.held_mib)
    check_books(limited, call)
    assert bench.left() == 0


@pytest.mark.parametrize("call", own_calls())
def test_a_call_of_the_librarys_own_that_fails_now_and_then(bench: Bench, call: str) -> None:
    """Which of them fails makes no difference to the program, and none to the books once the next one succeeds."""
    bench.fault("cuNothing")
    fine = bench.run(limited=True, rounds=2)
    for nth in (1, 2, 3, 5, 8):
        bench.fault(call, nth=nth)
        faulty = bench.run(limited=True, rounds=2)
        assert faulty.results == fine.results, f"the fault at call {nth} shows"
        assert faulty.counted_mib == 0
        assert bench.left() == 0


@pytest.mark.parametrize("seed", range(40))
def test_two_faults_at_once(bench: Bench, seed: int) -> None:
    """Any two calls, each failing always or (where only the program or only the library makes it) once."""
    chance = random.Random(seed)
    made = set(calls_made())
    names = sorted(made | set(known_calls()))
    faults: list[dict[str, Any]] = []
    for row in range(2):
        call = chance.choice(names)
        countable = call not in made or call not in known_calls()
        nth = chance.choice([0, 1, 2, 3, 4]) if countable else 0
        faults.append({"call": call, "row": row, "nth": nth, "result": chance.choice([1, 2, 201, 400, 719, 801, 999])})
    answers = []
    for limited in (False, True):
        for fault in faults:
            bench.fault(**fault)
        answers.append(bench.run(limited=limited, rounds=2))
    alone, limited_ = answers
    assert limited_.results == alone.results, faults
    check_books(limited_, *(fault["call"] for fault in faults))
    assert bench.left() == 0, faults
    bench.fault("cuNothing", row=1)


@pytest.mark.parametrize("nth", [1, 2])
def test_out_of_memory_at_the_nth_allocation(bench: Bench, nth: int) -> None:
    bench.fault("cuMemAlloc_v2", result=OUT_OF_MEMORY, nth=nth)
    alone = bench.run(limited=False)
    bench.fault("cuMemAlloc_v2", result=OUT_OF_MEMORY, nth=nth)
    limited = bench.run(limited=True)
    assert limited.results == alone.results
    assert [result for name, result in limited.results if name == "cuMemAlloc_v2"][nth - 1] == OUT_OF_MEMORY
    assert (limited.counted_mib, bench.left()) == (0, 0)


CRASHES = (
    "cuMemAlloc_v2", "cuMemAllocManaged", "cuMemAllocPitch_v2", "cuMemFree_v2", "cuMemAllocAsync", "cuMemPoolDestroy",
    "cuMemAllocFromPoolAsync", "cuMemCreate", "cuMemMap", "cuMemRelease", "cuMemUnmap", "cuArrayCreate_v2",
    "cuArrayDestroy", "cuMipmappedArrayCreate", "cuModuleLoadData", "cuLaunchKernel", "cuGraphLaunch",
    "cuCtxDestroy_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuInit",
)  # fmt: skip


@pytest.mark.parametrize("call", CRASHES)
def test_a_death_in_the_driver_loses_nothing(bench: Bench, call: str) -> None:
    bench.fault(call, result=None, crash=True)
    died = subprocess.run([bench.program], env=bench.container.environment, capture_output=True, input="\n", text=True)
    assert died.returncode in (-signal.SIGILL, -signal.SIGTRAP)
    bench.fault("cuNothing")
    # No sweep in between: the next program finds room for everything by itself.
    (everything,) = bench.container.run("alloc", LIMIT_MIB)
    assert everything["got_mib"] == LIMIT_MIB
    assert bench.left() == 0


def test_a_device_lost_in_the_middle(bench: Bench) -> None:
    """Everything fails from some moment on; what the program is told is what the driver says."""
    bench.fault("cuNothing")
    fine = bench.run(limited=True)
    try:
        bench.state.faults[0].call, bench.state.faults[0].lost = b"", 1
        alone, limited = bench.run(limited=False), bench.run(limited=True)
    finally:
        bench.state.faults[0].lost = 0
    assert limited.results == alone.results != fine.results
    assert dict(map(tuple, limited.results))["cuDevicePrimaryCtxRetain"] == UNKNOWN
    assert (limited.counted_mib, bench.left()) == (0, 0)


def test_a_device_lost_under_a_program(tmp_path: Path) -> None:
    device = {"model": "Tesla T4", "context_mib": 100}
    lost = [{"device": 0, "lost": True, "xid": 79, "after_s": 100}]
    machine = Simulation(tmp_path, devices=[device], faults=lost)
    clock = ManualClock(machine)
    container = Container(tmp_path / "one", machine, memory_mib=LIMIT_MIB, HAMI_MEMORY_ACCOUNTING="requested")
    with Client(container.environment) as client:
        assert client.use() == 0
        address = client.alloc(300 * MIB)[1]
        clock.now += 101_000_000_000
        assert client.info()[0] == client.alloc(MIB)[0] == client.free(address) == client.alloc_async(MIB)[0] == UNKNOWN
        container.region.reap()
        assert container.region.snapshot().devices[0].used_bytes == 300 * MIB, "the driver has not given it back"
    container.region.reap()
    assert container.region.snapshot().devices[0].used_bytes == 0


def test_slow_starts_do_not_queue(bench: Bench) -> None:
    """Eight programs start at once on a driver that takes half a second to: nobody waits for another."""
    bench.fault("cuInit", result=None, delay_ms=500)
    began = time.monotonic()
    started = [bench.container.start("hold", 1, 0) for _ in range(8)]
    assert [probe.answers()[0]["result"] for probe in started] == ["CUDA_SUCCESS"] * 8
    assert 0.5 <= time.monotonic() - began < 3
    bench.fault("cuNothing")


def test_a_slow_allocation_holds_up_no_other_program(bench: Bench) -> None:
    bench.fault("cuMemAlloc_v2", result=None, nth=1, delay_ms=3000)
    slow = bench.container.start("hold", 10, 0)
    deadline = time.monotonic() + 10
    while bench.state.faults[0].seen == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    began = time.monotonic()
    (alloc,) = bench.container.run("alloc", LIMIT_MIB)
    assert time.monotonic() - began < 2
    assert alloc["got_mib"] == LIMIT_MIB - 10, "what the slow one asked for is reserved"
    assert slow.answers()[0]["result"] == "CUDA_SUCCESS"
    bench.fault("cuNothing")


def test_delays_by_chance_lose_no_memory_and_break_no_limit(bench: Bench, lives: Path) -> None:
    """Four programs of eight threads each, whose driver calls take up to 2 ms, at random."""
    bench.fault("cuMemAlloc_v2", result=None, random_ms=2)
    bench.fault("cuMemFree_v2", row=1, result=None, random_ms=2)
    running = [
        subprocess.Popen(
            [lives, "churns"],
            env=bench.container.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    most = 0.0
    while any(process.poll() is None for process in running):
        most = max(most, bench.held())
        time.sleep(0.005)
    assert [process.communicate()[0] for process in running] == ["[0]\n"] * 4
    assert 0 < most <= LIMIT_MIB
    assert bench.left() == 0
    bench.fault("cuNothing")
    bench.fault("cuNothing", row=1)


def test_failures_now_and_then_under_many_threads(tmp_path: Path, lives: Path) -> None:
    """Three programs of eight threads; now and then an allocation is refused by the driver, or a free fails. What then
    stays with the driver stays on the books, to the byte."""
    faults = [{"call": "cuMemAlloc_v2", "nth": 5 + 997 * n, "result": OUT_OF_MEMORY} for n in range(16)]
    faults += [{"call": "cuMemFree_v2", "nth": 9 + 1009 * n, "result": UNKNOWN} for n in range(16)]
    bench = Bench(tmp_path, faults=faults)
    running = [
        subprocess.Popen(
            [lives, "churns"],
            env=bench.container.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "[0]\n"
    assert bench.held() > 0, "some frees have failed"
    assert bench.counted() == bench.held()
    for process in running:
        process.communicate("\n", timeout=MOST_SECONDS)
    assert bench.left() == 0


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("lives"), "lives")


DRIVERS = {
    "11.4": {"version": "470.256.02", "cuda": "11.4"},
    "11.8": {"version": "520.61.05", "cuda": "11.8"},
    "12.0": {"version": "525.147.05", "cuda": "12.0"},
    "12.9": {"version": "575.51.03", "cuda": "12.9"},
    "13.0": {"version": "580.65.06", "cuda": "13.0"},
    "13.5": {"version": "615.10", "cuda": "13.5"},
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_other_driver_versions(tmp_path: Path, driver: str) -> None:
    """As far as a program can tell from the functions it has, with what is newer than the driver taken out of it."""
    bench = Bench(tmp_path, DRIVERS[driver])
    lacking = bench.lacking(newer_than(bench.state.cuda_version), tmp_path / "driver")
    alone, limited = bench.run(limited=False, lacking=lacking), bench.run(limited=True, lacking=lacking)
    assert limited.results == alone.results
    assert (limited.counted_mib, bench.left()) == (0, 0)
    missing = {name for name, result in limited.results if result == -1}
    assert ("cuLaunchKernelEx" in missing) == (driver == "11.4"), "it came with 11.6"


@pytest.mark.parametrize("call", known_calls())
def test_a_function_that_the_driver_lacks(tmp_path_factory: pytest.TempPathFactory, bench: Bench, call: str) -> None:
    bench.fault("cuNothing")
    fine = bench.run(limited=True)
    lacking = bench.lacking({call}, tmp_path_factory.mktemp("lacking"))
    alone, limited = bench.run(limited=False, lacking=lacking), bench.run(limited=True, lacking=lacking)
    assert limited.results == alone.results
    if call in dict(map(tuple, fine.results)):
        assert dict(map(tuple, limited.results))[call] == -1
    check_books(limited, call)
    assert bench.left() == 0


NVML = """
import json, sys
import pynvml as n
def answer(call, *words):
    try:
        call(*words)
    except n.NVMLError as error:
        return error.value
    except n.NVMLLibraryMismatchError as error:  # what the bindings themselves say of old drivers
        return type(error).__name__
    return 0
said = {"init": answer(n.nvmlInit)}
handles = {
    "index": (n.nvmlDeviceGetHandleByIndex, 0),
    "uuid": (n.nvmlDeviceGetHandleByUUID, sys.argv[1]),
    "bus": (n.nvmlDeviceGetHandleByPciBusId, "00000000:07:00.0"),
}
device = None
for way, (call, key) in handles.items():
    said[f"by_{way}"] = answer(call, key)
    if said[f"by_{way}"] == 0:
        device = call(key)
if device:
    said |= {
        "count": answer(n.nvmlDeviceGetCount),
        "memory": answer(n.nvmlDeviceGetMemoryInfo, device),
        "memory_v2": answer(n.nvmlDeviceGetMemoryInfo, device, n.nvmlMemory_v2),
        "compute": answer(n.nvmlDeviceGetComputeRunningProcesses, device),
        "compute_v2": answer(n.nvmlDeviceGetComputeRunningProcesses_v2, device),
        "graphics": answer(n.nvmlDeviceGetGraphicsRunningProcesses, device),
        "graphics_v2": answer(n.nvmlDeviceGetGraphicsRunningProcesses_v2, device),
        "mps": answer(n.nvmlDeviceGetMPSComputeRunningProcesses, device),
        "utilization": answer(n.nvmlDeviceGetUtilizationRates, device),
        "uuid": answer(n.nvmlDeviceGetUUID, device),
        "end": answer(n.nvmlShutdown),
    }
print(json.dumps(said))
"""


def nvml(environment: dict[str, str], uuid: str, **more: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", NVML, uuid],
        env={**environment, **more},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


LOST_GPU = 15


@pytest.mark.parametrize("call", [*known_calls("nvml"), "nvmlInit_v2"])
def test_nvml_that_fails_or_lacks_a_function(
    tmp_path: Path, request: pytest.FixtureRequest, bench: Bench, call: str
) -> None:
    """Monitors are told the driver's errors, and no others."""
    held = bench.container.start("hold", 10, 30)
    request.addfinalizer(held.kill)
    while bench.container.region.snapshot().devices[0].used_bytes == 0:
        assert held.process.poll() is None
    bench.fault("cuNothing")
    uuid = bench.container.region.snapshot().devices[0].uuid
    fine = nvml(bench.container.environment, uuid)
    assert fine == nvml(bench.alone, uuid)
    lacking = bench.lacking({call}, tmp_path / "lacking")
    assert nvml(bench.container.environment, uuid, **lacking) == nvml(bench.alone, uuid, **lacking)
    for result in (LOST_GPU, UNKNOWN):
        bench.fault(call, result=result)
        assert nvml(bench.container.environment, uuid) == nvml(bench.alone, uuid)
    bench.fault("cuNothing")
