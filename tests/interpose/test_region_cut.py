"""A container cuts its region's file while others have it mapped: nobody on the node side dies of that."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hami.node._region import Region

UUID = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
PAGE = 4096


@pytest.fixture
def region(tmp_path: Path) -> Region:
    return Region.create(tmp_path / "region.cache", [UUID], [100 << 20], [30])


@pytest.mark.parametrize("left", [0, PAGE, 1_000_000], ids=["nothing", "one page", "half"])
@pytest.mark.parametrize(
    "use",
    [
        lambda r: r.snapshot(),
        lambda r: r.reap(),
        lambda r: r.set_limit(0, 1 << 20, 50) if r.snapshot().devices else None,
        lambda r: r.unblock(),
        lambda r: r.set_sharing(False),
        lambda r: r.decay(),
    ],
    ids=["snapshot", "reap", "set_limit", "unblock", "set_sharing", "decay"],
)
def test_every_use_of_a_cut_region_survives(region: Region, left: int, use: Callable[[Region], object]) -> None:
    os.truncate(region.path, left)
    use(region)
    use(region)
    region.snapshot()
    assert region.replaced
    region.close()


def test_a_region_made_anew_works_beside_the_cut_one(region: Region) -> None:
    os.truncate(region.path, 0)
    assert region.snapshot().slots == ()
    Path(region.path).unlink()
    again = Region.create(region.path, [UUID], [7 << 20], [0])
    assert (again.snapshot().devices[0].limit_bytes, again.replaced) == (7 << 20, False)
    region.close()
    assert again.reap() == 0


def test_cutting_while_it_is_read(tmp_path: Path) -> None:
    """Again and again, at whatever instruction the reader is."""
    path = tmp_path / "region.cache"
    reading, stop = threading.Event(), threading.Event()
    rounds = 0

    def cut() -> None:
        while not stop.is_set():
            reading.wait(1)
            reading.clear()
            if path.exists():
                os.truncate(path, 0)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        for _ in range(200):
            path.unlink(missing_ok=True)
            with Region.create(path, [UUID], [1 << 20], [0]) as region:
                reading.set()
                while not region.replaced:
                    region.reap()
                    region.snapshot()
                rounds += 1
    finally:
        stop.set()
        reading.set()
        cutter.join()
    assert rounds == 200


def test_other_bus_errors_still_end_the_process(tmp_path: Path) -> None:
    program = f"""
import ctypes, mmap, resource, hami.node._region
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
file = open({str(tmp_path / "other")!r}, "w+b")
file.truncate(4096)
at = mmap.mmap(file.fileno(), 4096)
file.truncate(0)
at[0]
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert run.returncode == -signal.SIGBUS, run.stderr
