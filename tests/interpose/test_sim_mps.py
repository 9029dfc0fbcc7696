"""Clients of MPS in the simulated driver: whom it holds, and how much memory it leaves a process.

The ceiling on multiprocessors is in test_sim_time.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hami.node.installed import hook_tree
from hami.node.mps import SIMULATED, SimulatedMps, mps_paths
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import A100, Simulation

CONTEXT = 100 * MIB
TOTAL = 4096 * MIB
DEVICE = {"model": A100, "count": 2, "memory_mib": 4096, "context_mib": 100}
MPS_ENABLED = 133
"""Number of the device attribute: contexts on the device go through MPS."""
MULTIPROCESSORS = 16
PLACE = "0123456789abcdef" * 2


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    """Two devices whose work runs side by side."""
    return Simulation(tmp_path, devices=[{**DEVICE, "sharing": "mps"}])


def client(machine: Simulation, limit: str, **more: str) -> Client:
    return machine.client(CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=limit, **more)


def room(program: Client, ordinal: int = 0) -> int:
    """MiB that a program can take of a device, to the MiB; it keeps them."""
    assert program.use(ordinal) == 0
    taken, step = 0, 1024
    while step:
        if program.alloc(step * MIB)[0] == 0:
            taken += step
        else:
            step //= 2
    return taken


WHOLE = 3996
"""What a program gets of a device without a limit: all but its context."""


@pytest.mark.parametrize(
    ("limit", "first", "second"),
    [
        ("0=1000M", 900, WHOLE),
        ("1=1000M", WHOLE, 900),
        ("0=3000M,1=2G", 2900, 1948),
        ("1=1G,0=512MB", 412, 924),
        ("0=1048576K", 924, WHOLE),
        ("0=5000M", WHOLE, WHOLE),
        ("", WHOLE, WHOLE),
    ],
)
def test_each_device_by_its_ordinal(machine: Simulation, limit: str, first: int, second: int) -> None:
    with client(machine, limit) as program:
        assert (room(program, 0), room(program, 1)) == (first, second)


@pytest.mark.parametrize(
    "limit",
    [
        "0=1000M,2=1000M",
        "2=1000M",
        "0=1000M,0=1000M",
        "0=1000M,",
        ",0=1000M",
        "0=1000",
        "0=M",
        "0=0M",
        "0=-1M",
        "0=1000T",
        "0=1000m",
        "0=1000MiB",
        "0=1.5G",
        "0=99999999999G",
        "0 = 1000M",
        "0:1000M",
        "1000M",
        "0=",
        "0",
        "x=1000M",
        "4294967296=1000M",
    ],
)
def test_what_cannot_be_meant_takes_all_limits_away(machine: Simulation, limit: str) -> None:
    """A device that is not there is among it, as the vendor's daemon has it."""
    with client(machine, limit) as program:
        assert room(program) == WHOLE


@pytest.mark.parametrize(
    ("visible", "first"),
    [("1", WHOLE), ("1,0", 1900)],
    ids=["an ordinal that is gone", "the program's own order"],
)
def test_ordinals_are_those_the_program_sees(machine: Simulation, visible: str, first: int) -> None:
    with client(machine, "0=2000M,1=1000M", CUDA_VISIBLE_DEVICES=visible) as program:
        assert room(program) == first


@pytest.mark.parametrize(
    ("limit", "first", "second"),
    [
        ("{1}=1000M,{0}=2000M", 1900, 900),
        ("{1:.20}=1000M,0=2000M", 1900, 900),
        ("{0}=1000M", 900, WHOLE),
        ("{0}=1000M,0=2000M", WHOLE, WHOLE),
        ("GPU-=1000M", WHOLE, WHOLE),
        ("{0}x=1000M", WHOLE, WHOLE),
        ("GPU-00000000-0000-0000-0000-000000000000=1000M,0=1000M", WHOLE, WHOLE),
    ],
    ids=["by uuid", "as it begins", "one of two", "twice", "any", "too long", "not there"],
)
def test_devices_by_their_uuid(machine: Simulation, limit: str, first: int, second: int) -> None:
    with client(machine, limit.format(*machine.uuids)) as program:
        assert (room(program, 0), room(program, 1)) == (first, second)


