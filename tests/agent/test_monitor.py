"""The monitor's looks over real regions, and over scripted ones where programs would have to run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from hami.agent.metrics import DeviceCollector
from hami.agent.monitor import LOOK_CLOSELY_S, Monitor
from hami.agent.overhead import ContainerProcesses, ProcessBytes
from hami.agent.regions import DeviceView, Policy, RegionFiles, RegionView
from hami.agent.shares import ProcessShares
from hami.alloc.feedback import Feedback
from hami.model.claim import MigInstance, MigReservation, Share
from hami.model.device import MigPlacement, NodeInventory
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.node._region import Region
from hami.node.grants import Grant, GrantStore, Holder, State, new_id
from hami.node.installed import hook_tree
from hami.vendors.nvidia import NVIDIA
from tests.agent.conftest import NODE, UUIDS, device


def grant(name: str, *indices: int, memory_mib: int = 3000) -> Grant:
    return Grant(
        id=new_id(),
        device_ids=frozenset(f"{UUIDS[i]}-0" for i in indices),
        made_unix=0,
        state=State.SETTLED,
        holder=Holder(pod_uid=PodUid(name), key=PodKey("default", name), container="main", position=0, containers=1),
        shares=tuple(Share(uuid=UUIDS[i], kind="NVIDIA", memory_mib=memory_mib, cores=30) for i in indices),
    )


@pytest.fixture
def store(tmp_path: Path) -> GrantStore:
    tree = hook_tree(str(tmp_path))
    for directory in (tree.grants, tree.containers):
        directory.mkdir(parents=True)
    return GrantStore(tree, None)


@dataclass
class FakeProbe:
    """A driver of two cards."""

    def inventory(self) -> NodeInventory:
        return NodeInventory(vendor=NVIDIA.name, devices=(device(0), device(1)))

    def usage(self) -> Mapping[DeviceUuid, tuple[int, int, int]]:
        return {UUIDS[0]: (1 << 30, 42, 7), UUIDS[1]: (-1, -1, -1)}

    def shares(self) -> ProcessShares:
        return {UUIDS[0]: {100: 20, 101: 5, 999: 50}}

    def process_bytes(self) -> ProcessBytes:
        return {}


class TestRegionFiles:
    def test_a_region_has_the_grants_devices_and_limits(self, store: GrantStore) -> None:
        made = grant("a", 0, 1)
        store.create(made)
        with RegionFiles(store) as regions:
            assert regions.view(made.id, reap=True) is None
            regions.ensure(made, 0)
            view = regions.view(made.id, reap=True)
            assert view is not None
            assert [(d.uuid, d.limit_bytes) for d in view.devices] == [(UUIDS[0], 3000 << 20), (UUIDS[1], 3000 << 20)]
            assert (view.priority, view.processes, view.blocked, view.idle_s) == (0, 0, False, None)
            assert not regions.alive(made.id)
        assert store.region(made.id).stat().st_mode & 0o666 == 0o666

    def test_another_amount_changes_the_limit_in_place(self, store: GrantStore) -> None:
        made = grant("a", 0)
        store.create(made)
        with RegionFiles(store) as regions:
            regions.ensure(made, 1)
            before = store.region(made.id).stat().st_ino
            share = replace(made.shares[0], memory_mib=500)
            regions.ensure(replace(made, shares=(share,)), 1)
            view = regions.view(made.id, reap=False)
            assert view is not None
            assert view.devices[0].limit_bytes == 500 << 20
            assert store.region(made.id).stat().st_ino == before

    def test_other_devices_need_another_region(self, store: GrantStore) -> None:
        made = grant("a", 0)
        store.create(made)
        with RegionFiles(store) as regions:
            regions.ensure(made, 1)
            regions.ensure(replace(grant("a", 1), id=made.id), 1)
            view = regions.view(made.id, reap=False)
            assert view is not None
            assert [d.uuid for d in view.devices] == [UUIDS[1]]

    def test_switches_reach_the_region(self, store: GrantStore) -> None:
        made = grant("a", 0)
        store.create(made)
        with RegionFiles(store) as regions, Region.open(_made(regions, made, store)) as seen:
            regions.apply(Feedback(id=made.id, blocked=True, sharing=True))
            assert (seen.snapshot().blocked, seen.snapshot().sharing) == (True, True)
            regions.apply(Feedback(id=made.id, blocked=False, sharing=False))
            assert (seen.snapshot().blocked, seen.snapshot().sharing) == (False, False)

    @pytest.mark.parametrize("what", ["cut", "emptied"])
    def test_a_container_that_cuts_its_region(self, store: GrantStore, what: str) -> None:
        """It may write the file as it likes; only its own metrics suffer, and not for long."""
        spoiled, good = grant("spoiled", 0), grant("good", 1)
        with RegionFiles(store) as regions:
            for each in (spoiled, good):
                store.create(each)
                regions.ensure(each, 1)
            monitor = Monitor(regions, lambda: (spoiled, good), FakeProbe(), NODE)
            monitor.see()
            os.truncate(store.region(spoiled.id), 4096 if what == "cut" else 0)
            monitor.see()
            monitor.see()
            assert [c.key.name for c in monitor.look.containers] == ["good"]
            assert not regions.alive(spoiled.id)
            assert regions.reassert(spoiled) == "the file of the shared region"
            monitor.see()
            assert [c.key.name for c in monitor.look.containers] == ["spoiled", "good"]
            assert _limits(store, spoiled) == [(UUIDS[0], 3000 << 20, 30)]

    @pytest.mark.parametrize("what", ["removed", "replaced", "linked", "a directory"])
    def test_a_container_that_hides_its_region(self, store: GrantStore, tmp_path: Path, what: str) -> None:
        """It has the directory mounted, not the file's other name, by which we know it."""
        made = grant("hidden", 0)
        store.create(made)
        path, elsewhere = store.region(made.id), tmp_path / "of-the-node"
        elsewhere.write_bytes(bytes(2_100_000))
        with RegionFiles(store) as regions:
            regions.ensure(made, 1)
            inode = path.stat().st_ino
            path.unlink()
            if what == "replaced":
                path.write_bytes(bytes(100))
            elif what == "linked":
                path.symlink_to(elsewhere)
            elif what == "a directory":
                (path / "more").mkdir(parents=True)
            monitor = Monitor(regions, lambda: (made,), FakeProbe(), NODE)
            monitor.see()
            assert [c.key.name for c in monitor.look.containers] == ["hidden"]
            assert regions.reassert(made) == "the file of the shared region"
            assert regions.reassert(made) == ""
            assert path.lstat().st_ino == inode
        assert elsewhere.stat().st_size == 2_100_000, "nobody made us touch another file"

    def test_words_that_a_container_changed(self, store: GrantStore) -> None:
        made = grant("tampered", 0, 1)
        store.create(made)
        with RegionFiles(store) as regions:
            regions.ensure(made, 1)
            assert regions.reassert(made) == ""
            with Region.open(store.region(made.id)) as inside:
                inside.set_limit(1, 0, 0)
                inside.set_priority(0)
            with store.region(made.id).open("r+b") as file:
                file.seek(64)  # the first device's name
                file.write(b"GPU-another")
            assert regions.reassert(made) == "the limits in the shared region"
            assert _limits(store, made) == [(UUIDS[0], 3000 << 20, 30), (UUIDS[1], 3000 << 20, 30)]
            with store.region(made.id).open("r+b") as file:
                file.write(bytes(4))  # the mark by which programs know a region
            assert regions.reassert(made) == "the limits in the shared region"
            with Region.open(store.region(made.id)) as inside:
                assert inside.snapshot().priority == 1

    def test_a_region_of_an_earlier_release_is_taken_over(self, store: GrantStore) -> None:
        made = grant("old", 0)
        store.create(made)
        with Region.create(store.region(made.id), UUIDS[:1], [1 << 20], [10]), RegionFiles(store) as regions:
            inode = store.region(made.id).stat().st_ino
            regions.ensure(made, 1)
            assert store.own_region(made.id).stat().st_ino == inode
            assert _limits(store, made) == [(UUIDS[0], 3000 << 20, 30)]

    def test_a_file_that_is_no_region_costs_itself_alone(self, store: GrantStore) -> None:
        good, bad = grant("good", 0), grant("bad", 1)
        with RegionFiles(store) as regions:
            for each in (good, bad):
                store.create(each)
            regions.ensure(good, 1)
            store.own_region(bad.id).write_bytes(b"nonsense")
            monitor = Monitor(regions, lambda: (bad, good), FakeProbe(), NODE)
            monitor.see()
            assert [c.key.name for c in monitor.look.containers] == ["good"]
            assert monitor.look.errors == 1


