"""Drivers unlike the simulated one: functions missing, inner entries, an ABI of the future, graphs that hold memory."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.interpose.build import KINDS, built, preload


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind or "plain")
def test_an_unlike_driver(kind: str, tmp_path: Path) -> None:
    where = built(kind)
    region = str(tmp_path / "region.cache")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(where / "fake"),
        "LD_PRELOAD": preload(where, kind),
        "ASAN_OPTIONS": "detect_leaks=0",
        "CUDA_DEVICE_MEMORY_LIMIT": "100m",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": region,
        "REGION": region,
    }
    command = [str(where / "fake" / "fakeclient")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
