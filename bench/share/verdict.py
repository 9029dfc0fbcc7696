"""From what containers had to how far that is off what they were due."""

import math
from dataclasses import dataclass
from typing import Final

from bench.share.loads import Expect, Kind, Row
from bench.share.node import BIN_S, Outcome

MARGIN: Final = 1.2
"""A row that misses its target by more than this factor has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One expectation of one row, and what happened."""

    row: str
    what: str
    due: str
    had: str
    off: float
    target: float
    unit: str
    least: float | None = None
    """Points that whole kernels alone put windows off: a second holds so many of them, or one more."""
    worst: float | None = None
    """The window furthest off, where windows are looked at."""
    late_ms: float = 0.0
    """How late the machine woke programs meanwhile: kernels as long as that cannot follow each other closely."""
    tries: int = 1
    """How often the row was measured; the middle measurement counts."""

    @property
    def verdict(self) -> str:
        if self.off <= self.target:
            return "met"
        return "missed by less than 20 %" if self.off <= self.target * MARGIN else "failed"


DUE: Final = {Kind.AT_LEAST: "at least ", Kind.NEVER_BELOW: "never below "}
WORKS_NS: Final = 0.05 * BIN_S * 1e9
"""A bin with less is idle: a program held back in a launch sees the end of former kernels late, and their time, spread
until then, leaves traces."""


def judge(row: Row, outcome: Outcome) -> list[Judged]:
    """Every expectation of a row."""
    return [_judge(row, expect, outcome) for expect in row.expects]


def windows(bins: tuple[float, ...], from_s: float, to_s: float, length_s: float = 1.0) -> list[float]:
    """Percent of the device's time in each window of a container's bins."""
    size = round(length_s / BIN_S)
    first, last = round(from_s / BIN_S), round(to_s / BIN_S)
    return [100 * sum(bins[at : at + size]) / (length_s * 1e9) for at in range(first, last - size + 1, size)]


def _sliding(bins: tuple[float, ...], from_s: float, to_s: float) -> list[float]:
    """Percent of the device's time in every second that begins and ends in a span."""
    starts = range(round(from_s / BIN_S), round((to_s - 1) / BIN_S) + 1)
    return [windows(bins, at * BIN_S, at * BIN_S + 1)[0] for at in starts]


def least_off(percent: float, unit_ns: int, length_s: float = 1.0) -> float:
    """Mean points that windows are off if each holds whole launches of `unit_ns`: so many or one more, mixed best."""
    launches = percent / 100 * length_s * 1e9 / unit_ns
    part = launches - math.floor(launches)
    return 2 * part * (1 - part) * 100 * unit_ns / (length_s * 1e9)


def _judge(row: Row, expect: Expect, outcome: Outcome) -> Judged:
    bins = outcome.bins[expect.sharer]
    to_s = row.seconds if expect.to_s is None else expect.to_s
    what = f"container {expect.sharer + 1}" if len(row.sharers) > 1 else ""
    if expect.kind in (Kind.STOPS, Kind.RESUMES):
        other = row.sharers[expect.after]
        ended_s = row.seconds if other.to_s is None else other.to_s
        if expect.kind is Kind.STOPS:
            off_ms = 1000 * (_last_work(bins, other.from_s, ended_s) - other.from_s)
        else:
            off_ms = 1000 * (_next_work(bins, ended_s + BIN_S) - ended_s)
        return Judged(
            row=row.name,
            what=f"{what} {expect.kind.value}",
            due=f"{expect.target:.0f} ms",
            had=f"{off_ms:.0f} ms",
            off=off_ms,
            target=expect.target,
            unit="ms",
        )
    parts = windows(bins, expect.from_s, to_s)
    whole = windows(bins, expect.from_s, to_s, to_s - expect.from_s)[0]
    worst = max(abs(part - (whole if expect.kind is Kind.STEADY else expect.percent)) for part in parts)
    match expect.kind:
        case Kind.WINDOWS:
            off = sum(abs(part - expect.percent) for part in parts) / len(parts)
        case Kind.MEAN:
            off = abs(whole - expect.percent)
        case Kind.STEADY:
            off = worst
        case Kind.NEVER_BELOW:
            off = max(0.0, expect.percent - min(_sliding(bins, expect.from_s, to_s)))
        case _:
            off = max(0.0, expect.percent - whole)
    counted = expect.kind is Kind.WINDOWS
    least = least_off(expect.percent, row.sharers[expect.sharer].load.unit_ns) if counted else None
    due = f"{DUE.get(expect.kind, '')}{expect.percent:g} %" if expect.kind is not Kind.STEADY else "steady"
    span = "" if expect.to_s is None and expect.from_s <= 5 else f" {expect.from_s:g}-{to_s:g} s"
    return Judged(
        row=row.name,
        what=(what + span).strip(),
        due=due,
        had=f"{whole:.1f} %",
        off=off,
        target=max(expect.target, least or 0.0),
        unit="points",
        least=least,
        worst=worst,
    )


def _last_work(bins: tuple[float, ...], from_s: float, to_s: float) -> float:
    """End of the last bin with work in a span; its start if there is none."""
    worked = [at for at in range(round(from_s / BIN_S), min(len(bins), round(to_s / BIN_S))) if bins[at] > WORKS_NS]
    return (worked[-1] + 1) * BIN_S if worked else from_s


def _next_work(bins: tuple[float, ...], from_s: float) -> float:
    """End of the first bin with work after a moment; never if there is none."""
    return next(((at + 1) * BIN_S for at in range(round(from_s / BIN_S), len(bins)) if bins[at] > WORKS_NS), math.inf)