def test_memory_info_shows_the_limit_as_free_and_the_device_as_total(machine: Simulation) -> None:
    with client(machine, "0=1000M") as program, machine.client() as other:
        assert program.use() == 0
        assert program.info() == [0, 900 * MIB, TOTAL]
        rc, at = program.alloc(600 * MIB)
        assert (rc, program.info()) == (0, [0, 300 * MIB, TOTAL])
        assert other.use() == 0
        assert other.alloc(3200 * MIB)[0] == 0
        assert program.info() == [0, TOTAL - (700 + 3300) * MIB, TOTAL], "no more than there is"
        assert program.alloc(200 * MIB)[0] == OUT_OF_MEMORY
        assert program.free(at) == 0
        assert program.info() == [0, 696 * MIB, TOTAL]


def test_it_holds_each_process_alone(machine: Simulation) -> None:
    """A child is another client with as much again."""
    with client(machine, "0=1000M") as one, client(machine, "0=1000M") as two:
        assert (room(one), room(two)) == (900, 900)
        assert one.forked("use") == 0
        assert one.alloc(MIB)[0] == OUT_OF_MEMORY


def test_managed_memory_is_not_pinned(machine: Simulation) -> None:
    with client(machine, "0=1000M") as program:
        assert program.use() == 0
        assert program.alloc(2000 * MIB, "cuMemAllocManaged", 1)[0] == 0
        assert program.alloc(900 * MIB)[0] == 0
        assert program.alloc(MIB)[0] == OUT_OF_MEMORY


def test_pools_count_by_what_they_reserve(machine: Simulation) -> None:
    with client(machine, "0=164M") as program:
        assert program.use() == 0
        assert program.alloc_async(33 * MIB)[0] == 0
        assert program.info()[1] == 0, "two chunks of 32 MiB beside the context"
        assert program.alloc(1)[0] == OUT_OF_MEMORY


def test_no_context_fits_a_limit_below_what_it_costs(machine: Simulation) -> None:
    with client(machine, "0=99M") as program:
        assert program.use() == OUT_OF_MEMORY


def test_devices_that_take_turns_know_no_such_limit(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, devices=[DEVICE])
    with client(machine, "0=1000M") as program:
        assert program.init() == 0
        assert program.attribute(MPS_ENABLED) == 0
        assert room(program) == WHOLE


@pytest.mark.parametrize("made", [False, True], ids=["missing", "without a daemon"])
def test_a_directory_without_a_daemon_leaves_a_program_without_any_limit(
    machine: Simulation, tmp_path: Path, made: bool
) -> None:
    pipes = tmp_path / "pipes"
    if made:
        pipes.mkdir()
    terms = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50", "CUDA_MPS_PIPE_DIRECTORY": str(pipes)}
    with client(machine, "0=1000M", **terms) as program:
        assert program.init() == 0
        assert (program.attribute(MPS_ENABLED), program.attribute(MULTIPROCESSORS)) == (0, 108)
        assert room(program) == WHOLE
    pipes.mkdir(exist_ok=True)
    (pipes / SIMULATED).touch()
    with client(machine, "0=1000M", **terms) as program:
        assert program.init() == 0
        assert (program.attribute(MPS_ENABLED), program.attribute(MULTIPROCESSORS)) == (1, 54)
        assert room(program) == 900


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: only root caps a group")
def test_beside_a_cap_of_the_drivers_the_smaller_counts(tmp_path: Path) -> None:
    """The cap's group is shown as the whole, and of that what MPS leaves as free."""
    tree = tmp_path / "cgroup"
    leaf = tree / "pod"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text(f"{os.getpid()}\n")
    machine = Simulation(
        tmp_path,
        devices=[{**DEVICE, "sharing": "mps"}],
        driver={"version": "615.71", "cuda": "13.4"},
        cgroups=str(tree),
    )
    code = (
        "import pynvml as n\nn.nvmlInit()\nd = n.nvmlDeviceGetHandleByIndex(0)\n"
        f"n.nvmlDeviceSetMemoryLimits_v1(d, n.c_nvmlSetMemoryLimits_v1_t({str(leaf).encode()!r}, 0, {2000 * MIB}))"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **machine.environment()}, check=True)
    with client(machine, "0=1000M") as narrow, client(machine, "0=3000M") as wide:
        assert (narrow.use(), wide.use()) == (0, 0)
        assert narrow.info() == [0, 900 * MIB, 2000 * MIB]
        assert wide.info() == [0, 1800 * MIB, 2000 * MIB]
        assert narrow.alloc(901 * MIB)[0] == OUT_OF_MEMORY
        assert narrow.alloc(900 * MIB)[0] == 0
        assert wide.alloc(901 * MIB)[0] == OUT_OF_MEMORY
        assert wide.alloc(900 * MIB)[0] == 0


