"""MIG instances that somebody else made, each profile a resource of its own (`nvidia.com/mig-1g.10gb`).

Pods that ask for these need neither our scheduler nor our library: an instance goes to one container, and the hardware
holds its limits. The kubelet alone decides which one.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from grpclib.server import Stream

from hami.agent import kubelet
from hami.agent.answer import Additions
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.pb.deviceplugin_grpc import DevicePluginBase
from hami.agent.plugin import DeviceList, list_answer, received
from hami.agent.preferred import device_of, preferred_ids
from hami.model.device import Device

log = logging.getLogger(__name__)


class StaticPlugin(DevicePluginBase):
    """One profile's device plug-in."""

    def __init__(self, devices: DeviceList, *, visible: str, additions: Additions, numa: bool) -> None:
        """`visible` is the variable that tells the vendor's runtime what to add."""
        self._devices = devices
        self._visible = visible
        self._additions = additions
        self._numa = numa

    async def GetDevicePluginOptions(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(kubelet.OPTIONS)

    async def ListAndWatch(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        known: tuple[Device, ...] | None = None
        while True:
            known = await self._devices.next(known)
            await stream.send_message(list_answer(known, numa=self._numa))

    async def GetPreferredAllocation(self, stream: Stream[Any, Any]) -> None:
        call: pb.PreferredAllocationRequest = await received(stream)
        answer = pb.PreferredAllocationResponse()
        for asked in call.container_requests:
            ids = preferred_ids(asked.available_deviceIDs, asked.must_include_deviceIDs, asked.allocation_size, ())
            answer.container_responses.append(pb.ContainerPreferredAllocationResponse(deviceIDs=ids))
        await stream.send_message(answer)

    async def Allocate(self, stream: Stream[Any, Any]) -> None:
        call: pb.AllocateRequest = await received(stream)
        answer = pb.AllocateResponse()
        for asked in call.container_requests:
            given = pb.ContainerAllocateResponse(
                envs={**self._additions.env, self._visible: ",".join(sorted(map(device_of, asked.devices_ids)))}
            )
            given.mounts.extend(
                pb.Mount(container_path=mount.container, host_path=mount.host, read_only=mount.read_only)
                for mount in self._additions.mounts
            )
            answer.container_responses.append(given)
        await stream.send_message(answer)

    async def PreStartContainer(self, stream: Stream[Any, Any]) -> None:
        await received(stream)
        await stream.send_message(pb.PreStartContainerResponse())


class StaticPlugins:
    """The plug-ins of all profiles that the node has; one begins when its profile first appears."""

    def __init__(self, directory: Path, *, prefix: str, visible: str, additions: Additions, numa: bool) -> None:
        """`directory` is the kubelet's; `prefix` the part of the resources' names before the slash."""
        self._directory = directory
        self._prefix = prefix
        self._make = partial(StaticPlugin, visible=visible, additions=additions, numa=numa)
        self._lists: dict[str, DeviceList] = {}
        self._new: list[str] = []
        self._changed = anyio.Event()

    def set(self, devices: Mapping[str, tuple[Device, ...]]) -> None:
        """The node's instances by profile as they are now; a profile without any keeps its resource, at 0."""
        for profile in devices.keys() - self._lists.keys():
            self._lists[profile] = DeviceList()
            self._new.append(profile)
            self._changed.set()
        for profile, known in self._lists.items():
            known.set(devices.get(profile, ()))

    async def run(self) -> None:
        """Serve them, for ever."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                while self._new:
                    self._start(tasks, self._new.pop())
                await self._changed.wait()

    def _start(self, tasks: TaskGroup, profile: str) -> None:
        # A resource's name takes no plus sign.
        name = f"mig-{profile.replace('+', '.')}"
        plugin = self._make(self._lists[profile])
        log.info("instances of %s are handed out as %s/%s", profile, self._prefix, name)

        async def serve() -> None:
            await kubelet.stay_registered(
                plugin, self._directory, endpoint=f"hami-{name}.sock", resource=f"{self._prefix}/{name}"
            )

        tasks.start_soon(serve, name=name)
