"""The interposer's own C: each program of `c/` shows one behaviour, plain and under three sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.interpose.build import KINDS, built

PROGRAMS = sorted(path.stem for path in (Path(__file__).parent / "c").glob("*.c"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind or "plain")
@pytest.mark.parametrize("program", PROGRAMS)
def test_behaviour(program: str, kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [str(built(kind) / "c" / f"test_{program}")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
