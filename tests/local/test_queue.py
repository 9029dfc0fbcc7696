"""Waiting: who counts, first come first served with real processes, and every way to leave."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.local.directory import WAITING, listing, remember
from hami.local.entries import Entry
from hami.local.queue import ahead_of
from hami.local.run import IMPOSSIBLE, INTERRUPTED, REFUSED
from hami.model.names import DeviceUuid
from tests.local.commands import PROBE, Hami
from tests.local.programs import entry_of, own_entry, sleeping


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return value


class TestWhoCounts:
    """`ahead_of`, told with entries of sleeping processes."""

    @pytest.fixture
    def queue(self) -> Iterator[tuple[Entry, Entry]]:
        with sleeping() as one, sleeping() as two:
            yield entry_of(one.pid, shares=()), entry_of(two.pid, shares=())

    def test_those_before_it(self, queue: tuple[Entry, Entry]) -> None:
        first, second = queue
        assert ahead_of(first, queue, lambda _: True) == ()
        assert ahead_of(second, queue, lambda _: True) == (first,)
        assert ahead_of(own_entry(), queue, lambda _: True) == queue, "a newcomer comes last"

    def test_not_one_that_asks_other_devices(self, queue: tuple[Entry, Entry]) -> None:
        elsewhere = own_entry(devices=(DeviceUuid("GPU-z"),))
        assert ahead_of(elsewhere, queue, lambda _: True) == ()

    def test_not_one_that_can_never_be_met(self, queue: tuple[Entry, Entry]) -> None:
        first, second = queue
        assert ahead_of(own_entry(), queue, lambda entry: entry != first) == (second,)

    def test_not_a_stopped_one(self, queue: tuple[Entry, Entry]) -> None:
        first, second = queue
        os.kill(first.pid, signal.SIGSTOP)
        until(lambda: ahead_of(own_entry(), queue, lambda _: True) == (second,), "the stopped one still counts")
        os.kill(first.pid, signal.SIGCONT)
        until(lambda: ahead_of(own_entry(), queue, lambda _: True) == queue, "and is back in its place")

    def test_the_order_is_that_of_arrival(self, tmp_path: Path, queue: tuple[Entry, Entry]) -> None:
        first, second = queue
        remember(tmp_path, second, WAITING)
        time.sleep(0.02)  # more than the clock's step
        remember(tmp_path, first, WAITING)
        assert listing(tmp_path).waiting == (second, first)
        # Its owner cannot push it to the front.
        os.utime(tmp_path / f"{first.name}.{WAITING}", (0, 0))
        assert listing(tmp_path).waiting == (second, first)


@pytest.fixture
def hami(tmp_path: Path) -> Iterator[Hami]:
    with Hami(tmp_path) as command:
        yield command


def states(hami: Hami) -> list[str]:
    found = listing(hami.directory)
    return ["running"] * len(found.running) + ["waiting"] * len(found.waiting)


def waiting(hami: Hami, count: int) -> None:
    until(lambda: states(hami).count("waiting") == count, f"{count} programs in the queue")


def running(hami: Hami) -> None:
    until(lambda: "running" in states(hami), "a running program")


def fill(hami: Hami) -> subprocess.Popen[str]:
    """A program that has everything."""
    holder = hami.run("--gpus", "2", "--", "sleep", "60")
    running(hami)
    return holder


def test_first_come_first_served(hami: Hami) -> None:
    holder = fill(hami)
    large = hami.run("--wait", "--gpus", "2", "--", "sh", "-c", "echo large; exec sleep 60")
    waiting(hami, 1)
    small = hami.run("--wait", "--gpumem", "100", "--", "echo", "small")
    waiting(hami, 2)
    refused, out, err = hami.finish(hami.run("--gpumem", "100", "--", "true"))
    assert (refused, out) == (REFUSED, "")
    assert f"2 programs wait before it, the first one process {large.pid} of " in err
    holder.kill()
    assert large.stdout is not None
    assert large.stdout.readline() == "large\n"
    # There is nothing left beside it, so the small one goes on waiting, and says for what.
    assert states(hami) == ["running", "waiting"]
    assert small.poll() is None
    large.kill()
    code, out, err = hami.finish(small)
    assert (code, out) == (0, "small\n")
    assert "hami run: waiting: 1 program waits before it" in err
    assert hami.ps() == []


def test_what_fits_beside_the_running_does_not_wait(hami: Hami) -> None:
    first = hami.run("--gpumem", "1000", "--", "sleep", "60")
    running(hami)
    code, _, err = hami.finish(hami.run("--wait", "--gpumem", "1000", "--", "true"))
    assert (code, err) == (0, "")
    first.kill()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_the_queue(hami: Hami, number: signal.Signals, status: int) -> None:
    holder = fill(hami)
    waiter = hami.run("--wait", "--", "true")
    waiting(hami, 1)
    waiter.send_signal(number)
    code, _, err = hami.finish(waiter)
    assert code == status
    assert "Traceback" not in err
    assert not list(hami.directory.glob(f"*.{WAITING}"))
    assert states(hami) == ["running"]
    holder.kill()


def test_dead_and_stopped_waiters_hold_nobody_up(hami: Hami) -> None:
    holder = fill(hami)
    dead = hami.run("--wait", "--gpus", "2", "--", "true")
    waiting(hami, 1)
    stopped = hami.run("--wait", "--gpus", "2", "--", "true")
    waiting(hami, 2)
    last = hami.run("--wait", "--", "true")
    waiting(hami, 3)
    dead.kill()
    dead.wait()
    stopped.send_signal(signal.SIGSTOP)
    holder.kill()
    assert hami.finish(last)[0] == 0
    stopped.send_signal(signal.SIGCONT)
    assert hami.finish(stopped)[0] == 0


def test_what_no_machine_could_give_is_refused_at_once(hami: Hami) -> None:
    code, _, err = hami.finish(hami.run("--wait", "--gpumem", "99999", "--", "true"))
    assert code == IMPOSSIBLE
    assert "refused, even with nothing running: 2 devices short of memory (largest free 15,360 MiB)" in err


def test_a_refusal_says_what_is_free_and_who_holds_the_rest(hami: Hami) -> None:
    holder = hami.run("--gpus", "2", "--gpumem", "15000", "--gpucores", "30", "--", PROBE, "hold", "40", "60")
    until(lambda: 40 in [mib for entry in hami.ps() for mib in entry["used_mib"].values()], "what it uses is shown")
    code, _, err = hami.finish(hami.run("--gpumem", "1000", "--", "true"))
    assert code == REFUSED
    assert (
        "refused: 2 devices short of memory (largest free 360 MiB) (asked: 1 device, 1,000 MiB); --wait queues" in err
    )
    assert err.count("(simulated NVIDIA-Tesla T4): 360 of 15,360 MiB and 70 % of compute free\n") == 2
    assert err.count(f"process {holder.pid} of ") == 2
    assert f"holds 15,000 MiB and 30 %: {PROBE} hold 40 60\n" in err
    holder.kill()


def test_ps_shows_the_queue_and_no_foreign_markup(hami: Hami) -> None:
    holder = hami.run("--gpus", "2", "--", "sh", "-c", "exec sleep 60 # [bold]\x1b[31mred")
    running(hami)
    waiter = hami.run("--wait", "--gpumem", "7", "--", "true")
    waiting(hami, 1)
    table = hami.finish(hami.start("ps", COLUMNS="200"))[1]
    assert "[bold]?[31mred" in table
    assert table.count(" (simulated) ") == 2
    assert "waits, place 1: 1 device, 7 MiB" in table
    waiter.kill()
    holder.kill()


def test_json_of_a_waiting_program(hami: Hami) -> None:
    holder = fill(hami)
    waiter = hami.run("--wait", "--gpumem", "7", "--", "true")
    waiting(hami, 1)
    entry = hami.ps()[1]
    assert (entry["pid"], entry["shares"], entry["used_mib"]) == (waiter.pid, [], {})
    assert entry["ask"] == {"gpus": 1, "memory_mib": 7, "cores": 0, "policy": "spread"}
    waiter.kill()
    holder.kill()
