"""`hami simulate`: where would these pods land?"""

import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer
import yaml
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hami import __version__
from hami.alloc.request import CARD_POLICIES, POLICIES
from hami.model.names import WireError
from hami.model.settings import DEFAULT_DEVICE_CONFIG, read_device_config
from hami.model.vendor import Registry
from hami.simulate import files
from hami.simulate.fleet import More, enlarged
from hami.simulate.page import page
from hami.simulate.replay import Policy, Replay
from hami.simulate.report import document, show
from hami.simulate.study import Run, Study, spans
from hami.simulate.workload import Order, Workload, arrivals
from hami.vendors import registry

BAD_DATA: Final = 65
"""Exit code for input that cannot be meant (EX_DATAERR of sysexits.h)."""
UNREADABLE: Final = 66
"""Exit code for a file that cannot be read or written (EX_NOINPUT)."""
MOST_LOAD: Final = 1000
MOST_SEEDS: Final = 1000
MOST_SEED: Final = 2**32
PIPED_WIDTH: Final = 160
"""Columns of tables that go to a file or a pipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The command's flags, read."""

    nodes: Path
    pods: Path
    policies: tuple[tuple[str, Policy], ...]
    seeds: tuple[int, ...]
    load: float | None
    order: Order
    more: tuple[str, ...]
    keep_bound: bool
    device_config: Path | None

    @property
    def command(self) -> str:
        """The command that makes the same result, whatever shell or program started this one."""
        words = ["hami", "simulate", "--nodes", str(self.nodes), "--pods", str(self.pods)]
        for text, _ in self.policies:
            words += ["--policy", text]
        if self.seeds:
            words += ["--seed", spans(self.seeds)]
        if self.load is not None:
            words += ["--load", f"{self.load:g}"]
        for text in self.more:
            words += ["--more", text]
        words += ["--timed"] if self.order is Order.TIME else []
        words += ["--keep-bound"] if self.keep_bound else []
        if self.device_config is not None:
            words += ["--device-config-file", str(self.device_config)]
        return shlex.join(words)


def simulate(
    nodes: Annotated[Path, typer.Option(metavar="FILE", help="nodes: manifests, or a table in openb's columns")],
    pods: Annotated[Path, typer.Option(metavar="FILE", help="pods: manifests, or a table in openb's columns")],
    policy: Annotated[
        list[str],
        typer.Option(metavar="P", help="binpack, spread, fragmentation, ... or NODES/CARDS; give it again to compare"),
    ] = ["binpack/spread"],  # noqa: B006 - typer copies it
    seed: Annotated[
        list[str] | None,
        typer.Option(metavar="N", help="let pods arrive in a shuffled order; 42-51 or 42,44 for several, with spread"),
    ] = None,
    load: Annotated[
        float | None,
        typer.Option(metavar="X", help="drop or repeat random pods until X times the devices are asked for"),
    ] = None,
    timed: Annotated[bool, typer.Option("--timed", help="pods arrive and leave by their times")] = False,
    more: Annotated[
        list[str] | None, typer.Option(metavar="COUNT:NODE", help="add so many copies of a node; may be given again")
    ] = None,
    keep_bound: Annotated[
        bool, typer.Option("--keep-bound", help="pods that are bound keep their place; only the others arrive")
    ] = False,
    device_config_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the cluster's device-config.yaml")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page with plots")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of tables")] = False,
) -> None:
    """Place pods on a described cluster with the scheduler's own engine; nothing is contacted, nothing is changed."""
    try:
        options = _Options(
            nodes=nodes,
            pods=pods,
            policies=tuple((text, _policy(text)) for text in dict.fromkeys(policy)),
            seeds=_seeds(seed or ()),
            load=load,
            order=Order.TIME if timed else Order.SHUFFLE if seed else Order.FILE,
            more=tuple(more or ()),
            keep_bound=keep_bound,
            device_config=device_config_file,
        )
        _check(options)
        study = _study(options)
        if html is not None:
            html.write_text(page(study), encoding="utf-8")
    except WireError as error:
        print(f"hami simulate: {error}", file=sys.stderr)
        raise typer.Exit(BAD_DATA) from None
    except OSError as error:
        print(f"hami simulate: {error}", file=sys.stderr)
        raise typer.Exit(UNREADABLE) from None
    if as_json:
        print(orjson.dumps(document(study)).decode())
    else:
        show(study, Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False))


def _check(options: _Options) -> None:
    load = options.load
    if load is not None and not (math.isfinite(load) and 0 < load <= MOST_LOAD):
        raise WireError("--load", f"a number above 0, at most {MOST_LOAD}", load)
    if options.order is Order.TIME:
        for flag, given in (
            ("--seed", options.seeds),
            ("--load", load is not None),
            ("--keep-bound", options.keep_bound),
        ):
            if given:
                raise WireError(flag, "not to be given with --timed: the recording says which pods come, and when")


def _study(options: _Options) -> Study:
    known = _registry(options.device_config)
    workload, sources = files.load(options.nodes, options.pods, known, keep_bound=options.keep_bound)
    for text in options.more:
        workload = enlarged(workload, More.parse(text))
    return Study(
        command=options.command,
        version=__version__,
        sources=sources,
        workload=workload,
        order=options.order,
        load=options.load,
        runs=tuple(_runs(options, workload, known)),
    )


def _runs(options: _Options, workload: Workload, known: Registry) -> list[Run]:
    seeds: Sequence[int | None] = options.seeds or (None,)
    runs = []
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("runs", total=len(seeds) * len(options.policies))
        for seed in seeds:
            tasks = arrivals(workload, options.order, seed=seed, load=options.load)
            for text, policy in options.policies:
                progress.update(task, description=text if seed is None else f"{text}, seed {seed}")
                start = time.perf_counter()
                outcome = Replay(workload, known, policy).run(tasks)
                runs.append(Run(policy=text, seed=seed, seconds=time.perf_counter() - start, outcome=outcome))
                progress.advance(task)
    return runs


def _seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """Seeds of `42`, `42-51` or `42,44-46`, each once."""
    found: dict[int, None] = {}
    for text in texts:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            ends = (first, last if dash else first)
            bounds = [int(word) for word in ends if word.isascii() and word.isdigit() and len(word) <= 10]
            if len(bounds) < 2 or not bounds[0] <= bounds[1] < MOST_SEED:
                raise WireError("--seed", "whole numbers such as 42, 42-51 or 42,44", text)
            if bounds[1] - bounds[0] + len(found) >= MOST_SEEDS:
                raise WireError("--seed", f"at most {MOST_SEEDS:,} seeds", text)
            found.update(dict.fromkeys(range(bounds[0], bounds[1] + 1)))
    return tuple(found)


def _policy(text: str) -> Policy:
    policy = Policy.parse(text)
    words = [word.strip() for word in policy.cards.split(",")]
    # In a cluster an unknown word acts as the default; here nobody would see that.
    if policy.nodes not in POLICIES | (CARD_POLICIES if "/" not in text else frozenset()):
        raise WireError("--policy", f"one of {', '.join(sorted(POLICIES))} for nodes", policy.nodes)
    if not set(words) <= CARD_POLICIES:
        raise WireError("--policy", f"words of {', '.join(sorted(CARD_POLICIES))} for cards", policy.cards)
    return policy


def _registry(file: Path | None) -> Registry:
    if file is None:
        return registry(DEFAULT_DEVICE_CONFIG, ascend=True, iluvatar=True)
    try:
        config = read_device_config(yaml.safe_load(file.read_text(encoding="utf-8")))
        return registry(config, ascend=True, iluvatar=True)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WireError(str(file), f"YAML ({error})") from error
