"""What of a device's time nobody uses, and who may have it meanwhile.

Under the default policy a limit is what a container can count on, not what it is kept to while others leave theirs
unused. A container that its limit holds back is lent their idle shares, in proportion to its own limit.

Nobody can see what an owner would use if it were not disturbed, only what it does use beside those who borrow from
it. So the rules are uneven. An owner keeps the most it used lately and a bit: a device is never idle while somebody has
work, so one that wants more will obtain that bit, which shows. Then it is given all of its limit back at once, and
keeps it for half a second, in which its use is seen undisturbed. Loans grow slowly, end at once, and never add up to
the whole device. What is lent follows an owner's use by little more than one to one, and its use falls by less than
what is lent, so the two settle instead of chasing each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Final

WHOLE: Final = 100.0
SMOOTH_S: Final = 0.2
"""Time constant of a use: a single kernel of 20 ms, seen after 50 ms, is not taken for one that always works."""
MEMORY_S: Final = 0.5
"""How long the most that was used is remembered, at least; at most twice that."""
WANTED_S: Final = 0.5
"""How long an owner keeps all of its share after its use rose or its limit held it back: by then its use says more."""
HELD_S: Final = 1.0
"""How long a container may be lent more after its limit held it back. One held to 5 % waits for half a second between
kernels of 20 ms."""
KEPT: Final = 1.15
"""What an owner keeps, in terms of the most it used lately."""
KEPT_POINTS: Final = 4.0
NOTHING: Final = 0.1
"""Points that are no use, but what is left of a former one."""
RISE: Final = 1.08
"""Use this far beyond the most in the half of the memory before, at work in two looks on end, says that an owner wants
its share again; below KEPT. A kernel now and then is at work in one."""
RISE_POINTS: Final = 3.0
HEADROOM: Final = 4.0
"""Points that are not lent: programs that wait for each kernel leave gaps which nobody can fill."""
GROWTH: Final = 50.0
"""Points by which a loan may grow in a second."""
HELD: Final = 0.01
"""Part of the time in which launches waited, from where on a limit is said to hold its container back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one container makes of its share of one device, from look to look. Times are monotonic seconds."""

    limit: int
    """Percent of the device's time, 1 to 99."""
    borrows: bool = True
    """Whether it may be lent more."""
    use: float = 0.0
    """Percent, smoothed."""
    at_work: bool = False
    """Whether it was charged anything before the last look."""
    most: float = 0.0
    """The most it used in the current half of the memory."""
    former: float = 0.0
    """The most in the half before."""
    since_s: float
    """When the current half began."""
    risen_s: float
    """When its use last rose, or it was first seen."""
    held_s: float | None = None
    """When its limit last held it back; None = never."""
    loan: float = 0.0
    """Points lent beyond its limit."""

    def seen(self, now_s: float, span_s: float, *, used_ns: int, waited_ns: int, waiting: bool) -> "Demand":
        """After `span_s` more, in which it was charged `used_ns` and launches that went on had waited `waited_ns`.

        `waiting`: a launch waits now, and none went on.
        """
        weight = 1 - exp(-span_s / SMOOTH_S)
        use = max(0.0, self.use + weight * (used_ns / span_s / 1e7 - self.use))
        held = waiting or waited_ns > HELD * span_s * 1e9
        at_work = used_ns > 0
        risen = at_work and self.at_work and use > RISE * self.former + RISE_POINTS
        anew = now_s - self.since_s >= MEMORY_S
        return replace(
            self,
            use=use,
            at_work=at_work,
            most=use if anew else max(self.most, use),
            former=self.most if anew else self.former,
            since_s=now_s if anew else self.since_s,
            risen_s=now_s if risen else self.risen_s,
            held_s=now_s if held else self.held_s,
        )

    @property
    def lately(self) -> float:
        """The most it used in the last second or two."""
        return max(self.most, self.former)

    def kept(self, now_s: float) -> float:
        """Percent that is not lent to others."""
        wanted = now_s - self.risen_s < WANTED_S or self._held(now_s, WANTED_S)
        return float(self.limit) if wanted else min(self.limit, self._room)

    def desired(self, now_s: float) -> float:
        """Percent that it could use, its limit at least."""
        if not self.borrows:
            return float(self.limit)
        if self._held(now_s, HELD_S):
            return WHOLE
        return self._room if self.lately > self.limit else float(self.limit)

    def _held(self, now_s: float, within_s: float) -> bool:
        return self.held_s is not None and now_s - self.held_s < within_s

    @property
    def _room(self) -> float:
        return KEPT * self.lately + KEPT_POINTS if self.lately > NOTHING else 0.0


def lend(demands: Sequence[Demand], now_s: float, span_s: float) -> tuple[Demand, ...]:
    """The same demands with the loans of the next `span_s` or so; all containers that are active on one device."""
    idle = WHOLE - HEADROOM - sum(demand.kept(now_s) for demand in demands)
    loans = _fill(idle, [(demand.limit, demand.desired(now_s) - demand.limit) for demand in demands])
    return tuple(
        replace(demand, loan=min(loan, demand.loan + GROWTH * span_s))
        for demand, loan in zip(demands, loans, strict=True)
    )


def _fill(idle: float, wants: Sequence[tuple[int, float]]) -> list[float]:
    """`idle` points over (weight, most) by weight; what one does not take is the others'."""
    loans = [0.0] * len(wants)
    hungry = [i for i, (_, most) in enumerate(wants) if most > 0]
    while hungry and idle > 0:
        level = idle / sum(wants[i][0] for i in hungry)
        full = [i for i in hungry if wants[i][1] <= level * wants[i][0]]
        if not full:
            for i in hungry:
                loans[i] = level * wants[i][0]
            break
        for i in full:
            loans[i] = wants[i][1]
            idle -= loans[i]
        hungry = [i for i in hungry if i not in full]
    return loans
