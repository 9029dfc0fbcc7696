"""The library on a driver: compiled programs on the simulated machine, each showing one behaviour under LD_PRELOAD."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interpose.simulation import Simulation

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem for path in (Path(__file__).parent / "driven").glob("*.c"))


KINDS = ("", "address", "undefined")


def _built(kind: str) -> Path:
    """The build with the programs and the library, with one sanitizer or none."""
    cmake = shutil.which("cmake")
    assert cmake, "cmake is part of the development environment"
    where = ROOT / "interpose" / f"build-test{'-' if kind else ''}{kind}"
    options = ["-DHAMI_TESTS=ON", f"-DHAMI_SANITIZE={kind}"]
    configure = [cmake, "-S", str(ROOT / "interpose"), "-B", str(where), *options]
    subprocess.run(configure, check=True, capture_output=True)
    make = [cmake, "--build", str(where), "--target", "vgpu", "simcuda", "simnvml", *(f"driven_{p}" for p in PROGRAMS)]
    made = subprocess.run(make, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return where


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind or "plain")
def build(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """Where the programs lie, and what to preload."""
    where = _built(request.param)
    preload = [str(where / "libvgpu.so")]
    if request.param == "address":
        # The sanitizer's library insists on being first.
        runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        preload.insert(0, runtime.stdout.strip())
    return where, ":".join(preload)


@pytest.mark.parametrize("program", PROGRAMS)
def test_behaviour(build: tuple[Path, str], program: str, tmp_path: Path) -> None:
    where, preload = build
    machine = Simulation(tmp_path)
    region = str(tmp_path / "region.cache")
    environment = {
        **os.environ,
        **machine.environment(),
        "LD_LIBRARY_PATH": str(where / "sim"),
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0",
        "HAMI_DEVICE_UUIDS": ",".join(machine.uuids),
        "CUDA_DEVICE_MEMORY_LIMIT_0": "100m",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": region,
        "REGION": region,
    }
    command = [str(where / "driven" / f"driven_{program}")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
