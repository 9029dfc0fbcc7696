"""`hami run`: grant a program its part of this machine's devices, then become that program.

The process that asks is the process that runs (exec), so signals, exit code and terminal are the program's own and
nothing of ours stays behind. Limits hold for programs started through here; others are not seen.
"""

import hashlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hami.alloc.grant import owner_env
from hami.alloc.ledger import Ledger
from hami.alloc.place import place_on
from hami.local import processes
from hami.local.ask import Ask
from hami.local.directory import (
    WAITING,
    LocalStateError,
    files_of,
    forget,
    leave_queue,
    listing,
    locked,
    remember,
)
from hami.local.entries import Entry
from hami.local.holders import Held, device_lines
from hami.local.queue import CHECK_S, Left, ahead_of, leaving_on_signals
from hami.model.claim import Assignment, ContainerNeed, Need, NodeRefusal, PodRecord, PodRequest, Role
from hami.model.device import NodeInventory, NodeRecord
from hami.model.names import NodeName, PodKey, PodUid, WireError
from hami.model.vendor import Registry, Vendor
from hami.model.wire.grant import GrantDevice, GrantFile, write_grant
from hami.node._region import Region

THIS_MACHINE: Final = NodeName("local")
REFUSED: Final = 75
"""Exit code of a refusal (EX_TEMPFAIL of sysexits.h: try again later)."""
IMPOSSIBLE: Final = 69
"""Exit code when even an empty machine could not do it (EX_UNAVAILABLE)."""
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What programs are placed on, and what they are given to run there."""

    inventory: NodeInventory
    vendor: Vendor
    directory: Path
    library: Path
    """The interposer."""
    additions: Mapping[str, str]
    """Environment that a simulated driver needs."""
    simulated: bool

    def place(self, ask: Ask, running: Sequence[Entry], me: str) -> Assignment | NodeRefusal:
        """Where shares would lie beside those running, by the same engine that places pods."""
        registry = Registry((self.vendor,))
        ledger = Ledger(registry)
        ledger.put_node(NodeRecord(name=THIS_MACHINE, inventories=(self.inventory,)))
        for entry in running:
            ledger.put_pod(
                PodRecord(
                    uid=PodUid(entry.name),
                    key=PodKey("local", entry.name),
                    node=THIS_MACHINE,
                    roles=(Role.APP,),
                    segments={self.inventory.vendor: (entry.shares,)},
                )
            )
        need = Need(vendor=self.inventory.vendor, count=ask.gpus, memory=ask.memory, cores=ask.cores)
        request = PodRequest(
            uid=PodUid(me),
            key=PodKey("local", me),
            containers=(ContainerNeed(name="program", role=Role.APP, needs=(need,)),),
        )
        return place_on(ledger, request, THIS_MACHINE, card_policy=ask.policy)

    def could_ever_run(self, entry: Entry) -> bool:
        """Whether the entry's request fits an empty machine."""
        return not isinstance(self.place(entry.ask, (), entry.name), NodeRefusal)


def state_for(description: Path, directory: Path) -> Path:
    """Where the simulated driver's state of this description lies: one for all programs that name it, until the next
    boot (its clock is the machine's, which starts again then)."""
    digest = hashlib.sha256(description.read_bytes() + processes.boot_id().encode()).hexdigest()[:16]
    return directory / f"simulated-{digest}.state"


def check_not_nested(environment: Mapping[str, str]) -> None:
    """Inside `hami run` the devices look as large as the grant, so sharing them again would count them twice."""
    if environment.get("HAMI_GRANT"):
        raise LocalStateError(
            "already inside `hami run`: a program shares its part with its children, not by a second one"
        )


def run(command: Sequence[str], ask: Ask, machine: Machine, *, wait: bool) -> int:
    """Decide, write the grant, then exec `command`; returns an exit code only when that did not happen."""
    if not machine.inventory.devices:
        _say("refused: this machine has no device that can be shared")
        return IMPOSSIBLE
    if ask.gpus > 1 and all(device.uuid.startswith("MIG-") for device in machine.inventory.devices):
        raise WireError("--gpus", "1, because CUDA shows a program no more than one MIG instance", ask.gpus)
    me = _myself(command, ask, machine)
    if isinstance(never := machine.place(ask, (), me.name), NodeRefusal):
        reason = Held(refusal=never, before=(), running=()).reason
        _say(f"refused, even with nothing running: {reason} (asked: {ask.text})")
        _say_lines(device_lines(machine.inventory.devices, (), simulated=machine.simulated))
        return IMPOSSIBLE
    outcome = _take(me, machine)
    if isinstance(outcome, Held) and wait:
        try:
            outcome = _wait(me, machine, outcome)
        except KeyboardInterrupt:
            return INTERRUPTED
        except Left as left:
            return left.status
    if isinstance(outcome, Held):
        _say(f"refused: {outcome.reason} (asked: {ask.text}); --wait queues")
        _say_lines(device_lines(machine.inventory.devices, outcome.running, simulated=machine.simulated))
        return REFUSED
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


