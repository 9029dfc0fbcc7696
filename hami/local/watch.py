"""The monitor of `hami run`: while programs of this user run, it judges who shares a device, and corrects charges.

The agent's own monitor over the regions of the machine's programs. `hami run` becomes the program it starts, so this is
a process of its own: one for each user and machine, started with the first program, gone with the last. Another user's
regions are not ours to open; their programs count as busy, so limits hold beside them. Should it be killed, the
next `hami run` starts another.
"""

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from hami.agent.monitor import Monitor
from hami.agent.overhead import ContainerProcesses
from hami.agent.regions import DeviceView, OpenRegions, RegionView
from hami.alloc.feedback import Feedback
from hami.local.directory import listing
from hami.local.entries import Entry
from hami.local.lock import CAREFUL, LocalStateError, locked
from hami.local.machine import THIS_MACHINE
from hami.model.settings import DEFAULT_DEVICE_CONFIG, NodeOverrides
from hami.node.grants import Grant, State
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import SINGLE, NvidiaProbe
from hami.node.simulated import load_nvml

log = logging.getLogger(__name__)

CHECK_S: Final = 1.0
"""How often it looks who runs."""
START_NICENESS: Final = 10
"""Its start takes a second of a processor, just when the program starts, too; its work takes next to nothing."""


def _lock_path(directory: Path, simulated: Path | None) -> Path:
    machine = "real" if simulated is None else simulated.stem
    return directory / f"watch-{os.getuid()}-{machine}.lock"


@contextmanager
def _alone(directory: Path, simulated: Path | None) -> Iterator[bool]:
    """Whether this process is the only one to watch; it is until the block ends."""
    descriptor = os.open(_lock_path(directory, simulated), os.O_RDWR | os.O_CREAT | CAREFUL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def ensure_watched(directory: Path, simulated: Path | None) -> None:
    """Have a monitor for this user's programs on this machine. Raises OSError where none can be started.

    Called with the program's entry in the directory, so that one which is about to end sees it, or has ended.
    """
    with _alone(directory, simulated) as nobody_else:
        if not nobody_else:
            return
    command = [sys.executable, "-m", "hami.local.watch", str(directory)]
    if simulated is not None:
        command.append(str(simulated))
    # Not a child of this process: the program it becomes would get a child that it does not know.
    middle = os.fork()
    if middle == 0:
        try:
            quiet = subprocess.DEVNULL
            os.nice(START_NICENESS)
            subprocess.Popen(command, cwd="/", stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        finally:
            os._exit(0)
    os.waitpid(middle, 0)


@dataclass(slots=True)
class LocalRegions:
    """The regions of running programs: this user's as they are, another's as those of busy neighbours."""

    own: OpenRegions
    others: dict[str, Entry]

    def view(self, grant_id: str, *, reap: bool) -> RegionView | None:
        other = self.others.get(grant_id)
        return self.own.view(grant_id, reap=reap) if other is None else _busy(other)

    def apply(self, verdict: Feedback) -> None:
        if verdict.id not in self.others:
            self.own.apply(verdict)

    def correct(self, grant_id: str, device: int, *, permille: int, tenants: int, amend_ns: int) -> None:
        if grant_id not in self.others:
            self.own.correct(grant_id, device, permille=permille, tenants=tenants, amend_ns=amend_ns)

    def lend(self, grant_id: str, device: int, percent: int) -> None:
        self.own.lend(grant_id, device, percent)

    def processes(self, grant_id: str) -> ContainerProcesses | None:
        return None if grant_id in self.others else self.own.processes(grant_id)

    def observe(self, grant_id: str, slot: int, device: int, held_bytes: int) -> None:
        self.own.observe(grant_id, slot, device, held_bytes)

    def expect_context(self, grant_id: str, device: int, context_bytes: int) -> None:
        self.own.expect_context(grant_id, device, context_bytes)


def _busy(entry: Entry) -> RegionView:
    """A program of which nothing is known but what it was granted."""
    return RegionView(
        devices=tuple(
            DeviceView(
                uuid=share.uuid,
                limit_bytes=share.memory_mib << 20,
                used_bytes=0,
                context_bytes=0,
                module_bytes=0,
                launches=0,
                charged_ns=0,
                waited_ns=None,
                refused=None,
            )
            for share in entry.shares
        ),
        processes=1,
        priority=1,
        blocked=False,
        idle_s=0.0,
        launched=True,
    )


def _as_grant(entry: Entry) -> Grant:
    return Grant(id=entry.name, device_ids=frozenset(), made_unix=0, state=State.SETTLED, shares=entry.shares)


class Watch:
    """Who runs on one machine, and the monitor over it."""

    def __init__(self, directory: Path, monitored: Sequence[str], probe: NvidiaProbe, regions: OpenRegions) -> None:
        """`monitored`: the machine's devices; programs on others are another watch's."""
        self._directory = directory
        self._devices = frozenset(monitored)
        self._regions = regions
        self._grants: dict[str, Grant] = {}
        self._views = LocalRegions(own=regions, others={})
        self.monitor = Monitor(self._views, lambda: tuple(self._grants.values()), probe, THIS_MACHINE)

    def look(self) -> bool:
        """See who runs; false when none of this user's programs does."""
        try:
            running = listing(self._directory).running
        except FileNotFoundError:
            return False  # the directory was removed
        found = [entry for entry in running if not self._devices.isdisjoint(entry.devices)]
        gone = self._grants.keys() - {entry.name for entry in found}
        for name in gone:
            self._regions.close(name)
        self._views.others = {entry.name: entry for entry in found if entry.uid != os.getuid()}
        self._grants = {entry.name: _as_grant(entry) for entry in found}
        return len(self._views.others) < len(found)

    async def run(self) -> None:
        """Monitor until none of this user's programs runs any more."""
        self.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.monitor.run)
            while True:
                await anyio.sleep(CHECK_S)
                if not self.look():
                    tasks.cancel_scope.cancel()
                    return


def watch(directory: Path, simulated: Path | None) -> None:
    """Watch until this user's last program ends; at once where somebody else does. Raises ProbeError, OSError."""
    if simulated is not None:
        load_nvml(simulated)
    overrides = NodeOverrides(mig_strategy=SINGLE)
    sysfs = None if simulated is not None else Path("/sys")
    with ExitStack() as alone, NvidiaProbe(DEFAULT_DEVICE_CONFIG.nvidia, overrides, sysfs=sysfs) as probe:
        if not alone.enter_context(_alone(directory, simulated)):
            return
        devices = [str(device.uuid) for device in probe.inventory().devices]
        with OpenRegions(lambda name: directory / f"{name}.d" / "region.cache") as regions:
            watching = Watch(directory, devices, probe, regions)
            while True:
                anyio.run(watching.run)
                with locked(directory):
                    if not watching.look():
                        # A program that comes now enters itself after this, and finds that nobody watches.
                        alone.close()
                        return


def main() -> None:
    """`python -m hami.local.watch DIRECTORY [STATE]`: the process that `ensure_watched` starts."""
    directory, *simulated = map(Path, sys.argv[1:])
    try:
        watch(directory, simulated[0] if simulated else None)
    except (ProbeError, LocalStateError, OSError) as error:
        log.warning("%s is not watched: %s", directory, error)


if __name__ == "__main__":
    main()
