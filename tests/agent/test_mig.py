"""`hami agent` on a node in the operating mode `mig`: a simulated machine's instances follow the pods.

The agent is a process of its own; what the machine has is asked through NVIDIA's bindings in another.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.exceptions import GRPCError

from hami.model.wire.grant import read_grant
from hami.model.wire.node import read_inventory
from hami.node.simulated import environment, native_dir
from tests.agent.conftest import NODE, container, pod
from tests.agent.fake_kubelet import FakeKubelet, Json
from tests.agent.test_service import REGISTER, AgentProcess, until, unused_port
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop

pytestmark = pytest.mark.anyio
__all__ = ["unused_port"]

RESERVED = "hami.io/vgpu-mig-allocations"
MACHINE = """
devices:
- {model: NVIDIA A100-SXM4-80GB, count: 2}
"""
ROOT = Path(__file__).parents[2]
PRELUDE = """
import json
from pynvml import *
from tests.interpose.mig_client import *
nvmlInit()
cards = [nvmlDeviceGetHandleByIndex(i) for i in range(2)]
def there():
    found = []
    for number, card in enumerate(cards):
        for name in ("1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"):
            for made in instances(card, name) if nvmlDeviceGetMigMode(card)[0] else ():
                found.append([number, name, nvmlGpuInstanceGetInfo(made).placement.start])
    return sorted(found)
