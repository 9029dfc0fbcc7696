"""Who is slowed and who must wait, from how the containers of a node use its devices.

HAMi looks every five seconds and lets one kernel count as activity for up to ten. Here the caller looks ten times a
second and says how long ago each container last had work on its devices, so a newcomer is noticed at the next look.

How long a container counts as active after its last launch is another matter. Limits hold on for two seconds: they
must not come and go with every pause of a neighbour. Waiting for a container of higher priority ends as soon as its
pause is longer than its pauses usually are, so that a busy one that stops lets the others go at once, while one that
launches a kernel now and then is not disturbed in between.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.model.names import DeviceUuid

HOLD_S: Final = 2.0
"""How long a container counts as active after its last work. A container held to 5 % may pause for nearly a second
between kernels of 50 ms; HAMi's own value is 5 to 10 s."""
WINDOW_S: Final = 3.0
"""How long a pause is remembered, at least; at most twice that."""
PATIENCE: Final = 1.5
"""A pause this much longer than the longest one remembered is the end of the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How a container launches: when it last did (monotonic seconds), and its longest pauses lately."""

    active_s: float | None = None
    """None = never."""
    since_s: float = 0.0
    """When the current half of the memory began."""
    pause_s: float = 0.0
    """The longest pause in the current half."""
    former_s: float = HOLD_S
    """The longest pause in the half before; at first nothing is known and every pause is waited for."""

    def launched(self, now_s: float) -> "Rhythm":
        """A look at `now_s` found that it had launched since the look before."""
        if self.active_s is None or now_s - self.active_s >= HOLD_S:
            return Rhythm(active_s=now_s, since_s=now_s)
        pause_s = max(self.pause_s, now_s - self.active_s)
        if now_s - self.since_s < WINDOW_S:
            return replace(self, active_s=now_s, pause_s=pause_s)
        return Rhythm(active_s=now_s, since_s=now_s, pause_s=0.0, former_s=pause_s)

    def hold_s(self) -> float:
        """How long after its last launch others wait for it."""
        return min(HOLD_S, PATIENCE * max(self.pause_s, self.former_s))

    def idle_s(self, now_s: float) -> float | None:
        """Seconds since it last launched; None = it never did."""
        return None if self.active_s is None else now_s - self.active_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUse:
    """One container as its shared region shows it."""

    id: str
    devices: frozenset[DeviceUuid]
    priority: int
    """0 runs first; larger numbers wait for smaller ones."""
    idle_s: float | None
    """Seconds since it last had work on its devices, 0 while it has; None = it never had."""
    hold_s: float = HOLD_S
    """How long after its last work those of lower priority wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What to set in one container's region."""

    id: str
    blocked: bool
    """It waits: a container of higher priority is active on one of its devices."""
    sharing: bool
    """Its compute limit holds: others are active on one of its devices, too."""


def feedback(uses: Sequence[ContainerUse], *, hold_s: float = HOLD_S) -> tuple[Feedback, ...]:
    """The verdict on every container, in the given order; `hold_s`: how long limits hold after a neighbour's last work.

    Containers of lower priority do not make a container share a device: they wait.
    """
    active = _count(use for use in uses if use.idle_s is not None and use.idle_s < hold_s)
    waited_for = _count(use for use in uses if use.idle_s is not None and use.idle_s < use.hold_s)
    return tuple(_judge(use, active, waited_for) for use in uses)


def tenants(uses: Sequence[ContainerUse], *, hold_s: float = HOLD_S) -> Counter[DeviceUuid]:
    """How many containers are active on each device."""
    return Counter(device for use in uses if use.idle_s is not None and use.idle_s < hold_s for device in use.devices)


def _count(uses: Iterable[ContainerUse]) -> Counter[tuple[DeviceUuid, int]]:
    """How many of these are on each device, by priority."""
    return Counter((device, use.priority) for use in uses for device in use.devices)


def _judge(
    use: ContainerUse, active: Counter[tuple[DeviceUuid, int]], waited_for: Counter[tuple[DeviceUuid, int]]
) -> Feedback:
    blocked = any(priority < use.priority and device in use.devices for device, priority in waited_for)
    crowded = any(active[device, use.priority] > 1 for device in use.devices)
    return Feedback(id=use.id, blocked=blocked, sharing=blocked or crowded)
