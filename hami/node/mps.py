"""The vendor's MPS on this node: programs that reach its daemon run side by side on a card, each up to a share.

A program finds it by a directory of pipes. One whose directory is missing runs without it, silently and without its
limits, so nobody is sent there before the daemon has answered, nor while its server is stuck with a fault. Daemons from
release 615 on give each container a place of its own (a namespace), with limits that its programs cannot change; older
ones are one place for all, where each program's limits stand in its own environment. The daemon itself is in
`mps_daemon`. A simulated machine has none, and its driver plays one.
"""

import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from hami.node.atomic import write_atomically
from hami.node.installed import HookTree

log = logging.getLogger(__name__)

SHM: Final = Path("/dev/shm")
"""Where a daemon and its programs share memory. Each pod has a directory of its own there, so programs must be given
the daemon's."""
SERVER: Final = "hami"
"""The server that has the containers' places, where a daemon knows names."""
PLACE: Final = re.compile(r"[0-9a-f]{32}")
"""A place is named as its container's grant is."""
SIMULATED: Final = "simulated"
"""A file of this name in a pipes' directory says that there is no daemon behind it; of a place, with what limits."""


class MpsError(Exception):
    """There is no daemon here, or no place for a container; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MpsPaths:
    """Directories of one daemon on the node."""

    pipe: Path
    log: Path
    shm: Path | None
    """What the daemon has at SHM; None: programs keep their own."""
    server: str = ""
    """The named server below `pipe` that has a place for each container; empty: one place for all."""

    def pipe_of(self, place: str) -> Path:
        """What a container's programs find their place by."""
        return self.pipe / self.server / place if self.server else self.pipe


def mps_paths(tree: HookTree, shm: Path | None) -> MpsPaths:
    return MpsPaths(pipe=tree.vgpu / "mps" / "pipe", log=tree.vgpu / "mps" / "log", shm=shm)


class Mps(Protocol):
    """A daemon, or what plays one. Calls block for up to seconds and belong in a worker thread."""

    @property
    def paths(self) -> MpsPaths:
        """As of the last start or look."""
        ...

    def start(self) -> None:
        """Have it running. Raises MpsError."""
        ...

    def alive(self) -> bool:
        """Whether it answers."""
        ...

    def fault(self) -> str:
        """Why it takes no new program although it answers; empty: it does."""
        ...

    def admit(self, place: str, percent: int, pinned_mib: int) -> None:
        """Have a container's place: a ceiling on multiprocessors, and the most memory of each device that a program may
        hold; 0 = no limit. Nothing to do where all share one place. Raises MpsError."""
        ...

    def dismiss(self, place: str) -> None:
        """Its container is over."""
        ...

    def places(self) -> frozenset[str]:
        """The containers' places that are there."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedMps:
    """What programs of a simulated machine are sent to: the simulated driver itself plays the daemon's part."""

    base: MpsPaths
    named: bool = False
    """Each container has a place of its own."""

    @property
    def paths(self) -> MpsPaths:
        return replace(self.base, server=SERVER if self.named else "")

    def start(self) -> None:
        make_directories(self.base.pipe, self.base.log)
        (self.base.pipe / SIMULATED).touch()
        log.warning("MPS is simulated: no daemon runs")

    def alive(self) -> bool:
        return (self.base.pipe / SIMULATED).exists()

    def fault(self) -> str:
        return ""

    def admit(self, place: str, percent: int, pinned_mib: int) -> None:
        if not self.named:
            return
        directory = self.paths.pipe_of(place)
        text = f"active_thread_percentage={percent}\n" if percent else ""
        text += f"pinned_memory_limit={pinned_mib}M\n" if pinned_mib else ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / SIMULATED, text.encode())
        except OSError as error:
            raise MpsError(f"{error.filename}: {error.strerror}") from error

    def dismiss(self, place: str) -> None:
        if self.named:
            shutil.rmtree(self.paths.pipe_of(place), ignore_errors=True)

    def places(self) -> frozenset[str]:
        server = self.paths.pipe / SERVER
        return places_in(path.name for path in server.iterdir()) if self.named and server.is_dir() else frozenset()


def places_in(names: Iterable[str]) -> frozenset[str]:
    """Those of them that are containers' places."""
    return frozenset(name for name in names if PLACE.fullmatch(name))


def make_directories(*directories: Path) -> None:
    """Have them, open to programs of every user. Raises MpsError."""
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o1777)
    except OSError as error:
        raise MpsError(f"{error.filename}: {error.strerror}") from error
