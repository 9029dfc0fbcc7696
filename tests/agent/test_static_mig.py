"""`hami agent` on a node whose MIG instances somebody else makes: the strategies `none`, `single` and `mixed`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from grpclib.client import Channel
from grpclib.server import Server, Stream

from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.pb.deviceplugin_grpc import DevicePluginStub, RegistrationBase
from tests.agent.conftest import NODE, pod
from tests.agent.test_mig import Node, node, unused_port
from tests.agent.test_service import until

pytestmark = pytest.mark.anyio
__all__ = ["node", "unused_port"]

CUT = "devices:\n- {model: NVIDIA A100-SXM4-80GB, count: 2, mig: [%s, %s]}\n"


class ManyPlugins(RegistrationBase):
    """A kubelet that only registers plug-ins, any number of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.resources: dict[str, Channel] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path) -> AsyncIterator[Self]:
        await anyio.Path(directory).mkdir()
        kubelet = cls(directory)
        server = Server([kubelet])
        await server.start(path=str(directory / "kubelet.sock"))
        try:
            yield kubelet
        finally:
            for channel in kubelet.resources.values():
                channel.close()
            server.close()
            await server.wait_closed()

    async def Register(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.resources[request.resource_name] = Channel(path=str(self._directory / request.endpoint))
        await stream.send_message(pb.Empty())

    async def ids(self, resource: str) -> list[str]:
        """The healthy ids that the plug-in lists now."""
        async with DevicePluginStub(self.resources[resource]).ListAndWatch.open() as stream:
            await stream.send_message(pb.Empty(), end=True)
            answer = await stream.recv_message()
            assert answer is not None
            await stream.cancel()
            return [device.ID for device in answer.devices if device.health == "Healthy"]

    async def allocate(self, resource: str, *ids: str) -> pb.ContainerAllocateResponse:
        plugin = DevicePluginStub(self.resources[resource])
        call = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        await plugin.PreStartContainer(pb.PreStartContainerRequest(devices_ids=ids))
        return (await plugin.Allocate(call)).container_responses[0]


def machine(node: Node, first: str, second: str) -> None:
    (node.root / "machine.yaml").write_text(CUT % (first, second))


async def test_single_shares_instances_like_cards(node: Node) -> None:
    machine(node, "enabled", "enabled")
    with node.started("--mig-strategy=single"):
        await node.registered_nothing()
        node.nvml('make(cards[0], "3g.40gb", 0, 4); make(cards[1], "3g.40gb", 4, 4); print(1)')
        await until(lambda: len(node.devices()) == 2, 20)
        first, second = node.devices()
        assert (first.memory_mib, first.cores, first.slots, first.mode) == (40192, 100, 10, "hami-core")
        assert first.model == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"
        live = node.nvml("print(json.dumps([nvmlDeviceGetUUID(m) for card in cards for m in mig_devices(card)]))")
        assert [first.uuid, second.uuid] == live
        shared = node.api.put("pods", pod("shared", assigned=f"{second.uuid},NVIDIA,3000,30:;"))
        await node.start(shared)
        assert node.granted("shared") == [(second.uuid, 3000, 30)]
        assert node.shown("shared") == [second.uuid]
        node.nvml('make(cards[0], "1g.10gb", 6, 1); print(1)')
        await until(lambda: node.devices() == [], 20)
        events = [event for event in node.api.all("events") if event["reason"] == "DeviceLeftOut"]
        assert any("1g.10gb, 3g.40gb" in event["message"] for event in events), "the profiles differ now"


async def test_none_leaves_cut_cards_out_and_says_so(node: Node) -> None:
    machine(node, "enabled", "disabled")
    with node.started():
        await node.registered_nothing()
        assert len(node.devices()) == 1
        await until(lambda: any(event["reason"] == "DeviceLeftOut" for event in node.api.all("events")))
        (event,) = [event for event in node.api.all("events") if event["reason"] == "DeviceLeftOut"]
        assert event["involvedObject"]["kind"] == "Node"
        assert "is in MIG mode" in event["message"]


async def test_mixed_gives_each_profile_a_resource(node: Node) -> None:
    machine(node, "enabled", "disabled")
    (node.root / "config.json").write_text(json.dumps({"nodeconfig": [{"name": NODE, "migstrategy": "mixed"}]}))
    directory = node.root / "plugins"
    async with ManyPlugins.running(directory) as kubelet:
        with node.started(f"--node-config-file={node.root / 'config.json'}", f"--device-plugin-dir={directory}"):
            await until(lambda: "nvidia.com/gpu" in kubelet.resources, 30)
            node.nvml('make(cards[0], "1g.10gb", 0, 1); make(cards[0], "1g.10gb", 6, 1); print(1)')
            node.nvml('make(cards[0], "2g.20gb", 2, 2); print(1)')
            names = {"nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-2g.20gb"}
            await until(lambda: kubelet.resources.keys() == names, 30)
            ids = await kubelet.ids("nvidia.com/mig-1g.10gb")
            assert len(ids) == 2
            answer = await kubelet.allocate("nvidia.com/mig-1g.10gb", ids[1])
            uuid = answer.envs["NVIDIA_VISIBLE_DEVICES"]
            assert uuid == ids[1].rpartition("-")[0]
            assert uuid.startswith("MIG-")
            assert "HAMI_SIM_STATE" in answer.envs
            assert [d.mode for d in node.devices()] == ["hami-core"], "the whole card is shared as ever"
            node.nvml('unmake(instances(cards[0], "2g.20gb")[0]); print(1)')
            with anyio.fail_after(20):
                while await kubelet.ids("nvidia.com/mig-2g.20gb"):  # noqa: ASYNC110 - another process does it
                    await anyio.sleep(0.2)


async def test_a_strategy_that_cannot_be_meant(node: Node) -> None:
    with node.started("--mig-strategy=magic") as process:
        assert await anyio.to_thread.run_sync(process.wait) == 2
