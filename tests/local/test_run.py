"""`hami run` as a user sees it: the command line, over the simulated driver, with a real CUDA client."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.local.ask import read_ask
from hami.local.directory import listing
from hami.local.run import IMPOSSIBLE, REFUSED
from hami.model.claim import Mib, Percent
from hami.model.names import WireError
from hami.node.simulated import native_dir
from tests.interpose.simulation import A100
from tests.local.commands import PROBE, ROOT, Hami, heed_signals


@pytest.fixture
def hami(tmp_path: Path) -> Iterator[Hami]:
    with Hami(tmp_path) as command:
        yield command


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


def test_the_program_keeps_its_exit_code_and_its_arguments(hami: Hami) -> None:
    code, out, err = hami.finish(
        hami.run("--gpumem", "100", "--", "sh", "-c", 'echo "$1"; exit 7', "x", "--gpus", "--help")
    )
    assert (code, out) == (7, "--gpus\n"), err


def test_what_follows_the_programs_name_is_the_programs(hami: Hami) -> None:
    code, out, err = hami.finish(hami.run("--gpumem", "100", "echo", "--gpus", "--help"))
    assert (code, out) == (0, "--gpus --help\n"), err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--gpumen", "3000", "--", "true"], "--gpumen"),
        (["--gpus", "many", "--", "true"], "--gpus"),
        (["--gpucores", "101", "--", "true"], "--gpucores: expected a percentage from 0 to 100, got 101"),
        (["--simulate", "/no/such/file", "--", "true"], "--simulate: expected a machine's description"),
        ([], "CMD"),
    ],
)
def test_a_wrong_word_is_named(hami: Hami, words: list[str], named: str) -> None:
    code, out, err = hami.finish(hami.start("run", *words, COLUMNS="200"))
    assert (code, out) == (2, "")
    assert named in err


def test_the_program_has_the_signals_and_files_it_would_have_without_us(hami: Hami) -> None:
    """Python ignores SIGPIPE, and what is ignored stays so in an executed program."""
    # Both looked at by a program that is not Python, since that changes its own signals.
    look = "i=0; while [ $i -lt 256 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done"
    words = ["sh", "-c", f"{look}; exec grep -E 'SigIgn|SigBlk|Umask' /proc/self/status"]
    code, beneath, err = hami.finish(hami.run("--gpumem", "100", "--", *words))
    assert code == 0, err
    plain = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ, preexec_fn=heed_signals)
    assert beneath == plain.stdout


def test_inside_itself_it_says_no(hami: Hami) -> None:
    inner = [sys.executable, "-m", "hami", "run", "--simulate", str(hami.machine), "--", "true"]
    code, _, err = hami.finish(hami.run("--gpumem", "100", "--", *inner))
    assert code == 69
    assert "already inside `hami run`" in err


def test_a_missing_program_is_said_and_nothing_stays(hami: Hami) -> None:
    code, _, err = hami.finish(hami.run("--gpumem", "100", "--", "no-such-program"))
    assert code == 127
    assert "no-such-program" in err
    assert hami.ps() == []
    (hami.directory / "text").write_text("")
    assert hami.finish(hami.run("--gpumem", "100", "--", str(hami.directory / "text")))[0] == 126


def test_a_killed_program_gives_its_part_back(hami: Hami) -> None:
    whole = ["--gpus", "2", "--", PROBE, "hold", "15000", "30"]
    first = hami.run(*whole)
    deadline = time.monotonic() + 20
    while not (running := hami.ps()):
        assert time.monotonic() < deadline, "the program never appeared"
    assert [share["memory_mib"] for share in running[0]["shares"]] == [15360, 15360]
    code, _, err = hami.finish(hami.run(*whole))
    assert code == REFUSED
    assert "refused" in err
    first.send_signal(signal.SIGKILL)
    first.wait()
    code, out, err = hami.finish(hami.run(*whole[:-1], "0"))
    assert code == 0, err
    assert json.loads(out)["result"] == "CUDA_SUCCESS"


def test_a_daemon_keeps_what_it_uses_when_its_starter_ends(hami: Hami) -> None:
    """The shell ends at once; the probe it left behind has the device, so nobody else is given it."""
    out = hami.directory / "out"
    daemon = f"setsid {PROBE} hold 15000 8 >{out} 2>&1 & until grep -q SUCCESS {out}; do sleep 0.1; done"
    code, _, err = hami.finish(hami.run("--gpus", "2", "--", "sh", "-c", daemon))
    assert code == 0, err
    (left,) = hami.ps()
    assert sum(left["used_mib"].values()) == 15000
    assert hami.finish(hami.run("--gpumem", "100", "--", "true"))[0] == REFUSED
    code, _, err = hami.finish(hami.run("--wait", "--gpumem", "100", "--", "true"))
    assert code == 0, err


def test_a_daemon_that_comes_late_is_refused(hami: Hami) -> None:
    """Its part was given back when its starter ended without having used it; it gets nothing, rather than too much."""
    out = hami.directory / "out"
    late = f"until [ -e {out}.go ]; do sleep 0.1; done; exec {PROBE} alloc 10"
    code, _, err = hami.finish(hami.run("--gpumem", "100", "--", "sh", "-c", f"setsid sh -c '{late}' >{out} 2>&1 &"))
    assert code == 0, err
    assert hami.ps() == []
    Path(f"{out}.go").touch()
    deadline = time.monotonic() + 20
    while "OUT_OF_MEMORY" not in (said := out.read_text()):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    assert '"got_mib": 0' in said
    assert "grant not usable, device memory is refused: " in said


def test_a_bad_description_names_its_field(hami: Hami) -> None:
    hami.machine.write_text("devices: 5\n")
    code, _, err = hami.finish(hami.run("--", "true"))
    assert code == 2
    assert "devices" in err


def test_without_a_driver_it_says_so(hami: Hami) -> None:
    code, _, err = hami.finish(hami.start("run", "--", "true", LD_LIBRARY_PATH=str(native_dir() / "sim")))
    assert code == 69
    assert "no NVIDIA driver here" in err
    assert "--simulate" in err


def test_of_many_that_start_at_once_just_those_that_fit_run(hami: Hami) -> None:
    """Three of 5,000 MiB fit on each of two devices of 15,360."""
    asks = [hami.run("--gpumem", "5000", "--", PROBE, "hold", "5000", "20") for _ in range(10)]
    deadline = time.monotonic() + 60
    while sum(process.poll() == REFUSED for process in asks) < 4 or len(listing(hami.directory).running) < 6:
        assert time.monotonic() < deadline, [process.poll() for process in asks]
        time.sleep(0.1)
    by_device: dict[str, int] = {}
    for entry in listing(hami.directory).running:
        (share,) = entry.shares
        by_device[share.uuid] = by_device.get(share.uuid, 0) + share.memory_mib
    assert list(by_device.values()) == [15000, 15000]
    assert [process.poll() for process in asks].count(None) == 6


def test_many_that_wait_all_get_their_turn(hami: Hami) -> None:
    asks = [hami.run("--wait", "--gpumem", "7000", "--", PROBE, "hold", "7000", "0.3") for _ in range(10)]
    for process in asks:
        code, out, err = hami.finish(process)
        assert code == 0, err
        assert json.loads(out)["result"] == "CUDA_SUCCESS", "whoever ran had the memory that was granted"
    assert hami.ps() == []


def test_a_lost_device_is_said_once_and_the_other_is_used(hami: Hami) -> None:
    with hami.machine.open("a") as machine:
        machine.write("faults:\n- {device: 0, lost: true, xid: 79}\n")
    code, out, err = hami.finish(hami.run("--gpumem", "100", "--", PROBE, "alloc", "1"))
    assert (code, json.loads(out)["result"]) == (0, "CUDA_SUCCESS")
    assert err.count("does not answer: GPU is lost") == 1
    assert hami.finish(hami.run("--gpus", "2", "--", "true"))[0] == IMPOSSIBLE


class TestMig:
    """Cards in MIG mode: their instances are devices; a card without any is none."""

    @pytest.fixture
    def mig(self, hami: Hami) -> Hami:
        hami.machine.write_text(f"name: m\ndevices:\n- {{model: {A100}, mig: enabled}}\n")
        return hami

    def test_without_instances(self, mig: Hami) -> None:
        code, _, err = mig.finish(mig.run("--", "true"))
        assert code == IMPOSSIBLE
        assert "this machine has no device that can be shared" in err

    def test_an_instance(self, mig: Hami) -> None:
        mig.finish(mig.run("--", "true"))  # makes the simulated machine
        (state,) = mig.directory.glob("*.state")
        make = """
from pynvml import *
nvmlInit()
device = nvmlDeviceGetHandleByIndex(0)
instance = nvmlDeviceCreateGpuInstance(device, nvmlDeviceGetGpuInstanceProfileInfo(device, 2).id)
nvmlGpuInstanceCreateComputeInstance(instance, nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, 2, 0).id)
"""
        environment = {"HAMI_SIM_STATE": str(state), "LD_LIBRARY_PATH": str(native_dir() / "sim")}
        subprocess.run([sys.executable, "-c", make], env=environment, check=True)
        code, out, err = mig.finish(mig.run("--gpumem", "1000", "--", PROBE, "info", "alloc", "2000"))
        assert code == 0, err
        info, alloc = (json.loads(line) for line in out.splitlines())
        assert [device["total_mib"] for device in info["devices"]] == [1000]
        assert alloc["result"] == "CUDA_ERROR_OUT_OF_MEMORY"
        code, _, err = mig.finish(mig.run("--gpus", "2", "--gpumem", "100", "--", "true"))
        assert code == 2
        assert "--gpus: expected 1, because CUDA shows a program no more than one MIG instance" in err