def _take(me: Entry, machine: Machine, *, queue: bool = False, told: set[str] | None = None) -> dict[str, str] | Held:
    """One attempt: the environment of the granted program, or why not now. `queue`: be in the queue afterwards if it is
    the latter."""
    directory = machine.directory
    with locked(directory):
        found = listing(directory)
        for problem in found.problems:
            if told is None or str(problem) not in told:
                _say(f"ignored: {problem}")
            if told is not None:
                told.add(str(problem))
        before = ahead_of(me, found.waiting, machine.could_ever_run)
        verdict = None if before else machine.place(me.ask, found.running, me.name)
        if verdict is None or isinstance(verdict, NodeRefusal):
            if queue:
                remember(directory, me, WAITING)
            return Held(refusal=verdict, before=before, running=found.running)
        granted = replace(me, shares=verdict.segments[machine.inventory.vendor][0])
        environment = _prepare(granted, machine)
        remember(directory, granted)
        leave_queue(directory, me)
        return environment


def _wait(me: Entry, machine: Machine, held: Held) -> dict[str, str]:
    """Queue until it is this program's turn and it fits."""
    told: set[str] = set()
    said = ""
    outcome: dict[str, str] | Held = held
    with leaving_on_signals():
        try:
            outcome = _take(me, machine, queue=True, told=told)
            while isinstance(outcome, Held):
                if said != outcome.reason:
                    said = outcome.reason
                    _say(f"waiting: {said}")
                processes.wait_for_end([entry.pid for entry in (*outcome.running, *outcome.before)], CHECK_S)
                outcome = _take(me, machine, told=told)
        finally:
            leave_queue(machine.directory, me)
    return outcome


def _become(me: Entry, command: Sequence[str], environment: Mapping[str, str], machine: Machine) -> int:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so in the program
    try:
        os.execvpe(command[0], list(command), {**os.environ, **environment})
    except OSError as error:
        forget(machine.directory, me)
        _say(f"{command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126


def _prepare(me: Entry, machine: Machine) -> dict[str, str]:
    """Write the program's grant and region; the environment that makes its processes use them."""
    files = files_of(machine.directory, me)
    try:
        files.mkdir()
    except FileExistsError as error:
        raise LocalStateError(f"{files}: is another user's; root can remove it") from error
    # Others may see whether the region is in use, not change it.
    files.chmod(0o711)
    region = files / "region.cache"
    Region.create(
        str(region),
        [share.uuid for share in me.shares],
        [share.memory_mib << 20 for share in me.shares],
        [share.cores for share in me.shares],
    ).close()
    region.chmod(0o644)
    grant = files / "grant"
    grant.write_text(
        write_grant(
            GrantFile(
                devices=tuple(
                    GrantDevice(uuid=share.uuid, memory_mib=share.memory_mib, cores=share.cores, enforced_by="library")
                    for share in me.shares
                ),
                policy=machine.vendor.core_policy,
                priority=1,
                oversubscribe=False,
                region=str(region),
            )
        )
    )
    preload = " ".join(part for part in (str(machine.library), os.environ.get("LD_PRELOAD", "")) if part)
    return {
        **machine.additions,
        "LD_PRELOAD": preload,
        "HAMI_GRANT": str(grant),
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(region),
        "CUDA_VISIBLE_DEVICES": ",".join(share.uuid for share in me.shares),
        **owner_env(me.shares, machine.vendor, visible=False),
    }


def _say(text: str) -> None:
    with suppress(BrokenPipeError):
        print(f"hami run: {text}", file=sys.stderr, flush=True)


def _say_lines(lines: Sequence[str]) -> None:
    with suppress(BrokenPipeError):
        for line in lines:
            print(f"  {line}", file=sys.stderr)
