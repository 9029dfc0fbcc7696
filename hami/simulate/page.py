"""One self-contained HTML page of some runs: no script, no font, no image from anywhere; the plots are inline SVG."""

import platform
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from hami.simulate.figures import figures
from hami.simulate.plots import COLORS, pen
from hami.simulate.replay import Outcome
from hami.simulate.report import KINDS, counted, model_use, order_of
from hami.simulate.study import Group, Study, spans
from hami.simulate.unplaced import Unplaced

MOST_KINDS: Final = 200
"""Kinds of pods without a place that the page lists for each policy."""


def page(study: Study) -> str:
    """The page. Equal studies give equal pages, but for the seconds that runs took."""
    title = _title(study)
    parts = [
        "<!doctype html>",
        "<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<meta name=generator content='hami {escape(study.version)}'>",
        f"<title>Simulated: {escape(title)}</title><style>{_style()}</style>",
        _head(study, title),
        _cards(study),
        f"<section><h2>As pods arrive</h2>{_legend(study)}<div class=plots>{''.join(figures(study))}</div></section>",
        _loads(study),
        _models(study),
        *(_unplaced(group) for group in study.groups),
        _remarks("Never tried", "These pods ask for what no scheduler could serve.", study.workload.refused),
        _remarks("Not read", "These parts of the input count nothing, as in a cluster.", study.workload.problems),
        _made(study),
        "</main></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _style() -> str:
    return (files("hami.simulate") / "page.css").read_text(encoding="utf-8").strip()


def _title(study: Study) -> str:
    nodes, pods = (PurePath(source.path).name.partition(".")[0] or source.path for source in study.sources)
    return f"{pods} on {nodes}"


def _head(study: Study, title: str) -> str:
    workload = study.workload
    models = len({model for run in study.runs for model in run.outcome.models})
    bound = f" {counted(len(workload.bound), 'pod')} already bound." if workload.bound else ""
    return (
        f"<main><header><p class=badge>Simulated</p><h1>{escape(title).replace('_', '_<wbr>')}</h1>"
        f"<p class=lead>{counted(len(workload.nodes), 'node')} with {counted(workload.devices, 'device')} of "
        f"{counted(models, 'model')}; {escape(order_of(study))}.{bound}</p>"
        f"<p class=lead>{escape(_finding(study))}</p></header>"
    )


def _finding(study: Study) -> str:
    """The result in a sentence: who hands out most, and how far the last is behind."""
    ranked = sorted(study.groups, key=lambda group: -_allocated(group))
    if not ranked:
        return ""
    best, last = ranked[0], ranked[-1]
    when = "on average over time" if study.timed else "in the end"
    if len(ranked) == 1:
        return f"{best.policy} hands out {_allocated(best):.2f} % of the devices {when}."
    ahead = _allocated(best) - _allocated(last)
    if ahead < 0.005:
        return f"All policies hand out {_allocated(best):.2f} % of the devices {when}."
    devices = ahead / 100 * study.workload.devices
    return (
        f"{best.policy} hands out most {when}: {_allocated(best):.2f} % of the devices, {ahead:.2f} points "
        f"({devices:,.1f} devices) more than {last.policy}."
    )


def _allocated(group: Group) -> float:
    return group.figure(lambda outcome: outcome.allocated if outcome.mean is None else outcome.mean).mean


def _cards(study: Study) -> str:
    return f"<section class=cards>{''.join(_card(study, group, i) for i, group in enumerate(study.groups))}</section>"


def _card(study: Study, group: Group, number: int) -> str:
    def mean(value: str) -> float:
        return group.figure(lambda outcome: getattr(outcome, value)).mean

    allocated = group.figure(lambda outcome: outcome.allocated if outcome.mean is None else outcome.mean)
    facts = [
        ("pods placed", f"{mean('placed'):,.0f} of {mean('arrived'):,.0f}"),
        ("without a place", f"{mean('refused'):,.0f}"),
        ("fragments in the end", f"{mean('fragments'):.2f} %"),
        ("most at a time", f"{mean('peak'):.2f} %"),
    ]
    if study.timed:
        facts.append(("handed out in the end", f"{mean('allocated'):.2f} %"))
    if allocated.deviation is not None:
        facts.append(
            (f"{len(group.runs)} seeds", f"{allocated.low:.2f} to {allocated.high:.2f} %, ± {allocated.deviation:.2f}")
        )
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    what = "of all devices handed out, mean over time" if study.timed else "of all devices handed out"
    return (
        f"<article><h3>{_swatch(number)}{escape(group.policy)}</h3>"
        f"<p class=figure>{allocated.mean:.2f}<small> %</small></p><p class=what>{what}</p><dl>{rows}</dl></article>"
    )


def _swatch(number: int) -> str:
    line = f"<line x1='1' x2='35' y1='5' y2='5' {pen(number)} />"
    return f"<svg class='swatch' viewBox='0 0 36 10' aria-hidden='true'>{line}</svg>"


def _legend(study: Study) -> str:
    entries = "".join(f"<li>{_swatch(number)}{escape(group.policy)}</li>" for number, group in enumerate(study.groups))
    quiet = "asked for" if study.timed else "all that is asked for"
    shade = "<li class=note>shaded: from the lowest seed to the highest</li>" if len(study.seeds) > 1 else ""
    return f"<ul class=legend>{entries}<li>{_swatch(-1)}{quiet}</li>{shade}</ul>"


def _loads(study: Study) -> str:
    loads = study.loads
    if not loads:
        return ""
    rows = [
        (group.policy, *("-" if (value := group.at_load(load)) is None else f"{value:.2f}" for load in loads))
        for group in study.groups
    ]
    return (
        "<section><h2>Handed out at a given load</h2><p>Percent of all devices, when the pods that had come asked for "
        f"so much of them.</p>{_table(('policy', *(f'{load} %' for load in loads)), rows)}</section>"
    )


def _models(study: Study) -> str:
    models = {model: use.devices for run in study.runs for model, use in run.outcome.models.items()}
    if not models:
        return ""
    parts = []
    for model, devices in models.items():
        bars = "".join(
            f"<div class=bar><span class=name>{escape(group.policy)}</span>"
            f"<span class=track><span class='fill c{i % COLORS}' style='width:{percent:.1f}%'></span></span>"
            f"<span class=value>{percent:.1f} %</span></div>"
            for i, group in enumerate(study.groups)
            for percent in [model_use(group, model).mean]
        )
        parts.append(
            f"<div class=model><h3>{escape(model)} <small>{counted(devices, 'device')}</small></h3>{bars}</div>"
        )
    return (
        "<section><h2>Use by model in the end</h2><p>Percent of a model's devices; a device counts by what of it is "
        f"scarcest, memory or cores.</p><div class=models>{''.join(parts)}</div></section>"
    )


def _unplaced(group: Group) -> str:
    run = group.runs[0]
    kinds = run.outcome.unplaced
    seed = "" if run.seed is None else f", seed {run.seed}"
    title = f"<section><h2>Without a place: {escape(group.policy + seed)}</h2>"
    if not kinds:
        return f"{title}<p>Every pod found a place.</p></section>"
    more = ""
    if len(kinds) > KINDS:
        pods = sum(kind.count for kind in kinds[KINDS:])
        summary = f"{counted(len(kinds) - KINDS, 'more kind')}, {counted(pods, 'pod')}"
        cut = f"<p>The first {MOST_KINDS:,} kinds; the JSON output has all.</p>" if len(kinds) > MOST_KINDS else ""
        more = f"<details><summary>{summary}</summary>{_kinds(kinds[KINDS:MOST_KINDS])}{cut}</details>"
    return f"{title}<p>{_lost(run.outcome)}</p>{_kinds(kinds[:KINDS])}{more}</section>"


def _kinds(kinds: Sequence[Unplaced]) -> str:
    rows = [(kind.asks, f"{kind.count:,}", f"{kind.load:.1f} %", kind.reason, _where(kind)) for kind in kinds]
    return _table(
        ("each asks for", "pods", "first at load", "why the first one was not", "like"), rows, words=(0, 3, 4)
    )


def _lost(outcome: Outcome) -> str:
    kinds = len(outcome.unplaced)
    largest = outcome.unplaced[0]
    return (
        f"{outcome.refused:,} of {outcome.arrived:,} pods, of {counted(kinds, 'kind')}. "
        f"Most of one kind, {largest.count:,}, ask for {escape(largest.asks)}."
    )


def _where(kind: Unplaced) -> str:
    path, _, place = kind.where.rpartition("/")
    return f"{kind.name} ({place if path else kind.where})"


def _remarks(title: str, text: str, remarks: Sequence[tuple[str, str]]) -> str:
    if not remarks:
        return ""
    return f"<section><h2>{title}</h2><p>{text}</p>{_table(('where', 'why'), remarks, words=(0, 1))}</section>"


def _made(study: Study) -> str:
    seeds = spans(study.seeds) or "none"
    rows = [
        ("program", f"hami {study.version}, Python {platform.python_version()}"),
        ("seeds", seeds),
        *((f"file {source.path}", f"sha256 {source.sha256}") for source in study.sources),
        *(
            (f"{run.policy}{'' if run.seed is None else f', seed {run.seed}'}", f"{run.seconds:.1f} s")
            for run in study.runs
        ),
    ]
    return (
        "<section><h2>How this was made</h2>"
        "<p>No device and no cluster was used: the scheduler's own reading of requests and its placement engine ran "
        "over the described nodes. Pods came one at a time; one that found no place was not tried again. CPU and "
        "memory of nodes, node selectors, required node affinity and taints hold; affinity between pods, topology "
        "spread, preferences, priorities, preemption and quotas are left out, and nothing is said about how fast pods "
        "run. "
        "<em>Fragments</em> are free parts of devices that pods like those that have come could not fill.</p>"
        f"<pre>{escape(study.command)}</pre>{_table(('what', 'which'), rows, words=(0, 1))}</section>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """A table whose columns `words` hold text, the others numbers.

    On a phone a table with several columns of text shows each row as a block, its cells named by the header; one of
    numbers scrolls by itself.
    """
    stacked = len(words) > 1

    def cells(tag: str, row: Sequence[str]) -> str:
        found = []
        for i, cell in enumerate(row):
            name = f" data-name='{escape(header[i])}'" if stacked and tag == "td" else ""
            found.append(f"<{tag}{' class=words' if i in words else ''}{name}>{escape(cell)}")
        return "".join(found)

    body = "".join(f"<tr>{cells('td', row)}" for row in rows)
    kind = "stacked" if stacked else "scroll"
    return f"<div class={kind}><table><thead><tr>{cells('th', header)}</thead><tbody>{body}</tbody></table></div>"
