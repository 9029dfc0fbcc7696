"""`hami simulate`: where would these pods land?"""

import sys
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer
import yaml
from rich.console import Console

from hami.alloc.request import CARD_POLICIES, POLICIES
from hami.model.names import WireError
from hami.model.settings import DEFAULT_DEVICE_CONFIG, read_device_config
from hami.model.vendor import Registry
from hami.simulate.files import load_workload
from hami.simulate.page import page
from hami.simulate.replay import Policy, Replay
from hami.simulate.report import Run, document, show
from hami.simulate.workload import Order, arrivals
from hami.vendors import registry

BAD_DATA = 65
"""Exit code for input that cannot be meant (EX_DATAERR of sysexits.h)."""
UNREADABLE = 66
"""Exit code for a file that cannot be read or written (EX_NOINPUT)."""


def simulate(
    nodes: Annotated[Path, typer.Option(metavar="FILE", help="nodes: manifests, or a table in openb's columns")],
    pods: Annotated[Path, typer.Option(metavar="FILE", help="pods: manifests, or a table in openb's columns")],
    policy: Annotated[
        list[str],
        typer.Option(metavar="P", help="binpack, spread, fragmentation, ... or NODES/CARDS; give it again to compare"),
    ] = ["binpack/spread"],  # noqa: B006 - typer copies it
    seed: Annotated[int | None, typer.Option(help="let pods arrive in a shuffled order")] = None,
    load: Annotated[
        float | None,
        typer.Option(metavar="X", help="drop or repeat random pods until X times the devices are asked for"),
    ] = None,
    timed: Annotated[bool, typer.Option("--timed", help="pods arrive and leave by their times")] = False,
    device_config_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the cluster's device-config.yaml")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page with plots")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of tables")] = False,
) -> None:
    """Place pods on a described cluster with the scheduler's own engine; nothing is contacted, nothing is changed."""
    try:
        policies = [(text, _policy(text)) for text in policy]
        known = _registry(device_config_file)
        workload = load_workload(nodes, pods, known)
        order = Order.TIME if timed else Order.FILE if seed is None else Order.SHUFFLE
        if load is not None and not 0 < load <= 1000:
            raise WireError("--load", "a number above 0, at most 1000", load)
        tasks = arrivals(workload, order, seed=seed, load=load)
        runs = []
        for text, chosen in policies:
            start = time.perf_counter()
            outcome = Replay(workload, known, chosen).run(tasks)
            runs.append(Run(policy=text, seed=seed, seconds=time.perf_counter() - start, outcome=outcome))
        if html is not None:
            html.write_text(page(runs, workload.refused, title=f"{pods.name} on {nodes.name}"), encoding="utf-8")
    except WireError as error:
        print(f"hami simulate: {error}", file=sys.stderr)
        raise typer.Exit(BAD_DATA) from None
    except OSError as error:
        print(f"hami simulate: {error}", file=sys.stderr)
        raise typer.Exit(UNREADABLE) from None
    if as_json:
        print(orjson.dumps(document(runs, workload.refused)).decode())
    else:
        show(runs, workload.refused, Console())


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
        return registry(DEFAULT_DEVICE_CONFIG)
    try:
        return registry(read_device_config(yaml.safe_load(file.read_text(encoding="utf-8"))))
    except yaml.YAMLError as error:
        raise WireError(str(file), f"YAML ({error})") from error
