"""`hami run` and `hami ps`: this machine's devices shared without Kubernetes."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from hami.cli.simulated_machine import run as compile_description
from hami.local.ask import read_ask
from hami.local.directory import files_of, find_directory, listing
from hami.local.entries import Entry, entry_document
from hami.local.holders import printable, user_name
from hami.local.lock import LocalStateError, locked
from hami.local.machine import Machine
from hami.local.run import check_not_nested, run, state_for
from hami.local.watch import ensure_watched
from hami.model.names import DeviceUuid, WireError
from hami.model.settings import DEFAULT_DEVICE_CONFIG, NodeOverrides
from hami.node._region import Region
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import SINGLE, NvidiaProbe
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
    wait: Annotated[bool, typer.Option("--wait", help="queue until there is room, first come first served")] = False,
    simulate: Annotated[Path | None, typer.Option(metavar="FILE", help="a simulated machine's description")] = None,
) -> None:
    """Run a program on its part of this machine's devices; refused, with the reason, when it does not fit."""
    try:
        ask = read_ask(gpus=gpus, gpumem=gpumem, gpumem_percentage=gpumem_percentage, gpucores=gpucores, policy=policy)
        check_not_nested(os.environ)
        directory = find_directory(dict(os.environ))
        additions = _simulated(simulate, directory) if simulate else {}
        config = DEFAULT_DEVICE_CONFIG
        _say_each_warning_once()
        # MIG instances that somebody made are devices to share like any other.
        overrides = NodeOverrides(mig_strategy=SINGLE)
        with NvidiaProbe(config.nvidia, overrides, sysfs=None if simulate else Path("/sys")) as probe:
            inventory = probe.inventory()
        machine = Machine(
            inventory=inventory,
            vendor=registry(config)[NVIDIA.name],
            directory=directory,
            library=_library(),
            additions=additions,
            simulated=simulate is not None,
        )
        state = Path(additions["HAMI_SIM_STATE"]) if simulate else None
        code = run(command, ask, machine, wait=wait, granted=lambda: _watched(directory, state))
    except WireError as error:
        print(f"hami run: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except ProbeError as error:
        print(f"hami run: no NVIDIA driver here ({error}); --simulate FILE plays a machine", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None
    except (LocalStateError, NativeMissing, OSError) as error:
        print(f"hami run: {error}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None
    raise typer.Exit(code)


def _watched(directory: Path, simulated: Path | None) -> None:
    """Have the monitor run. Without it limits hold as they did: the program need not wait for it, nor fail."""
    try:
        ensure_watched(directory, simulated)
    except OSError as error:
        print(f"hami run: nobody watches how devices are shared: {error}", file=sys.stderr)


def _say_each_warning_once() -> None:
    said: set[str] = set()

    def fresh(record: logging.LogRecord) -> bool:
        new = record.getMessage() not in said
        said.add(record.getMessage())
        return new

    handler = logging.StreamHandler()
    handler.addFilter(fresh)
    logging.basicConfig(level=logging.WARNING, format="hami run: %(message)s", handlers=[handler])


def _library() -> Path:
    path = native_dir() / "libvgpu.so"
    if not path.is_file():
        raise NativeMissing(f"{path} is missing: it holds the limits; build it with `make setup`")
    if any(c in str(path) for c in " :"):
        raise NativeMissing(f"{path}: LD_PRELOAD cannot name a path with a space or a colon; install hami elsewhere")
    return path


def _simulated(description: Path, directory: Path) -> dict[str, str]:
    """Start (or join) the simulated machine; the environment in which programs find its driver."""
    try:
        state = state_for(description, directory)
    except OSError as error:
        raise WireError(
            "--simulate", f"a machine's description that can be read ({error.strerror})", str(description)
        ) from None
    with locked(directory):
        if not state.exists():
            compile_description(description, state)
    load_nvml(state)
    libraries = str(native_dir() / "sim")
    path = ":".join(part for part in (libraries, os.environ.get("LD_LIBRARY_PATH", "")) if part)
    return {"HAMI_SIM_STATE": str(state), "LD_LIBRARY_PATH": path}


def ps_command(as_json: Annotated[bool, typer.Option("--json", help="one JSON array")] = False) -> None:
    """Programs started by `hami run` that run or wait on this machine, and what each was granted."""
    try:
        directory = find_directory(dict(os.environ))
        found = listing(directory)
    except (LocalStateError, OSError) as error:
        print(f"hami ps: {error}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None
    for problem in found.problems:
        print(f"hami ps: ignored: {problem}", file=sys.stderr)
    used = {entry.name: _used_mib(directory, entry) for entry in found.running}
    if as_json:
        rows = [_document(entry, "running", used[entry.name]) for entry in found.running]
        print(orjson.dumps(rows + [_document(entry, "waiting", {}) for entry in found.waiting]).decode())
        return
    device = Column("DEVICE", overflow="fold", min_width=40)
    table = Table("PID", "USER", device, "MEMORY MiB", "USED MiB", "CORES %", "COMMAND", box=None)
    for entry in found.running:
        for share in entry.shares:
            cores = str(share.cores) if 0 < share.cores < 100 else "-"
            use = f"{used[entry.name][share.uuid]:,}" if share.uuid in used[entry.name] else "?"
            _row(table, entry, f"{share.uuid}{' (simulated)' * entry.simulated}", f"{share.memory_mib:,}", use, cores)
    for place, entry in enumerate(found.waiting, 1):
        _row(table, entry, f"waits, place {place}: {entry.ask.text}", "-", "-", "-")
    Console(width=max(120, Console().width)).print(table)  # a narrow terminal wraps lines; nothing is cut off


def _row(table: Table, entry: Entry, *cells: str) -> None:
    words = (str(entry.pid), user_name(entry.uid), *cells, printable(entry.command))
    table.add_row(*(Text(word) for word in words))  # text, so that no command line is taken for markup


def _document(entry: Entry, state: str, used: dict[DeviceUuid, int]) -> dict[str, Any]:
    return {**entry_document(entry), "state": state, "used_mib": used}


def _used_mib(directory: Path, entry: Entry) -> dict[DeviceUuid, int]:
    """Memory its processes hold now, by device; empty for another user's program, whose region is not ours to open."""
    try:
        with Region.open(files_of(directory, entry) / "region.cache") as region:
            return {DeviceUuid(device.uuid): device.used_bytes >> 20 for device in region.snapshot().devices}
    except OSError:
        return {}
