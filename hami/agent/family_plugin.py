"""The device plug-in of one resource of a family that is served as its vendor's plug-in does: the kubelet's calls,
translated. Whose and how much is `hami.agent.family`.
"""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from hami.agent.family import Family, NotServed
from hami.agent.family_answer import Answer
from hami.agent.kubelet import stay_registered
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.pb.deviceplugin_grpc import DevicePluginBase
from hami.agent.plugin import received
from hami.agent.preferred import preferred_ids
from hami.kube.errors import KubeError

log = logging.getLogger(__name__)

OPTIONS: Final = pb.DevicePluginOptions(get_preferred_allocation_available=True)
"""Without a call before each start: a container may start again while the agent is away."""

Lists = Callable[[], AsyncIterator[pb.ListAndWatchResponse]]
"""What the kubelet is told of the resource's ids, from now on, at every change. It never ends: the kubelet takes the
end of the stream for the plug-in's."""


class FamilyPlugin(DevicePluginBase):
    """One resource of a family."""

    def __init__(self, family: Family, resource: str, lists: Lists) -> None:
        self._family = family
        self._resource = resource
        self._lists = lists

    async def serve(self, directory: Path, endpoint: str) -> None:
        """Be known to the kubelet of `directory`, until cancelled. Raises OSError when the socket cannot be made."""
        await stay_registered(self, directory, endpoint=endpoint, resource=self._resource, options=OPTIONS)

    async def GetDevicePluginOptions(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(OPTIONS)

    async def ListAndWatch(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        async for answer in self._lists():
            await stream.send_message(answer)

    async def GetPreferredAllocation(self, stream: Stream[Any, Any]) -> None:
        """Ids of the devices that the call after this one will bring, so that the kubelet's books are right."""
        call: pb.PreferredAllocationRequest = await received(stream)
        answer = pb.PreferredAllocationResponse()
        for asked in call.container_requests:
            try:
                assigned = await self._family.assigned(self._resource, asked.allocation_size)
            except KubeError as error:
                log.warning("%s: nobody knows which ids are right: %s", self._resource, error)
                assigned = ()
            ids = preferred_ids(
                asked.available_deviceIDs, asked.must_include_deviceIDs, asked.allocation_size, assigned
            )
            answer.container_responses.append(pb.ContainerPreferredAllocationResponse(deviceIDs=ids))
        await stream.send_message(answer)

    async def Allocate(self, stream: Stream[Any, Any]) -> None:
        call: pb.AllocateRequest = await received(stream)
        answer = pb.AllocateResponse()
        for asked in call.container_requests:
            try:
                found = await self._family.allocate(self._resource, len(asked.devices_ids))
            except (NotServed, KubeError, OSError) as error:
                log.warning("%s: %s", self._resource, error)
                raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from None
            answer.container_responses.append(_worded(found))
        await stream.send_message(answer)

    async def PreStartContainer(self, stream: Stream[Any, Any]) -> None:
        await received(stream)
        await stream.send_message(pb.PreStartContainerResponse())


def _worded(found: Answer) -> pb.ContainerAllocateResponse:
    given = pb.ContainerAllocateResponse(envs=dict(found.env))
    given.mounts.extend(
        pb.Mount(container_path=mount.container, host_path=mount.host, read_only=mount.read_only)
        for mount in found.mounts
    )
    given.devices.extend(pb.DeviceSpec(container_path=node, host_path=node, permissions="rw") for node in found.nodes)
    return given
