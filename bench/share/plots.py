"""Shares over time as small multiples, one SVG a question: does a limit hold alone, and beside neighbours?"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from bench.share.controllers import CONTROLLERS, LOADS, simulate
from bench.share.loads import Kind, Row
from bench.share.node import Outcome
from bench.share.verdict import windows

WIDTH: Final = 300
HEIGHT: Final = 150
GAP: Final = 34
LEFT: Final = 40
TOP: Final = 64
WINDOW_S: Final = 0.5
SHOWN_S: Final = 8.0
"""Seconds of the simulated controllers that are drawn beside ours."""
OURS: Final = "#0b5fa5"
COLORS: Final = ("#0b5fa5", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490", "#be123c", "#4b5563")
OTHERS: Final = {"delta": "#c2410c", "aimd": "#15803d", "pid": "#7e22ce"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: percent in each window."""

    percents: Sequence[float]
    color: str
    width: float = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small plot."""

    title: str
    seconds: float
    lines: Sequence[Line]
    dues: Sequence[tuple[float, str]] = ()
    """Percentages to be held, with their curves' colors."""


def alone(rows: Sequence[Row], outcomes: Mapping[str, Outcome], device: str) -> str:
    """Rows with one container, beside simulated controllers on the same loads."""
    panels = []
    for row in rows:
        load = LOADS.get(row.plot)
        if load is None:
            continue
        limit = row.sharers[0].cores
        lines = [
            Line(percents=_percents(simulate(CONTROLLERS[name](limit), load, SHOWN_S), SHOWN_S), color=color)
            for name, color in OTHERS.items()
        ]
        seconds = min(row.seconds, SHOWN_S)
        lines.append(Line(percents=_percents(outcomes[row.name].bins[0], seconds), color=OURS, width=2.2))
        panels.append(Panel(title=row.name, seconds=SHOWN_S, lines=lines, dues=((limit, OURS),)))
    legend = [("ours, measured", OURS), *((f"{name}, simulated", color) for name, color in OTHERS.items())]
    return _figure(f"One program alone, limit enforced; ours on a {device}", legend, panels)


def together(rows: Sequence[Row], outcomes: Mapping[str, Outcome], device: str) -> str:
    """Rows with several containers or processes."""
    panels = []
    for row in rows:
        if row.plot or (len(row.sharers) == 1 and row.sharers[0].processes == 1):
            continue
        bins = outcomes[row.name].bins
        lines = [
            Line(percents=_percents(had, row.seconds), color=COLORS[i % len(COLORS)], width=1.6)
            for i, had in enumerate(bins)
        ]
        dues = {
            (expect.percent, COLORS[expect.sharer % len(COLORS)])
            for expect in row.expects
            if expect.kind is Kind.WINDOWS
        }
        panels.append(Panel(title=row.name, seconds=row.seconds, lines=lines, dues=sorted(dues)))
    legend = [(f"container {i + 1}", color) for i, color in enumerate(COLORS)]
    return _figure(f"Several containers or processes on one device: a {device}", legend, panels)


def _percents(bins: Sequence[float], seconds: float) -> list[float]:
    return windows(tuple(bins), 0.0, seconds, WINDOW_S)


def _figure(title: str, legend: Sequence[tuple[str, str]], panels: Sequence[Panel]) -> str:
    columns = 3
    rows = -(-len(panels) // columns)
    width, height = LEFT + columns * (WIDTH + GAP), TOP + rows * (HEIGHT + 2 * GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    at = LEFT
    for name, color in legend:
        parts.append(f'<path d="M{at} 38h18" stroke="{color}" stroke-width="3"/>')
        parts.append(f'<text x="{at + 22}" y="42">{escape(name)}</text>')
        at += 34 + 6 * len(name)
    parts.append(
        f'<text x="{LEFT}" y="57" fill="#555">percent of the device\'s time in windows of {WINDOW_S:g} s,'
        " against seconds; dashed: what is due</text>"
    )
    for number, panel in enumerate(panels):
        x = LEFT + number % columns * (WIDTH + GAP)
        parts += _panel(panel, x, TOP + number // columns * (HEIGHT + 2 * GAP) + GAP)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, top: float) -> list[str]:
    def y(percent: float) -> float:
        return top + HEIGHT * (1 - min(105.0, percent) / 105)

    def x(second: float) -> float:
        return left + WIDTH * second / panel.seconds

    lines = textwrap.wrap(panel.title, 52)[:2]
    parts = [
        f'<text x="{left}" y="{top - 8 - 13 * (len(lines) - 1 - i)}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    for mark in (0, 50, 100):
        parts.append(f'<path d="M{left} {y(mark):.1f}h{WIDTH}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{left - 6}" y="{y(mark) + 4:.1f}" text-anchor="end" fill="#555">{mark}</text>')
    step = 2 if panel.seconds <= 12 else 4
    parts += [
        f'<text x="{x(second):.1f}" y="{top + HEIGHT + 14}" text-anchor="middle" fill="#555">{second}</text>'
        for second in range(0, int(panel.seconds) + 1, step)
    ]
    for percent, color in panel.dues:
        parts.append(
            f'<path d="M{left} {y(percent):.1f}h{WIDTH}" stroke="{color}" stroke-dasharray="4 4" opacity="0.6"/>'
        )
    for line in panel.lines:
        points = " ".join(f"{x((i + 0.5) * WINDOW_S):.1f},{y(percent):.1f}" for i, percent in enumerate(line.percents))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{line.color}" stroke-width="{line.width}"/>')
    return parts
