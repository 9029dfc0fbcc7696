"""What runs found, as values for JSON and as tables for a terminal."""

from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hami.simulate.study import Group, Run, Spread, Study, spans

KINDS: Final = 8
"""Kinds of pods without a place that are listed for each policy at first; JSON has all."""
NOTES: Final = 10
"""Remarks on the input that are listed."""


def document(study: Study) -> dict[str, Any]:
    """Everything as plain values."""
    workload = study.workload
    return {
        "simulated": True,
        "command": study.command,
        "version": study.version,
        "files": [asdict(source) for source in study.sources],
        "nodes": len(workload.nodes),
        "devices": workload.devices,
        "pods_in_list": len(workload.tasks),
        "pods_bound": len(workload.bound),
        "order": study.order.value,
        "load": study.load,
        "policies": [_policy(group) for group in study.groups],
        "runs": [_run(run) for run in study.runs],
        "unreadable_pods": [{"where": where, "reason": reason} for where, reason in workload.refused],
        "problems": [{"where": where, "reason": reason} for where, reason in workload.problems],
    }


def _policy(group: Group) -> dict[str, Any]:
    def spread(found: Spread) -> dict[str, float | None]:
        deviation = None if found.deviation is None else round(found.deviation, 4)
        return {
            "mean": round(found.mean, 4),
            "min": round(found.low, 4),
            "max": round(found.high, 4),
            "standard_deviation": deviation,
        }

    return {
        "policy": group.policy,
        "seeds": [run.seed for run in group.runs],
        "gpu_allocation_percent": spread(group.figure(lambda outcome: outcome.allocated)),
        "gpu_allocation_percent_peak": spread(group.figure(lambda outcome: outcome.peak)),
        "fragments_percent": spread(group.figure(lambda outcome: outcome.fragments)),
        "pods_placed": spread(group.figure(lambda outcome: outcome.placed)),
        "pods_refused": spread(group.figure(lambda outcome: outcome.refused)),
    }


def _run(run: Run) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "policy": run.policy,
        "seed": run.seed,
        "seconds": round(run.seconds, 3),
        "pods_arrived": outcome.arrived,
        "pods_placed": outcome.placed,
        "pods_refused": outcome.refused,
        "gpu_allocation_percent": round(outcome.allocated, 4),
        "gpu_allocation_percent_peak": round(outcome.peak, 4),
        "gpu_allocation_percent_mean": None if outcome.mean is None else round(outcome.mean, 4),
        "fragments_percent": round(outcome.fragments, 4),
        "curve": [
            {key: round(value, 4) for key, value in asdict(sample).items() if value is not None}
            for sample in outcome.curve
        ],
        "models": {
            model: {
                "devices": use.devices,
                "allocation_percent": round(use.allocated, 4),
                "memory_percent": round(use.memory, 4),
                "cores_percent": round(use.cores, 4),
            }
            for model, use in outcome.models.items()
        },
        "unplaced": [
            {**asdict(kind), "load": round(kind.load, 4), "nodes": dict(kind.nodes), "reason": kind.reason}
            for kind in outcome.unplaced
        ],
    }


def show(study: Study, console: Console) -> None:
    """Tables: the policies, how much each handed out at which load and of which model, and what found no place."""
    workload = study.workload
    bound = f", {counted(len(workload.bound), 'pod')} already bound" if workload.bound else ""
    fleet = f"{counted(len(workload.nodes), 'node')} with {counted(workload.devices, 'device')}"
    console.print(
        Text(f"Simulated: {fleet}{bound}; {order_of(study)}."),
        _policies(study),
        sep="\n\n",
    )
    for table in (_loads(study), _models(study)):
        if table is not None:
            console.print("", table, sep="\n")
    for group in study.groups:
        _show_unplaced(group, console)
    for title, notes in (("never tried", workload.refused), ("not read", workload.problems)):
        for where, reason in notes[:NOTES]:
            console.print(Text(f"{title}: {where}: {reason}", style="yellow"))
        if len(notes) > NOTES:
            console.print(Text(f"{title}: {len(notes) - NOTES:,} more", style="yellow"))


