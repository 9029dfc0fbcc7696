"""AMD's GPUs through the agent, from the node's annotation to what a container gets and who has what afterwards.

The kubelet is on real sockets, the pods are bound by the engine on a scripted API server. The GPUs are a stand-in for
AMD's binding: no AMD GPU was at hand, and what a program makes of all this on hardware is not tested.
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from grpclib.exceptions import GRPCError

from hami.agent.amd import AmdService
from hami.agent.announce import Announcer
from hami.agent.compute_units import ComputeUnits
from hami.agent.podresources import PodResources
from hami.agent.writes import PodWriter
from hami.alloc.ledger import Ledger
from hami.alloc.record import read_node, read_pod
from hami.kube.client import Kube
from hami.model.claim import Share
from hami.model.vendor import Registry
from hami.model.wire import pod as keys
from hami.node.probe_amd import AmdProbe, NotInstalled
from hami.vendors.amd import AMD
from tests.agent.conftest import NODE
from tests.agent.fake_kubelet import FakeKubelet, Json
from tests.agent.scheduling import bind
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop
from tests.node.amd_stand_in import MI300X, StandIn, gpu

pytestmark = pytest.mark.anyio
KNOWN = Registry((AMD,))
EXAMPLES = Path(__file__).parents[2] / "examples"
UUIDS = tuple(f"GPU-1f2e3d4c5b6a798{i}" for i in range(4))


def asking(name: str, count: int = 1, memory: int | None = 4096, cores: int | None = 25) -> Json:
    """A container that asks for a share of `count` GPUs."""
    limits = {"amd.com/gpu": count, "amd.com/gpumem": memory, "amd.com/gpucores": cores}
    written = {key: str(value) for key, value in limits.items() if value is not None}
    return {"name": name, "image": "x", "resources": {"limits": written, "requests": written}}


def pod(name: str, *containers: Json, init: Sequence[Json] = ()) -> Json:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": {}},
        "spec": {
            "containers": list(containers) or [asking("main")],
            **({"initContainers": list(init)} if init else {}),
        },
        "status": {"phase": "Pending"},
    }


def units(answer: Any, position: int = 0) -> set[int]:
    """The compute units that a container may use of one of its GPUs."""
    masks = dict(entry.split(":") for entry in answer.envs["HSA_CU_MASK"].split(";"))
    ranges = [entry.split("-") for entry in masks[str(position)].split(",")]
    return {unit for low, high in ranges for unit in range(int(low), int(high) + 1)}


def nodes(answer: Any) -> list[str]:
    assert all(node.host_path == node.container_path and node.permissions == "rw" for node in answer.devices)
    return [node.host_path for node in answer.devices]


@dataclass
class Node:
    """A machine with AMD GPUs, its kubelet, and what schedules onto it."""

    root: Path
    api: FakeApi
    kube: Kube
    kubelet: FakeKubelet
    library: StandIn
    ledger: Ledger

    @asynccontextmanager
    async def agent(self, make: Callable[[], AmdProbe] | None = None, *, wanted: bool = False) -> AsyncIterator[None]:
        """The agent's part for AMD, until the block ends."""
        podlist = PodResources(self.kubelet.pod_resources, AMD.resources.count, timeout_s=2)
        writer, announcer = PodWriter(self.kube, NODE, lambda: 0.0), Announcer(self.kube, NODE, lambda: 0.0)
        service = AmdService(
            AMD,
            self.kube,
            announcer,
            podlist,
            writer,
            self.kubelet.directory,
            self.root,
            probe=make or (lambda: AmdProbe(self.library)),
            wanted=wanted,
            look_every_s=0.02,
            look_for_s=0.02,
        )
        async with anyio.create_task_group() as tasks:
            for task in (announcer.follow, announcer.run, writer.run, service.run):
                tasks.start_soon(task)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                podlist.close()

    async def registered(self, ids: int) -> None:
        """Until the kubelet counts so many ids and schedulers know the node's GPUs."""
        await self.until(lambda: len(self.kubelet.devices) == ids and AMD.node_key in self.notes())
        self.refresh()

    def refresh(self) -> None:
        """The scheduler looks at the node."""
        document = self.api.get("nodes", NODE)
        capacity = {AMD.resources.count: str(len(self.kubelet.devices))}
        record, problems = read_node({**document, "status": {"capacity": capacity, "allocatable": capacity}}, KNOWN)
        assert not problems
        self.ledger.put_node(record)

    async def run(self, document: Json) -> dict[str, Any]:
        """Bind a pod and let the kubelet admit it; the answers by container."""
        self.bind(document)
        return await self.admit(document["metadata"]["name"])

    def bind(self, document: Json) -> tuple[tuple[Share, ...], ...]:
        return bind(document, AMD, self.ledger, self.api)

    async def admit(self, name: str) -> dict[str, Any]:
        await self.kubelet.admit(self.api.get("pods", name, "default"))
        return {container: answer for (owner, container), answer in self.kubelet.answers.items() if owner == name}

    def end(self, name: str) -> None:
        """The pod is deleted and its containers are gone."""
        document = self.api.get("pods", name, "default")
        self.kubelet.forget(document)
        self.api.remove("pods", name, "default")
        self.ledger.drop_pod(document["metadata"]["uid"])

    def notes(self, name: str = "") -> dict[str, str]:
        document = self.api.get("pods", name, "default") if name else self.api.get("nodes", NODE)
        found: dict[str, str] = document["metadata"].get("annotations", {})
        return found

    def health(self) -> dict[str, set[str]]:
        """What the kubelet knows, by GPU."""
        found: dict[str, set[str]] = {}
        for one, health in self.kubelet.devices.items():
            found.setdefault(one.rpartition("-")[0], set()).add(health)
        return found

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not condition():  # noqa: ASYNC110 - another task brings it about
                await anyio.sleep(0.005)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with (
        guarded_loop(),
        FakeApi.serving() as api,
        Kube.connect(api.kubeconfig(tmp_path)) as kube,
        FakeKubelet.running(tmp_path, AMD.resources.count) as kubelet,
    ):
        api.put("nodes", {"metadata": {"name": NODE}})
        yield Node(tmp_path, api, kube, kubelet, StandIn(gpu(0), gpu(1)), Ledger(KNOWN))


