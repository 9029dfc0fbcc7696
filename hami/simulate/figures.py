"""Which plots a study is shown by."""

from collections.abc import Callable
from typing import Final

from hami.simulate.plots import Axis, Line, plot, rounded
from hami.simulate.replay import Sample
from hami.simulate.study import Point, Study, Value

_SPANS: Final = ((3 * 86_400, 86_400, "days"), (3 * 3_600, 3_600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))
"""From which length on, in seconds, time is shown in which unit."""
_FEW_PODS: Final = 5.0
"""An axis of pods goes at least this far."""
_MOST_ASKED: Final = 150.0
"""Percent of all devices up to which the quiet line is followed."""
_SHORT_OF: Final = 0.5
"""Points by which the best policy is behind what is asked for where a close-up is worth its place."""
_LEAD: Final = 10.0
"""Points of load that it shows before."""


def figures(study: Study) -> list[str]:
    """Allocation, fragmentation and pods without a place, against offered load, or against time."""
    if not all(run.outcome.curve for run in study.runs):
        return []
    drawn = _Drawing(study)
    found = [drawn.share("Handed out", "Percent of all devices.", lambda sample: sample.allocated)]
    if (start := _crowded(study)) is not None:
        found.append(drawn.close_up(start))
    found.append(
        drawn.figure(
            "Fragments",
            "Free, but not to be filled by pods like those that have come. Percent of all devices.",
            "%",
            lambda sample: sample.fragments,
        )
    )
    if any(run.outcome.refused for run in study.runs):
        found.append(drawn.figure("Without a place", "Pods so far.", "pods", lambda sample: sample.unplaced))
    return found


class _Drawing:
    """Lines of a study on common axes."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._start, self._unit, label = _time_axis(study) if study.timed else (0.0, 1.0, "")
        self._label = label or "offered load, % of all devices"
        # Where every seed went; reading a band beyond that would compare some seeds with none.
        places = [point.x for line in self._lines(lambda sample: sample.offered) for point in line.points]
        self._right = max(places, default=0.0) or 1.0

    def share(self, title: str, note: str, value: Value) -> str:
        """A percentage of all devices beside what pods ask for, a quiet line that may leave the figure at its top."""
        lines = [*self._lines(value), self._asked()]
        high = max((point.high for line in lines for point in line.points), default=0.0)
        _, high = rounded(0.0, min(high or 1.0, _MOST_ASKED) if self._study.timed else 100.0)
        return plot(title, note, lines, self._x(0.0), Axis(label="%", low=0.0, high=high))

    def figure(self, title: str, note: str, unit: str, value: Value) -> str:
        """Any value that starts at 0; pods are counted in whole ones."""
        lines = self._lines(value)
        high = max((point.high for line in lines for point in line.points), default=0.0)
        _, high = rounded(0.0, max(high, _FEW_PODS) if unit == "pods" else high or 1.0)
        return plot(title, note, lines, self._x(0.0), Axis(label=unit, low=0.0, high=high))

    def close_up(self, start: float) -> str:
        """Handed out, from a load on."""
        lines = self._lines(lambda sample: sample.allocated)
        seen = [point for line in lines for point in line.points if point.x >= start]
        low, high = rounded(min(point.low for point in seen), max(point.high for point in seen))
        return plot(
            "Handed out, close up",
            "From where places grow scarce. The axes do not start at 0.",
            [*lines, self._asked()],
            self._x(start),
            Axis(label="%", low=low, high=high),
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
    """The load at which a close-up starts: a little before even the best policy stops handing out all that is asked."""
    if study.timed:
        return None
    ends = []
    for group in study.groups:
        short = group.curve(lambda sample: sample.offered - sample.allocated, timed=False)
        ends.append(next((point.x for point in short if point.mean > _SHORT_OF), short[-1].x if short else 0.0))
    last = min(run.outcome.curve[-1].offered for run in study.runs)
    return _LEAD * ((max(ends) - _LEAD) // _LEAD) if _LEAD < max(ends) < last else None


def _time_axis(study: Study) -> tuple[float, float, str]:
    times = [sample.at for run in study.runs for sample in run.outcome.curve if sample.at is not None]
    start, length = min(times), max(times) - min(times)
    unit, word = next((unit, word) for least, unit, word in _SPANS if length >= least)
    return start, float(unit), f"{word} since the first arrival"
