"""`hami simulated-machine`: compile a machine's description into the state file that the simulated driver maps."""

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from hami.model.machine import Machine, read_machine
from hami.model.names import WireError
from hami.node.simulated import NativeMissing, compile_state

UNUSABLE = 69
"""Exit code when the native parts are missing (EX_UNAVAILABLE of sysexits.h)."""
BAD_DATA = 65
"""Exit code for a description that cannot be meant (EX_DATAERR)."""


def run(file: Path, state: Path, default_name: str = "local") -> Machine:
    """Compile the description in `file` to `state`; WireError names a field that cannot be meant."""
    try:
        document = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WireError("machine", f"YAML or JSON ({error})") from error
    machine = read_machine(document, default_name)
    compile_state(machine, state)
    return machine


def simulated_machine(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the machine's description, YAML or JSON")],
    state: Annotated[Path, typer.Option(metavar="PATH", help="where to write the state")],
    name: Annotated[str, typer.Option(help="the machine's name where the description gives none")] = "local",
) -> None:
    """Make a simulated machine: programs that see it in HAMI_SIM_STATE share its devices."""
    try:
        machine = run(file, state, name)
    except WireError as error:
        print(f"hami simulated-machine: {file}: {error}", file=sys.stderr)
        raise typer.Exit(BAD_DATA) from None
    except (OSError, NativeMissing) as error:
        print(f"hami simulated-machine: {error}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None
    for index, device in enumerate(machine.devices):
        print(f"{index}  {device.uuid}  {device.model.name}  {device.memory_mib} MiB  simulated")
    for card in machine.cards:
        print(f"{card.index}  {card.uuid}  {card.family}  {card.memory_mib} MiB  simulated, without a driver")