async def test_what_schedulers_and_the_kubelet_are_told(node: Node) -> None:
    async with node.agent():
        await node.registered(20)
    assert json.loads(node.notes()[AMD.node_key]) == [
        {
            "id": UUIDS[i],
            **({"index": i} if i else {}),
            "count": 10,
            "devmem": 196608,
            "devcore": 304,
            "type": "AMD Instinct MI300X",
            **({"numa": i} if i else {}),
            "mode": "hami-core",
            "health": True,
        }
        for i in range(2)
    ]
    # Schedulers must lock the node for AMD's pods, as they do for its vendor's plug-in.
    assert keys.AGENT_PROTOCOL not in node.notes()
    assert node.health() == {uuid: {"Healthy"} for uuid in UUIDS[:2]}
    (request,) = node.kubelet.registrations
    assert (request.resource_name, request.options.pre_start_required) == ("amd.com/gpu", False)
    assert node.library.calls[-1] == "amdsmi_shut_down"


async def test_two_pods_share_a_gpu(node: Node) -> None:
    async with node.agent():
        await node.registered(20)
        first = (await node.run(pod("a")))["main"]
        second = (await node.run(pod("b", asking("main", cores=50))))["main"]
        for name in ("a", "b"):
            notes = node.notes(name)
            assert notes[keys.BIND_PHASE] == keys.SUCCESS
            assert not notes[AMD.pending_key].strip(";")
            assert f"{UUIDS[1]},AMD Instinct MI300X,4096," in notes[AMD.done_key]
            assert [i.rpartition("-")[0] for i in node.kubelet.ids[name, "main"]] == [UUIDS[1]]
        assert keys.NODE_LOCK not in node.notes()
        for answer in (first, second):
            assert answer.envs["ROCR_VISIBLE_DEVICES"] == UUIDS[1]
            assert answer.envs["HIP_DEVICE_MEMORY_LIMIT"] == "4096m"
            assert answer.envs["AMD_VISIBLE_DEVICES"] == "void"
            assert nodes(answer) == ["/dev/kfd", "/dev/dri/card2", "/dev/dri/renderD129"]
            assert not answer.mounts
        assert units(first) == set(range(76))
        assert units(second) == set(range(76, 228))
        # What one leaves the next one gets.
        node.end("a")
        third = (await node.run(pod("c", asking("main", cores=40))))["main"]
        assert units(third) == {*range(76), *range(228, 273)}


