"""The vendor's MPS control daemon on this node: programs that reach it run side by side on a card, each up to a share.

A program finds it by a directory of pipes. One whose directory is missing runs without it, silently and without its
limits, so nobody is sent there before the daemon has answered, nor while its server is stuck with a fault. A simulated
machine has no daemon and plays one.
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
SOCKET: Final = "control_privileged"
"""The longest name among the daemon's sockets."""
SOCKET_PATH: Final = 107
"""Bytes that the path of a socket may have; a daemon that cannot make its own ends without a word."""
INITIAL_PIDS: Final = 0xEFFFFFFC
"""Inode of the machine's first pid namespace, a constant of the kernel."""


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

    def fault(self) -> str:
        """Why it takes no new program although it answers; empty: it does."""
        ...


@dataclass(frozen=True, slots=True)
class MpsDaemon:
    """The vendor's daemon. It is no child of this process and outlives it: with it every program that uses it would
    lose what it computes."""

    paths: MpsPaths
    program: str = CONTROL
    own_shm: Path = SHM
    proc: Path = Path("/proc")

    def start(self) -> None:
        if shutil.which(self.program) is None:
            raise MpsError(f"{self.program} is not installed where the agent runs")
        if len(os.fsencode(self.paths.pipe / SOCKET)) > SOCKET_PATH:
            raise MpsError(f"{self.paths.pipe} is too long a path for the daemon's sockets")
        _make(self.paths.pipe, self.paths.log, self.own_shm)
        if self._own_pids():
            log.warning("MPS does not limit the memory of programs: its daemon has pids of its own, not the node's")
        code, said = self._run(["-d", "-multiuser-server"], "", START_S)
        if code != 0:
            # Older releases do not know the word.
            code, said = self._run(["-d"], "", START_S)
            if code == 0:
                log.warning(
                    "MPS serves one user at a time: programs of another wait until those of the first have ended"
                )
        if code != 0:
            raise MpsError(f"{self.program} does not start: {said or f'its log is in {self.paths.log}'}")

    def alive(self) -> bool:
        return self._run([], "get_server_list\n", ASK_S)[0] == 0

    def fault(self) -> str:
        for server in self._ask("get_server_list"):
            if "FAULT" in self._ask(f"get_server_status {server}"):
                return f"MPS server {server} takes no programs until the one that failed has ended"
        return ""

    def _ask(self, command: str) -> list[str]:
        """The words of an answer; none where there is none."""
        code, said = self._run([], f"{command}\n", ASK_S)
        return said.split() if code == 0 else []

    def _own_pids(self) -> bool:
        """Whether this process sees other pids than the node's: pid 1 is of its own container, not of the machine."""
        try:
            if (self.proc / "self/ns/pid").stat().st_ino == INITIAL_PIDS:
                return False
            return (self.proc / "1/ns/mnt").stat().st_ino == (self.proc / "self/ns/mnt").stat().st_ino
        except OSError:
            return False  # pid 1 is somebody else's

    def _run(self, words: list[str], sent: str, within_s: float) -> tuple[int, str]:
        """What the program ended with, and said; -1 where it did not end, and why."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment["CUDA_MPS_PIPE_DIRECTORY"] = str(self.paths.pipe)
        environment["CUDA_MPS_LOG_DIRECTORY"] = str(self.paths.log)
        try:
            done = subprocess.run(
                [self.program, *words],
                input=sent,
                env=environment,
                text=True,
                # A daemon inherits them, and nobody would ever close a pipe.
                stdout=subprocess.DEVNULL if words else subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=within_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return -1, str(error)
        return done.returncode, (done.stdout or "").strip()


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

    def fault(self) -> str:
        return ""


def _make(*directories: Path) -> None:
    """The directories, open to programs of every user. Raises MpsError."""
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o1777)
    except OSError as error:
        raise MpsError(f"{error.filename}: {error.strerror}") from error