def _limits(store: GrantStore, grant: Grant) -> list[tuple[str, int, int]]:
    """What programs of the container find."""
    with Region.open(store.region(grant.id)) as region:
        return [(device.uuid, device.limit_bytes, device.cores) for device in region.snapshot().devices]


def _made(regions: RegionFiles, grant: Grant, store: GrantStore) -> Path:
    regions.ensure(grant, 1)
    return store.region(grant.id)


def _launch_as_hami_does(region: Region) -> None:
    """The activity word at its offset in layout 1.2."""
    with open(region.path, "r+b") as file:
        file.seek(2_008_904)
        file.write((2).to_bytes(4, "little"))


@dataclass
class ScriptedRegions:
    """Regions whose programs the test plays."""

    views: dict[str, RegionView] = field(default_factory=dict)
    verdicts: dict[str, Feedback] = field(default_factory=dict)
    corrections: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    amended_ns: int = 0
    loans: dict[tuple[str, int], int] = field(default_factory=dict)

    def view(self, grant_id: str, *, reap: bool) -> RegionView | None:
        return self.views.get(grant_id)

    def apply(self, verdict: Feedback) -> None:
        self.verdicts[verdict.id] = verdict

    def correct(self, grant_id: str, device: int, *, permille: int, tenants: int, amend_ns: int) -> None:
        self.corrections[grant_id, device] = permille, tenants
        self.amended_ns += amend_ns

    def lend(self, grant_id: str, device: int, percent: int) -> None:
        self.loans[grant_id, device] = percent

    def processes(self, grant_id: str) -> ContainerProcesses | None:
        return None

    def observe(self, grant_id: str, slot: int, device: int, held_bytes: int) -> None:
        raise AssertionError("nobody told of a process")

    def expect_context(self, grant_id: str, device: int, context_bytes: int) -> None:
        raise AssertionError("nobody told of a context")

    def launch(self, grant: Grant, launches: int, busy_ns: int, priority: int = 1, pids: tuple[int, ...] = ()) -> None:
        """The container has launched this much so far."""
        self.views[grant.id] = RegionView(
            devices=tuple(
                DeviceView(
                    uuid=share.uuid,
                    limit_bytes=share.memory_mib << 20,
                    cores=share.cores,
                    used_bytes=600,
                    context_bytes=100,
                    module_bytes=200,
                    swapped_bytes=50,
                    launches=launches,
                    charged_ns=busy_ns,
                    waited_ns=5_000_000_000,
                    refused=3,
                )
                for share in grant.shares
            ),
            processes=1,
            priority=priority,
            blocked=False,
            idle_s=1.5,
            sharing=True,
            host_pids=pids,
        )


