"""The shared region as others see it: from Python, by HAMi's offsets, across pid namespaces."""

import errno
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from hami.node._region import Region
from tests.interpose.container import PROBE, Container
from tests.interpose.simulation import Simulation

MIB = 1 << 20
A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000"

# Layout 1.2 of HAMi's region, as a reader that was written without ours knows it.
UUIDS, LIMITS, SM_LIMITS, SLOTS, SLOT, SLOT_COUNT = 64, 1600, 1728, 1856, 1960, 2008896
SWITCH, RECENT_KERNEL, PRIORITY, LAST_KERNEL, SIZE = 2008900, 2008904, 2008908, 2008912, 2008952


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "region.cache"


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "one", Simulation(tmp_path), memory_mib=300, cores=30)


def _i32(path: Path, at: int, value: int | None = None) -> int:
    """A word of the file, after writing `value` there as an old monitor would."""
    with path.open("r+b") as file:
        file.seek(at)
        if value is not None:
            file.write(struct.pack("<i", value))
            file.seek(at)
        return int(struct.unpack("<i", file.read(4))[0])


def test_made_once_and_then_kept(path: Path) -> None:
    with Region.create(path, [A, B], [100 * MIB, 0], [30, 0], priority=0) as first:
        devices = first.snapshot().devices
        assert [(d.uuid, d.limit_bytes, d.cores) for d in devices] == [(A, 100 * MIB, 30), (B, 0, 0)]
        assert (first.snapshot().priority, first.snapshot().sharing, first.snapshot().slots) == (0, True, ())
        with Region.create(path, [A], [200 * MIB], [50]) as again:
            assert not again.replaced
            again.set_limit(1, 7, 8)
        assert [(d.limit_bytes, d.cores) for d in first.snapshot().devices] == [(200 * MIB, 50), (7, 8)]
        assert first.snapshot().priority == 1
        path.unlink()
        assert first.replaced
        Region.create(path, [A], [0], [0]).close()
        assert first.replaced


def test_what_cannot_be_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Region.open(path)
    path.write_bytes(b"no region" * 1000)
    with pytest.raises(OSError, match=r"region\.cache") as refused:
        Region.open(path)
    assert refused.value.errno == errno.EPROTO
    path.unlink()
    with pytest.raises(ValueError, match="equal lengths"):
        Region.create(path, [A], [], [0])
    with pytest.raises(ValueError, match="equal lengths"):
        Region.create(path, [A] * 17, [0] * 17, [0] * 17)
    with pytest.raises(ValueError, match=r"uuids\[1\]"):
        Region.create(path, [A, "x" * 96], [0, 0], [0, 0])
    with pytest.raises(OverflowError):
        Region.create(path, [A], [-1], [0])
    with pytest.raises(OSError, match="nowhere"):
        Region.create(tmp_path / "nowhere" / "x.cache", [A], [0], [0])
    assert list(tmp_path.iterdir()) == []
    region = Region.create(path, [A], [0], [0])
    with pytest.raises(IndexError):
        region.set_limit(1, 0, 0)
    region.close()
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region.snapshot()


def test_a_reader_of_hamis_layout_sees_the_same(container: Container) -> None:
    held = container.start("hold", 120, 30)
    while container.region.snapshot().devices[0].used_bytes == 0:
        assert held.process.poll() is None
    container.region.reap()
    data = container.region_path.read_bytes()
    assert struct.unpack_from("<iii", data) == (19920718, 1, 2)
    assert struct.unpack_from("<Q", data, 56) == (1,)
    assert data[UUIDS : UUIDS + 40].decode() == container.region.snapshot().devices[0].uuid
    assert struct.unpack_from("<Q", data, LIMITS) == (300 * MIB,)
    assert struct.unpack_from("<Q", data, SM_LIMITS) == (30,)
    assert struct.unpack_from("<i", data, SLOT_COUNT) == (1,)
    assert struct.unpack_from("<ii", data, SLOTS) == (held.process.pid, held.process.pid)
    context, module, in_buffers, _, total = struct.unpack_from("<5Q", data, SLOTS + 8)
    assert (context, module, in_buffers, total) == (100 * MIB, 0, 120 * MIB, 220 * MIB)
    assert struct.unpack_from("<i", data, SLOTS + 1928) == (1,)
    assert struct.unpack_from("<iii", data, SWITCH) == (1, 2, 1)
    assert len(data) > SIZE
    held.kill()
    container.region.reap()
    data = container.region_path.read_bytes()
    assert data[SLOTS : SLOTS + SLOT] == bytes(SLOT)