"""


class Node(AgentProcess):
    """An agent in the operating mode `mig`, and the machine below it."""

    def nvml(self, program: str) -> Any:
        """The JSON that the lines print; they know `cards` and `there()`."""
        (state,) = (self.root / "hook" / "vgpu").glob("simulated-*.state")
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + program],
            env={**environment(state), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def there(self) -> list[tuple[int, str, int]]:
        """The machine's instances: card, profile, first slice."""
        return [tuple(row) for row in self.nvml("print(json.dumps(there()))")]

    @contextmanager
    def program(self, uuid: str) -> Iterator[subprocess.Popen[str]]:
        """A program that uses an instance."""
        (state,) = (self.root / "hook" / "vgpu").glob("simulated-*.state")
        with subprocess.Popen(
            [str(native_dir() / "sim" / "gpuprobe"), "alloc", "100", "hold", "100", "600"],
            env={**environment(state), "NVIDIA_VISIBLE_DEVICES": uuid},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert '"got_mib": 100' in process.stdout.readline()
            try:
                yield process
            finally:
                process.kill()

    def devices(self) -> list[Any]:
        return list(read_inventory(self.api.get("nodes", NODE)["metadata"]["annotations"][REGISTER], REGISTER))

    async def cut(self) -> list[str]:
        """The node has registered both cards in MIG mode; their UUIDs."""
        await self.registered()

        def shown() -> bool:
            notes = self.api.get("nodes", NODE)["metadata"].get("annotations", {})
            return REGISTER in notes and [device.mode for device in self.devices()] == ["mig", "mig"]

        await until(shown, 30)
        return [str(device.uuid) for device in self.devices()]

    async def registered_nothing(self) -> None:
        """The agent has written its inventory, whatever is in it."""
        await until(lambda: REGISTER in self.api.get("nodes", NODE)["metadata"].get("annotations", {}), 30)

    def bound(self, name: str, uuid: str, *places: tuple[str, int, int], memory: int = 9728, **more: Any) -> Json:
        """A pod to which a scheduler gave instances of one card: profile, first slice, size of each."""
        reservations = [
            {
                "containerIndex": 0, "deviceIndex": i, "gpuUUID": uuid, "profile": profile,
                "placement": {"start": start, "size": size},
            }
            for i, (profile, start, size) in enumerate(places)
        ]  # fmt: skip
        assigned = "".join(f"{uuid},NVIDIA,{memory},15:" for _ in places) + ";"
        return self.api.put(
            "pods",
            pod(
                name,
                container("main", gpus=len(places), memory=memory, cores=None),
                assigned=assigned,
                notes={RESERVED: json.dumps(reservations)},
                **more,
            ),
        )

    def edits(self, name: str) -> dict[str, Any]:
        """What the pod's CDI device does to its container."""
        (device,) = self.kubelet.answers[name, "main"].cdi_devices
        grant_id = device.name.partition("=")[2]
        found: dict[str, Any] = json.loads((self.root / "cdi" / f"hami.io-grant-{grant_id}.json").read_text())
        (only,) = found["devices"]
        edits: dict[str, Any] = only["containerEdits"]
        return edits

    def shown(self, name: str) -> list[str]:
        """The devices that the pod's container sees."""
        env: dict[str, str] = dict(entry.split("=", 1) for entry in self.edits(name)["env"])
        return env["NVIDIA_VISIBLE_DEVICES"].split(",")

    async def start(self, document: Json) -> None:
        await self.kubelet.admit(document)
        await self.kubelet.start_container(document, "main")

    def end(self, document: Json) -> None:
        """The pod is deleted, and gone from the node."""
        self.kubelet.forget(document)
        self.api.remove("pods", document["metadata"]["name"], "default")

    def reservations(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.api.get("pods", name, "default")["metadata"]["annotations"][RESERVED]
        )
        return found


FLAG = "--node-config-file"


@pytest.fixture
async def node(tmp_path: Path, unused_port: int) -> AsyncIterator[Node]:
    (tmp_path / "machine.yaml").write_text(MACHINE)
    (tmp_path / "config.json").write_text(json.dumps({"nodeconfig": [{"name": NODE, "operatingmode": "mig"}]}))
    async with guarded_loop(), FakeApi.serving() as api, FakeKubelet.running(tmp_path) as kubelet:
        api.put("nodes", {"metadata": {"name": NODE}})
        yield Node(tmp_path, api, kubelet, unused_port)


def flag(node: Node) -> str:
    return f"{FLAG}={node.root / 'config.json'}"


async def test_cards_are_cut_and_registered_with_what_the_allowlist_has(node: Node) -> None:
    with node.started(flag(node)):
        await node.cut()
        first = node.devices()[0]
        assert [p.name for p in first.mig_profiles] == ["1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb"]
        assert (first.slots, first.memory_mib, first.cores) == (7, 81920, 100)
        one = first.mig_profiles[0]
        assert (one.memory_mib, one.cores, [place.start for place in one.placements]) == (9728, 15, list(range(7)))
        assert len(node.kubelet.devices) == 14
        assert node.there() == []


async def test_a_pods_instances_are_made_shown_told_and_unmade(node: Node) -> None:
    with node.started(flag(node)):
        first, second = await node.cut()
        one = node.bound("one", first, ("2g.20gb", 4, 2), memory=19968)
        two = node.bound("two", second, ("1g.10gb", 6, 1), ("1g.10gb", 0, 1))
        await node.start(one)
        await node.start(two)
        assert node.there() == [(0, "2g.20gb", 4), (1, "1g.10gb", 0), (1, "1g.10gb", 6)]
        live = node.nvml("print(json.dumps([[nvmlDeviceGetUUID(m) for m in mig_devices(card)] for card in cards]))")
        assert node.shown("one") == live[0]
        assert sorted(node.shown("two")) == sorted(live[1])
        await until(lambda: "migUUID" in node.reservations("one")[0])
        (told,) = node.reservations("one")
        assert (told["migUUID"], told["computeInstanceID"]) == (live[0][0], 0)
        await until(lambda: all("migUUID" in each for each in node.reservations("two")))
        assert [each["migUUID"] for each in node.reservations("two")] == node.shown("two"), "in the container's order"
        assert_device_only(node, "one")
        node.end(one)
        node.end(two)
        await until(lambda: node.there() == [], 20)


def assert_device_only(node: Node, name: str) -> None:
    """No limit and no library: the hardware holds them."""
    edits = node.edits(name)
    names = {entry.partition("=")[0] for entry in edits["env"]}
    assert names == {"NVIDIA_VISIBLE_DEVICES", "HAMI_DEVICE_UUIDS"}
    assert "/etc/ld.so.preload" not in {mount["containerPath"] for mount in edits.get("mounts", ())}
    etc = next(m.host_path for m in node.kubelet.answers[name, "main"].mounts if m.container_path == "/etc/hami")
    granted = read_grant(Path(etc, "grant").read_text())
    assert [(d.uuid, d.memory_mib, d.cores) for d in granted.devices] == [(node.shown(name)[0], 0, 0)]


async def test_a_busy_instance_concerns_nobody_else(node: Node) -> None:
    """A program outlives its pod: its slices wait, everything else goes on, and the node stops offering them."""
    with node.started(flag(node)):
        first, _ = await node.cut()
        old = node.bound("old", first, ("3g.40gb", 0, 4), memory=40192)
        await node.start(old)
        with node.program(node.shown("old")[0]) as program:
            node.end(old)
            other = node.bound("other", first, ("1g.10gb", 6, 1))
            await node.start(other)
            assert node.there() == [(0, "1g.10gb", 6), (0, "3g.40gb", 0)]
            heir = node.bound("heir", first, ("2g.20gb", 2, 2), memory=19968)
            await node.kubelet.admit(heir)
            with pytest.raises(GRPCError, match="a program still runs"):
                await node.kubelet.start_container(heir, "main")

            def starts() -> list[int]:
                return [place.start for place in node.devices()[0].mig_profiles[0].placements]

            await until(lambda: starts() == [4, 5, 6], 20)
            await node.kubelet.start_container(heir, "main")
            assert node.there() == [(0, "1g.10gb", 6), (0, "2g.20gb", 4), (0, "3g.40gb", 0)], "it is placed elsewhere"
            program.kill()
            program.wait()
        await until(lambda: node.there() == [(0, "1g.10gb", 6), (0, "2g.20gb", 4)], 20)
        await until(lambda: starts() == list(range(7)), 20)


async def test_slices_of_a_pod_that_is_there_are_not_given_away(node: Node) -> None:
    """Two pods were promised the same slices: the later one is placed elsewhere."""
    with node.started(flag(node)):
        first, second = await node.cut()
        await node.start(node.bound("a", first, ("7g.80gb", 0, 8), memory=80896))
        late = node.bound("late", first, ("1g.10gb", 0, 1), bind_time=2000)
        await node.start(late)
        assert node.there()[0] == (0, "7g.80gb", 0)
        assert [row[0] for row in node.there()] == [0, 1]
        await until(lambda: node.reservations("late")[0]["gpuUUID"] == second)
        assert "migUUID" in node.reservations("late")[0]


async def test_a_restarted_agent_knows_its_instances(node: Node) -> None:
    with node.started(flag(node)):
        first, _ = await node.cut()
        stays = node.bound("stays", first, ("1g.10gb", 0, 1))
        goes = node.bound("goes", first, ("2g.20gb", 2, 2), memory=19968)
        await node.start(stays)
        await node.start(goes)
    node.nvml('make(cards[0], "1g.10gb", 6, 1); print(1)')
    node.end(goes)
    node.kubelet.registered = anyio.Event()
    with node.started(flag(node)):
        await node.registered()
        await node.kubelet.start_container(stays, "main")
        await until(lambda: node.there() == [(0, "1g.10gb", 0), (0, "1g.10gb", 6)], 25)
        starts = [place.start for place in node.devices()[0].mig_profiles[0].placements]
        assert starts == [0, 1, 2, 3, 4, 5], "what somebody else made is not offered"
        node.end(stays)
        await until(lambda: node.there() == [(0, "1g.10gb", 6)], 20)
        await anyio.sleep(6)
        assert node.there() == [(0, "1g.10gb", 6)], "it is not ours"


async def test_half_done_work_is_finished(node: Node) -> None:
    """The agent died after the driver had made a GPU instance, and before the compute instance or the record."""
    with node.started(flag(node)):
        first, _ = await node.cut()
    record = node.root / "hook" / "vgpu" / "mig-instances.json"
    begun = [
        {
            "card": first, "profile": profile, "profile_id": number, "start": start, "size": size,
            "pod": uid, "namespace": "default", "name": "x", "ids": None,
        }
        for profile, number, start, size, uid in (("1g.10gb", 19, 0, 1, "uid-a"), ("2g.20gb", 14, 2, 2, "uid-gone"))
    ]  # fmt: skip
    record.write_text(json.dumps({"version": 1, "instances": begun}))
    node.nvml(
        'make(cards[0], "1g.10gb", 0, 1, compute=False); make(cards[0], "2g.20gb", 2, 2, compute=False); print(1)'
    )
    node.kubelet.registered = anyio.Event()
    with node.started(flag(node)):
        await node.registered()
        a = node.bound("a", first, ("1g.10gb", 0, 1))
        await node.start(a)
        assert node.nvml("print(json.dumps(nvmlDeviceGetUUID(mig_devices(cards[0])[0])))") == node.shown("a")[0]
        await until(lambda: node.there() == [(0, "1g.10gb", 0)], 25)


async def test_an_instance_lost_to_a_reboot_is_made_again(node: Node) -> None:
    with node.started(flag(node)):
        first, _ = await node.cut()
        a = node.bound("a", first, ("1g.10gb", 0, 1))
        await node.start(a)
        node.nvml('unmake(instances(cards[0], "1g.10gb")[0]); print(1)')
        await node.kubelet.start_container(a, "main")
        assert node.there() == [(0, "1g.10gb", 0)]


async def test_instances_that_another_plugin_made_for_a_pod_are_taken_over(node: Node) -> None:
    with node.started(flag(node)):
        first, _ = await node.cut()
        uuid, number = node.nvml(
            """
made = make(cards[0], "1g.10gb", 3, 1)
print(json.dumps([nvmlDeviceGetUUID(mig_devices(cards[0])[0]), nvmlGpuInstanceGetInfo(made).id]))
"""
        )
        document = node.bound("a", first, ("1g.10gb", 3, 1))
        (reservation,) = node.reservations("a")
        told = {**reservation, "migUUID": uuid, "gpuInstanceID": number, "computeInstanceID": 0}
        document["metadata"]["annotations"][RESERVED] = json.dumps([told])
        node.api.put("pods", document)
        await anyio.sleep(11)
        assert node.there() == [(0, "1g.10gb", 3)]
        node.end(document)
        await until(lambda: node.there() == [], 20)


async def test_a_refusal_of_the_driver_is_no_refusal_of_the_pod(node: Node) -> None:
    (node.root / "machine.yaml").write_text(
        MACHINE + "faults: [{call: nvmlGpuInstanceCreateComputeInstance, nth: 1, result: NVML_ERROR_UNKNOWN},\n"
        "  {call: nvmlGpuInstanceCreateComputeInstance, nth: 2, result: NVML_ERROR_UNKNOWN}]\n"
    )
    with node.started(flag(node)):
        first, _ = await node.cut()
        a = node.bound("a", first, ("1g.10gb", 0, 1))
        await node.kubelet.admit(a)
        with pytest.raises(GRPCError, match=r"1g\.10gb at slice 0"):
            await node.kubelet.start_container(a, "main")
        assert node.there() == [], "the half that was made is gone again"
        await node.kubelet.start_container(a, "main")
        assert node.there() == [(0, "1g.10gb", 0)]
        notes = node.api.get("pods", "a", "default")["metadata"]["annotations"]
        await until(lambda: notes["hami.io/bind-phase"] != "failed", 1)


async def test_the_environment_strategy_shows_instances_only(node: Node) -> None:
    with node.started(flag(node), "--devices=env"):
        first, _ = await node.cut()
        a = node.bound("a", first, ("1g.10gb", 5, 1))
        await node.start(a)
        answer = node.kubelet.answers["a", "main"]
        uuid = node.nvml("print(json.dumps(nvmlDeviceGetUUID(mig_devices(cards[0])[0])))")
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid
        assert not [name for name in answer.envs if name.startswith("CUDA_DEVICE_MEMORY_LIMIT")]
        assert "/etc/ld.so.preload" not in {mount.container_path for mount in answer.mounts}


async def test_a_shared_card_is_not_cut_under_its_pods(node: Node) -> None:
    (node.root / "hami-core.json").write_text("{}")
    with node.started(f"{FLAG}={node.root / 'hami-core.json'}"):
        await node.registered()
        uuid = sorted({i.rpartition("-")[0] for i in node.kubelet.devices})[0]
        shared = node.api.put("pods", pod("shared", assigned=f"{uuid},NVIDIA,3000,30:;"))
        await node.start(shared)
    node.kubelet.registered = anyio.Event()
    with node.started(flag(node)):
        await until(lambda: [str(d.uuid) for d in node.devices()] != [] and len(node.devices()) == 1, 30)
        assert node.nvml("print(json.dumps([nvmlDeviceGetMigMode(card)[0] for card in cards]))").count(1) == 1
        (left,) = node.devices()
        assert (left.uuid != uuid, left.mode) == (True, "mig")
