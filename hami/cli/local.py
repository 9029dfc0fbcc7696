"""`hami run` and `hami ps`: this machine's devices shared without Kubernetes."""

import os
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from hami.cli.simulated_machine import run as compile_description
from hami.local import entries
from hami.local.entries import Entry, LocalStateError
from hami.local.run import read_ask, run, state_for
from hami.model.names import WireError
from hami.model.settings import DEFAULT_DEVICE_CONFIG
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import NvidiaProbe
from hami.node.simulated import NativeMissing, load_nvml, native_dir
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

UNUSABLE = 69
"""Exit code when this machine cannot share (EX_UNAVAILABLE of sysexits.h)."""


def run_command(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="the program and its arguments")],
    gpus: Annotated[int, typer.Option(help="devices")] = 1,
    gpumem: Annotated[int | None, typer.Option(metavar="MIB", help="memory of each device; default: all of it")] = None,
    gpumem_percentage: Annotated[int | None, typer.Option(metavar="PCT", help="memory as a percentage")] = None,
    gpucores: Annotated[int | None, typer.Option(metavar="PCT", help="compute of each device; 0: no limit")] = None,
    policy: Annotated[str, typer.Option(help="binpack: fill a device first; spread: the emptiest first")] = "spread",
    simulate: Annotated[Path | None, typer.Option(metavar="FILE", help="a simulated machine's description")] = None,
) -> None:
    """Run a program on its part of this machine's devices; refused, with the reason, when it does not fit."""
    try:
        ask = read_ask(gpus=gpus, gpumem=gpumem, gpumem_percentage=gpumem_percentage, gpucores=gpucores, policy=policy)
        directory = entries.find_directory(dict(os.environ))
        additions = _simulated(simulate, directory) if simulate else {}
        config = DEFAULT_DEVICE_CONFIG
        with NvidiaProbe(config.nvidia, sysfs=None if simulate else Path("/sys")) as probe:
            inventory = probe.inventory()
        code = run(
            command,
            ask,
            inventory,
            registry(config)[NVIDIA.name],
            directory=directory,
            library=native_dir() / "libvgpu.so",
            additions=additions,
        )
    except WireError as error:
        print(f"hami run: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (LocalStateError, ProbeError, NativeMissing, OSError) as error:
        print(f"hami run: {error}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None
    raise typer.Exit(code)


def _simulated(description: Path, directory: Path) -> dict[str, str]:
    """Start (or join) the simulated machine; the environment in which programs find its driver."""
    state = state_for(description, directory)
    with entries.locked(directory):
        if not state.exists():
            compile_description(description, state)
    load_nvml(state)
    libraries = str(native_dir() / "sim")
    path = ":".join(part for part in (libraries, os.environ.get("LD_LIBRARY_PATH", "")) if part)
    return {"HAMI_SIM_STATE": str(state), "LD_LIBRARY_PATH": path}


def ps_command(as_json: Annotated[bool, typer.Option("--json", help="one JSON array")] = False) -> None:
    """Programs started by `hami run` that are running on this machine, and what each was granted."""
    try:
        running, problems = entries.living(entries.find_directory(dict(os.environ)))
    except LocalStateError as error:
        print(f"hami ps: {error}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None
    for problem in problems:
        print(f"hami ps: ignored: {problem}", file=sys.stderr)
    if as_json:
        print(orjson.dumps(running).decode())
        return
    Console().print(_table(running))


def _table(running: list[Entry]) -> Table:
    table = Table("PID", "USER", "DEVICE", "MEMORY MiB", "CORES %", "COMMAND", box=None)
    for entry in running:
        for share in entry.shares:
            cores = str(share.cores) if 0 < share.cores < 100 else "-"
            table.add_row(str(entry.pid), str(entry.uid), share.uuid, f"{share.memory_mib:,}", cores, entry.command)
    return table
