"""Who is slowed and who must wait, from how the containers of a node use its devices.

HAMi looks every five seconds and lets one kernel count as activity for up to ten. Here the caller looks every 200 ms
and says how long ago each container last had work on its devices, so a newcomer is noticed at the next look, while the
hold time keeps a container that launches in bursts, or that its own limit holds back between launches, counted as
active.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hami.model.names import DeviceUuid

HOLD_S: Final = 2.0
"""How long a container counts as active after its last work. A container held to 5 % may pause for nearly a second
between kernels of 50 ms; HAMi's own value is 5 to 10 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUse:
    """One container as its shared region shows it."""

    id: str
    devices: frozenset[DeviceUuid]
    priority: int
    """0 runs first; larger numbers wait for smaller ones."""
    idle_s: float | None
    """Seconds since it last had work on its devices, 0 while it has; None = it never had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What to set in one container's region."""

    id: str
    blocked: bool
    """It waits: a container of higher priority is active on one of its devices."""
    sharing: bool
    """Its compute limit holds: others are active on one of its devices, too."""


def feedback(uses: Sequence[ContainerUse], *, hold_s: float = HOLD_S) -> tuple[Feedback, ...]:
    """The verdict on every container, in the given order.

    Containers of lower priority do not make a container share a device: they wait.
    """
    active: Counter[tuple[DeviceUuid, int]] = Counter(
        (device, use.priority)
        for use in uses
        if use.idle_s is not None and use.idle_s < hold_s
        for device in use.devices
    )
    return tuple(_judge(use, active) for use in uses)


def _judge(use: ContainerUse, active: Counter[tuple[DeviceUuid, int]]) -> Feedback:
    blocked = any(priority < use.priority and device in use.devices for device, priority in active)
    crowded = any(active[device, use.priority] > 1 for device in use.devices)
    return Feedback(id=use.id, blocked=blocked, sharing=blocked or crowded)
