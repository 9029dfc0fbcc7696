"""Containers that HAMi 2.x started, under this agent: metrics, priorities, names across processes, and cleaning up."""

import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from hami.agent import inherited
from hami.agent.inherited import KEEP_S, AllRegions, Inherited, PodNames
from hami.agent.metrics import DeviceCollector
from hami.agent.monitor import Monitor
from hami.agent.regions import RegionFiles
from hami.model.names import PodKey, PodUid
from hami.node.grants import GrantStore
from hami.node.inherited import inherited as containers
from hami.node.inherited import is_busy
from hami.node.installed import hook_tree
from tests.agent.conftest import NODE, UUIDS
from tests.agent.test_monitor import FakeProbe, grant
from tests.node.old_regions import MIB, OldProcess, layout_0, layout_1, words

UID = "0a1b2c3d-1111-2222-3333-444455556666"
OTHER = "ffffffff-1111-2222-3333-444455556666"


@dataclass
class Node:
    """A node on which HAMi 2.x was."""

    root: Path
    names: dict[str, PodKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = hook_tree(str(self.root))
        for directory in (self.tree.grants, self.tree.containers):
            directory.mkdir(parents=True)
        self.store = GrantStore(self.tree, None)
        self.left = Inherited(self.tree, lambda uid: self.names.get(uid))
        self.regions = RegionFiles(self.store)

    def directory(self, uid: str = UID, container: str = "main") -> Path:
        made = self.tree.containers / f"{uid}_{container}"
        made.mkdir(exist_ok=True)
        self.names[uid] = PodKey("default", f"pod-{uid[:4]}")
        return made

    def monitor(self, *grants: object) -> Monitor:
        regions = AllRegions(self.regions, self.left)
        return Monitor(regions, lambda: (*grants, *self.left.grants()), FakeProbe(), NODE)  # type: ignore[arg-type]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(inherited, "SCAN_EVERY_S", 0.0)
    made = Node(tmp_path)
    with made.regions:
        yield made
    made.left.close()


class TestMonitor:
    def test_metrics_of_both_layouts_beside_our_own(self, node: Node) -> None:
        layout_1(node.directory() / "x.cache", UUIDS[:2], OldProcess(pid=1, context=300 * MIB, data=100 * MIB))
        layout_0(node.directory(OTHER) / "y.cache", UUIDS[:1], OldProcess(pid=1, data=7 * MIB))
        own = grant("own", 0)
        node.store.create(own)
        node.regions.ensure(own, 1)
        node.store.link(own)
        monitor = node.monitor(own)
        monitor.see()
        seen = [(c.key.name, c.container, c.index, c.limit_bytes, c.used_bytes) for c in monitor.look.containers]
        assert seen == [
            ("own", "main", 0, 3000 * MIB, 0),
            ("pod-0a1b", "main", 0, 1000 * MIB, 400 * MIB),
            ("pod-0a1b", "main", 1, 1000 * MIB, 800 * MIB),
            ("pod-ffff", "main", 0, 1000 * MIB, 7 * MIB),
        ]
        registry = CollectorRegistry()
        registry.register(DeviceCollector(monitor, simulated=False, legacy=False))
        text = generate_latest(registry).decode()
        labels = f'container="main",device_uuid="{UUIDS[0]}",namespace="default",pod="pod-0a1b",vdevice_index="0"'
        assert f'hami_vgpu_memory_context_bytes{{{labels},zone="vGPU"}} 3.145728e+08' in text
        own_words = [line for line in text.splitlines() if "throttled" in line or "rejections" in line]
        assert not any("pod-0a1b" in line for line in own_words), "HAMi's library counts no such thing"

    def test_ours_of_high_priority_stops_theirs_of_low_and_lets_it_go(self, node: Node) -> None:
        low = node.directory() / "low.cache"
        layout_1(low, UUIDS[:1], OldProcess(pid=1), priority=1)
        high = node.directory(OTHER) / "high.cache"
        layout_0(high, UUIDS[:1], OldProcess(pid=1), priority=0)
        monitor = node.monitor()
        for _ in range(2):
            for path in (high, low):
                _launch(path)
            monitor.see()
        assert words(low)[1] == -1
        assert words(high)[1] >= 0
        for _ in range(3):
            monitor.see()
        os.remove(high)
        monitor.see()
        assert words(low)[1] == 0

    def test_a_container_that_started_again_has_a_new_file(self, node: Node) -> None:
        directory = node.directory()
        layout_1(directory / "a.cache", UUIDS[:1], OldProcess(pid=1, data=5 * MIB, status=0))
        os.utime(directory / "a.cache", (1000, 1000))
        layout_1(directory / "b.cache", UUIDS[:1], OldProcess(pid=1, data=9 * MIB))
        (directory / "c.cache").write_bytes(b"nonsense")
        (directory / "notes.txt").write_text("")
        monitor = node.monitor()
        monitor.see()
        assert [c.used_bytes for c in monitor.look.containers] == [9 * MIB]
        layout_1(directory / "new", UUIDS[:1], OldProcess(pid=1, data=3 * MIB))
        (directory / "new").replace(directory / "b.cache")
        monitor.see()
        assert [c.used_bytes for c in monitor.look.containers] == [3 * MIB], "the file of that name is another one"

    @pytest.mark.parametrize("what", ["cut", "nonsense", "gone", "a link elsewhere"])
    def test_a_container_that_spoils_its_region(self, node: Node, tmp_path: Path, what: str) -> None:
        path = node.directory() / "x.cache"
        layout_1(path, UUIDS[:1], OldProcess(pid=1))
        layout_1(node.directory(OTHER) / "y.cache", UUIDS[:1], OldProcess(pid=1))
        monitor = node.monitor()
        monitor.see()
        if what == "cut":
            os.truncate(path, 100)
        elif what == "nonsense":
            path.write_bytes(bytes(3_000_000))
        else:
            path.unlink()
            if what == "a link elsewhere":
                path.symlink_to(node.directory(OTHER) / "y.cache")
        monitor.see()
        assert [c.key.name for c in monitor.look.containers] == ["pod-ffff"]

    def test_a_pod_that_nobody_knows_has_no_metrics(self, node: Node) -> None:
        layout_1(node.directory() / "x.cache", UUIDS[:1], OldProcess(pid=1))
        node.names.clear()
        monitor = node.monitor()
        monitor.see()
        assert not monitor.look.containers
        node.names[UID] = PodKey("default", "late")
        monitor.see()
        assert [c.key.name for c in monitor.look.containers] == ["late"]


def _launch(path: Path) -> None:
    """What the library writes at a launch."""
    at = 2_008_904 if path.stat().st_size > 2_000_000 else 1_197_888
    with path.open("r+b") as file:
        file.seek(at)
        if int.from_bytes(file.read(4), "little", signed=True) >= 0:
            file.seek(at)
            file.write((2).to_bytes(4, "little"))


class TestNames:
    def test_from_the_process_that_watches_pods_to_the_one_that_measures(self, node: Node) -> None:
        node.directory()
        written, read = PodNames(node.tree), PodNames(node.tree)
        assert read.read(PodUid(UID)) is None
        written.write(lambda uid: node.names.get(uid))
        assert read.read(PodUid(UID)) == PodKey("default", "pod-0a1b")
        assert read.read(PodUid(OTHER)) is None
        (node.tree.vgpu / inherited.NAMES).write_text("{broken")
        assert read.read(PodUid(UID)) is None


class TestCleaningUp:
    def old(self, node: Node, now: float) -> Path:
        directory = node.directory()
        layout_1(directory / "x.cache", UUIDS[:1], OldProcess(pid=1))
        os.utime(directory, (now - KEEP_S - 1, now - KEEP_S - 1))
        return directory

    def test_what_nobody_needs_goes(self, node: Node) -> None:
        directory = self.old(node, 10_000)
        node.left.sweep({PodUid(UID)}, 10_000)
        assert directory.exists(), "its pod is there"
        node.left.sweep(set(), 10_000 - KEEP_S)
        assert directory.exists(), "a pod may be known later"
        own = grant("own", 0)
        node.store.create(own)
        node.store.link(own)
        node.left.sweep(set(), 10_000)
        assert not directory.exists()
        assert len(list(node.tree.containers.iterdir())) == 1, "our own are links"

    def test_a_busy_directory_is_never_removed(self, node: Node) -> None:
        directory = self.old(node, 10_000)
        with (directory / "x.cache").open("r+b") as file:
            held = mmap.mmap(file.fileno(), 4096)
        [container] = containers(node.tree)
        assert is_busy(container)
        node.left.sweep(set(), 10_000)
        assert directory.exists()
        held.close()
        assert not is_busy(container)
        node.left.sweep(set(), 10_000)
        assert not directory.exists()

    def test_in_doubt_it_is_busy(self, node: Node, tmp_path: Path) -> None:
        """A process that may not be asked is judged by its cgroup; one of which nothing is known may be anybody's."""
        self.old(node, 10_000)
        [container] = containers(node.tree)
        assert is_busy(container, proc=tmp_path / "no-proc")
        process = tmp_path / "proc" / "7"
        (process / "maps").mkdir(parents=True)  # unreadable even to root
        (process / "cgroup").write_text("0::/system.slice/sshd.service\n")
        assert not is_busy(container, proc=process.parent)
        (process / "cgroup").write_text(f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/x\n")
        assert is_busy(container, proc=process.parent)
        (process / "cgroup").unlink()
        (process / "cgroup").mkdir()
        assert is_busy(container, proc=process.parent)

    def test_other_peoples_files_are_left_alone(self, node: Node) -> None:
        for name in ("notes", "a_b_c", "_x", f"{UID}_UPPER"):
            (node.tree.containers / name).mkdir()
        (node.tree.containers / f"{UID}_file").write_text("")
        assert list(containers(node.tree)) == []
        shutil.rmtree(node.tree.containers)
        assert list(containers(node.tree)) == []
