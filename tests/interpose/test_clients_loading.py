"""Every way in which programs come to the driver: linked, by look-up, deep-bound, unloaded, through NVIDIA's runtime.

The limit is 600 MiB on a device of 4,096; a context costs 100. Whatever the way, a program sees 600 MiB and is refused
700.
"""

import importlib.util
import json
import mmap
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hami.node.simulated import state_view
from tests.interpose.compiled import DRIVER, compiled
from tests.interpose.container import Container
from tests.interpose.simulation import Simulation

DRIVERS = {
    "11.8": {"version": "520.61.05", "cuda": "11.8"},
    "12.4": {"version": "550.90.07", "cuda": "12.4"},
    "13.0": {"version": "580.65.06", "cuda": "13.0"},
    "13.5": {"version": "615.10", "cuda": "13.5"},
}
LIMITED = [600, 500, 0, 2]
UNLIMITED = [4096, 3996, 0, 0]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("programs")
    return {
        "host": compiled(where, "host"),
        "asking": compiled(where, "asking", shared=True, sources=("plugin",)),
        "bound": compiled(where, "bound", "-DLINKED", DRIVER, shared=True, sources=("plugin",)),
        "linked": compiled(where, "linked", "-DLINKED", DRIVER, sources=("linked", "plugin")),
    }


def run(command: Sequence[str | Path], environment: dict[str, str]) -> list[Any]:
    """The JSON lines a program prints; it must end well and print nothing else."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(params=DRIVERS)
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    return Container(tmp_path / "one", Simulation(tmp_path, driver=DRIVERS[request.param]), memory_mib=600)


@pytest.mark.parametrize("now", ["", "1"], ids=["lazy", "bind-now"])
def test_linked_to_the_driver(container: Container, programs: dict[str, Path], now: str) -> None:
    environment = {**container.environment, **({"LD_BIND_NOW": now} if now else {})}
    assert run([programs["linked"]], environment) == [LIMITED]


@pytest.mark.parametrize("plugin", ["asking", "bound"])
@pytest.mark.parametrize("flags", ["lazy", "now", "now deep", "lazy deep", "now global", "now deep local"])
def test_a_plug_in(container: Container, programs: dict[str, Path], plugin: str, flags: str) -> None:
    command: list[str | Path] = [programs["host"], programs[plugin], "1", *flags.split()]
    assert run(command, container.environment) == [LIMITED]
    assert run(command, {**container.environment, "LD_BIND_NOW": "1"}) == [LIMITED]


@pytest.mark.parametrize("plugin", ["asking", "bound"])
def test_loaded_and_unloaded_again_and_again(container: Container, programs: dict[str, Path], plugin: str) -> None:
    assert run([programs["host"], programs[plugin], "20", "now"], container.environment) == [LIMITED] * 20
    container.region.reap()
    assert container.region.snapshot().devices[0].used_bytes == 0


def test_who_keeps_deep_binding_goes_past_the_library(container: Container, programs: dict[str, Path]) -> None:
    """The switch for programs that need it; said in the documentation, and so does this test, what it costs."""
    environment = {**container.environment, "HAMI_KEEP_DEEPBIND": "1"}
    assert run([programs["host"], programs["bound"], "1", "now", "deep"], environment) == [UNLIMITED]


def test_a_namespace_of_its_own_is_not_covered_and_works(container: Container, programs: dict[str, Path]) -> None:
    assert run([programs["host"], programs["asking"], "1", "now", "namespace"], container.environment) == [UNLIMITED]


# ---- NVIDIA's runtime


def _runtime(version: int) -> Path:
    """The directory with the CUDA runtime of that version in the wheels of the development environment."""
    package = {12: "nvidia.cuda_runtime", 13: "nvidia.cu13"}[version]
    found = importlib.util.find_spec(package)
    assert found, f"{package} is part of the development environment"
    assert found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations))) / "lib"


@pytest.fixture(scope="module", params=["12 shared", "12 static", "13 shared", "13 static"])
def runtime_program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    version, kind = request.param.split()
    where, lib = tmp_path_factory.mktemp("runtime"), _runtime(int(version))
    options = (
        [lib / f"libcudart.so.{version}", f"-Wl,-rpath,{lib}"] if kind == "shared" else [lib / "libcudart_static.a"]
    )
    return int(version), compiled(where, "linked", "-DRUNTIME", *options, "-lrt", "-lm")


LOOKUPS = {(12, "11.8"): 4, (12, "12.4"): 419, (12, "13.0"): 419, (12, "13.5"): 419,
           (13, "11.8"): 3, (13, "12.4"): 423, (13, "13.0"): 458, (13, "13.5"): 481}  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_runtimes_look_ups(tmp_path: Path, runtime_program: tuple[int, Path], driver: str) -> None:
    """It asks for hundreds of functions when it starts, and then for tables of the driver that nobody else has: the
    simulated driver says no. So it must ask, with the library, just what it asks without, and be answered the same."""
    version, program = runtime_program
    counted = [{"call": "cuGetProcAddress_v2", "nth": 1 << 60}, {"call": "cuGetProcAddress", "nth": 1 << 60}]
    machine = Simulation(tmp_path, driver=DRIVERS[driver], faults=counted)
    container = Container(tmp_path / "one", machine, memory_mib=600)
    with machine.state.open("r+b") as file:
        state = state_view(mmap.mmap(file.fileno(), 0))

    def started(environment: dict[str, str]) -> tuple[list[Any], int]:
        before = sum(fault.seen for fault in state.faults)
        return run([program], environment), sum(fault.seen for fault in state.faults) - before

    alone = started(machine.environment())
    assert alone[1] == LOOKUPS[version, driver]
    assert started(container.environment) == alone
    assert started({**container.environment, "LD_BIND_NOW": "1"}) == alone


def test_a_program_that_is_no_client_starts_no_driver(container: Container) -> None:
    done = subprocess.run(
        ["sh", "-c", "grep -c -E 'libcuda|libnvidia' /proc/self/maps"],
        env={**container.environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0\n"
