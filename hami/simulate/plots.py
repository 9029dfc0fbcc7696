"""Line plots as inline SVG: no script, no font and no picture from anywhere.

Sizes are for a figure of about 440 pixels, which is a phone's width or a third of a desk's: text stays readable on
both. Colors come from the page's style, so that they follow its light or dark theme; lines differ in their dashes too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

from hami.simulate.study import Point

WIDTH: Final = 460
HEIGHT: Final = 300
_LEFT: Final = 50
_RIGHT: Final = 16
_TOP: Final = 24
_BOTTOM: Final = 46
_TICKS: Final = 6
"""About as many lines of the grid in each direction."""
_HINTS: Final = 25
"""Places of a line that tell their values when pointed at."""
COLORS: Final = 8
DASHES: Final = ("", "8 4", "12 3 2 3", "4 3", "16 5", "8 3 2 3 2 3", "6 6", "20 3 4 3")


_CLIP: Final = (
    f"<clipPath id='frame'><rect x='{_LEFT}' y='{_TOP - 2}' width='{WIDTH - _LEFT - _RIGHT + 2}' "
    f"height='{HEIGHT - _TOP - _BOTTOM + 3}' /></clipPath>"
)
"""Equal in every figure, so that one name does for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve with its name."""

    name: str
    pen: int
    """Number of its color and dashes; -1 = the quiet line of a reference."""
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis says, and from where to where it goes."""

    label: str
    low: float
    high: float


def pen(number: int) -> str:
    """Attributes of a line; equal numbers, equal looks."""
    if number < 0:
        return "class='reference'"
    dash = DASHES[(number + number // COLORS) % len(DASHES)]
    return f"class='line c{number % COLORS}'" + (f" stroke-dasharray='{dash}'" if dash else "")


def plot(title: str, note: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """A figure: title, a sentence, axes with round numbers, the lines, and their bands where seeds differ."""
    frame = _Frame(x, y)
    marks = "".join(
        [
            *(frame.row(value, text) for value, text in _ticks(y.low, y.high)),
            *(frame.column(value, text) for value, text in _ticks(x.low, x.high)),
        ]
    )
    # A reference lies under the rest, and what is drawn last lies on top.
    ordered = sorted(lines, key=lambda line: line.pen)
    drawn = "".join([*(frame.band(line) for line in ordered), *(frame.line(line) for line in ordered)])
    hints = "".join(frame.hints(line) for line in ordered if line.pen >= 0)
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f"<figure><figcaption><strong>{escape(title)}</strong> <span>{escape(note)}</span></figcaption>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(title)}, {escape(x.label)}'>"
        f"{_CLIP}{marks}<g clip-path='url(#frame)'>{drawn}{hints}</g>"
        f"<text class='axis' x='{middle:.0f}' y='{HEIGHT - 6}' text-anchor='middle'>{escape(x.label)}</text>"
        f"<text class='axis' x='{_LEFT - 7}' y='{_TOP - 11}' text-anchor='end'>{escape(y.label)}</text>"
        "</svg></figure>"
    )


class _Frame:
    """Places of values in a figure."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y

    def at(self, x: float, y: float) -> str:
        return f"{self._across(x):.1f},{self._up(y):.1f}"

    def row(self, value: float, text: str) -> str:
        y = self._up(value)
        return (
            f"<line class='grid' x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}' />"
            f"<text x='{_LEFT - 7}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>"
        )

    def column(self, value: float, text: str) -> str:
        x = self._across(value)
        return (
            f"<line class='tick' x1='{x:.1f}' x2='{x:.1f}' y1='{HEIGHT - _BOTTOM}' y2='{HEIGHT - _BOTTOM + 4}' />"
            f"<text x='{x:.1f}' y='{HEIGHT - _BOTTOM + 18}' text-anchor='middle'>{text}</text>"
        )

    def line(self, line: Line) -> str:
        points = " ".join(self.at(point.x, point.mean) for point in line.points)
        return f"<polyline {pen(line.pen)} points='{points}' />"

    def band(self, line: Line) -> str:
        if all(point.low == point.high for point in line.points):
            return ""
        there = [self.at(point.x, point.high) for point in line.points]
        back = [self.at(point.x, point.low) for point in reversed(line.points)]
        return f"<polygon class='band c{line.pen % COLORS}' points='{' '.join(there + back)}' />"

    def hints(self, line: Line) -> str:
        step = max(1, ceil(len(line.points) / _HINTS))
        shown = [*line.points[::step], *line.points[-1:]]
        return "".join(
            f"<circle class='hint' cx='{self._across(p.x):.1f}' cy='{self._up(p.mean):.1f}' r='7'>"
            f"<title>{escape(line.name)}: {p.mean:,.4g} at {p.x:,.4g}</title></circle>"
            for p in shown
            if self._x.low <= p.x <= self._x.high
        )

    def _across(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - self._x.low) / ((self._x.high - self._x.low) or 1)

    def _up(self, value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (value - self._y.low) / ((self._y.high - self._y.low) or 1))


def rounded(low: float, high: float) -> tuple[float, float]:
    """The same range, widened to round numbers."""
    step = _step(low, high)
    return floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = _step(low, high)
    digits = next((digits for digits in range(9) if abs(step * 10**digits - round(step * 10**digits)) < 1e-6), 9)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [(i * step, f"{i * step:,.{digits}f}") for i in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, so that a range has about `_TICKS` of it."""
    rough = max(high - low, 1e-9) / _TICKS
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
