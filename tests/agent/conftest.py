"""The agent's own parts against a kubelet on real sockets and an API server in memory; regions are stand-ins."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from hami.agent.answer import Strategy, Wording
from hami.agent.assignments import Assignments
from hami.agent.checkpoint import FILE_NAME, read_checkpoint_file
from hami.agent.grants import Grants
from hami.agent.inquiry import Inquiry
from hami.agent.kubelet import stay_registered
from hami.agent.opening import Opening
from hami.agent.plugin import DeviceList, DevicePlugin
from hami.agent.podresources import PodResources
from hami.agent.pods import NodePods
from hami.model.device import Device, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.model.settings import NvidiaConfig
from hami.model.wire.grant import GrantFile, read_grant
from hami.node.grants import Grant, GrantStore
from hami.node.installed import hook_tree
from hami.node.notify import DirectoryWatch
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA
from tests.agent.fake_kubelet import FakeKubelet, Json
from tests.fakes.loop import guarded_loop

NODE = NodeName("node-1")
UUIDS = tuple(DeviceUuid(f"GPU-{i}000000-0000-0000-0000-000000000000") for i in range(4))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def device(index: int, *, memory_mib: int = 16384, slots: int = 10, healthy: bool = True) -> Device:
    return Device(
        uuid=UUIDS[index],
        index=index,
        slots=slots,
        memory_mib=memory_mib,
        cores=100,
        model="NVIDIA A100",
        healthy=healthy,
    )


def container(name: str, gpus: int = 1, memory: int | None = 3000, cores: int | None = 30, **more: Any) -> Json:
    limits: Json = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    if memory is not None and gpus:
        limits["nvidia.com/gpumem"] = str(memory)
    if cores is not None and gpus:
        limits["nvidia.com/gpucores"] = str(cores)
    return {"name": name, "image": "x", "resources": {"limits": limits}, **more}


def pod(
    name: str,
    *containers: Json,
    init: tuple[Json, ...] = (),
    assigned: str | None = None,
    bind_time: int = 1000,
    notes: Mapping[str, str] | None = None,
) -> Json:
    """A bound pod; `assigned` is its done annotation's text."""
    annotations = dict(notes or {})
    if assigned is not None:
        annotations |= {
            "hami.io/vgpu-node": NODE,
            "hami.io/vgpu-devices-allocated": assigned,
            "hami.io/bind-time": str(bind_time),
            "hami.io/bind-phase": "allocating",
        }
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": annotations,
        },
        "spec": {
            "nodeName": NODE,
            "containers": list(containers) or [container("main")],
            **({"initContainers": list(init)} if init else {}),
        },
        "status": {"phase": "Pending"},
    }


def card(index: int, memory: int = 3000, cores: int = 30) -> str:
    return f"{UUIDS[index]},NVIDIA,{memory},{cores}:"


@dataclass
class FakePods:
    """The API server's pods as `PodApi`; patches are applied at once and shown to the picture."""

    pods: NodePods
    documents: dict[PodKey, Json] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    patches: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    fetched: list[PodKey] = field(default_factory=list)
    shows: Callable[[Json], None] = lambda document: None

    def add(self, document: Json, *, shown: bool = True) -> None:
        """Put a pod on the server; with `shown`, the watch has delivered it."""
        self.documents[PodKey(document["metadata"]["namespace"], document["metadata"]["name"])] = document
        if shown:
            self.pods.put(document)

    def delete(self, document: Json) -> None:
        del self.documents[PodKey(document["metadata"]["namespace"], document["metadata"]["name"])]
        self.pods.drop(PodUid(document["metadata"]["uid"]))

    async def fetch(self, key: PodKey) -> Mapping[str, Any] | None:
        self.fetched.append(key)
        return self.documents.get(key)

    async def is_gone(self, key: PodKey, uid: PodUid) -> bool:
        document = self.documents.get(key)
        return document is None or document["metadata"]["uid"] != uid

    def annotate(self, key: PodKey, uid: PodUid, annotations: Mapping[str, str | None]) -> None:
        self.patches.append((key.name, dict(annotations)))
        document = self.documents[key]
        document["metadata"]["annotations"].update(annotations)
        self.shows(document)

    def tell(self, key: PodKey, uid: PodUid, reason: str, message: str) -> None:
        self.events.append((key.name, reason, message))

    def notes(self, name: str) -> dict[str, str]:
        notes: dict[str, str] = self.documents[PodKey("default", name)]["metadata"]["annotations"]
        return notes


@dataclass
class FakeRegions:
    """Regions without the C library: what exists, and whose processes live."""

    made: dict[str, Grant] = field(default_factory=dict)
    living: set[str] = field(default_factory=set)

    def ensure(self, grant: Grant, priority: int) -> None:
        self.made[grant.id] = grant

    def alive(self, grant_id: str) -> bool:
        return grant_id in self.living

    def close(self, grant_id: str) -> None:
        self.made.pop(grant_id, None)


