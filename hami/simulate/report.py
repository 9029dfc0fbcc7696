"""What runs found, as values for JSON and as tables for a terminal."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from hami.simulate.replay import Outcome

UNPLACED: Final = 20
"""Kinds of pods without a place that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, and how it came about."""

    policy: str
    seed: int | None
    seconds: float
    outcome: Outcome


def document(runs: Sequence[Run], refused: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Everything as plain values. `refused` are pods that no scheduler would try, with the reason."""
    return {
        "runs": [_run(run) for run in runs],
        "unreadable_pods": [{"where": where, "reason": reason} for where, reason in refused],
    }


def _run(run: Run) -> dict[str, Any]:
    outcome = asdict(run.outcome)
    return {
        "policy": run.policy,
        "seed": run.seed,
        "seconds": round(run.seconds, 3),
        "pods_arrived": outcome["arrived"],
        "pods_placed": outcome["placed"],
        "pods_refused": outcome["refused"],
        "gpu_allocation_percent": round(outcome["allocated"], 4),
        "gpu_allocation_percent_peak": round(outcome["peak"], 4),
        "curve": [{key: round(value, 4) for key, value in sample.items()} for sample in outcome["curve"]],
        "models": {
            model: {"devices": use["devices"], "allocation_percent": round(use["allocated"], 4)}
            for model, use in outcome["models"].items()
        },
        "unplaced": outcome["unplaced"],
    }


def show(runs: Sequence[Run], refused: Sequence[tuple[str, str]], console: Console) -> None:
    """Tables: the runs; for the last one, the use of each model and what did not fit."""
    table = Table(
        "policy",
        "seed",
        "pods",
        "placed",
        "allocated %",
        "peak %",
        "fragments %",
        "seconds",
        box=None,
        title_justify="left",
    )
    for run in runs:
        last = run.outcome.curve[-1] if run.outcome.curve else None
        table.add_row(
            run.policy,
            "-" if run.seed is None else str(run.seed),
            f"{run.outcome.arrived:,}",
            f"{run.outcome.placed:,}",
            f"{run.outcome.allocated:.2f}",
            f"{run.outcome.peak:.2f}",
            "-" if last is None else f"{last.fragments:.2f}",
            f"{run.seconds:.1f}",
        )
    console.print(table)
    for run in runs[-1:]:
        models = Table("model", "devices", "allocated %", box=None)
        for model, use in run.outcome.models.items():
            models.add_row(model, f"{use.devices:,}", f"{use.allocated:.2f}")
        console.print("\n", models, sep="")
        if run.outcome.unplaced:
            lost = Table("not placed", "like", "asks milli", "why the first one was not (nodes by reason)", box=None)
            for entry in run.outcome.unplaced[:UNPLACED]:
                lost.add_row(f"{entry.count:,}", f"{entry.name} ({entry.where})", f"{entry.milli:,}", entry.reason)
            console.print("\n", lost, sep="")
    for where, reason in refused[:UNPLACED]:
        console.print(f"not tried: {where}: {reason}", style="yellow", markup=False, highlight=False)