@pytest.fixture
def mps(tmp_path: Path) -> SimulatedMps:
    """A daemon that has a place for each container."""
    found = SimulatedMps(mps_paths(hook_tree(str(tmp_path)), None), named=True)
    found.start()
    return found


@pytest.mark.parametrize(
    ("percent", "own", "seen"),
    [(50, "", 54), (50, "100", 54), (50, "25", 54), (0, "25", 26), (0, "", 108)],
    ids=["the place's", "not to be raised", "nor lowered", "no ceiling: its own", "none"],
)
def test_a_places_ceiling_outranks_the_programs(
    machine: Simulation, mps: SimulatedMps, percent: int, own: str, seen: int
) -> None:
    mps.admit(PLACE, percent, 0)
    pipes = str(mps.paths.pipe_of(PLACE))
    with machine.client(CUDA_MPS_PIPE_DIRECTORY=pipes, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=own) as program:
        assert program.init() == 0
        assert (program.attribute(MPS_ENABLED), program.attribute(MULTIPROCESSORS)) == (1, seen)


@pytest.mark.parametrize(
    ("own", "first", "second"),
    [
        ("", 900, 900),
        ("0=500M", 400, 900),
        ("0=2000M,1=3000M", 900, 900),
        ("0=500M,2=500M", WHOLE, WHOLE),
    ],
    ids=["of every device", "lowered", "not to be raised", "lost to a device that is not there"],
)
def test_a_places_memory_limit(machine: Simulation, mps: SimulatedMps, own: str, first: int, second: int) -> None:
    mps.admit(PLACE, 0, 1000)
    with client(machine, own, CUDA_MPS_PIPE_DIRECTORY=str(mps.paths.pipe_of(PLACE))) as program:
        assert (room(program, 0), room(program, 1)) == (first, second)


def test_a_place_that_is_gone(machine: Simulation, mps: SimulatedMps) -> None:
    mps.admit(PLACE, 50, 1000)
    mps.dismiss(PLACE)
    with machine.client(CUDA_MPS_PIPE_DIRECTORY=str(mps.paths.pipe_of(PLACE))) as program:
        assert program.init() == 0
        assert program.attribute(MPS_ENABLED) == 0


def test_nvml_lists_clients_apart(machine: Simulation, tmp_path: Path) -> None:
    code = (
        "import json, pynvml as n\nn.nvmlInit()\nd = n.nvmlDeviceGetHandleByIndex(0)\n"
        "lists = n.nvmlDeviceGetMPSComputeRunningProcesses(d), n.nvmlDeviceGetComputeRunningProcesses(d)\n"
        "print(json.dumps([[p.pid for p in each] for each in lists]))"
    )
    nowhere = str(tmp_path / "nowhere")
    with machine.client() as inside, machine.client(CUDA_MPS_PIPE_DIRECTORY=nowhere) as outside:
        assert (inside.use(), outside.use()) == (0, 0)
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **machine.environment()}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [[inside.process.pid], [outside.process.pid]]