async def test_the_example(node: Node) -> None:
    """Its container asks for numbers, where pods on the API server have texts."""
    document = yaml.safe_load((EXAMPLES / "amd/default_use.yaml").read_text(encoding="utf-8"))
    document["metadata"] |= {"namespace": "default", "uid": "uid-example", "annotations": {}}
    async with node.agent():
        await node.registered(20)
        answer = (await node.run({**document, "status": {"phase": "Pending"}}))["main"]
    assert answer.envs["HIP_DEVICE_MEMORY_LIMIT"] == "4000m"
    assert len(units(answer)) == 304 // 4
    assert len(nodes(answer)) == 3


async def test_several_gpus_and_whole_ones(node: Node) -> None:
    """A GPU that a container has all of needs no mask."""
    node.library.gpus = (*node.library.gpus, gpu(2))
    async with node.agent():
        await node.registered(30)
        both = (await node.run(pod("a", asking("main", 2))))["main"]
        whole = (await node.run(pod("b", asking("main", memory=None, cores=None))))["main"]
    assert both.envs["ROCR_VISIBLE_DEVICES"] == f"{UUIDS[2]},{UUIDS[1]}"
    assert both.envs["HSA_CU_MASK"] == "0:0-75;1:0-75"
    assert nodes(both) == [
        "/dev/kfd",
        "/dev/dri/card3",
        "/dev/dri/renderD130",
        "/dev/dri/card2",
        "/dev/dri/renderD129",
    ]
    assert whole.envs["ROCR_VISIBLE_DEVICES"] == UUIDS[0]
    assert whole.envs["HIP_DEVICE_MEMORY_LIMIT"] == "196608m"
    assert "HSA_CU_MASK" not in whole.envs
    assert nodes(whole) == ["/dev/kfd", "/dev/dri/card1", "/dev/dri/renderD128"]


async def test_several_containers_of_a_pod(node: Node) -> None:
    """Init containers have ended when the others run, so these may have their units; side by side nobody shares any."""
    node.library.gpus = (gpu(0),)
    plain = {"name": "plain", "image": "x"}
    document = pod("a", plain, asking("one", cores=50), asking("two", cores=50), init=[asking("first", cores=90)])
    async with node.agent():
        await node.registered(10)
        answers = await node.run(document)
    assert answers.keys() == {"first", "one", "two"}
    assert units(answers["first"]) == set(range(273))
    assert units(answers["one"]) == set(range(152))
    assert units(answers["two"]) == set(range(152, 304))
    assert node.notes("a")[keys.BIND_PHASE] == keys.SUCCESS
    assert keys.NODE_LOCK not in node.notes()


async def test_the_lock_is_held_until_the_last_container(node: Node) -> None:
    node.library.gpus = (gpu(0),)
    async with node.agent():
        await node.registered(10)
        node.bind(pod("a", asking("one"), asking("two")))
        whole = node.api.get("pods", "a", "default")
        half = {**whole, "spec": {**whole["spec"], "containers": whole["spec"]["containers"][:1]}}
        await node.kubelet.admit(half)
        assert node.notes("a")[keys.BIND_PHASE] == keys.ALLOCATING
        assert node.notes("a")[AMD.pending_key].startswith(";")
        assert keys.NODE_LOCK in node.notes()


async def test_compute_units_in_pairs(node: Node) -> None:
    """A share of an odd number of RDNA's units is rounded down to pairs; one unit is a pair."""
    node.library.gpus = (gpu(0, asic={**MI300X, "target_graphics_version": "gfx1100", "num_compute_units": 96}),)
    async with node.agent():
        await node.registered(10)
        shares = [
            units((await node.run(pod(name, asking("main", cores=c))))["main"]) for name, c in [("a", 26), ("b", 1)]
        ]
        rest = (await node.run(pod("c", asking("main", cores=72))))["main"]
    # 24.96 and 0.96 percent of 96 units are 24 and at least 1.
    assert shares == [set(range(24)), {24, 25}]
    assert units(rest) == set(range(26, 94))


async def test_amounts_of_another_scheduler_that_are_no_limit(node: Node) -> None:
    """A mask of no unit, or a limit of no byte, would stop every program."""
    async with node.agent():
        await node.registered(20)
        node.bind(pod("a"))
        document = node.api.get("pods", "a", "default")
        for key in (AMD.pending_key, AMD.done_key):
            document["metadata"]["annotations"][key] = f"{UUIDS[0]},AMD Instinct MI300X,0,0:;"
        node.api.put("pods", document)
        answer = (await node.admit("a"))["main"]
    assert answer.envs == {"ROCR_VISIBLE_DEVICES": UUIDS[0], "AMD_VISIBLE_DEVICES": "void"}
    assert not list((node.root / "amd").glob("*"))


