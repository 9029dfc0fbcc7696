"""Every declared family over its simulated devices: registered, read, placed, handed out, accounted, given back.

The node's annotations and capacity are what the simulated plug-in publishes, decisions are the engine's, and the pods
lie on a scripted API server. The kubelet's part is the call with so many ids; `tests/cluster` has a real one.
"""

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hami.agent.family import Book, Family, NobodyWaits
from hami.agent.podresources import ListedPod
from hami.agent.simulated_answers import TOLD
from hami.agent.simulated_plugin import family_of, probes
from hami.alloc.ledger import Ledger
from hami.alloc.record import read_node, read_pod
from hami.alloc.request import read_request
from hami.kube.client import Kube
from hami.model.claim import Segments, Share
from hami.model.device import Device
from hami.model.machine import read_machine
from hami.model.names import DeviceUuid, NodeName, PodKey, WireError
from hami.model.vendor import Registry, Vendor
from hami.model.wire import pod as keys
from hami.node.probe_simulated import SimulatedProbe
from hami.vendors import registry
from tests.agent.families import EVERY, limits
from tests.agent.scheduling import bind
from tests.fakes.apiserver import FakeApi, Json
from tests.fakes.loop import guarded_loop

NODE = NodeName("node-1")
pytestmark = pytest.mark.anyio


def asking(name: str, vendor: Vendor, count: int = 1) -> Json:
    asked = limits(vendor, count)
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": {}},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": {"limits": asked, "requests": asked}}]},
        "status": {"phase": "Pending"},
    }


def booked(share: Share) -> Share:
    """What a share costs; marks on its device are the family's own, and may be worked out from the rest."""
    return replace(share, leaves=0)


class Silent:
    """A kubelet that does not list its pods until it is told to."""

    listed: tuple[str, ...] | None = None

    async def list(self) -> tuple[ListedPod, ...]:
        if self.listed is None:
            raise OSError("not listening")
        return tuple(ListedPod(key=PodKey("default", name), devices={}) for name in self.listed)


@dataclass
class World:
    """A node with two devices of one family, and what schedules onto it."""

    vendor: Vendor
    api: FakeApi
    kube: Kube
    book: Book
    family: Family
    probe: SimulatedProbe
    kubelet: Silent
    ledger: Ledger
    devices: Mapping[DeviceUuid, Device]

    @property
    def known(self) -> Registry:
        return self.book.registry

    def bind(self, document: Json) -> Segments:
        """Admitted, placed and bound, with the lock that a foreign plug-in waits for."""
        return bind(document, self.vendor, self.ledger, self.api)

    def notes(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.api.get("pods", name, "default")["metadata"]["annotations"]
        return found

    @property
    def lock(self) -> str | None:
        found: str | None = self.api.get("nodes", NODE)["metadata"].get("annotations", {}).get(self.vendor.lock_key)
        return found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=EVERY, ids=lambda vendor: vendor.name)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    vendor: Vendor = request.param
    async with guarded_loop(), FakeApi.serving() as api, Kube.connect(api.kubeconfig(tmp_path)) as kube:
        known = Registry((vendor,))
        cards = read_machine({"devices": [{"family": vendor.name, "count": 2}]}, NODE).cards
        (probe,) = probes(known, cards, NODE)
        capacity = {name: str(len(ids)) for name, ids in probe.published.ids.items()}
        node: Json = {
            "metadata": {"name": NODE, "annotations": dict(probe.published.annotations)},
            "status": {"capacity": capacity, "allocatable": capacity},
        }
        api.put("nodes", node)
        record, problems = read_node(node, known)
        assert not problems
        ledger = Ledger(known)
        ledger.put_node(record)
        (inventory,) = record.inventories
        assert inventory == probe.inventory()
        silent = Silent()
        book = Book(registry=known, kube=kube, node=NODE, folder=tmp_path / "simulated", podlist=silent)
        devices = {device.uuid: device for device in inventory.devices}
        yield World(vendor, api, kube, book, family_of(probe, book), probe, silent, ledger, devices)


async def test_two_pods_from_registration_to_their_end(world: World) -> None:
    vendor = world.vendor
    # A module of two is the smallest part of a 910C, so there is room for one pod.
    names, count = (["a"], 2) if vendor.name == "Ascend910C" else (["a", "b"], 1)
    given = []
    for name in names:
        (segment,) = world.bind(asking(name, vendor))
        assert len(segment) == count
        assert (world.lock is not None) is bool(vendor.lock_key)
        answer = await world.family.allocate(vendor.resources.count, count)
        told = [f"{share.uuid},{share.memory_mib},{share.units or share.cores}" for share in segment]
        assert answer.env[TOLD] == ";".join(told)
        for mount in answer.mounts:
            assert os.path.isdir(mount.host)  # noqa: ASYNC240 - a test may wait for its disk
        notes = world.notes(name)
        assert notes[keys.BIND_PHASE] == keys.SUCCESS
        assert not vendor.pending_key or not notes[vendor.pending_key].strip(";")
        assert "false" not in [notes.get(key) for key in vendor.dress_keys]
        assert world.lock is None
        given.append(segment)
    for name, segment in zip(names, given, strict=True):
        held, problems = read_pod(world.api.get("pods", name, "default"), world.known)
        assert held is not None, problems
        assert [booked(share) for share in held.segments[vendor.name][0]] == [booked(share) for share in segment]
    # What two pods hold together fits, device by device; when they have gone the devices are empty.
    for uuid, device in world.devices.items():
        shares = [share for segment in given for share in segment if share.uuid == uuid]
        assert sum(share.memory_mib for share in shares) <= device.memory_mib
        assert len(shares) <= device.slots
    with pytest.raises(NobodyWaits, match=vendor.resources.count):
        await world.family.allocate(vendor.resources.count, count)
    for name in names:
        world.ledger.drop_pod(read_request(world.api.get("pods", name, "default"), world.known).uid)
        world.api.remove("pods", name, "default")
    await world.book.pods()
    assert not world.book.served
    assert not world.book.units.held()
    assert not list(world.book.folder.glob("*/"))


async def test_whom_the_kubelet_admits_is_served_first(world: World) -> None:
    """Two pods wait; the one that was bound later is asked for first."""
    vendor = world.vendor
    if vendor.name == "Ascend910C":
        pytest.skip("two devices have room for one pod of this family")
    first, second = (world.bind(asking(name, vendor))[0] for name in ("a", "b"))
    told = {}
    for name, listed in (("b", ("b",)), ("a", ("b", "a"))):
        world.kubelet.listed = listed
        told[name] = (await world.family.allocate(vendor.resources.count, 1)).env[TOLD]
        assert world.notes(name)[keys.BIND_PHASE] == keys.SUCCESS
    assert [told["a"].partition(",")[0], told["b"].partition(",")[0]] == [first[0].uuid, second[0].uuid]


async def test_amounts_of_what_devices_have_bring_nothing_of_their_own(world: World) -> None:
    """Where a family's memory or cores are resources of the kubelet, too, their calls need no pod."""
    names = world.vendor.resources
    extra = [name for name in world.probe.published.ids if name != names.count and names.memory]
    for name in extra:
        assert (await world.family.allocate(name, 3)).env == {}
    assert extra or names.memory == "" or world.vendor.node_key


def test_a_family_that_nobody_declares_is_named() -> None:
    cards = read_machine({"devices": [{"family": "Abacus"}]}, NODE).cards
    with pytest.raises(WireError, match="Abacus"):
        probes(registry(), cards, NODE)
