"""The interposer's C programs and a library of their own, built with a sanitizer or without."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = ("", "address", "undefined")


@cache
def built(kind: str) -> Path:
    """The build with this sanitizer, made now: `libvgpu.so`, `c/`, `driven/`, `fake/`."""
    cmake = shutil.which("cmake")
    assert cmake, "cmake is part of the development environment"
    where = ROOT / "interpose" / f"build-test{'-' if kind else ''}{kind}"
    options = ["-DHAMI_TESTS=ON", f"-DHAMI_SANITIZE={kind}"]
    configure = [cmake, "-S", str(ROOT / "interpose"), "-B", str(where), *options]
    for command in (configure, [cmake, "--build", str(where), "--parallel", "2", "--target", "interpose_tests"]):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return where


def preload(where: Path, kind: str) -> str:
    """What to preload for the library of a build."""
    library = str(where / "libvgpu.so")
    if kind != "address":
        return library
    # The sanitizer's library insists on being first.
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return f"{runtime.stdout.strip()}:{library}"
