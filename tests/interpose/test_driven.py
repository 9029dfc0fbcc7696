"""The library on a driver: compiled programs on the simulated machine, each showing one behaviour under LD_PRELOAD."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.interpose.build import KINDS, built, preload
from tests.interpose.simulation import Simulation

PROGRAMS = sorted(path.stem for path in (Path(__file__).parent / "driven").glob("*.c"))


def limits(machine: Simulation, directory: Path) -> dict[str, str]:
    """What the programs expect: device 0 with 100 MiB, device 1 without a limit, the region's path in REGION."""
    region = str(directory / "region.cache")
    return {
        "HAMI_DEVICE_UUIDS": ",".join(machine.uuids),
        "CUDA_DEVICE_MEMORY_LIMIT_0": "100m",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": region,
        "REGION": region,
        # Contexts and code are the subject of overhead.c, which sets this by itself.
        "HAMI_MEMORY_ACCOUNTING": "requested",
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind or "plain")
@pytest.mark.parametrize("program", PROGRAMS)
def test_behaviour(program: str, kind: str, tmp_path: Path) -> None:
    where = built(kind)
    machine = Simulation(tmp_path)
    environment = {
        **os.environ,
        **machine.environment(),
        **limits(machine, tmp_path),
        "LD_PRELOAD": preload(where, kind),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    command = [str(where / "driven" / f"driven_{program}")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
