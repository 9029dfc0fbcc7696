"""`hami run`: grant a program its part of this machine's devices, then become that program.

The process that asks is the process that runs (exec), so signals, exit code and terminal are the program's own.
Limits hold for programs started through here; others are not seen.
"""

import hashlib
import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hami.local import processes
from hami.local.ask import Ask
from hami.local.directory import forget
from hami.local.entries import Entry
from hami.local.holders import Held, device_lines
from hami.local.lock import LocalStateError
from hami.local.machine import Machine
from hami.local.queue import Left
from hami.local.turn import Turn, say
from hami.model.claim import NodeRefusal
from hami.model.names import WireError

REFUSED: Final = 75
"""Exit code of a refusal (EX_TEMPFAIL of sysexits.h: try again later)."""
IMPOSSIBLE: Final = 69
"""Exit code when even an empty machine could not do it (EX_UNAVAILABLE)."""
INTERRUPTED: Final = 130


def state_for(description: Path, directory: Path) -> Path:
    """Where the simulated driver's state of this description lies: one for all programs that name it, until the next
    boot (its clock is the machine's, which starts again then)."""
    digest = hashlib.sha256(description.read_bytes()).hexdigest()[:16]
    return directory / f"simulated-{processes.boot_id()[:8]}-{digest}.state"


def check_not_nested(environment: Mapping[str, str]) -> None:
    """Inside `hami run` the devices look as large as the grant, so sharing them again would count them twice."""
    if environment.get("HAMI_GRANT"):
        raise LocalStateError(
            "already inside `hami run`: a program shares its part with its children, not by a second one"
        )


def run(
    command: Sequence[str], ask: Ask, machine: Machine, *, wait: bool, granted: Callable[[], None] = lambda: None
) -> int:
    """Decide, write the grant, then exec `command`; returns an exit code only when that did not happen.

    `granted` is called in between, when the program is in the ledger.
    """
    if not machine.inventory.devices:
        say("refused: this machine has no device that can be shared")
        return IMPOSSIBLE
    if ask.gpus > 1 and all(device.uuid.startswith("MIG-") for device in machine.inventory.devices):
        raise WireError("--gpus", "1, because CUDA shows a program no more than one MIG instance", ask.gpus)
    me = _myself(command, ask, machine)
    devices, simulated = machine.inventory.devices, machine.simulated
    if isinstance(never := machine.place(ask, (), me.name), NodeRefusal):
        reason = Held(refusal=never, before=(), running=()).reason
        say(
            f"refused, even with nothing running: {reason} (asked: {ask.text})",
            device_lines(devices, (), simulated=simulated),
        )
        return IMPOSSIBLE
    turn = Turn(me, machine)
    try:
        outcome = turn.wait() if wait else turn.take()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Left as left:
        return left.status
    if isinstance(outcome, Held):
        say(
            f"refused: {outcome.reason} (asked: {ask.text}); --wait queues",
            device_lines(devices, outcome.running, simulated=simulated),
        )
        return REFUSED
    granted()
    return _become(me, command, outcome, machine)


def _myself(command: Sequence[str], ask: Ask, machine: Machine) -> Entry:
    ticks = processes.start_ticks(os.getpid())
    assert ticks is not None, "this process lives"
    return Entry(
        pid=os.getpid(),
        start_ticks=ticks,
        boot=processes.boot_id(),
        uid=os.getuid(),
        command=shlex.join(command),
        ask=ask,
        devices=tuple(device.uuid for device in machine.inventory.devices),
        simulated=machine.simulated,
    )


def _become(me: Entry, command: Sequence[str], environment: Mapping[str, str], machine: Machine) -> int:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so in the program
    try:
        os.execvpe(command[0], list(command), {**os.environ, **environment})
    except OSError as error:
        forget(machine.directory, me)
        say(f"{command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
