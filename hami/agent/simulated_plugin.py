"""The device plug-ins of simulated families: their resources on the kubelet, their annotations on the node.

They stand in for plug-ins of other makers. So the node does not name them as our agent's families, the scheduler locks
the node for them where it does for the real ones, and everything else that a vendor's plug-in does is done here, too.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from hami.agent import kubelet
from hami.agent.announce import Announcement, Announcer
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.pb.deviceplugin_grpc import DevicePluginBase
from hami.agent.plugin import HEALTHY, UNHEALTHY, received
from hami.agent.podresources import PodList
from hami.agent.simulated_answers import Answer
from hami.agent.simulated_family import Book, Family, NobodyWaits
from hami.kube.client import Kube
from hami.kube.errors import KubeError
from hami.model.machine_cards import MachineCard
from hami.model.names import NodeName, VendorWord, WireError
from hami.model.settings import DeviceConfig
from hami.model.vendor import Registry
from hami.node.probe_simulated import SimulatedProbe
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

log = logging.getLogger(__name__)

Task = tuple[str, Callable[[], Coroutine[Any, Any, None]]]


def probes(registry: Registry, cards: Sequence[MachineCard], node: NodeName) -> tuple[SimulatedProbe, ...]:
    """A probe for each family that the machine's description names. Raises WireError for a family nobody declares."""
    found: dict[VendorWord, list[MachineCard]] = {}
    for card in cards:
        found.setdefault(card.family, []).append(card)
    for word in found:
        if registry.get(word) is None:
            known = ", ".join(vendor.name for vendor in registry)
            raise WireError("machine.devices.family", f"one of {known}, with a section in the configuration", word)
    return tuple(SimulatedProbe(registry[word], own, node) for word, own in found.items())


def tasks(
    cards: Sequence[MachineCard],
    config: DeviceConfig,
    kube: Kube,
    announcer: Announcer,
    podlist: PodList,
    directory: Path,
    folder: Path,
) -> list[Task]:
    """Say what the simulated `cards` are, and serve them in the kubelet's `directory`; `folder` is for their files.

    Raises WireError for a family that is not configured, ProbeError for devices that its declaration would not see.
    """
    every = registry(config, ascend=True, iluvatar=True)
    others = Registry(tuple(vendor for vendor in every if vendor.name != NVIDIA.name))
    found = probes(others, cards, announcer.node)
    book = Book(
        registry=Registry(tuple(probe.vendor for probe in found)),
        kube=kube,
        node=announcer.node,
        folder=folder,
        podlist=podlist,
    )
    work: list[Task] = []
    for probe in found:
        foreign = probe.published.annotations
        announcer.say(Announcement(inventory=probe.inventory(), vendor=probe.vendor, devices="env", foreign=foreign))
        family, ill = Family(probe.vendor, probe, book), probe.health()
        for resource, ids in probe.published.ids.items():
            states = {one: UNHEALTHY if one.rpartition("-")[0] in ill else HEALTHY for one in ids}
            plugin = SimulatedPlugin(family, resource, states)
            # A socket's path has a hundred characters; resources' names can be as long.
            endpoint = f"hami-sim-{len(work)}.sock"
            serve = partial(kubelet.stay_registered, plugin, directory, endpoint=endpoint, resource=resource)
            work.append((f"simulated {resource}", serve))
    return work


class SimulatedPlugin(DevicePluginBase):
    """One resource of a simulated family."""

    def __init__(self, family: Family, resource: str, ids: Mapping[str, str]) -> None:
        """`ids` are the kubelet's, each with its health."""
        self._family = family
        self._resource = resource
        self._ids = ids

    async def GetDevicePluginOptions(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(kubelet.OPTIONS)

    async def ListAndWatch(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        answer = pb.ListAndWatchResponse()
        answer.devices.extend(pb.Device(ID=one, health=health) for one, health in self._ids.items())
        await stream.send_message(answer)
        # What is described stays; the kubelet takes the end of the stream for the plug-in's.
        await anyio.sleep_forever()

    async def GetPreferredAllocation(self, stream: Stream[Any, Any]) -> None:
        call: pb.PreferredAllocationRequest = await received(stream)
        answer = pb.PreferredAllocationResponse()
        for asked in call.container_requests:
            ids = list(dict.fromkeys((*asked.must_include_deviceIDs, *asked.available_deviceIDs)))
            chosen = pb.ContainerPreferredAllocationResponse(deviceIDs=ids[: asked.allocation_size])
            answer.container_responses.append(chosen)
        await stream.send_message(answer)

    async def Allocate(self, stream: Stream[Any, Any]) -> None:
        call: pb.AllocateRequest = await received(stream)
        answer = pb.AllocateResponse()
        for asked in call.container_requests:
            try:
                found = await self._family.allocate(self._resource, len(asked.devices_ids))
            except (NobodyWaits, KubeError, OSError) as error:
                log.warning("simulated %s: %s", self._resource, error)
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
    return given
