"""One self-contained HTML page of some runs: no script, no font, no image from anywhere; the plots are inline SVG."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from hami.simulate.replay import Sample
from hami.simulate.report import Run

_WIDTH: Final = 640
_HEIGHT: Final = 300
_LEFT: Final = 52
_BOTTOM: Final = 40
_TOP: Final = 12
_RIGHT: Final = 12
_COLORS: Final = ("#0b6bcb", "#c4320a", "#067647", "#7a5af8", "#b54708", "#3538cd", "#c11574", "#475467")
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3")
_STYLE: Final = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid #8884}
th:first-child,td:first-child,td.text,th.text{text-align:left}
figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top}svg{max-width:100%;height:auto}
svg text{fill:currentColor;font-size:12px}svg .grid{stroke:#8885;stroke-width:1}
"""


def page(runs: Sequence[Run], refused: Sequence[tuple[str, str]], *, title: str) -> str:
    """The page. Colors alone never tell two lines apart: their dashes differ too."""
    many = len(runs) > 1
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
        "<p>A simulation: the placement engine over a described cluster. No device was used.</p>",
        _legend(runs) if many else "",
        _plot(runs, "allocated, % of all devices", lambda sample: sample.allocated),
        _plot(runs, "fragments, % of all devices", lambda sample: sample.fragments),
        "<h2>Runs</h2>",
        _table(
            ("policy", "seed", "pods", "placed", "not placed", "allocated %", "peak %"),
            [
                (
                    run.policy,
                    "-" if run.seed is None else str(run.seed),
                    f"{run.outcome.arrived:,}",
                    f"{run.outcome.placed:,}",
                    f"{run.outcome.refused:,}",
                    f"{run.outcome.allocated:.2f}",
                    f"{run.outcome.peak:.2f}",
                )
                for run in runs
            ],
        ),
    ]
    for run in runs:
        name = _name(run)
        parts.append(f"<h2>Use by model: {escape(name)}</h2>")
        parts.append(_bars([(model, use.allocated, use.devices) for model, use in run.outcome.models.items()]))
        if run.outcome.unplaced:
            parts.append(f"<h2>Not placed: {escape(name)}</h2>")
            parts.append(
                _table(
                    ("like", "asks milli-devices", "pods", "why the first one was not: nodes by reason"),
                    [
                        (f"{entry.name} ({entry.where})", f"{entry.milli:,}", f"{entry.count:,}", entry.reason)
                        for entry in run.outcome.unplaced
                    ],
                    text=(0, 3),
                )
            )
    if refused:
        parts.append("<h2>Never tried</h2>")
        parts.append(_table(("pod", "why"), list(refused), text=(0, 1)))
    return "\n".join(parts) + "\n</html>\n"


def _name(run: Run) -> str:
    return run.policy if run.seed is None else f"{run.policy}, seed {run.seed}"


def _pen(number: int) -> str:
    color = _COLORS[number % len(_COLORS)]
    dash = _DASHES[number // len(_COLORS) % len(_DASHES)] or _DASHES[number % len(_DASHES)]
    return f"fill='none' stroke='{color}' stroke-width='2'" + (f" stroke-dasharray='{dash}'" if dash else "")


def _legend(runs: Sequence[Run]) -> str:
    entries = "".join(
        f"<tr><td><svg width=48 height=10><line x1=2 x2=46 y1=5 y2=5 {_pen(i)}/></svg>"
        f"<td class=text>{escape(_name(run))}"
        for i, run in enumerate(runs)
    )
    return f"<table>{entries}</table>"


def _plot(runs: Sequence[Run], label: str, value: Callable[[Sample], float]) -> str:
    samples = [sample for run in runs for sample in run.outcome.curve]
    right = max((sample.offered for sample in samples), default=0.0) or 1.0
    top = max((value(sample) for sample in samples), default=0.0) or 1.0
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(offered: float) -> float:
        return _LEFT + plot_width * offered / right

    def y(height: float) -> float:
        return _TOP + plot_height * (1 - height / top)

    marks = []
    for step in range(5):
        across, up = right * step / 4, top * step / 4
        marks.append(f"<line class=grid x1={_LEFT} x2={_WIDTH - _RIGHT} y1={y(up):.1f} y2={y(up):.1f} />")
        marks.append(f"<text x={_LEFT - 6} y={y(up) + 4:.1f} text-anchor=end>{up:.3g}</text>")
        marks.append(f"<text x={x(across):.1f} y={_HEIGHT - _BOTTOM + 16} text-anchor=middle>{across:.3g}</text>")
    lines = [
        f"<polyline {_pen(i)} points='"
        + " ".join(f"{x(sample.offered):.1f},{y(value(sample)):.1f}" for sample in run.outcome.curve)
        + "'/>"
        for i, run in enumerate(runs)
    ]
    return (
        f"<figure><figcaption>{escape(label)}</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width={_WIDTH} height={_HEIGHT} role=img aria-label='{escape(label)}'>"
        f"{''.join(marks)}{''.join(lines)}"
        f"<text x={_LEFT + plot_width / 2:.0f} y={_HEIGHT - 6} text-anchor=middle>offered load, % of all devices</text>"
        "</svg></figure>"
    )


def _bars(rows: Sequence[tuple[str, float, int]]) -> str:
    height = 22 * len(rows)
    bars = []
    for i, (model, percent, devices) in enumerate(rows):
        y = 22 * i
        bars.append(
            f"<text x=150 y={y + 15} text-anchor=end>{escape(model)}</text>"
            f"<rect x=156 y={y + 3} width={4 * min(100.0, percent):.1f} height=16 fill='{_COLORS[0]}' />"
            f"<text x={162 + 4 * min(100.0, percent):.1f} y={y + 15}>{percent:.1f} % of {devices:,}</text>"
        )
    return (
        f"<svg viewBox='0 0 {_WIDTH + 60} {height}' width={_WIDTH + 60} height={height} role=img>{''.join(bars)}</svg>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=text' if i in text else ''}>{escape(cell)}" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}" for row in rows)
    return f"<table><tr>{cells('th', header)}{body}</table>"
