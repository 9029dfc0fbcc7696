"""The simulated driver's device time: turns between processes, waiting, events, and what NVML says of it."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.interpose.simulation import A100, ManualClock, Simulation

MS = 1_000_000


def test_a_wait_takes_exactly_the_kernels_time(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    clock = ManualClock(machine)
    start = clock.now
    with machine.client() as client:
        assert client.use() == 0
        function = client.function("sim_ns_3000000")
        assert client.launch(function, 5) == 0
        assert clock.now == start, "a launch does not wait"
        assert client.sync() == 0
        assert clock.now == start + 15 * MS


def test_events_say_when_their_place_in_the_stream_was_reached(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    clock = ManualClock(machine)
    with machine.client() as client:
        assert client.use() == 0
        function = client.function("sim_ns_2000000")
        before, after = client.event(), client.event()
        assert client.record(before) == 0
        assert client.launch(function, 3) == 0
        assert client.record(after) == 0
        assert client.query(after) == 600, "not ready"
        assert client.elapsed_ms(before, after)[0] == 600
        clock.now += 6 * MS - 1
        assert client.query(after) == 600
        clock.now += 1
        assert client.query(after) == 0
        clock.now += 50 * MS
        rc, ms = client.elapsed_ms(before, after)
        assert (rc, ms) == (0, pytest.approx(6.0, abs=1e-3))


def test_an_event_keeps_its_time_when_its_place_in_the_queue_is_used_again(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    ManualClock(machine)
    with machine.client() as client:
        assert client.use() == 0
        function = client.function("sim_ns_1000")
        before, after = client.event(), client.event()
        assert client.record(before) == 0
        assert client.launch(function) == 0
        assert client.record(after) == 0
        assert client.launch(function, 5000) == 0, "more than may be outstanding: launches wait"
        assert client.sync() == 0
        assert client.elapsed_ms(before, after) == [0, pytest.approx(0.001, rel=1e-3)]


def test_two_processes_take_turns_of_a_time_slice(tmp_path: Path) -> None:
    """One kernel of 10 ms against many of 1 ms: turns of 2 ms each, so both have half until the shorter work ends."""
    machine = Simulation(tmp_path)
    clock = ManualClock(machine)
    start = clock.now
    with machine.client() as first, machine.client() as second:
        assert first.use() == 0
        assert second.use() == 0
        assert first.launch(first.function("sim_ns_10000000")) == 0
        assert second.launch(second.function("sim_ns_1000000"), 6) == 0
        assert second.sync() == 0
        assert clock.now == start + 12 * MS, "2+2+2 of its own between 2+2+2 of the other's"
        assert first.sync() == 0
        assert clock.now == start + 16 * MS


def test_side_by_side_every_process_has_an_equal_part(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, devices=[{"model": A100, "sharing": "mps"}])
    clock = ManualClock(machine)
    start = clock.now
    with machine.client() as first, machine.client() as second:
        assert first.use() == 0
        assert second.use() == 0
        assert first.launch(first.function("sim_ns_10000000")) == 0
        assert second.launch(second.function("sim_ns_1000000"), 6) == 0
        assert second.sync() == 0
        assert clock.now == start + 12 * MS
        assert first.sync() == 0
        assert clock.now == start + 16 * MS


@pytest.mark.parametrize(
    ("percents", "parts"),
    [
        (["25"], [25.0]),
        (["100", "100", "100", "100"], [25.0] * 4),
        (["20", "", ""], [20.0, 40.0, 40.0]),
        (["30", "20"], [30.0, 20.0]),
        (["60", "60"], [50.0, 50.0]),
        (["10", "30", "80", "80"], [10.0, 30.0, 30.0, 30.0]),
        (["12.5", "nonsense"], [12.5, 87.5]),
        (["0", "-3"], [50.0, 50.0]),
    ],
)
def test_side_by_side_a_thread_percentage_is_a_ceiling(tmp_path: Path, percents: list[str], parts: list[float]) -> None:
    machine = Simulation(tmp_path, devices=[{"model": A100, "sharing": "mps"}])
    clock = ManualClock(machine)
    start = clock.now
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(machine.client(CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=percent)) for percent in percents
        ]
        for client in clients:
            assert client.use() == 0
            assert client.launch(client.function(f"sim_ns_{MS}"), 1000) == 0
        first, events = clients[0], [client.event() for client in clients]
        assert first.sync() == 0
        took = clock.now - start
        assert took == pytest.approx(1000 * MS * 100 / parts[0], rel=1e-4)
        # Those at least as fast have ended, too; the others have the rest of theirs before them.
        for client, event, part in zip(clients, events, parts, strict=True):
            assert client.record(event) == 0
            assert (client.query(event) == 0) == (part >= parts[0])


def test_multiprocessors_as_a_capped_program_sees_them(tmp_path: Path) -> None:
    shared = Simulation(tmp_path, devices=[{"model": A100, "sharing": "mps", "sm_count": 188}])
    (tmp_path / "turns").mkdir()
    turns = Simulation(tmp_path / "turns", devices=[{"model": A100, "sm_count": 188}])
    seen = {}
    for percent in ("", "50", "25", "1"):
        with shared.client(CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=percent) as client:
            assert client.use() == 0
            seen[percent] = client.attribute(16)
    assert seen == {"": 188, "50": 94, "25": 46, "1": 1}
    with turns.client(CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="50") as client:
        assert client.use() == 0
        assert client.attribute(16) == 188


def test_other_kernels_cost_by_their_threads(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    clock = ManualClock(machine)
    start = clock.now
    with machine.client() as client:
        assert client.use() == 0
        plain = client.function("plain")
        assert client.launch(plain) == 0, "one thread: below a nanosecond"
        assert client.sync() == 0
        assert clock.now == start
        assert client.launch(plain, 1, None, 1_000_000) == 0
        assert client.sync() == 0
        assert clock.now == start + 10_000


def test_the_default_stream_waits_for_blocking_streams_only(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    clock = ManualClock(machine)
    start = clock.now
    with machine.client() as client:
        assert client.use() == 0
        function, blocking, apart = client.function("sim_ns_1000000"), client.stream(), client.stream(1)
        assert client.launch(function, 2, blocking) == 0
        assert client.launch(function, 3, apart) == 0
        assert client.sync() == 0
        assert clock.now == start + 2 * MS
        assert client.sync(apart) == 0
        assert clock.now == start + 5 * MS


def test_a_dead_neighbours_work_is_dropped(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    with machine.client() as victim, machine.client() as survivor:
        assert victim.use() == 0
        assert survivor.use() == 0
        assert victim.launch(victim.function("sim_ns_60000000000")) == 0, "a minute of work"
        function = survivor.function("sim_ns_10000000")
        victim.kill()
        began = time.monotonic()
        assert survivor.launch(function, 10) == 0
        assert survivor.sync() == 0
        assert time.monotonic() - began < 0.5, "100 ms of its own, no minute of turns"


NVML = """
import json, sys, time, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
for line in sys.stdin:
    try:
        samples = {s.pid: s.smUtil for s in pynvml.nvmlDeviceGetProcessUtilization(handle, 0)}
    except pynvml.NVMLError_NotFound:
        samples = {}
    print(json.dumps([samples, pynvml.nvmlDeviceGetUtilizationRates(handle).gpu]), flush=True)
