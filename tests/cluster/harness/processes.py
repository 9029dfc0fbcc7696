"""Long-running programs by name: start, watch, stop, kill; also those that an earlier run of ours left behind.

Each runs in a session of its own with its output in a log file, and is on record as pid and kernel start time, so that
a recycled pid is never taken for it.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.layout import Layout
from tests.cluster.harness.waiting import TimedOut, eventually


class ProcessEnded(RuntimeError):
    """A program that should be running has ended; the text holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A process as it was started."""

    name: str
    pid: int
    started: int
    """Field 22 of /proc/PID/stat, in clock ticks since boot."""

    @property
    def alive(self) -> bool:
        """Running, and still the process that was started (a zombie has ended)."""
        stat = _stat(self.pid)
        return stat is not None and stat[0] != "Z" and int(stat[19]) == self.started


class Processes:
    """The programs of one cluster."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Recorded:
        """Start `argv` with `env` added to the environment; its output is appended to the log of that name."""
        if (running := self.find(name)) is not None:
            raise RuntimeError(f"{name} is already running as pid {running.pid}")
        with self.log(name).open("ab") as out:
            out.write(f"--- {time.strftime('%H:%M:%S')} {' '.join(map(str, argv))}\n".encode())
            out.flush()
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self._layout.state,
                env={**os.environ, **(env or {})},
            )
        self._children[name] = child
        stat = _stat(child.pid)
        record = Recorded(name=name, pid=child.pid, started=int(stat[19]) if stat else 0)
        self._path(name).write_text(json.dumps({"pid": record.pid, "started": record.started}), encoding="utf-8")
        return record

    def find(self, name: str) -> Recorded | None:
        """The running process of that name, whoever started it."""
        if (child := self._children.get(name)) is not None:
            child.poll()
        try:
            saved = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        record = Recorded(name=name, pid=int(saved["pid"]), started=int(saved["started"]))
        return record if record.alive else None

    def running(self) -> tuple[Recorded, ...]:
        names = sorted(path.name for path in self._layout.processes.glob("*"))
        return tuple(record for name in names if (record := self.find(name)) is not None)

    def ready(self, name: str, answers: Callable[[], object], within_s: float = 60) -> None:
        """Wait until `answers` is true. Raises `ProcessEnded` at once if the program ends before."""

        def probe() -> bool:
            if self.find(name) is None:
                raise ProcessEnded(f"{name} has ended:\n{self.tail(name)}")
            return bool(answers())

        try:
            eventually(f"{name} ready", probe, within_s)
        except TimedOut as error:
            raise TimedOut(f"{error}\n{self.tail(name)}") from None

    def stop(self, name: str, grace_s: float = 15) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. Nothing happens if it is not running."""
        self._end(name, signal.SIGTERM, grace_s)

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash."""
        self._end(name, signal.SIGKILL, 10)

    def tail(self, name: str, lines: int = 40) -> str:
        """The end of the program's log."""
        try:
            text = self.log(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return f"(no log of {name})"
        return "\n".join(text.splitlines()[-lines:])

    def _end(self, name: str, sign: signal.Signals, grace_s: float) -> None:
        record = self.find(name)
        if record is not None:
            os.kill(record.pid, sign)
            try:
                eventually(f"{name} ended", lambda: self.find(name) is None, grace_s, 0.02)
            except TimedOut:
                os.kill(record.pid, signal.SIGKILL)
                eventually(f"{name} ended after SIGKILL", lambda: self.find(name) is None, 10, 0.02)
        if (child := self._children.pop(name, None)) is not None:
            child.wait(timeout=10)
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._layout.processes / name


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state letter (field 3) on; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
