"""The vendor's MPS control daemon, in both of the protocols it speaks.

The newer one (release 615) has named servers and namespaces, and commands as arguments; the older one has a shell on
standard input. A command follows the protocol of the daemon that runs. The daemon is no child of this process and
outlives it: with it every program that uses it would lose what it computes.
"""

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hami.node.mps import SERVER, SHM, MpsError, MpsPaths, make_directories, places_in

log = logging.getLogger(__name__)

CONTROL: Final = "nvidia-cuda-mps-control"
ASK_S: Final = 2.0
START_S: Final = 10.0
"""How long starting may take, until the daemon is on its own."""
SOCKET: Final = "control_privileged"
"""The longest name among the daemon's sockets."""
PLACE_SOCKET: Final = f"{SERVER}/{'0' * 32}/control"
"""A container's place."""
SOCKET_PATH: Final = 107
"""Bytes that the path of a socket may have; a daemon that cannot make its own ends without a word."""
INITIAL_PIDS: Final = 0xEFFFFFFC
"""Inode of the machine's first pid namespace, a constant of the kernel."""
NAMES: Final = ("-p", "3")
"""The protocol with names."""
NO_CEILING: Final = 100


@dataclass(slots=True)
class MpsDaemon:
    """The daemon, by its command."""

    base: MpsPaths
    program: str = CONTROL
    own_shm: Path = SHM
    proc: Path = Path("/proc")
    _named: bool = False
    """The daemon that was started or looked at last has the named server."""
    _knows_names: bool | None = None

    @property
    def paths(self) -> MpsPaths:
        return replace(self.base, server=SERVER) if self._named else self.base

    def start(self) -> None:
        if shutil.which(self.program) is None:
            raise MpsError(f"{self.program} is not installed where the agent runs")
        names = self._can_name()
        if len(os.fsencode(self.base.pipe / (PLACE_SOCKET if names else SOCKET))) > SOCKET_PATH:
            raise MpsError(f"{self.base.pipe} is too long a path for the daemon's sockets")
        make_directories(self.base.pipe, self.base.log, self.own_shm)
        if self._own_pids():
            log.warning("MPS does not limit the memory of programs: its daemon has pids of its own, not the node's")
        if names:
            self._start_named()
        else:
            self._start_nameless()

    def _start_named(self) -> None:
        """The daemon, unless it runs without our server, and the server. Programs of containers run as any user."""
        said = self._run(["-d", *NAMES, "-m"], START_S)[1]
        made = self._run([*NAMES, "server", "create", SERVER], START_S)[1]
        if not self._has_server():
            raise MpsError(f"{self.program} has no server {SERVER}: {made or said or self._see_log()}")
        self._named = True

    def _start_nameless(self) -> None:
        if self._run(["-d", "-multiuser-server"], START_S)[0] == 0:
            return
        # Older releases do not know the word.
        code, said = self._run(["-d"], START_S)
        if code != 0:
            raise MpsError(f"{self.program} does not start: {said or self._see_log()}")
        log.warning("MPS serves one user at a time: programs of another wait until those of the first have ended")

    def alive(self) -> bool:
        if self._can_name() and self._has_server():
            self._named = True
        elif self._ask("get_server_list") is not None:
            self._named = False
        else:
            return False
        return True

    def fault(self) -> str:
        servers = [] if self._named else self._ask("get_server_list") or []
        states = {server: self._ask(f"get_server_status {server}") or [] for server in servers}
        if self._named:
            states[SERVER] = self._run([*NAMES, "server", "get", SERVER, "status"], ASK_S)[1].split()
        for server, state in states.items():
            if "FAULT" in (word.upper() for word in state):
                return f"MPS server {server} takes no programs until the one that failed has ended"
        return ""

    def admit(self, place: str, percent: int, pinned_mib: int) -> None:
        if not self._named:
            return
        made = self._run([*NAMES, "namespace", "create", place, f"--server={SERVER}"], ASK_S)[1]
        code, found = self._run([*NAMES, "namespace", "get", place, SERVER, "pipe-directory"], ASK_S)
        wanted = self.paths.pipe_of(place)
        if code != 0 or Path(found) != wanted or not wanted.is_dir():
            raise MpsError(f"no namespace {place}: {made or found or self._see_log()}")
        # One without limits has the whole device, whatever its server has.
        limits = [f"--active-thread-percentage={percent or NO_CEILING}"]
        if pinned_mib:
            limits.append(f"--pinned-memory-limit={pinned_mib}M")
        code, said = self._run([*NAMES, "namespace", "set", place, f"--server={SERVER}", *limits], ASK_S)
        if code != 0:
            raise MpsError(f"namespace {place} without limits: {said or self._see_log()}")

    def dismiss(self, place: str) -> None:
        if self._named:
            self._run([*NAMES, "namespace", "delete", place, f"--server={SERVER}", "--force"], ASK_S)

    def places(self) -> frozenset[str]:
        if not self._named:
            return frozenset()
        words = ["namespace", "list", f"--server={SERVER}", "--format=csv,noheader"]
        listed = self._run([*NAMES, *words], ASK_S)[1]
        return places_in(line.partition(",")[0].strip() for line in listed.splitlines())

    def _can_name(self) -> bool:
        """Whether this release has names; asked once."""
        if self._knows_names is None:
            code, said = self._run([*NAMES, "-h"], ASK_S)
            self._knows_names = "namespace" in said if code >= 0 else None
        return bool(self._knows_names)

    def _has_server(self) -> bool:
        return self._run([*NAMES, "server", "get", SERVER, "name"], ASK_S) == (0, SERVER)

    def _ask(self, command: str) -> list[str] | None:
        """The words of an answer in the older protocol; None where there is none."""
        code, said = self._run([], ASK_S, f"{command}\n")
        return said.split() if code == 0 else None

    def _see_log(self) -> str:
        return f"its log is in {self.base.log}"

    def _own_pids(self) -> bool:
        """Whether this process sees other pids than the node's: pid 1 is of its own container, not of the machine."""
        try:
            if (self.proc / "self/ns/pid").stat().st_ino == INITIAL_PIDS:
                return False
            return (self.proc / "1/ns/mnt").stat().st_ino == (self.proc / "self/ns/mnt").stat().st_ino
        except OSError:
            return False  # pid 1 is somebody else's

    def _run(self, words: list[str], within_s: float, sent: str = "") -> tuple[int, str]:
        """What the program ended with, and said; -1 where it did not end, and why."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment["CUDA_MPS_PIPE_DIRECTORY"] = str(self.base.pipe)
        environment["CUDA_MPS_LOG_DIRECTORY"] = str(self.base.log)
        # A daemon inherits where it writes to, and nobody would ever close a pipe.
        kept = subprocess.DEVNULL if "-d" in words else subprocess.PIPE
        try:
            done = subprocess.run(
                [self.program, *words],
                input=sent,
                env=environment,
                text=True,
                stdout=kept,
                stderr=kept,
                timeout=within_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return -1, str(error)
        return done.returncode, (done.stdout or (done.returncode and done.stderr) or "").strip()
