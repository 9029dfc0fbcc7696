"""The vendor's MPS control daemon on this node: programs that reach it run side by side on a card, each up to a share.

A program finds it by a directory of pipes. One whose directory is missing runs without it, silently and without its
limits, so nobody is sent there before the daemon has answered. A simulated machine has no daemon and plays one.
"""

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hami.node.installed import HookTree

log = logging.getLogger(__name__)

CONTROL: Final = "nvidia-cuda-mps-control"
SHM: Final = Path("/dev/shm")
"""Where a daemon and its programs share memory. Each pod has a directory of its own there, so programs must be given
the daemon's."""
ASK_S: Final = 2.0
START_S: Final = 10.0
"""How long starting may take, until the daemon is on its own."""
SIMULATED: Final = "simulated"
"""A file of this name in the pipes' directory says that there is no daemon behind it."""


class MpsError(Exception):
    """There is no daemon here; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MpsPaths:
    """Directories of one daemon on the node."""

    pipe: Path
    log: Path
    shm: Path | None
    """What the daemon has at SHM; None: programs keep their own."""


def mps_paths(tree: HookTree, shm: Path | None) -> MpsPaths:
    return MpsPaths(pipe=tree.vgpu / "mps" / "pipe", log=tree.vgpu / "mps" / "log", shm=shm)


class Mps(Protocol):
    """A daemon, or what plays one. Calls block for up to seconds and belong in a worker thread."""

    @property
    def paths(self) -> MpsPaths: ...

    def start(self) -> None:
        """Have it running. Raises MpsError."""
        ...

    def alive(self) -> bool:
        """Whether it answers."""
        ...


@dataclass(frozen=True, slots=True)
class MpsDaemon:
    """The vendor's daemon. It is no child of this process and outlives it: with it every program that uses it would
    lose what it computes."""

    paths: MpsPaths
    program: str = CONTROL
    own_shm: Path = SHM

    def start(self) -> None:
        if shutil.which(self.program) is None:
            raise MpsError(f"{self.program} is not installed where the agent runs")
        _make(self.paths.pipe, self.paths.log, self.own_shm)
        # Programs of containers run as any user; older releases do not know the word for that.
        said = ""
        for words in (["-d", "-multiuser-server"], ["-d"]):
            code, said = self._run(words, "", START_S)
            if code == 0:
                return
        raise MpsError(f"{self.program} does not start: {said or f'its log is in {self.paths.log}'}")

    def alive(self) -> bool:
        return self._run([], "get_server_list\n", ASK_S)[0] == 0

    def _run(self, words: list[str], sent: str, within_s: float) -> tuple[int, str]:
        """What the program ended with, and said; -1 where it did neither."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment["CUDA_MPS_PIPE_DIRECTORY"] = str(self.paths.pipe)
        environment["CUDA_MPS_LOG_DIRECTORY"] = str(self.paths.log)
        try:
            done = subprocess.run(
                [self.program, *words],
                input=sent,
                env=environment,
                text=True,
                stdout=subprocess.DEVNULL,  # a daemon inherits it, and nobody would ever close a pipe
                stderr=subprocess.DEVNULL if words else subprocess.PIPE,
                timeout=within_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return -1, str(error)
        return done.returncode, (done.stderr or "").strip()


@dataclass(frozen=True, slots=True)
class SimulatedMps:
    """What programs of a simulated machine are sent to: the simulated driver itself plays the daemon's part."""

    paths: MpsPaths

    def start(self) -> None:
        _make(self.paths.pipe, self.paths.log)
        (self.paths.pipe / SIMULATED).touch()
        log.warning("MPS is simulated: no daemon runs")

    def alive(self) -> bool:
        return (self.paths.pipe / SIMULATED).exists()


def _make(*directories: Path) -> None:
    """The directories, open to programs of every user. Raises MpsError."""
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o1777)
    except OSError as error:
        raise MpsError(f"{error.filename}: {error.strerror}") from error
