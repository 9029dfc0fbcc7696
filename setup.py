"""Builds what pyproject.toml cannot say: the Cython extensions, and the C libraries by CMake.

The interposer and the simulated driver are not Python modules; they travel as data in `hami/native`. Containers load
them beside their own, perhaps old C library, and nodes of either machine may get their library from one image. So they
are cross-built, with zig's C compiler, for x86-64 and arm64 and for a C library that every container has.
`HAMI_BUILD_CHECKED=1` builds the extensions with bounds checks, so that the tests can run in both forms.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CORES = os.cpu_count() or 1
CHECKED = os.environ.get("HAMI_BUILD_CHECKED") == "1"
NATIVE = ("libvgpu.so", "sim/libcuda.so.1", "sim/libnvidia-ml.so.1", "sim/state.def", "sim/gpuprobe")
GLIBC = "2.17"  # CentOS 7's; images of CUDA 11 build on it
OTHER_MACHINE = {"x86_64": "aarch64", "aarch64": "x86_64"}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "cdivision": not CHECKED,
    "initializedcheck": CHECKED,
}

EXTENSIONS = [
    # Scores are single precision, term by term, as the reference computes them; a fused multiply-add would break ties.
    *(
        Extension(f"hami.alloc.{name}", [f"hami/alloc/{name}.pyx"], extra_compile_args=["-O3", "-ffp-contract=off"])
        for name in (
            "_ask",
            "_boards",
            "_filling",
            "_fit",
            "_linked",
            "_mig",
            "_rows",
            "_sight",
            "_sliced",
            "_together",
            "_topology",
            "_worth",
        )
    ),
    # The region's words are changed by C code only, so Python is given the interposer's own sources.
    Extension(
        "hami.node._region",
        [
            "hami/node/_region.pyx",
            "interpose/region.c",
            "interpose/region_guard.c",
            "interpose/account.c",
            "interpose/prim.c",
        ],
        include_dirs=["interpose"],
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=["-O2", "-std=gnu11"],
    ),
    # HAMi's regions of both layouts, as files.
    Extension(
        "hami.node._region_old",
        ["hami/node/_region_old.pyx", "interpose/region_old.c"],
        include_dirs=["interpose"],
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=["-O2", "-std=gnu11"],
    ),
]


def zig() -> str:
    """The compiler of the package `ziglang`."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "the C libraries are built with zig's compiler: pip install --group dev, or pip install ziglang"
        )
    return str(Path(spec.origin).with_name("zig"))


def build_native(build: Path, machine: str, target: str) -> None:
    """Build a CMake target of `interpose` for a machine into `build`; what was built there by other means goes."""
    cmake = shutil.which("cmake") or "cmake"
    cache = build / "CMakeCache.txt"
    fresh = ["--fresh"] if cache.is_file() and zig() not in cache.read_text() else []
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}"]
    caches = {f"ZIG_{kind}_CACHE_DIR": str(ROOT / "interpose" / "build" / "zig") for kind in ("GLOBAL", "LOCAL")}
    environment = {**os.environ, **caches, "CC": f"{zig()} cc -target {machine}-linux-gnu.{GLIBC}"}
    for command in (
        [cmake, "-S", "interpose", "-B", str(build), *fresh, *options],
        [cmake, "--build", str(build), "--target", target, "-j", str(CORES)],
    ):
        subprocess.run(command, cwd=ROOT, env=environment, check=True)


class BuildAll(build_ext):
    """The extensions, then the C libraries, copied beside the package they ship with."""

    def run(self) -> None:
        super().run()
        build = ROOT / "interpose" / "build"
        machine = platform.machine()
        other = OTHER_MACHINE[machine]
        build_native(build, machine, "all")
        build_native(build / other, other, "vgpu")
        if self.inplace:
            return  # a source tree finds them in interpose/build
        for name in (*NATIVE, f"{other}/libvgpu.so"):
            target = Path(self.build_lib) / "hami" / "native" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / name, target)


setup(
    ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, force=CHECKED, nthreads=CORES),
    cmdclass={"build_ext": BuildAll},
    options={"build_ext": {"parallel": CORES}},
)