class TestLooks:
    def test_containers_share_a_device_only_while_both_use_it(self) -> None:
        now, regions = [100.0], ScriptedRegions()
        one, two, apart = grant("one", 0), grant("two", 0), grant("apart", 1)
        monitor = Monitor(regions, lambda: (one, two, apart), FakeProbe(), NODE, clock=lambda: now[0])

        def look(*counts: int) -> list[bool]:
            now[0] += 0.2
            for each, launches in zip((one, two, apart), counts, strict=True):
                regions.launch(each, launches, 0)
            monitor.see()
            return [regions.verdicts[each.id].sharing for each in (one, two, apart)]

        assert look(5, 5, 5) == [False, False, False], "old counters are no activity"
        assert look(6, 5, 6) == [False, False, False]
        assert look(7, 6, 7) == [True, True, False]
        now[0] += 5
        assert look(8, 6, 8) == [False, False, False]

    def test_low_priority_waits_for_high(self) -> None:
        now, regions = [100.0], ScriptedRegions()
        high, low = grant("high", 0), grant("low", 0)
        monitor = Monitor(regions, lambda: (high, low), FakeProbe(), NODE, clock=lambda: now[0])
        for launches in (1, 2):
            now[0] += 0.2
            regions.launch(high, launches, 0, priority=0)
            regions.launch(low, launches, 0, priority=1)
            monitor.see()
        assert not regions.verdicts[high.id].blocked
        assert regions.verdicts[low.id].blocked

    def test_the_share_of_device_time(self) -> None:
        now, regions = [100.0], ScriptedRegions()
        one = grant("one", 0)
        monitor = Monitor(regions, lambda: (one,), FakeProbe(), NODE, clock=lambda: now[0])
        for tick in range(11):
            regions.launch(one, tick, tick * 60_000_000)
            monitor.see()
            now[0] += 0.2
        assert monitor.look.containers[0].busy_percent == pytest.approx(30, abs=0.1)

    def test_the_drivers_figures_correct_charges_beside_a_neighbour(self) -> None:
        now, regions = [100.0], ScriptedRegions()
        one, two = grant("one", 0), grant("two", 0)
        probe = FakeProbe()
        monitor = Monitor(regions, lambda: (one, two), probe, NODE, clock=lambda: now[0])
        charged_ns = 0
        for second in range(5):
            # Measured to be half of the time, while its two processes obtained a quarter.
            charged_ns += 500_000 * regions.corrections.get((one.id, 0), (1000, 0))[0]
            regions.launch(one, second, charged_ns, pids=(100, 101))
            regions.launch(two, second, 0)
            monitor.see(shares=probe.shares())
            now[0] += 1
        permille, told_tenants = regions.corrections[one.id, 0]
        assert 500 < permille < 900, "on the way to a half"
        assert told_tenants == 2
        assert -4 * 250_000_000 < regions.amended_ns < -2 * 250_000_000
        assert regions.corrections[two.id, 0] == (1000, 2), "nobody names its processes"
        assert monitor.look.containers[0].busy_percent == 25
        assert monitor.look.containers[1].busy_percent == 0

    def test_unused_share_is_lent_while_the_look_is_close(self) -> None:
        now, regions = [100.0], ScriptedRegions()
        one, two = grant("one", 0), grant("two", 0)
        monitor = Monitor(regions, lambda: (one, two), FakeProbe(), NODE, clock=lambda: now[0])
        for look in range(60):
            for each in (one, two):
                regions.launch(each, look, look * 15_000_000)
                view = regions.views[each.id]
                device = replace(view.devices[0], waited_ns=look * 10_000_000, stamp_ns=look)
                regions.views[each.id] = replace(view, devices=(device,), policy=Policy.DEFAULT)
            monitor.see()
            now[0] += 0.05
        assert regions.loans == {(one.id, 0): 48, (two.id, 0): 48}

    def test_blocks_begin_and_end_within_two_tenths(self) -> None:
        """On a busy high priority: its own pauses are short, so a longer one is its end."""
        now, regions = [100.0], ScriptedRegions()
        high, low = grant("high", 0), grant("low", 0)
        monitor = Monitor(regions, lambda: (high, low), FakeProbe(), NODE, clock=lambda: now[0])
        blocked = []
        for look in range(200):
            regions.launch(high, min(max(look, 20), 160), 0, priority=0)
            regions.launch(low, look, 0, priority=1)
            monitor.see()
            blocked.append(regions.verdicts[low.id].blocked)
            now[0] += LOOK_CLOSELY_S
        assert blocked.index(True) == 21
        assert (len(blocked) - blocked[::-1].index(True) - 160) * LOOK_CLOSELY_S <= 0.2
        assert all(blocked[21:161])

    def test_launches_of_a_library_that_does_not_count_them(self, store: GrantStore) -> None:
        """HAMi's libraries set a word that the monitor counts down, and nothing else."""
        one, two = grant("one", 0), grant("two", 0)
        with RegionFiles(store) as regions:
            for each in (one, two):
                store.create(each)
                regions.ensure(each, 1)
            now = [100.0]
            monitor = Monitor(regions, lambda: (one, two), FakeProbe(), NODE, clock=lambda: now[0])
            opened = [Region.open(store.region(each.id)) for each in (one, two)]

            def look(*launching: Region) -> list[bool]:
                for region in launching:
                    _launch_as_hami_does(region)
                monitor.see()
                now[0] += 0.2
                return [region.snapshot().sharing for region in opened]

            assert look() == [False, False], "a new region's word is no launch"
            assert look(opened[0]) == [False, False]
            assert look(*opened) == [True, True]
            now[0] += 5
            assert look(opened[0]) == [False, False]
            for region in opened:
                region.close()

    def test_only_settled_grants_are_looked_at(self) -> None:
        regions = ScriptedRegions()
        waiting = replace(grant("one", 0), state=State.TENTATIVE)
        regions.launch(waiting, 1, 1)
        monitor = Monitor(regions, lambda: (waiting,), FakeProbe(), NODE)
        monitor.see()
        assert monitor.look.containers == ()

    def test_what_the_driver_counts_outranks_the_region(self) -> None:
        """Contexts are in the driver's figure alone."""
        regions, one, other = ScriptedRegions(), grant("one", 0), grant("other", 1)
        for each in (one, other):
            regions.launch(each, 1, 1)
        counted = {one.id: {UUIDS[0]: 1000}}
        monitor = Monitor(regions, lambda: (one, other), FakeProbe(), NODE, held=lambda g: counted.get(g.id, {}))
        assert monitor.see_held() == counted
        monitor.hold(monitor.see_held())
        monitor.see()
        found = [(c.used_bytes, c.context_bytes, c.module_bytes, c.buffer_bytes) for c in monitor.look.containers]
        assert found == [(1000, 500, 200, 300), (600, 100, 200, 300)]