def order_of(study: Study) -> str:
    """How pods came, in words."""
    counts = sorted({run.outcome.arrived for run in study.runs})
    pods = counted(counts[0], "pod") if len(counts) == 1 else f"{counts[0]:,} to {counted(counts[-1], 'pod')}"
    seeds = study.seeds
    many = f"{'seed' if len(seeds) == 1 else 'seeds'} {spans(seeds)}"
    words = {
        "file": f"{pods} in the order of the list",
        "shuffle": f"{pods} in a shuffled order ({many})",
        "time": f"{pods} that come and go by their times",
    }[study.order.value]
    if study.load is None:
        return words
    return f"{words}, dropped or repeated at random until they ask for {study.load:g} times the devices"


def counted(count: int, noun: str) -> str:
    """`1 pod`, `2,000 pods`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _policies(study: Study) -> Table:
    many = len(study.seeds) > 1
    table = _table(
        *("policy", "pods", "placed", "not placed", "allocated %", "peak %", "fragments %", "seconds"),
        *(("lowest - highest", "deviation") if many else ()),
        *(("mean over time %",) if study.timed else ()),
    )
    for group in study.groups:
        allocated = group.figure(lambda outcome: outcome.allocated)
        cells = [
            group.policy,
            f"{group.figure(lambda outcome: outcome.arrived).mean:,.0f}",
            f"{group.figure(lambda outcome: outcome.placed).mean:,.0f}",
            f"{group.figure(lambda outcome: outcome.refused).mean:,.0f}",
            f"{allocated.mean:.2f}",
            f"{group.figure(lambda outcome: outcome.peak).mean:.2f}",
            f"{group.figure(lambda outcome: outcome.fragments).mean:.2f}",
            f"{sum(run.seconds for run in group.runs):.1f}",
        ]
        if many:
            cells += [f"{allocated.low:.2f} - {allocated.high:.2f}", f"{allocated.deviation or 0:.2f}"]
        if study.timed:
            cells.append(f"{group.figure(lambda outcome: outcome.mean or 0.0).mean:.2f}")
        table.add_row(*cells)
    return table


def _loads(study: Study) -> Table | None:
    if not study.loads:
        return None
    table = _table("allocated % at a load of", *(f"{load} %" for load in study.loads))
    for group in study.groups:
        values = [group.at_load(load) for load in study.loads]
        table.add_row(group.policy, *("-" if value is None else f"{value:.2f}" for value in values))
    return table


def _models(study: Study) -> Table | None:
    groups = study.groups
    models = {model: use.devices for run in study.runs for model, use in run.outcome.models.items()}
    if not models:
        return None
    table = _table("allocated % by model", "devices", *(group.policy for group in groups))
    for model, devices in models.items():
        table.add_row(model, f"{devices:,}", *(f"{model_use(group, model).mean:.2f}" for group in groups))
    return table


def model_use(group: Group, model: str) -> Spread:
    """How much of a model's devices a policy has handed out."""
    return group.figure(lambda outcome: outcome.models[model].allocated)


def _show_unplaced(group: Group, console: Console) -> None:
    run = group.runs[0]
    kinds = run.outcome.unplaced
    if not kinds:
        return
    seed = "" if run.seed is None else f", seed {run.seed}"
    table = Table(box=None, pad_edge=False)
    table.add_column(f"not placed ({group.policy}{seed})", overflow="fold", ratio=3)
    table.add_column("pods", justify="right", no_wrap=True)
    table.add_column("first at load", justify="right", no_wrap=True)
    table.add_column("why the first one was not", overflow="fold", ratio=4)
    for kind in kinds[:KINDS]:
        table.add_row(kind.asks, f"{kind.count:,}", f"{kind.load:.1f} %", kind.reason)
    if len(kinds) > KINDS:
        rest = sum(kind.count for kind in kinds[KINDS:])
        table.add_row(counted(len(kinds) - KINDS, "more kind"), f"{rest:,}", "", "")
    console.print("", table, sep="\n")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
