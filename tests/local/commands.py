"""`hami` as a user starts it, with a ledger and a simulated machine of the test's own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from hami.node.simulated import native_dir

ROOT = Path(__file__).parents[2]
PROBE = str(native_dir() / "sim" / "gpuprobe")


def heed_signals() -> None:
    """As in a terminal, also where the tests themselves run detached from one: nohup and `&` leave these ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Hami:
    """The command on a machine of two Tesla T4; leaving the block ends everything it started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "ledger"
        self.directory.mkdir()
        self.machine = directory / "machine.yaml"
        self.machine.write_text("name: bench\ndevices:\n- {model: Tesla T4, count: 2}\n")
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hami", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HAMI_LOCAL_DIR": str(self.directory), **environment},
            cwd=ROOT,
            preexec_fn=heed_signals,
        )
        self._started.append(process)
        return process

    def run(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """`hami run` on the simulated machine."""
        return self.start("run", "--simulate", str(self.machine), *words, **environment)

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def ps(self) -> list[dict[str, Any]]:
        """`hami ps --json`."""
        code, out, err = self.finish(self.start("ps", "--json"))
        assert code == 0, err
        return list(json.loads(out))

    def __enter__(self) -> "Hami":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.kill()
            process.communicate()