async def test_texts_of_a_scheduler_that_leaves_containers_out(node: Node) -> None:
    """HAMi 2.10 writes nothing for containers without a device: the second piece is the fourth container's."""
    plain = {"name": "plain", "image": "x"}
    document = pod(
        "a", plain, asking("one"), plain | {"name": "too"}, asking("two", cores=50), init=[plain | {"name": "i"}]
    )
    async with node.agent():
        await node.registered(20)
        node.bind(document)
        bound = node.api.get("pods", "a", "default")
        notes = bound["metadata"]["annotations"]
        short = "".join(f"{piece};" for piece in notes[AMD.done_key].split(";") if piece)
        assert notes[AMD.done_key].startswith(";;")
        notes |= {AMD.done_key: short, AMD.pending_key: short}
        node.api.put("pods", bound)
        answers = await node.admit("a")
        assert {name: len(units(answer)) for name, answer in answers.items()} == {"one": 76, "two": 152}
        assert node.notes("a")[AMD.pending_key] == ";;"
        assert node.notes("a")[keys.BIND_PHASE] == keys.SUCCESS
        assert keys.NODE_LOCK not in node.notes()


async def test_units_outlive_the_agent(node: Node) -> None:
    node.library.gpus = (gpu(0),)
    async with node.agent():
        await node.registered(10)
        await node.run(pod("a"))
    node.kubelet.devices = {}
    async with node.agent():
        await node.registered(10)
        second = (await node.run(pod("b")))["main"]
    assert units(second) == set(range(76, 152))


