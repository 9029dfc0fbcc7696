"""The interposer's C programs and a library of their own: plain, with a sanitizer, for another machine."""

import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = ("", "address", "undefined", "thread")
GLIBC = "2.17"
"""What the libraries may need of a container's C library."""


@cache
def built(kind: str) -> Path:
    """The build with this sanitizer, made now: `libvgpu.so`, `c/`, `driven/`, `fake/`."""
    return _build(f"build-test{'-' if kind else ''}{kind}", [f"-DHAMI_SANITIZE={kind}"], dict(os.environ))


@cache
def cross_built(machine: str) -> Path:
    """The same for a machine, as what is shipped is built: with zig's compiler and for old C libraries."""
    system = ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}"]
    return _build(f"build-test-{machine}", system, zig_environment(f"{machine}-linux-gnu.{GLIBC}"))


def zig_environment(target: str) -> dict[str, str]:
    """The environment with zig's compiler for a target as CC; its caches lie in the tree's build."""
    cache_at = ROOT / "interpose" / "build" / "zig"
    caches = {f"ZIG_{kind}_CACHE_DIR": str(cache_at) for kind in ("GLOBAL", "LOCAL")}
    return {**os.environ, **caches, "CC": f"{zig()} cc -target {target}"}


def zig() -> Path:
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None, "ziglang is part of the development environment"
    assert spec.origin is not None
    return Path(spec.origin).with_name("zig")


def _build(name: str, options: list[str], environment: dict[str, str]) -> Path:
    cmake = shutil.which("cmake")
    assert cmake, "cmake is part of the development environment"
    where = ROOT / "interpose" / name
    targets = ["interpose_tests", "simcuda", "simnvml", "gpuprobe"]
    configure = [cmake, "-S", str(ROOT / "interpose"), "-B", str(where), "-DHAMI_TESTS=ON", *options]
    for command in (configure, [cmake, "--build", str(where), "--parallel", "2", "--target", *targets]):
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return where


def preload(where: Path, kind: str) -> str:
    """What to preload for the library of a build."""
    library = str(where / "libvgpu.so")
    runtimes = {"address": "libasan.so", "thread": "libtsan.so"}
    if kind not in runtimes:
        return library
    # The sanitizer's library insists on being first.
    command = ["gcc", f"-print-file-name={runtimes[kind]}"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{runtime.stdout.strip()}:{library}"
