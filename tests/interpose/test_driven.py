"""The library on a driver: compiled programs on the simulated machine, each showing one behaviour under LD_PRELOAD."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interpose.simulation import Simulation

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem for path in (Path(__file__).parent / "driven").glob("*.c"))


@pytest.fixture(scope="module")
def build() -> Path:
    """The build with the programs and the library, without sanitizers."""
    cmake = shutil.which("cmake")
    assert cmake, "cmake is part of the development environment"
    where = ROOT / "interpose" / "build-test"
    configure = [cmake, "-S", str(ROOT / "interpose"), "-B", str(where), "-DHAMI_TESTS=ON", "-DHAMI_SANITIZE="]
    subprocess.run(configure, check=True, capture_output=True)
    targets = ["vgpu", "simcuda", "simnvml", *(f"driven_{program}" for program in PROGRAMS)]
    made = subprocess.run(
        [cmake, "--build", str(where), "--target", *targets], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return where


@pytest.mark.parametrize("program", PROGRAMS)
def test_behaviour(build: Path, program: str, tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    region = str(tmp_path / "region.cache")
    environment = {
        **os.environ,
        **machine.environment(),
        "LD_LIBRARY_PATH": str(build / "sim"),
        "LD_PRELOAD": str(build / "libvgpu.so"),
        "HAMI_DEVICE_UUIDS": ",".join(machine.uuids),
        "CUDA_DEVICE_MEMORY_LIMIT_0": "100m",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": region,
        "REGION": region,
    }
    run = subprocess.run(
        [build / "driven" / f"driven_{program}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