class TestMetrics:
    def text(self, *, legacy: bool = False) -> str:
        regions = ScriptedRegions()
        one = grant("one", 1)
        regions.launch(one, 1, 1)
        monitor = Monitor(regions, lambda: (one,), FakeProbe(), NODE)
        monitor.see(monitor.see_hosts())
        registry = CollectorRegistry()
        registry.register(DeviceCollector(monitor, simulated=True, legacy=legacy))
        return generate_latest(registry).decode()

    def test_hamis_names_and_labels(self) -> None:
        text = self.text()
        host = f'device_index="0",device_type="NVIDIA-NVIDIA A100",device_uuid="{UUIDS[0]}",node="{NODE}",zone="vGPU"'
        assert f"hami_host_gpu_memory_used_bytes{{{host}}} 1.073741824e+09" in text
        assert f"hami_host_gpu_utilization_ratio{{{host}}} 42.0" in text
        assert 'hami_host_gpu_utilization_ratio{device_index="1",device_type="NVIDIA-NVIDIA A100"' not in text
        container = f'container="main",device_uuid="{UUIDS[1]}",namespace="default",pod="one",vdevice_index="0"'
        for name, value in (
            ("hami_vgpu_memory_used_bytes", "600.0"),
            ("hami_vgpu_memory_limit_bytes", "3.145728e+09"),
            ("hami_container_device_memory_bytes", "600.0"),
            ("hami_container_last_kernel_elapsed_seconds", "1.5"),
            ("hami_vgpu_memory_context_bytes", "100.0"),
            ("hami_vgpu_memory_module_bytes", "200.0"),
            ("hami_vgpu_memory_buffer_bytes", "300.0"),
        ):
            assert f'{name}{{{container},zone="vGPU"}} {value}' in text

    def test_our_own_series_say_that_the_devices_are_simulated(self) -> None:
        text = self.text()
        own = [line for line in text.splitlines() if 'simulated="true"' in line]
        assert any(line.startswith("hami_container_throttled_seconds_total{") and line.endswith(" 5.0") for line in own)
        assert any(line.startswith("hami_container_oom_rejections_total{") and line.endswith(" 3.0") for line in own)
        assert any(line.startswith("hami_container_compute_allowed_ratio{") and line.endswith(" 0.3") for line in own)
        assert any(line.startswith("hami_container_memory_swapped_bytes{") and line.endswith(" 50.0") for line in own)
        assert not any(line.startswith("hami_vgpu") for line in own)

    def test_mig_instances_are_told_without_a_region(self) -> None:
        made = MigInstance(uuid="MIG-1", gpu_instance=3, compute_instance=0)
        reservation = MigReservation(
            container=0,
            device=1,
            uuid=UUIDS[0],
            profile="1g.10gb",
            placement=MigPlacement(start=4, size=1),
            instance=made,
        )
        cut = replace(grant("cut", 0), mig=(reservation, replace(reservation, device=0, instance=None)))
        waiting = replace(cut, id=new_id(), state=State.TENTATIVE)
        monitor = Monitor(ScriptedRegions(), lambda: (cut, waiting), FakeProbe(), NODE)
        monitor.see()
        registry = CollectorRegistry()
        registry.register(DeviceCollector(monitor, simulated=True, legacy=True))
        lines = [
            line for line in generate_latest(registry).decode().splitlines() if "1g.10gb" in line or "MigInfo{" in line
        ]
        assert lines == [
            'hami_mig_device_info{compute_instance_id="0",container="main",'
            f'device_uuid="{UUIDS[0]}",gpu_instance_id="3",mig_uuid="MIG-1",namespace="default",pod="cut",'
            'profile="1g.10gb",vdevice_index="1",zone="vGPU"} 1.0',
            f'MigInfo{{ctrname="main",deviceuuid="{UUIDS[0]}",instanceid="3",podname="cut",podnamespace="default",'
            'vdeviceid="1",zone="vGPU"} 1.0',
        ]

    def test_old_names_only_when_asked_for(self) -> None:
        assert "vGPU_device_memory_usage_in_bytes" not in self.text()
        text = self.text(legacy=True)
        labels = f'ctrname="main",deviceuuid="{UUIDS[1]}",podname="one",podnamespace="default",vdeviceid="0"'
        assert f'vGPU_device_memory_usage_in_bytes{{{labels},zone="vGPU"}} 600.0' in text
        assert "HostGPUMemoryUsage{" in text
        parts = f'context="100",ctrname="main",data="300",deviceuuid="{UUIDS[1]}",module="200",offset="0"'
        assert f"Device_memory_desc_of_container{{{parts}," in text