async def test_a_spoiled_file_of_units_is_told(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    (node.root / "amd").mkdir()
    (node.root / "amd/units.json").write_text('{"GPU-1": {"uid": [0]}}')
    async with node.agent():
        await node.registered(20)
        assert units((await node.run(pod("a")))["main"]) == set(range(76))
    assert [record.message for record in caplog.records if "units.json cannot be read" in record.message]


async def test_an_ill_gpu_takes_no_more_pods(node: Node) -> None:
    async with node.agent():
        await node.registered(20)
        node.library.gpus = (gpu(0, ecc={"uncorrectable_count": 1}), gpu(1))
        await node.until(lambda: node.health() == {UUIDS[0]: {"Unhealthy"}, UUIDS[1]: {"Healthy"}})
        await node.until(lambda: "health" not in json.loads(node.notes()[AMD.node_key])[0])
        node.refresh()
        answer = (await node.run(pod("a")))["main"]
        assert answer.envs["ROCR_VISIBLE_DEVICES"] == UUIDS[1]


async def test_a_gpu_that_is_gone(node: Node) -> None:
    """It is neither on the node nor on the kubelet any more, and a pod that waits for it fails and lets the lock go."""
    async with node.agent():
        await node.registered(20)
        (share,) = node.bind(pod("a"))[0]
        assert share.uuid == UUIDS[1]
        node.library.gpus = (gpu(0), {})
        await node.until(lambda: node.health() == {UUIDS[0]: {"Healthy"}})
        await node.until(lambda: len(json.loads(node.notes()[AMD.node_key])) == 1)
        with pytest.raises(GRPCError, match=f"AMD GPU {UUIDS[1]} of pod default/a is not there"):
            await node.admit("a")
        assert node.notes("a")[keys.BIND_PHASE] == keys.FAILED
        assert keys.NODE_LOCK not in node.notes()
        assert read_pod(node.api.get("pods", "a", "default"), KNOWN)[0] is None
        node.end("a")
        node.refresh()
        answer = (await node.run(pod("b")))["main"]
        assert answer.envs["ROCR_VISIBLE_DEVICES"] == UUIDS[0]


async def test_a_gpu_that_goes_while_it_is_handed_out(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node.agent():
        await node.registered(20)
        node.bind(pod("a"))
        save = ComputeUnits.save

        def slowly(units: ComputeUnits) -> None:
            node.library.gpus = ()
            deadline = time.monotonic() + 10
            while node.kubelet.devices and time.monotonic() < deadline:
                time.sleep(0.01)
            save(units)

        monkeypatch.setattr(ComputeUnits, "save", slowly)
        with pytest.raises(GRPCError, match="went while it was handed out"):
            await node.admit("a")
        assert node.notes("a")[keys.BIND_PHASE] == keys.FAILED
        assert keys.NODE_LOCK not in node.notes()


async def test_the_last_gpu_that_is_gone(node: Node) -> None:
    async with node.agent():
        await node.registered(20)
        node.library.gpus = ()
        await node.until(lambda: node.notes()[AMD.node_key] == "[]" and not node.kubelet.devices)


async def test_a_driver_that_does_not_answer(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async with node.agent():
        await node.registered(20)
        node.library.loaded = False
        await node.until(lambda: node.health() == {uuid: {"Unhealthy"} for uuid in UUIDS[:2]})
        node.library.loaded = True
        await node.until(lambda: node.health() == {uuid: {"Healthy"} for uuid in UUIDS[:2]})
        await node.until(lambda: all(entry.get("health") for entry in json.loads(node.notes()[AMD.node_key])))
    told = [record.message for record in caplog.records if "cannot be looked at" in record.message]
    # Once for each text, not at each look.
    assert told == [
        "AMD's GPUs cannot be looked at: amdsmi: driver unloaded",
        "AMD's GPUs cannot be looked at: amdsmi: driver not loaded",
    ]


async def test_a_figure_that_cannot_be_read_is_an_event_on_the_node(node: Node) -> None:
    """The other GPU is served all the same, and the first one as soon as its figure is there."""
    node.library.gpus = (gpu(0, asic={**MI300X, "num_compute_units": "N/A"}), gpu(1))
    async with node.agent():
        await node.registered(10)
        await node.until(lambda: bool(node.api.all("events")))
        node.library.gpus = (gpu(0), gpu(1))
        await node.registered(20)
    (event,) = node.api.all("events")
    assert (event["reason"], event["involvedObject"]["name"]) == ("DeviceLeftOut", NODE)
    assert event["message"] == "AMD GPU 0 is left out: num_compute_units: expected a number above 0, got 'N/A'"


async def test_nothing_is_said_before_there_is_a_gpu(node: Node) -> None:
    """A driver may be loaded later than the agent starts."""
    node.library.loaded = False
    async with node.agent():
        await anyio.sleep(0.2)
        assert not node.kubelet.registrations
        node.library.loaded, node.library.gpus = True, ()
        await anyio.sleep(0.2)
        assert not node.kubelet.registrations
        assert AMD.node_key not in node.notes()
        node.library.gpus = (gpu(0),)
        await node.registered(10)


@pytest.mark.parametrize(("wanted", "level"), [(False, logging.INFO), (True, logging.ERROR)])
async def test_without_the_library_it_says_so_once(
    node: Node, caplog: pytest.LogCaptureFixture, wanted: bool, level: int
) -> None:
    def missing() -> AmdProbe:
        raise NotInstalled("amdsmi is not installed: No module named 'amdsmi'")

    caplog.set_level(logging.INFO)
    async with node.agent(missing, wanted=wanted):
        await node.until(lambda: any("not served" in record.message for record in caplog.records))
        await anyio.sleep(0.1)
    (record,) = [record for record in caplog.records if "not served" in record.message]
    assert record.levelno == level
    assert record.message == "AMD's GPUs are not served: amdsmi is not installed: No module named 'amdsmi'"
    assert not node.kubelet.registrations


async def test_a_kubelet_that_starts_again(node: Node) -> None:
    async with node.agent():
        await node.registered(20)
        await node.kubelet.restart()
        with anyio.fail_after(5):
            await node.kubelet.registered.wait()
        await node.registered(20)
        assert units((await node.run(pod("a")))["main"]) == set(range(76))


async def test_nobody_waits(node: Node) -> None:
    """A pod that no scheduler has assigned anything to."""
    async with node.agent():
        await node.registered(20)
        node.api.put("pods", {**pod("a"), "spec": {**pod("a")["spec"], "nodeName": NODE}})
        with pytest.raises(GRPCError, match=r"no pod of node node-1 waits for 1 amd\.com/gpu"):
            await node.admit("a")


async def test_an_annotation_that_somebody_removes_comes_back(node: Node) -> None:
    """A scheduler of HAMi removes it from a node that has no such resource at the moment."""
    async with node.agent():
        await node.registered(20)
        node.api.put("nodes", {"metadata": {"name": NODE, "annotations": {}}})
        await node.until(lambda: AMD.node_key in node.notes())