@dataclass
class Rig:
    """One agent's plug-in side beside a fake kubelet."""

    root: Path
    podlist: PodResources
    kubelet: FakeKubelet
    api: FakePods
    grants: Grants
    store: GrantStore
    regions: FakeRegions
    devices: DeviceList
    inventory: list[Device]
    now: list[float]
    settling: anyio.CancelScope
    """Cancelled, the checkpoint is no longer watched."""
    replace: Callable[[Grants], None]
    """Let another agent's grants answer the kubelet from now on."""

    async def run(self, document: Json) -> None:
        """Admit a pod and start its containers, as a kubelet does."""
        await self.kubelet.admit(document)
        for each in [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]:
            if (document["metadata"]["name"], each["name"]) in self.kubelet.ids:
                await self.kubelet.start_container(document, each["name"])

    def granted(self, name: str, container: str = "main") -> GrantFile | None:
        """What the container's library is told; None while nothing is."""
        answer = self.kubelet.answers[name, container]
        etc = next(mount.host_path for mount in answer.mounts if mount.container_path == "/etc/hami")
        path = Path(etc, "grant")
        return read_grant(path.read_text()) if path.exists() else None

    def limits(self, name: str, container: str = "main") -> list[tuple[str, int, int]]:
        grant = self.granted(name, container)
        assert grant is not None, f"{name}/{container} has no grant file"
        return [(device.uuid, device.memory_mib, device.cores) for device in grant.devices]


def make_grants(
    root: Path,
    podlist: PodResources,
    kubelet: FakeKubelet,
    api: FakePods,
    rig_inventory: list[Device],
    regions: FakeRegions,
    strategy: Strategy,
    now: list[float],
) -> tuple[Grants, GrantStore]:
    """A plug-in side over the given outside; also what a restarted agent is."""
    known = registry()
    tree = hook_tree(str(root / "hook"))
    for directory in (tree.grants, tree.containers):
        directory.mkdir(parents=True, exist_ok=True)
    store = GrantStore(tree, root / "cdi" if strategy == "cdi" else None)

    def node() -> NodeRecord:
        inventory = NodeInventory(vendor=NVIDIA.name, devices=tuple(rig_inventory))
        return NodeRecord(name=NODE, inventories=(inventory,), own_agent=frozenset({NVIDIA.name}))

    grants = Grants(
        Opening(
            Wording(store=store, vendor=NVIDIA, nvidia=NvidiaConfig(), library=tree.library, strategy=strategy),
            api.pods,
            regions,
        ),
        api.pods,
        Inquiry(api.pods, podlist, lambda: read_checkpoint_file(kubelet.directory, "nvidia.com/gpu"), api),
        Assignments(api.pods, NVIDIA, known, NODE, api, lambda: now[0]),
        regions,
        node,
        lambda: now[0],
    )

    def shows(document: Json) -> None:
        seen = api.pods.put(document)
        if seen is not None:
            grants.observe(seen)

    api.shows = shows
    grants.load()
    return grants, store


@pytest.fixture
def strategy() -> Strategy:
    return "cdi"


@pytest.fixture
async def rig(tmp_path: Path, strategy: Strategy) -> AsyncIterator[Rig]:
    async with guarded_loop(), FakeKubelet.running(tmp_path) as kubelet, anyio.create_task_group() as tasks:
        api = FakePods(NodePods(registry(), NVIDIA))
        inventory, now, regions = [device(0), device(1)], [5000.0], FakeRegions()
        podlist = PodResources(kubelet.pod_resources, "nvidia.com/gpu", timeout_s=2)
        grants, store = make_grants(tmp_path, podlist, kubelet, api, inventory, regions, strategy, now)
        devices = DeviceList()
        devices.set(tuple(inventory))
        plugin = DevicePlugin(grants, devices, numa=False, observe=lambda result, seconds: None)

        async def serve() -> None:
            await stay_registered(plugin, kubelet.directory, endpoint="hami.sock", resource="nvidia.com/gpu")

        settling = anyio.CancelScope()

        async def settle() -> None:
            with settling, DirectoryWatch(kubelet.directory) as changes:
                while True:
                    if (kubelet.directory / FILE_NAME).exists():
                        await plugin.grants.settle_confirmed()
                    await changes.wait(1.0)

        tasks.start_soon(serve)
        tasks.start_soon(settle)
        with anyio.fail_after(5):
            await kubelet.registered.wait()
            while not kubelet.devices:
                await kubelet.listed_changed.wait()

        def replace(successor: Grants) -> None:
            whole.grants = plugin.grants = successor

        whole = Rig(tmp_path, podlist, kubelet, api, grants, store, regions, devices, inventory, now, settling, replace)
        yield whole
        tasks.cancel_scope.cancel()
        podlist.close()