"""


def test_shares_under_competition_and_as_nvml_tells_them(tmp_path: Path) -> None:
    """Greedy processes on the real clock: the one with long kernels fills its turns, the others leave theirs early."""
    machine = Simulation(tmp_path)
    answers: list[Any] = []
    with machine.client() as long, machine.client() as short, machine.client() as other:
        for client in (long, short, other):
            assert client.use() == 0
        kernels = {long: 5 * MS, short: MS, other: MS}
        began = time.monotonic()
        for client, kernel in kernels.items():
            client.start("burn", kernel, 2.5)
        watcher = subprocess.Popen(
            [sys.executable, "-c", NVML],
            env=machine.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        timer = threading.Timer(2.2 - (time.monotonic() - began), watcher.stdin.write, ["now\n"])
        timer.start()
        answers = json.loads(watcher.stdout.readline())
        timer.join()
        obtained = {client: client.answer() * kernel / 2.5e9 for client, kernel in kernels.items()}
        watcher.communicate(timeout=10)
    told, busy = answers
    assert sum(obtained.values()) == pytest.approx(1.0, abs=0.08)
    assert obtained[long] == pytest.approx(0.5, abs=0.08)
    assert obtained[short] == pytest.approx(obtained[other], abs=0.05)
    assert busy >= 90
    for client, share in obtained.items():
        assert told[str(client.process.pid)] == pytest.approx(share * 100, abs=8)
