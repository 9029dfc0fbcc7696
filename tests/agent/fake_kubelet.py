"""A kubelet on real unix sockets, as far as a device plug-in can tell.

It keeps the order a real one keeps: one `Allocate` at a time, pod by pod, init containers first; the pod being admitted
is already in the pod list, with empty containers; the checkpoint is written after the answer; `PreStartContainer`
precedes every start; a restart deletes every socket in the directory and then listens again.
"""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Server, Stream

from hami.agent.checkpoint import FILE_NAME
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.pb import podresources_pb2 as pr
from hami.agent.pb.deviceplugin_grpc import DevicePluginStub, RegistrationBase
from hami.agent.pb.podresources_grpc import PodResourcesListerBase

RESOURCE = "nvidia.com/gpu"
Json = dict[str, Any]


class FakeKubelet(RegistrationBase, PodResourcesListerBase):
    """One kubelet that knows one device plug-in: the one that registered last for `resource`."""

    def __init__(self, directory: Path, pod_resources: Path, resource: str = RESOURCE) -> None:
        self.resource = resource
        self.directory = directory
        self.pod_resources = pod_resources
        self.registrations: list[pb.RegisterRequest] = []
        self.options: pb.DevicePluginOptions | None = None
        self.devices: dict[str, str] = {}
        """Health by id, as the plug-in last said."""
        self.registered = anyio.Event()
        self.listed_changed = anyio.Event()
        self.checkpoint_delay_s = 0.004
        self.writes_checkpoint = True
        self.lists_pods = True
        self.answers: dict[tuple[str, str], pb.ContainerAllocateResponse] = {}
        """By pod name and container."""
        self.ids: dict[tuple[str, str], tuple[str, ...]] = {}
        self._pods: dict[str, Json] = {}
        self._entries: list[Json] = []
        self._server: Server | None = None
        self._lister: Server | None = None
        self._channel: Channel | None = None
        self._admission = anyio.Lock()
        self._registration = anyio.Lock()
        self._tasks: Any = None

    @classmethod
    @asynccontextmanager
    async def running(cls, root: Path, resource: str = RESOURCE) -> AsyncIterator[Self]:
        """A kubelet in `root` until the block ends."""
        directory, pod_resources = root / "device-plugins", root / "pod-resources.sock"
        directory.mkdir()
        kubelet = cls(directory, pod_resources, resource)
        async with anyio.create_task_group() as tasks:
            kubelet._tasks = tasks
            await kubelet.start()
            try:
                yield kubelet
            finally:
                await kubelet.stop()
                tasks.cancel_scope.cancel()

    async def start(self) -> None:
        for socket in self.directory.glob("*.sock"):
            socket.unlink()
        self.registered = anyio.Event()
        self._server, self._lister = Server([self]), Server([self])
        await self._server.start(path=str(self.directory / "kubelet.sock"))
        self.pod_resources.unlink(missing_ok=True)
        await self._lister.start(path=str(self.pod_resources))

    async def stop(self) -> None:
        for server in (self._server, self._lister):
            if server is not None:
                server.close()
                await server.wait_closed()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def __mapping__(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {**RegistrationBase.__mapping__(self), **PodResourcesListerBase.__mapping__(self)}

    # What the plug-in calls

    async def Register(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.registrations.append(request)
        if request.resource_name != self.resource:
            await stream.send_message(pb.Empty())
            return
        async with self._registration:
            if self._channel is not None:
                self._channel.close()
            self._channel = Channel(path=str(self.directory / request.endpoint))
            self.options = await self._plugin.GetDevicePluginOptions(pb.Empty())
            self._tasks.start_soon(self._follow, self._channel)
        await stream.send_message(pb.Empty())
        self.registered.set()

    async def List(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        answer = pr.ListPodResourcesResponse()
        for pod in self._pods.values() if self.lists_pods else ():
            answer.pod_resources.append(self._listed(pod))
        await stream.send_message(answer)

    # What a test does

    async def admit(self, pod: Json) -> None:
        """Allocate for every asking container of the pod."""
        async with self._admission:
            name = pod["metadata"]["name"]
            self._pods[name] = pod
            for container in _containers(pod):
                count = int(container.get("resources", {}).get("limits", {}).get(self.resource, 0))
                if count:
                    await self._allocate(pod, container, count)

    async def start_container(self, pod: Json, container: str) -> None:
        """What precedes a container's start. Raises GRPCError with the plug-in's text."""
        ids = self.ids[pod["metadata"]["name"], container]
        await self._plugin.PreStartContainer(pb.PreStartContainerRequest(devices_ids=ids), timeout=30)

    def forget(self, pod: Json) -> None:
        """The pod has ended: its ids are free, its checkpoint entries stay for a while."""
        self._pods.pop(pod["metadata"]["name"], None)

    @property
    def _plugin(self) -> DevicePluginStub:
        assert self._channel is not None, "no plug-in is registered"
        return DevicePluginStub(self._channel)

    async def _follow(self, channel: Channel) -> None:
        try:
            async with DevicePluginStub(channel).ListAndWatch.open() as stream:
                await stream.send_message(pb.Empty(), end=True)
                async for answer in stream:
                    self.devices = {device.ID: device.health for device in answer.devices}
                    self.listed_changed.set()
                    self.listed_changed = anyio.Event()
        except (OSError, GRPCError, StreamTerminatedError):
            # The plug-in has gone: a kubelet counts its devices as unhealthy until one registers again.
            if channel is self._channel:
                self.devices = {}
        finally:
            # Closed before it was followed, it has connected once more.
            if channel is not self._channel:
                channel.close()

    async def _allocate(self, pod: Json, container: Json, count: int) -> None:
        name = pod["metadata"]["name"]
        taken = {i for (owner, _), ids in self.ids.items() if owner in self._pods and owner != name for i in ids}
        reusable = [
            i
            for other in pod["spec"].get("initContainers", [])
            if other.get("restartPolicy") != "Always"
            for i in self.ids.get((name, other["name"]), ())
        ]
        mine = {i for (owner, _), ids in self.ids.items() if owner == name for i in ids} - set(reusable)
        available = sorted(i for i in self.devices if self.devices[i] == "Healthy" and i not in taken | mine)
        must = sorted(set(reusable))[:count]
        asked = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=count
        )
        preferred = await self._plugin.GetPreferredAllocation(
            pb.PreferredAllocationRequest(container_requests=[asked]), timeout=10
        )
        ids = tuple(preferred.container_responses[0].deviceIDs)
        assert len(ids) == count
        assert set(must) <= set(ids) <= set(available)
        call = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
        answer = (await self._plugin.Allocate(call, timeout=10)).container_responses[0]
        key = name, container["name"]
        self.ids[key], self.answers[key] = ids, answer
        self._entries.append(
            {
                "PodUID": pod["metadata"]
                .get("annotations", {})
                .get("kubernetes.io/config.hash", pod["metadata"]["uid"]),
                "ContainerName": container["name"],
                "ResourceName": self.resource,
                "DeviceIDs": {"-1": list(ids)},
                "AllocResp": base64.b64encode(answer.SerializeToString()).decode(),
            }
        )
        if self.writes_checkpoint:
            await anyio.sleep(self.checkpoint_delay_s)
            self.write_checkpoint()

    def write_checkpoint(self) -> None:
        document = {"Data": {"PodDeviceEntries": self._entries, "RegisteredDevices": {}}, "Checksum": 1}
        temporary = self.directory / f".{FILE_NAME}.tmp"
        temporary.write_text(json.dumps(document))
        temporary.replace(self.directory / FILE_NAME)

    def _listed(self, pod: Json) -> pr.PodResources:
        name = pod["metadata"]["name"]
        listed = pr.PodResources(name=name, namespace=pod["metadata"]["namespace"])
        for container in _containers(pod):
            if container in pod["spec"].get("initContainers", []) and container.get("restartPolicy") != "Always":
                continue
            resources = pr.ContainerResources(name=container["name"])
            if ids := self.ids.get((name, container["name"])):
                resources.devices.append(pr.ContainerDevices(resource_name=self.resource, device_ids=ids))
            listed.containers.append(resources)
        return listed


def _containers(pod: Json) -> list[Json]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
