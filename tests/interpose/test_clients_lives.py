"""Programs that start threads, fork, replace themselves, become daemons: the limit goes with them, nothing is lost."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.interpose.compiled import compiled
from tests.interpose.container import Container
from tests.interpose.simulation import Simulation

LIMIT_MIB = 600
CONTEXT_MIB = 100


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("lives"), "lives")


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "one", Simulation(tmp_path), memory_mib=LIMIT_MIB)


def run(lives: Path, environment: dict[str, str], *words: str) -> list[Any]:
    done = subprocess.run([lives, *words], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [json.loads(line) for line in done.stdout.splitlines()]


def used_mib(container: Container) -> int:
    container.region.reap()
    return container.region.snapshot().devices[0].used_bytes >> 20


def test_threads(container: Container, lives: Path) -> None:
    assert run(lives, container.environment, "threads") == [[0, LIMIT_MIB]]
    assert used_mib(container) == 0


def test_exit_while_threads_are_in_the_driver(container: Container, lives: Path) -> None:
    for _ in range(15):
        assert run(lives, container.environment, "exits") == [[0]]
    assert used_mib(container) == 0


def test_forks(container: Container, lives: Path) -> None:
    not_initialized = 3
    said = run(lives, container.environment, "forks")
    assert said == [
        ["parent", 0, 0],
        ["child", not_initialized, 0, 0],
        ["grandchild", not_initialized, 0, 0],
        ["parent", LIMIT_MIB - 100],
    ]
    assert used_mib(container) == 0


def test_forks_while_threads_are_in_the_driver(container: Container, lives: Path) -> None:
    """The first forks of each run meet the threads in the middle of starting up, with every lock of that held."""
    for _ in range(40):
        assert run(lives, container.environment, "storms") == [[40]]
    assert used_mib(container) == 0


@pytest.mark.parametrize("descriptors", [4, 6, 8, 16])
def test_few_descriptors(container: Container, lives: Path, descriptors: int) -> None:
    """Where the region cannot be opened the environment's limit holds for the process alone; where it can, as ever."""
    limited = ["prlimit", f"--nofile={descriptors}:{descriptors}", str(lives), "holds"]
    within = {**container.environment, "CUDA_DEVICE_MEMORY_LIMIT_0": f"{LIMIT_MIB}m"}
    alone = {**within, "LD_PRELOAD": ""}
    without = subprocess.run(limited, env=alone, capture_output=True, text=True, timeout=60, check=False)
    done = subprocess.run(limited, env=within, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == without.returncode
    if json.loads(without.stdout)[0] == 0:
        assert json.loads(done.stdout) == [0, LIMIT_MIB]


def test_a_program_that_replaces_itself_starts_with_nothing(container: Container, lives: Path) -> None:
    assert run(lives, container.environment, "execs") == [[0, LIMIT_MIB]]
    assert used_mib(container) == 0


def test_a_program_started_meanwhile_gets_the_rest(container: Container, lives: Path) -> None:
    assert run(lives, container.environment, "vforks") == [[0, LIMIT_MIB - 200], [LIMIT_MIB - 200]]


def test_a_daemon_keeps_its_limit_and_its_files(container: Container, lives: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(lives, container.environment, "daemon", str(log)) == []
    deadline = time.monotonic() + 30
    while '"end"' not in (text := log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    assert [json.loads(line) for line in text.splitlines()] == [
        ["daemon", 0, 0, 0],
        ["worker", 0, LIMIT_MIB - 100, 0],
        ["end", 0, 0],
    ]


@pytest.mark.parametrize("life", ["threads", "forks", "execs", "vforks"])
def test_the_driver_alone_says_the_same(tmp_path: Path, lives: Path, life: str) -> None:
    """On a device as small as the limit: the library changes no answer but the size of what there is."""
    size = LIMIT_MIB + 3 * CONTEXT_MIB  # no context is taken from a container's limit
    device = {"model": "Tesla T4", "memory_mib": size, "context_mib": CONTEXT_MIB}
    alone = Simulation(tmp_path, devices=[device]).environment()
    said = run(lives, alone, life)
    (tmp_path / "limited").mkdir()
    container = Container(tmp_path / "one", Simulation(tmp_path / "limited"), memory_mib=LIMIT_MIB)
    limited = run(lives, container.environment, life)
    assert [line[:-1] for line in said] == [line[:-1] for line in limited]