def test_an_old_monitor_blocks_and_switches_by_plain_stores(container: Container) -> None:
    path = container.region_path
    _i32(path, RECENT_KERNEL, -1)
    probe = container.start("burn", 3, 1_000_000)
    time.sleep(0.4)
    assert struct.unpack_from("<Q", path.read_bytes(), LAST_KERNEL) == (0,)
    _i32(path, SWITCH, 0)
    _i32(path, RECENT_KERNEL, 0)
    (burn,) = probe.answers()
    assert burn["share"] > 0.35  # the limit of 30 % rests
    assert _i32(path, RECENT_KERNEL) == 2
    assert struct.unpack_from("<Q", path.read_bytes(), LAST_KERNEL)[0] == pytest.approx(time.time(), abs=10)


class TestOtherNamespace:
    """Programs in a pid namespace of their own, as in a container: their pids mean nothing here."""

    @pytest.fixture(autouse=True)
    def _possible(self) -> None:
        trial = subprocess.run([*self.inside(), "true"], capture_output=True, check=False)
        if trial.returncode != 0:
            pytest.skip(f"no pid namespaces for this user: {trial.stderr.decode().strip()}")

    @staticmethod
    def inside() -> list[str]:
        become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        return ["unshare", *become_root, "--pid", "--fork", "--mount-proc"]

    def start(self, container: Container) -> subprocess.Popen[bytes]:
        command = [*self.inside(), str(PROBE), "hold", "200", "30"]
        process = subprocess.Popen(command, env=container.environment, stdout=subprocess.DEVNULL)
        while container.region.snapshot().devices[0].used_bytes < 200 * MIB:
            assert process.poll() is None
            time.sleep(0.01)
        return process

    def kill(self, container: Container, process: subprocess.Popen[bytes]) -> None:
        (slot,) = container.region.snapshot().slots
        assert slot.pid != slot.host_pid
        os.kill(slot.host_pid, 9)
        process.wait(10)

    def test_the_node_side_finds_and_takes_back(self, container: Container) -> None:
        process = self.start(container)
        assert container.region.snapshot().slots[0].pid == 1
        assert container.region.reap() == 0
        assert container.region.snapshot().devices[0].used_bytes == 200 * MIB
        self.kill(container, process)
        assert container.region.reap() == 1
        assert container.region.snapshot().devices[0].used_bytes == 0

    def test_a_program_of_another_namespace_takes_back_in_need(self, container: Container) -> None:
        process = self.start(container)
        assert container.run("alloc", 300)[0]["got_mib"] == 100
        container.region.reap()
        self.kill(container, process)
        assert container.run("alloc", 300)[0]["got_mib"] == 300


def test_charges_are_put_right_but_little_is_given_away(path: Path) -> None:
    most = 300_000_000  # a second at 30 %
    with Region.create(path, [A, B], [0, 0], [30, 30]) as region:
        debts = []
        for ns in (50, -20, -80, -most, -1, 7):
            region.amend(1, ns)
            debts.append(region.snapshot().devices[1].debt_ns)
        assert debts == [50, 30, -50, -most, -most, 7 - most]
        assert region.snapshot().devices[0].debt_ns == 0
        with pytest.raises(IndexError):
            region.amend(2, 1)
