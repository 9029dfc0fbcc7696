"""The interposer's own C: each program of `c/` shows one behaviour, plain and under two sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem for path in (Path(__file__).parent / "c").glob("*.c"))
KINDS = ("", "address", "undefined")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories with the programs, by sanitizer."""
    cmake = shutil.which("cmake")
    assert cmake, "cmake is part of the development environment"
    where = {}
    for kind in KINDS:
        build = ROOT / "interpose" / f"build-test{'-' if kind else ''}{kind}"
        configure = [
            cmake,
            "-S",
            str(ROOT / "interpose"),
            "-B",
            str(build),
            "-DHAMI_TESTS=ON",
            f"-DHAMI_SANITIZE={kind}",
        ]
        subprocess.run(configure, check=True, capture_output=True)
        targets = [f"test_{program}" for program in PROGRAMS]
        make = [cmake, "--build", str(build), "--target", *targets]
        made = subprocess.run(make, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
        where[kind] = build / "tests"
    return where


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind or "plain")
@pytest.mark.parametrize("program", PROGRAMS)
def test_behaviour(built: dict[str, Path], program: str, kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "ASAN_OPTIONS": "detect_leaks=0"}
    run = subprocess.run(
        [built[kind] / f"test_{program}"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
