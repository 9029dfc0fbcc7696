"""The device-plugin service: the kubelet's calls, translated.

Ids and answers are the kubelet's; everything about whose and how much is `hami.agent.grants`.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from hami.agent import kubelet
from hami.agent.grants import Grants, NotGranted
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.pb.deviceplugin_grpc import DevicePluginBase
from hami.agent.preferred import ids_of
from hami.model.device import Device

log = logging.getLogger(__name__)

HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"


class DeviceList:
    """The devices as the kubelet should see them; whoever follows is told of every change."""

    def __init__(self) -> None:
        self._devices: tuple[Device, ...] | None = None
        self._changed = anyio.Event()

    def set(self, devices: tuple[Device, ...]) -> None:
        if devices != self._devices:
            self._devices = devices
            self._changed.set()
            self._changed = anyio.Event()

    async def next(self, known: tuple[Device, ...] | None) -> tuple[Device, ...]:
        """The devices, as soon as they differ from `known`."""
        while self._devices is None or self._devices == known:
            await self._changed.wait()
        return self._devices


class DevicePlugin(DevicePluginBase):
    """One resource's device plug-in."""

    def __init__(
        self, grants: Grants, devices: DeviceList, *, numa: bool, observe: Callable[[str, float], None]
    ) -> None:
        """`numa`: tell the kubelet each device's NUMA node. `observe` hears of each answer: result and seconds."""
        self.grants = grants
        self._devices = devices
        self._numa = numa
        self._observe = observe

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
            ids = await self.grants.prefer(
                asked.available_deviceIDs, asked.must_include_deviceIDs, asked.allocation_size
            )
            answer.container_responses.append(pb.ContainerPreferredAllocationResponse(deviceIDs=ids))
        await stream.send_message(answer)

    async def Allocate(self, stream: Stream[Any, Any]) -> None:
        call: pb.AllocateRequest = await received(stream)
        started = anyio.current_time()
        answer = pb.AllocateResponse()
        for asked in call.container_requests:
            answer.container_responses.append(await self.grants.allocate(asked.devices_ids))
        self._observe("answered", anyio.current_time() - started)
        await stream.send_message(answer)

    async def PreStartContainer(self, stream: Stream[Any, Any]) -> None:
        call: pb.PreStartContainerRequest = await received(stream)
        started = anyio.current_time()
        try:
            await self.grants.prepare(call.devices_ids)
        except NotGranted as error:
            self._observe("refused", anyio.current_time() - started)
            log.warning("a container may not start: %s", error)
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from None
        self._observe("granted", anyio.current_time() - started)
        await stream.send_message(pb.PreStartContainerResponse())


async def received(stream: Stream[Any, Any]) -> Any:
    """The call's one message."""
    message = await stream.recv_message()
    if message is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the call ended without a message")
    return message


def list_answer(devices: tuple[Device, ...], *, numa: bool) -> pb.ListAndWatchResponse:
    """Every id with its health and, if asked for, its NUMA node."""
    answer = pb.ListAndWatchResponse()
    for device in devices:
        health = HEALTHY if device.healthy else UNHEALTHY
        topology = pb.TopologyInfo(nodes=[pb.NUMANode(ID=device.numa)]) if numa else None
        answer.devices.extend(pb.Device(ID=device_id, health=health, topology=topology) for device_id in ids_of(device))
    return answer
