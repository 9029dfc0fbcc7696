"""Kubelet ids: how devices are counted out to the kubelet, and which ids it should take.

An id is `<UUID>-<i>`, one for each sharer a device may have. Which ids a container holds decides nothing about its
devices; choosing those of its assigned devices keeps the kubelet's books readable and its NUMA hints right.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from hami.alloc import topology
from hami.model.device import Device, Links
from hami.model.names import DeviceUuid


def ids_of(device: Device) -> list[str]:
    """The ids a device is counted out as."""
    return [f"{device.uuid}-{i}" for i in range(device.slots)]


def device_of(device_id: str) -> DeviceUuid:
    """The device an id counts."""
    return DeviceUuid(device_id.rpartition("-")[0])


def preferred_ids(
    available: Iterable[str], must: Sequence[str], size: int, assigned: Iterable[DeviceUuid]
) -> list[str]:
    """`size` of the available ids: those the kubelet insists on, then the assigned devices', then of other devices,
    each device once while that is possible, the device with most ids left first."""
    chosen = list(must[:size])
    free: dict[DeviceUuid, list[str]] = {}
    for device_id in sorted(set(available) - set(chosen), key=_order):
        free.setdefault(device_of(device_id), []).append(device_id)
    taken = Counter(map(device_of, chosen))
    for uuid in assigned:
        if len(chosen) < size and not taken[uuid] and free.get(uuid):
            chosen.append(free[uuid].pop(0))
            taken[uuid] += 1
    while len(chosen) < size and any(free.values()):
        uuid = min((u for u in free if free[u]), key=lambda u: (taken[u], -len(free[u]), u))
        chosen.append(free[uuid].pop(0))
        taken[uuid] += 1
    return chosen


def linked_devices(
    available: Iterable[str], must: Sequence[str], size: int, links: Links | None
) -> tuple[DeviceUuid, ...]:
    """The best linked devices for a container of which no assignment is known, by the engine that schedules pods.

    Of devices that are linked alike, the one with most ids left comes first.
    """
    left = Counter(map(device_of, available))
    required = set(map(device_of, must))
    return topology.prefer(links, sorted(left.keys() | required, key=lambda u: (-left[u], u)), required, size)


def _order(device_id: str) -> tuple[str, int, str]:
    uuid, _, number = device_id.rpartition("-")
    return uuid, int(number) if number.isdigit() else 0, device_id
