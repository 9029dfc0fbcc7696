"""The kubelet's list of pods and their devices, over its own socket.

During `Allocate` the list already holds the pod being admitted, with empty containers. Plain init containers are never
in it, and a pod that was deleted by force is gone from it before its processes are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grpclib.client import Channel

from hami.agent.pb.podresources_grpc import PodResourcesListerStub
from hami.agent.pb.podresources_pb2 import ListPodResourcesRequest
from hami.model.names import PodKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPod:
    """A pod the kubelet runs or is admitting."""

    key: PodKey
    devices: Mapping[str, frozenset[str]]
    """Our resource's ids by container (sidecars and app containers); empty = nothing allocated (yet)."""


class PodList(Protocol):
    """Where the kubelet's list comes from."""

    async def list(self) -> tuple[ListedPod, ...]: ...


class PodResources:
    """A client that connects when first asked and again after the kubelet restarted."""

    def __init__(self, socket: Path, resource: str, timeout_s: float = 5.0) -> None:
        self._channel = Channel(path=str(socket))
        self._stub = PodResourcesListerStub(self._channel)
        self._resource = resource
        self._timeout_s = timeout_s

    async def list(self) -> tuple[ListedPod, ...]:
        """Every pod of the kubelet. Raises OSError or grpclib's errors when the kubelet does not answer."""
        answer = await self._stub.List(ListPodResourcesRequest(), timeout=self._timeout_s)
        return tuple(
            ListedPod(
                key=PodKey(pod.namespace, pod.name),
                devices={
                    container.name: frozenset(
                        device_id
                        for devices in container.devices
                        if devices.resource_name == self._resource
                        for device_id in devices.device_ids
                    )
                    for container in pod.containers
                },
            )
            for pod in answer.pod_resources
        )

    def close(self) -> None:
        self._channel.close()
