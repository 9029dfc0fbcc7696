"""Which plots a study is shown by."""

from collections.abc import Callable
from typing import Final

from hami.simulate.plots import Axis, Line, plot, rounded
from hami.simulate.replay import Sample
from hami.simulate.study import Point, Study, Value

_SPANS: Final = ((3 * 86_400, 86_400, "days"), (3 * 3_600, 3_600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))
"""From which length on, in seconds, time is shown in which unit."""
_LEAST_SPAN: Final = 5.0
"""Points of load that a close-up must show to be worth its place."""


def figures(study: Study) -> list[str]:
    """Allocation, fragmentation and pods without a place, against offered load, or against time."""
    if not all(run.outcome.curve for run in study.runs):
        return []
    drawn = _Drawing(study)
    found = [
        drawn.figure("Handed out", "Percent of all devices.", lambda sample: sample.allocated, asked=True, top=100.0)
    ]
    if (start := _crowded(study)) is not None:
        found.append(drawn.close_up(start))
    return [
        *found,
        drawn.figure(
            "Fragments",
            "Free, but not to be filled by pods like those that have come. Percent of all devices.",
            lambda sample: sample.fragments,
        ),
        drawn.figure("Without a place", "Pods so far.", lambda sample: sample.unplaced),
    ]


class _Drawing:
    """Lines of a study on common axes."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._start, self._unit, label = _time_axis(study) if study.timed else (0.0, 1.0, "")
        self._label = label or "offered load, % of all devices"
        # Where every seed went; reading a band beyond that would compare some seeds with none.
        places = [point.x for line in self._lines(lambda sample: sample.offered) for point in line.points]
        self._right = max(places, default=0.0) or 1.0

    def figure(self, title: str, note: str, value: Value, *, asked: bool = False, top: float | None = None) -> str:
        """One value of all policies; with `asked`, what pods ask for as a quiet line, as far as `top` lets see."""
        lines = self._lines(value)
        if asked:
            lines.append(self._asked())
        high = max((point.high for line in lines for point in line.points), default=0.0)
        if top is not None:
            high = max(top, high if self._study.timed else top)
        low, high = rounded(0.0, high or 1.0)
        return plot(title, note, lines, self._x(0.0), Axis(label="", low=low, high=high))

    def close_up(self, start: float) -> str:
        """Handed out, from where the first pod found no place."""
        lines = self._lines(lambda sample: sample.allocated)
        seen = [point for line in lines for point in line.points if point.x >= start]
        low, high = rounded(min(point.low for point in seen), max(point.high for point in seen))
        return plot(
            "Handed out, close up",
            "From where the first pod found no place; the axes do not start at 0.",
            [*lines, self._asked()],
            self._x(start),
            Axis(label="", low=low, high=high),
        )

    def _x(self, low: float) -> Axis:
        return Axis(label=self._label, low=low, high=self._right)

    def _asked(self) -> Line:
        line = self._lines(lambda sample: sample.offered)[0]
        return Line(name="asked for", pen=-1, points=line.points)

    def _lines(self, value: Callable[[Sample], float]) -> list[Line]:
        return [
            Line(
                name=group.policy,
                pen=number,
                points=tuple(map(self._placed, group.curve(value, timed=self._study.timed))),
            )
            for number, group in enumerate(self._study.groups)
        ]

    def _placed(self, point: Point) -> Point:
        return Point(x=(point.x - self._start) / self._unit, mean=point.mean, low=point.low, high=point.high)


def _crowded(study: Study) -> float | None:
    """The load at which a first pod that asks for devices found no place; None where a close-up would show nothing."""
    if study.timed:
        return None
    loads = [kind.load for run in study.runs for kind in run.outcome.unplaced if kind.milli]
    end = min(run.outcome.curve[-1].offered for run in study.runs)
    if not loads or end - min(loads) < _LEAST_SPAN:
        return None
    return 5.0 * (min(loads) // 5.0)


def _time_axis(study: Study) -> tuple[float, float, str]:
    times = [sample.at for run in study.runs for sample in run.outcome.curve if sample.at is not None]
    start, length = min(times), max(times) - min(times)
    unit, word = next((unit, word) for least, unit, word in _SPANS if length >= least)
    return start, float(unit), f"{word} since the first arrival"
