"""Regions of HAMi 2.x, of every age: read as its own monitor reads them, and harmless whatever is in the file."""

import errno
import os
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from hami.node._region_old import OldRegion
from tests.node.old_regions import MIB, OLDER_BYTES, READY, V0_BYTES, V1_BYTES, OldProcess, layout_0, layout_1, words

UUIDS = ["GPU-10000000-0000-0000-0000-000000000000", "MIG-20000000-0000-0000-0000-000000000000"]
PROCESSES = (
    OldProcess(pid=1, host_pid=4001, context=300 * MIB, module=5 * MIB, data=100 * MIB),
    OldProcess(pid=77, host_pid=4002, data=7 * MIB, status=0),
    OldProcess(pid=9, context=300 * MIB, data=11 * MIB, status=2),
)
LAYOUTS = [
    pytest.param(partial(layout_1, minor=0), (1, 0), id="1.0"),
    pytest.param(partial(layout_1, minor=1), (1, 1), id="1.1"),
    pytest.param(partial(layout_1, minor=2), (1, 2), id="1.2"),
    pytest.param(partial(layout_1, minor=7), (1, 7), id="a minor that nobody knows yet"),
    pytest.param(layout_0, (0, 0), id="0"),
]
Write = Callable[..., None]


@pytest.mark.parametrize(("write", "version"), LAYOUTS)
def test_what_every_layout_says(tmp_path: Path, write: Write, version: tuple[int, int]) -> None:
    path = tmp_path / "a.cache"
    write(path, UUIDS, *PROCESSES, limit_mib=1000, cores=50, priority=1)
    seen = OldRegion(path).snapshot()
    assert (seen.layout, seen.minor) == version
    assert [(d.uuid, d.limit_bytes, d.cores) for d in seen.devices] == [(uuid, 1000 * MIB, 50) for uuid in UUIDS]
    assert [(d.context_bytes, d.module_bytes, d.data_bytes, d.total_bytes) for d in seen.devices] == [
        (600 * MIB, 5 * MIB, 111 * MIB, 716 * MIB),
        (1200 * MIB, 10 * MIB, 222 * MIB, 1432 * MIB),
    ]
    assert (seen.processes, seen.host_pids) == (2, (4001,)), "a slot whose process has gone keeps its amounts"
    assert (seen.priority, seen.sharing, seen.recent_kernel, seen.last_kernel_unix) == (1, True, 2, 0)


def test_the_time_of_the_last_kernel(tmp_path: Path) -> None:
    layout_1(tmp_path / "a", UUIDS, last_kernel=1_700_000_000)
    assert OldRegion(tmp_path / "a").snapshot().last_kernel_unix == 1_700_000_000


@pytest.mark.parametrize(("write", "version"), LAYOUTS)
def test_the_two_words_that_a_monitor_sets(tmp_path: Path, write: Write, version: tuple[int, int]) -> None:
    path = tmp_path / "a.cache"
    write(path, UUIDS, *PROCESSES)
    before = path.read_bytes()
    region = OldRegion(path)
    region.apply(blocked=True, sharing=False)
    assert words(path) == (0, -1)
    region.apply(blocked=True, sharing=True)
    assert words(path) == (1, -1)
    assert region.decay() == -1, "a container that waits is not let go by the count"
    region.apply(blocked=False, sharing=True)
    assert words(path) == (1, 0)
    write(path.with_name("fresh"), UUIDS, *PROCESSES)
    fresh = OldRegion(path.with_name("fresh"))
    assert [fresh.decay() for _ in range(3)] == [1, 0, 0]
    assert len(path.read_bytes()) == len(before), "an old library has mapped this size"
    at = [i for i, (one, other) in enumerate(zip(before, path.read_bytes(), strict=True)) if one != other]
    assert len(at) <= 8, "nothing else was touched"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(READY.to_bytes(4, "little"), id="a mark alone"),
        pytest.param(READY.to_bytes(4, "little") + bytes(OLDER_BYTES - 4), id="the layout before 0"),
        pytest.param(bytes(V1_BYTES), id="not initialised yet"),
        pytest.param(READY.to_bytes(4, "little") + b"\2" + bytes(V1_BYTES), id="a major that nobody knows"),
        pytest.param(READY.to_bytes(4, "little") + bytes(44) + b"\xff" * (V0_BYTES - 48), id="absurd counts"),
    ],
)
def test_what_is_no_region(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    region = OldRegion(tmp_path / "a")
    for act in (region.snapshot, region.decay, lambda: region.apply(blocked=True, sharing=True)):
        with pytest.raises(OSError, match="rotocol") as refused:
            act()
        assert refused.value.errno == errno.EPROTO
    assert (tmp_path / "a").read_bytes() == content


def test_a_container_that_cuts_the_file_under_us(tmp_path: Path) -> None:
    layout_1(tmp_path / "a", UUIDS, *PROCESSES)
    region = OldRegion(tmp_path / "a")
    region.snapshot()
    for size in (V0_BYTES - 1, 5000, 0):
        os.truncate(tmp_path / "a", size)
        with pytest.raises(OSError, match="rotocol"):
            region.snapshot()


def test_links_and_other_things_are_not_opened(tmp_path: Path) -> None:
    layout_1(tmp_path / "real", UUIDS)
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "none"):
        with pytest.raises(OSError):
            OldRegion(tmp_path / name)


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    path = tmp_path / "a"
    (layout_1 if seed % 2 else layout_0)(path, UUIDS, *PROCESSES)
    data = bytearray(path.read_bytes())
    for _ in range(200):
        spots = [dice.randrange(64), dice.randrange(len(data)), len(data) - 1 - dice.randrange(64)]
        data[dice.choice(spots)] = dice.randrange(256)
    path.write_bytes(data)
    with suppress(OSError):  # EPROTO, as above
        seen = OldRegion(path).snapshot()
        assert seen.processes <= 1024
        assert len(seen.devices) <= 16
