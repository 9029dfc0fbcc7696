"""The compute limit beside neighbours, in device time that the simulated machine really gave: it keeps its own account.

Each test takes a few seconds of real time, because shares are shares of time; bounds leave room for a busy machine.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interpose.container import Container, Probe
from tests.interpose.simulation import Simulation

MS = 1_000_000


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


def _share(probe: Probe) -> float:
    """Percent of the time in which the program's kernels had the device."""
    return 100 * float(probe.answers()[-1]["share"])


def _launches(container: Container) -> int:
    return container.region.snapshot().devices[0].launches


def _await_launches(container: Container) -> None:
    """Until its program, which has just been started, works."""
    deadline = time.monotonic() + 5
    while _launches(container) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)


@contextmanager
def _greedy(machine: Simulation) -> Iterator[None]:
    """A neighbour without the library that never lets the device rest: its queue is full from the start."""
    with machine.client(NVIDIA_VISIBLE_DEVICES=machine.uuids[0]) as neighbour:
        assert neighbour.use() == 0
        assert neighbour.launch(neighbour.function(f"sim_ns_{20 * MS}"), 1000) == 0
        yield


def test_alone(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=30)
    assert _share(container.start("burn", 3, MS)) == pytest.approx(30, abs=5)
    (device,) = container.region.snapshot().devices
    # What was charged is what was obtained.
    assert device.charged_ns / (device.launches * MS) == pytest.approx(1, abs=0.1)
    assert device.waited_ns > 1_000 * MS


def test_beside_a_greedy_neighbour(tmp_path: Path, machine: Simulation) -> None:
    # A kernel of 1 ms waits for a turn of 2 ms at most, so a third of the time is all that this program could have.
    container = Container(tmp_path / "one", machine, cores=30)
    with _greedy(machine):
        assert _share(container.start("burn", 5, MS)) == pytest.approx(30, abs=5)


def test_kernels_longer_than_a_turn_need_the_node_sides_correction(tmp_path: Path, machine: Simulation) -> None:
    # A kernel of 5 ms takes three turns of 2 ms with the neighbour's in between, so it is never measured clean.
    container = Container(tmp_path / "one", machine, cores=30)
    with _greedy(machine):
        assert _share(container.start("burn", 4, 5 * MS)) < 25
        # What the node side does with the driver's figures for processes: obtained by charged.
        (device,) = container.region.snapshot().devices
        obtained_ns = device.launches * 5 * MS
        container.region.set_correction(0, permille=round(1000 * obtained_ns / device.charged_ns), tenants=2)
        assert _share(container.start("burn", 4, 5 * MS)) == pytest.approx(30, abs=5)


def test_two_limited_neighbours(tmp_path: Path, machine: Simulation) -> None:
    one, other = Container(tmp_path / "one", machine, cores=20), Container(tmp_path / "other", machine, cores=50)
    probes = one.start("burn", 4, MS), other.start("burn", 4, MS)
    assert [_share(probe) for probe in probes] == [pytest.approx(20, abs=5), pytest.approx(50, abs=8)]


def test_processes_of_a_container_share_one_account(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=40)
    probes = [container.start("burn", 3, MS) for _ in range(3)]
    assert sum(_share(probe) for probe in probes) == pytest.approx(40, abs=8)


def test_limit_rests_while_nobody_else_is_there(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=30)
    container.region.set_sharing(False)
    assert _share(container.start("burn", 1, MS)) > 40
    forced = Container(tmp_path / "two", machine, cores=30, GPU_CORE_UTILIZATION_POLICY="force")
    forced.region.set_sharing(False)
    assert _share(forced.start("burn", 3, MS)) == pytest.approx(30, abs=5)
    disabled = Container(tmp_path / "three", machine, cores=30, GPU_CORE_UTILIZATION_POLICY="disable")
    assert _share(disabled.start("burn", 1, MS)) > 40


def test_sharing_and_limits_change_under_way(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=10)
    probe = container.start("burn", 3, MS)
    time.sleep(1.5)
    container.region.set_limit(0, 0, 50)
    assert _share(probe) == pytest.approx(30, abs=4)


def test_a_loan_holds_for_a_second_unless_it_is_renewed(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=10)
    assert container.region.snapshot().policy == 0
    probe = container.start("burn", 3, MS)
    _await_launches(container)
    container.region.lend(0, 60)
    time.sleep(0.5)
    container.region.lend(0, 60)
    # Half of the time at 60, the rest at 10.
    assert _share(probe) == pytest.approx(35, abs=6)
    assert container.region.snapshot().policy == 1
    assert container.region.snapshot().devices[0].lent == 60


def test_a_loan_that_is_taken_back(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=10)
    probe = container.start("burn", 2.5, MS)
    _await_launches(container)
    container.region.lend(0, 90)
    time.sleep(0.5)
    container.region.lend(0, 0)
    assert _share(probe) == pytest.approx(25, abs=6)


def test_who_is_forced_borrows_nothing(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine, cores=20, GPU_CORE_UTILIZATION_POLICY="force")
    container.region.lend(0, 90)
    assert _share(container.start("burn", 1, MS)) == pytest.approx(20, abs=6)
    assert container.region.snapshot().policy == 2


def test_blocked_launches_wait_and_go_on_at_once(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine)
    probe = container.start("burn", 2.5, MS)
    _await_launches(container)
    container.region.block()
    assert container.region.snapshot().blocked
    time.sleep(0.2)
    blocked = _launches(container)
    time.sleep(0.4)
    assert _launches(container) == blocked
    container.region.unblock()
    time.sleep(0.2)
    assert _launches(container) > blocked
    assert container.region.snapshot().recent_kernel == 2
    probe.answers()


def test_activity_is_seen_without_any_limit(tmp_path: Path, machine: Simulation) -> None:
    container = Container(tmp_path / "one", machine)
    assert container.region.snapshot().last_kernel_unix == 0
    for _ in range(2):
        container.region.decay()
    assert container.region.snapshot().recent_kernel == 0
    (burn,) = container.run("burn", 0.3, MS)
    seen = container.region.snapshot()
    assert seen.recent_kernel == 2
    assert seen.last_kernel_unix == pytest.approx(time.time(), abs=5)
    container.region.reap()
    assert seen.devices[0].launches == container.region.snapshot().devices[0].launches == burn["launches"]
