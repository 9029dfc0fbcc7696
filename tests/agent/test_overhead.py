"""Contexts and code by the driver's figures: scripted books, and programs on a simulated machine under the monitor."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hami.agent.monitor import Monitor
from hami.agent.overhead import ContainerProcesses, Overhead, ProcessView
from hami.agent.regions import RegionFiles
from hami.model.claim import Share
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.model.settings import NvidiaConfig
from hami.node.grants import Grant, GrantStore, Holder, State, new_id
from hami.node.installed import hook_tree
from hami.node.probe_nvidia import NvidiaProbe
from hami.node.simulated import native_dir
from tests.agent.conftest import NODE
from tests.interpose.container import Probe
from tests.interpose.simulation import Simulation
from tests.node.simulated_nvml import driver

A, B = DeviceUuid("GPU-a"), DeviceUuid("GPU-b")
MIB = 2**20
CONTEXT_MIB = 130


def process(slot: int, pid: int, *used: int, module: int = 0) -> ProcessView:
    return ProcessView(slot=slot, host_pid=pid, used_bytes=used, module_bytes=(module,) * len(used))


@dataclass
class ScriptedBooks:
    """Containers whose processes the test plays."""

    containers: dict[str, ContainerProcesses] = field(default_factory=dict)
    observed: dict[tuple[str, int, int], int] = field(default_factory=dict)
    expected: dict[tuple[str, int], int] = field(default_factory=dict)

    def put(self, grant_id: str, *processes: ProcessView, devices: tuple[DeviceUuid, ...] = (A,)) -> ContainerProcesses:
        self.containers[grant_id] = ContainerProcesses(devices=devices, processes=processes)
        return self.containers[grant_id]

    def processes(self, grant_id: str) -> ContainerProcesses | None:
        return self.containers.get(grant_id)

    def observe(self, grant_id: str, slot: int, device: int, held_bytes: int) -> None:
        self.observed[grant_id, slot, device] = held_bytes

    def expect_context(self, grant_id: str, device: int, context_bytes: int) -> None:
        self.expected[grant_id, device] = context_bytes


def test_each_process_on_each_device_gets_its_own_figure() -> None:
    books = ScriptedBooks()
    before = books.put("g", process(0, 7, 100, 200), process(1, 8, 0, 0, module=30), devices=(A, B))
    seen = Overhead(books).learn("g", before, {A: {7: 400, 8: 290, 99: 5}, B: {7: 500}})
    assert books.observed == {("g", 0, 0): 400, ("g", 0, 1): 500, ("g", 1, 0): 290}
    assert seen == {A: 260, B: 300}, "code is no context"


@pytest.mark.parametrize(
    ("before", "after", "observed", "seen"),
    [
        (100, 100, 400, {A: 300}),
        (150, 100, 350, {}),  # freed meanwhile: those 50 are no overhead
        (100, 150, 400, {}),
    ],
)
def test_memory_that_comes_and_goes_while_the_driver_answers(
    before: int, after: int, observed: int, seen: dict[DeviceUuid, int]
) -> None:
    books = ScriptedBooks()
    earlier = books.put("g", process(0, 7, before))
    books.put("g", process(0, 7, after))
    assert Overhead(books).learn("g", earlier, {A: {7: 400}}) == seen
    assert books.observed == {("g", 0, 0): observed}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (process(0, 7, 100), process(0, 8, 100)),  # another process in its slot
        (process(0, 0, 100), process(0, 0, 100)),  # its pid is not known yet
        (process(0, 9, 100), process(0, 9, 100)),  # the driver does not name it
    ],
)
def test_who_cannot_be_told_apart_keeps_its_estimate(earlier: ProcessView, later: ProcessView) -> None:
    books = ScriptedBooks()
    before = books.put("g", earlier)
    books.put("g", later)
    assert Overhead(books).learn("g", before, {A: {7: 400, 8: 400, 0: 400}}) == {}
    assert books.observed == {}


def test_a_container_that_got_other_devices_meanwhile() -> None:
    books = ScriptedBooks()
    before = books.put("g", process(0, 7, 100))
    books.put("g", process(0, 7, 100), devices=(B,))
    assert Overhead(books).learn("g", before, {A: {7: 400}, B: {7: 400}}) == {}
    assert books.observed == {}


def test_new_contexts_are_counted_like_the_smallest_seen() -> None:
    """A process may have several contexts, and then says nothing about one."""
    books = ScriptedBooks()
    overhead = Overhead(books)
    overhead.expect("idle", (B, A))
    assert books.expected == {}
    overhead.remember([{A: 600}, {A: 290, B: 310}, {}])
    overhead.remember([{B: 320}])
    overhead.expect("idle", (B, A))
    assert books.expected == {("idle", 0): 320, ("idle", 1): 290}


def _grant(machine: Simulation, memory_mib: int = 1000) -> Grant:
    return Grant(
        id=new_id(),
        device_ids=frozenset(),
        made_unix=0,
        state=State.SETTLED,
        holder=Holder(pod_uid=PodUid("u"), key=PodKey("default", "p"), container="main", position=0, containers=1),
        shares=(Share(uuid=machine.machine.devices[0].uuid, kind="NVIDIA", memory_mib=memory_mib, cores=0),),
    )


def _hold(machine: Simulation, store: GrantStore, grant: Grant, mib: int) -> Probe:
    library = {"LD_PRELOAD": str(native_dir() / "libvgpu.so")}
    region = {"CUDA_DEVICE_MEMORY_SHARED_CACHE": str(store.region(grant.id))}
    return Probe(("hold", mib, 30), {**machine.environment(), **library, **region})


def test_programs_under_the_monitor(tmp_path: Path) -> None:
    """The estimate of 300 MiB gives way to what the simulated driver takes, also where nobody has run yet."""
    device = {"model": "NVIDIA A100-SXM4-80GB", "memory_mib": 4096, "context_mib": CONTEXT_MIB}
    machine = Simulation(tmp_path, devices=[device])
    tree = hook_tree(str(tmp_path / "hook"))
    for directory in (tree.grants, tree.containers):
        directory.mkdir(parents=True)
    store = GrantStore(tree, None)
    one, idle = _grant(machine), _grant(machine)
    with driver(machine), NvidiaProbe(NvidiaConfig(), sysfs=None) as probe, RegionFiles(store) as regions:
        for each in (one, idle):
            store.create(each)
            regions.ensure(each, 1)
        monitor = Monitor(regions, lambda: (one, idle), probe, NODE)
        holding = _hold(machine, store, one, 200)
        try:
            deadline = time.monotonic() + 20
            while monitor.look.containers == () or monitor.look.containers[0].context_bytes != CONTEXT_MIB * MIB:
                assert time.monotonic() < deadline, monitor.look
                monitor.see()
                monitor.see_overhead()
                time.sleep(0.05)
            monitor.see()
            seen = monitor.look.containers[0]
            assert seen.used_bytes == (200 + CONTEXT_MIB) * MIB
            assert (seen.buffer_bytes, seen.module_bytes, seen.swapped_bytes) == (200 * MIB, 0, 0)
        finally:
            holding.kill()
        second = _hold(machine, store, idle, 100)
        try:
            deadline = time.monotonic() + 20
            while monitor.look.containers[1].buffer_bytes != 100 * MIB:
                assert time.monotonic() < deadline, monitor.look
                monitor.see()
                time.sleep(0.05)
            assert monitor.look.containers[1].context_bytes == CONTEXT_MIB * MIB, "by what was seen in the other"
        finally:
            second.kill()


def test_a_region_that_is_none_costs_itself_alone(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    tree = hook_tree(str(tmp_path / "hook"))
    for directory in (tree.grants, tree.containers):
        directory.mkdir(parents=True)
    store = GrantStore(tree, None)
    bad = replace(_grant(machine), id=new_id())
    store.create(bad)
    store.own_region(bad.id).write_bytes(b"nonsense")
    with driver(machine), NvidiaProbe(NvidiaConfig(), sysfs=None) as probe, RegionFiles(store) as regions:
        monitor = Monitor(regions, lambda: (bad,), probe, NODE)
        monitor.see_overhead()
        monitor.see()
        assert monitor.look.errors == 2
