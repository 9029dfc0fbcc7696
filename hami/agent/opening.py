"""Making a grant's files say what was decided: the device file, the region, the grant file, the record.

Order is safety: the record is written last, so that after a crash everything is done again; a refused grant loses its
grant file first. Every call is synchronous and belongs in a worker thread.
"""

from dataclasses import dataclass
from typing import Protocol

from hami.agent.answer import Wording
from hami.agent.pb.deviceplugin_pb2 import ContainerAllocateResponse
from hami.agent.pods import NodePod, NodePods
from hami.alloc import grant as contract
from hami.alloc import request
from hami.alloc.request import Container
from hami.node.grants import Grant, State


class Regions(Protocol):
    """The shared regions of grants."""

    def ensure(self, grant: Grant, priority: int) -> None:
        """Have a region with the grant's devices and limits; one with live processes is never made anew."""
        ...

    def alive(self, grant_id: str) -> bool:
        """Whether a process of the grant's container still runs."""
        ...

    def close(self, grant_id: str) -> None:
        """Let go of a region that is about to be deleted."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """The files of one node's grants."""

    wording: Wording
    pods: NodePods
    regions: Regions

    def create(self, grant: Grant) -> None:
        """What the answer to `Allocate` names: directories to mount, and the CDI device of the thought owner."""
        self.wording.store.create(grant)
        self._write_device(grant, self._container(grant))

    def answer(self, grant: Grant) -> ContainerAllocateResponse:
        """The answer to `Allocate`."""
        container = self._container(grant)
        preload = container is None or not contract.opts_out(container)
        return self.wording.allocate(grant, preload=preload)

    def open(self, grant: Grant, pod: NodePod) -> bool:
        """Let the container use its shares; whether its device file changed. Raises OSError, WireError."""
        assert grant.holder is not None
        container = container_of(pod, grant.holder.position)
        store = self.wording.store
        if not grant.mig:
            self.regions.ensure(grant, request.task_priority(container, self.wording.vendor))
            store.link(grant)
        changed = self._write_device(grant, container)
        store.open_up(grant.id, self.wording.grant_file(grant, container))
        store.save(grant)
        return changed

    def say_enforcer(self, grant: Grant, pod: NodePod) -> None:
        """Let programs that start from now on know who holds the limits. Raises OSError, WireError."""
        assert grant.holder is not None
        container = container_of(pod, grant.holder.position)
        self.wording.store.open_up(grant.id, self.wording.grant_file(grant, container))
        self.wording.store.save(grant)

    def close(self, grant: Grant) -> None:
        """Let the container use nothing."""
        self.wording.store.close_down(grant.id)
        self._write_device(grant, self._container(grant))
        self.wording.store.save(grant)

    def restore(self, grant: Grant) -> bool:
        """Put back what somebody took away from a grant (a reboot empties the CDI directory); whether it was the
        device file."""
        pod = self.pods.get(grant.holder.pod_uid) if grant.holder else None
        if pod is None or grant.state is not State.SETTLED:
            return self._write_device(grant, self._container(grant))
        return self.open(grant, pod)

    def _write_device(self, grant: Grant, container: Container | None) -> bool:
        return self.wording.store.write_device(grant.id, self.wording.edits(grant, container))

    def _container(self, grant: Grant) -> Container | None:
        """The container of the owner, thought or confirmed, as far as our picture knows it."""
        pod = self.pods.get(grant.holder.pod_uid) if grant.holder else None
        return container_of(pod, grant.holder.position) if pod and grant.holder else None


def container_of(pod: NodePod, position: int) -> Container:
    """The pod's container at a segment's position."""
    return tuple(request.containers(pod.document))[position]
