"""`hami run` as a user sees it: the command line, over the simulated driver, with a real CUDA client."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hami.local.ask import read_ask
from hami.local.run import REFUSED
from hami.model.claim import Mib, Percent
from hami.model.names import WireError
from hami.node.simulated import native_dir

ROOT = Path(__file__).parents[2]
PROBE = str(native_dir() / "sim" / "gpuprobe")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    path = tmp_path / "machine.yaml"
    path.write_text("name: bench\ndevices:\n- {model: Tesla T4, count: 2}\n")
    return path


@pytest.fixture
def hami(tmp_path: Path) -> Any:
    """`hami(*words)`: start the command with a ledger of its own."""
    environment = {**os.environ, "HAMI_LOCAL_DIR": str(tmp_path / "ledger")}
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hami", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"gpus": 0}, "--gpus"),
        ({"gpumem": 0}, "--gpumem"),
        ({"gpumem": 1, "gpumem_percentage": 5}, "--gpumem-percentage"),
        ({"gpumem_percentage": 101}, "--gpumem-percentage"),
        ({"gpucores": -1}, "--gpucores"),
        ({"policy": "sideways"}, "--policy"),
    ],
)
def test_an_option_no_machine_can_meet_is_named(options: dict[str, Any], field: str) -> None:
    plain: dict[str, Any] = {
        "gpus": 1,
        "gpumem": None,
        "gpumem_percentage": None,
        "gpucores": None,
        "policy": "spread",
    }
    with pytest.raises(WireError) as caught:
        read_ask(**{**plain, **options})
    assert caught.value.field == field


def test_defaults_are_those_of_a_pod() -> None:
    whole = read_ask(gpus=1, gpumem=None, gpumem_percentage=None, gpucores=None, policy="spread")
    assert (whole.memory, whole.cores) == (Percent(100), 100)
    part = read_ask(gpus=1, gpumem=3000, gpumem_percentage=None, gpucores=None, policy="spread")
    assert (part.memory, part.cores) == (Mib(3000), 0)


def test_the_demo_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "examples/demo/demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout


def test_the_program_keeps_its_exit_code_and_its_arguments(hami: Any, machine: Path) -> None:
    words = ["run", "--simulate", str(machine), "--gpumem", "100", "--", "sh", "-c", 'echo "$1"; exit 7', "x", "--gpus"]
    code, out, err = finish(hami(*words))
    assert (code, out) == (7, "--gpus\n"), err


def test_a_missing_program_is_said_and_nothing_stays(hami: Any, machine: Path) -> None:
    code, _, err = finish(hami("run", "--simulate", str(machine), "--gpumem", "100", "--", "no-such-program"))
    assert code == 127
    assert "no-such-program" in err
    assert json.loads(finish(hami("ps", "--json"))[1]) == []


def test_a_killed_program_gives_its_part_back(hami: Any, machine: Path) -> None:
    whole = ["run", "--simulate", str(machine), "--gpus", "2", "--", PROBE, "hold", "15000", "30"]
    first = hami(*whole)
    deadline = time.monotonic() + 20
    while not (running := json.loads(finish(hami("ps", "--json"))[1])):
        assert time.monotonic() < deadline, "the program never appeared"
    assert [share["memory_mib"] for share in running[0]["shares"]] == [15360, 15360]
    code, _, err = finish(hami(*whole))
    assert code == REFUSED
    assert "refused" in err
    first.send_signal(signal.SIGKILL)
    first.wait()
    code, out, err = finish(hami(*whole[:-1], "0"))
    assert code == 0, err
    assert json.loads(out)["result"] == "CUDA_SUCCESS"


def test_a_bad_description_names_its_field(hami: Any, machine: Path) -> None:
    machine.write_text("devices: 5\n")
    code, _, err = finish(hami("run", "--simulate", str(machine), "--", "true"))
    assert code == 2
    assert "devices" in err
