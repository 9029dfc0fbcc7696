"""The command line: which sub-command is which function."""

import importlib
from collections.abc import Sequence
from typing import Final

import typer

from hami import __version__
from hami.cli.flags import normalise

_COMMANDS: Final = {
    "scheduler": ("hami.cli.scheduler", "scheduler"),
    "agent": ("hami.cli.agent", "agent"),
    "run": ("hami.cli.local", "run_command"),
    "ps": ("hami.cli.local", "ps_command"),
    "simulate": ("hami.cli.simulate", "simulate"),
    "simulated-machine": ("hami.cli.simulated_machine", "simulated_machine"),
    "version": ("hami.cli.app", "version"),
}
_GO_FLAGS: Final = frozenset({"scheduler", "agent"})
"""Sub-commands that deployments start with flags in Go's spelling."""


def run(arguments: Sequence[str]) -> None:
    """Run `hami` with these arguments (the program's name left out)."""
    named = arguments[0] if arguments else ""
    if list(arguments[:2]) == ["scheduler", "version"]:  # the reference's program has this sub-command
        version()
        return
    app = typer.Typer(name="hami", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    # Only the part that runs is imported: `hami run` must not pay for the scheduler's libraries.
    for name in [named] if named in _COMMANDS else list(_COMMANDS):
        module, function = _COMMANDS[name]
        # What follows the program's name is the program's, options included.
        settings = {"allow_interspersed_args": False} if name == "run" else {}
        app.command(name, context_settings=settings)(getattr(importlib.import_module(module), function))
    app(args=normalise(arguments) if named in _GO_FLAGS else list(arguments), prog_name="hami")


def _root() -> None:
    """Several pods share one accelerator, with hard limits."""


def version() -> None:
    """Print the version."""
    print(__version__)
