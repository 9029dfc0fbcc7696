"""Several runs of one workload side by side: policies to compare, each over the same seeds."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from hami.simulate.files import Source
from hami.simulate.replay import Outcome, Sample
from hami.simulate.workload import Order, Workload

POINTS: Final = 100
"""Points of a curve that stands for several seeds."""

_LOADS: Final = (10, 25, 50, 70, 80, 90, 95, 100, 110, 120, 130, 150, 200)

Value = Callable[[Sample], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, and how it came about."""

    policy: str
    seed: int | None
    seconds: float
    """Wall time of the run, without reading the files."""
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over several seeds."""

    mean: float
    low: float
    high: float
    deviation: float | None
    """Standard deviation of the seeds; None for a single one."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(
            mean=fmean(values),
            low=min(values),
            high=max(values),
            deviation=stdev(values) if len(values) > 1 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A curve at one place: the mean of the seeds, the lowest and the highest."""

    x: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The runs of one policy, one a seed."""

    policy: str
    runs: tuple[Run, ...]

    def figure(self, value: Callable[[Outcome], float]) -> Spread:
        """A figure of the outcomes."""
        return Spread.of([value(run.outcome) for run in self.runs])

    def curve(self, value: Value, *, timed: bool) -> tuple[Point, ...]:
        """A value against time, or against offered load as far as every seed went. One seed keeps its own points."""
        curves = [[(_place(sample, timed), value(sample)) for sample in run.outcome.curve] for run in self.runs]
        if not all(curves):
            return ()
        if len(curves) == 1:
            return tuple(Point(x=x, mean=y, low=y, high=y) for x, y in curves[0])
        first, last = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
        places = [first + (last - first) * i / (POINTS - 1) for i in range(POINTS)]
        found = []
        for place in places:
            here = Spread.of([_between(curve, place) for curve in curves])
            found.append(Point(x=place, mean=here.mean, low=here.low, high=here.high))
        return tuple(found)

    def at_load(self, load: float) -> float | None:
        """Percent handed out when this much had been asked for, mean of the seeds; None beyond what was offered."""
        values = []
        for run in self.runs:
            curve = [(sample.offered, sample.allocated) for sample in run.outcome.curve]
            if not curve or not curve[0][0] <= load <= curve[-1][0]:
                return None
            values.append(_between(curve, load))
        return fmean(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What was simulated, of what, and what came of it."""

    command: str
    version: str
    """Of this program."""
    sources: tuple[Source, ...]
    workload: Workload
    order: Order
    load: float | None
    runs: tuple[Run, ...]

    @property
    def timed(self) -> bool:
        """Whether pods came and left by their times."""
        return self.order is Order.TIME

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each once, in the order of the runs."""
        return tuple(dict.fromkeys(run.seed for run in self.runs if run.seed is not None))

    @property
    def groups(self) -> tuple[Group, ...]:
        """By policy, in the order of the runs."""
        policies = dict.fromkeys(run.policy for run in self.runs)
        return tuple(
            Group(policy=policy, runs=tuple(run for run in self.runs if run.policy == policy)) for policy in policies
        )

    @property
    def loads(self) -> tuple[int, ...]:
        """Round loads, in percent, at which curves are worth comparing: those that all runs reached."""
        if self.timed or not all(run.outcome.curve for run in self.runs):
            return ()
        start = max(run.outcome.curve[0].offered for run in self.runs)
        reached = min(run.outcome.curve[-1].offered for run in self.runs)
        return tuple(load for load in _LOADS if start <= load <= reached)


def spans(seeds: Sequence[int]) -> str:
    """Seeds as `--seed` takes them: `42-51,60`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _place(sample: Sample, timed: bool) -> float:
    return (sample.at or 0.0) if timed else sample.offered


def _between(curve: Sequence[tuple[float, float]], place: float) -> float:
    """The value at a place between the points of a curve, on the straight line between its neighbours."""
    index = bisect_left(curve, place, key=lambda point: point[0])
    if index == 0:
        return curve[0][1]
    if index == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[index - 1], curve[index]
    return low if right == left else low + (high - low) * (place - left) / (right - left)
