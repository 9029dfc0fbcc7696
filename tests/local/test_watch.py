"""The monitor of `hami run`: who shares is judged, charges are corrected, and it goes with the last program."""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.agent.regions import OpenRegions
from hami.alloc.feedback import Feedback
from hami.local.watch import LocalRegions
from hami.node._region import Region, Snapshot
from tests.local.commands import PROBE, Hami
from tests.local.programs import own_entry


@pytest.fixture
def hami(tmp_path: Path) -> Iterator[Hami]:
    with Hami(tmp_path) as command:
        yield command


def until(true: Callable[[], Any], patience_s: float = 20) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_watched(hami: Hami) -> bool:
    """Somebody holds the lock of the monitor."""
    for path in hami.directory.glob(f"watch-{os.getuid()}-*.lock"):
        with path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def watcher(hami: Hami) -> int:
    """Its process id, by the file that it has locked."""
    (path,) = hami.directory.glob("watch-*.lock")
    inode = path.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            return int(words[4])
    raise AssertionError("nobody has locked it")


def regions(hami: Hami) -> list[Snapshot]:
    found = []
    for path in sorted(hami.directory.glob("*.d/region.cache")):
        with Region.open(path) as region:
            found.append(region.snapshot())
    return found


def test_who_is_alone_has_the_device_and_limits_hold_among_several(hami: Hami) -> None:
    def burn(seconds: int) -> None:
        hami.run(
            "--policy", "binpack", "--gpumem", "2000", "--gpucores", "30", "--", PROBE, "burn", str(seconds), "1000000"
        )

    burn(60)
    until(lambda: [region.sharing for region in regions(hami)] == [False])
    assert is_watched(hami)
    burn(60)
    until(lambda: [region.sharing for region in regions(hami)] == [True, True])
    until(lambda: all(region.devices[0].tenants == 2 for region in regions(hami)))
    until(lambda: [region.devices[0].lent for region in regions(hami)] == [48, 48])


def test_contexts_are_the_drivers_own_figures(hami: Hami) -> None:
    hami.machine.write_text("name: bench\ndevices:\n- {model: Tesla T4, count: 2, context_mib: 123}\n")
    hami.run("--gpumem", "2000", "--", PROBE, "hold", "100", "60")
    until(lambda: [region.devices[0].overhead_bytes >> 20 for region in regions(hami)] == [123])
    assert regions(hami)[0].devices[0].used_bytes == 100 << 20


def test_it_goes_with_the_last_program_and_comes_with_the_next(hami: Hami) -> None:
    for _ in range(2):
        program = hami.run("--", "sleep", "2")
        until(lambda: is_watched(hami))
        assert Hami.finish(program)[0] == 0
        until(lambda: not is_watched(hami), patience_s=10)


def test_a_killed_one_is_replaced_by_the_next_program(hami: Hami) -> None:
    hami.run("--gpumem", "1000", "--", "sleep", "60")
    until(lambda: is_watched(hami))
    os.kill(watcher(hami), signal.SIGKILL)
    until(lambda: not is_watched(hami))
    hami.run("--gpumem", "1000", "--", "sleep", "60")
    until(lambda: is_watched(hami))


def test_the_program_has_no_child_that_it_does_not_know(hami: Hami) -> None:
    look = "import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('none')"
    code, out, err = Hami.finish(hami.run("--", "python3", "-c", look))
    assert (code, out) == (0, "none\n"), err


def test_another_users_program_counts_as_busy(tmp_path: Path) -> None:
    mine, other = own_entry(), own_entry(uid=os.getuid() + 1, pid=1)
    with Region.create(tmp_path / mine.name, [share.uuid for share in mine.shares], [0], [30]) as region:
        with OpenRegions(lambda name: tmp_path / name) as own:
            both = LocalRegions(own=own, others={other.name: other})
            theirs = both.view(other.name, reap=True)
            assert theirs is not None
            assert theirs.launched
            assert [device.uuid for device in theirs.devices] == [share.uuid for share in other.shares]
            assert both.processes(other.name) is None
            both.apply(Feedback(id=mine.name, blocked=False, sharing=False))
            both.apply(Feedback(id=other.name, blocked=True, sharing=True))
            both.correct(other.name, 0, permille=500, tenants=2, amend_ns=0)
            both.correct(mine.name, 0, permille=700, tenants=2, amend_ns=0)
        assert not region.snapshot().sharing
        assert region.snapshot().devices[0].correction == 700
