"""The MIG instances that containers of this node were given, as people read them: no region belongs to one, the
hardware holds its limits, so all that there is to tell is which it is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hami.model.claim import MigInstance
from hami.model.names import DeviceUuid, PodKey
from hami.node.grants import Grant, State


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInstance:
    """One instance of one container."""

    key: PodKey
    container: str
    index: int
    """Position among the container's devices."""
    card: DeviceUuid
    profile: str
    made: MigInstance


def instances(grants: Iterable[Grant]) -> Iterator[ContainerInstance]:
    """Every instance that exists for a container whose grant is settled, init containers included."""
    for grant in grants:
        if grant.state is not State.SETTLED or grant.holder is None:
            continue
        for reservation in grant.mig:
            if reservation.instance is not None:
                yield ContainerInstance(
                    key=grant.holder.key,
                    container=grant.holder.container,
                    index=reservation.device,
                    card=reservation.uuid,
                    profile=reservation.profile,
                    made=reservation.instance,
                )
