"""Builds what pyproject.toml cannot say: the Cython extensions, and the C libraries by CMake.

The interposer and the simulated driver are not Python modules; they travel as data in `hami/native`.
`HAMI_BUILD_CHECKED=1` builds the extensions with bounds checks, so that the tests can run in both forms.
"""

import os
import shutil
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CHECKED = os.environ.get("HAMI_BUILD_CHECKED") == "1"
NATIVE = ("libvgpu.so", "sim/libcuda.so.1", "sim/libnvidia-ml.so.1", "sim/state.def", "sim/gpuprobe")

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
        Extension(f"hami.alloc.{name}", [f"hami/alloc/{name}.pyx"], extra_compile_args=["-O2", "-ffp-contract=off"])
        for name in ("_ask", "_fit", "_linked", "_mig", "_rows", "_sliced", "_together", "_topology", "_worth")
    ),
    # The region's words are changed by C code only, so Python is given the interposer's own sources.
    Extension(
        "hami.node._region",
        ["hami/node/_region.pyx", "interpose/region.c", "interpose/account.c", "interpose/prim.c"],
        include_dirs=["interpose"],
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=["-O2", "-std=gnu11"],
    ),
]


class BuildAll(build_ext):
    """The extensions, then the C libraries, copied beside the package they ship with."""

    def run(self) -> None:
        super().run()
        build = ROOT / "interpose" / "build"
        cmake = shutil.which("cmake") or "cmake"
        subprocess.run([cmake, "-S", "interpose", "-B", build, "-DCMAKE_BUILD_TYPE=Release"], cwd=ROOT, check=True)
        subprocess.run([cmake, "--build", build, "-j", str(os.cpu_count() or 1)], cwd=ROOT, check=True)
        if self.inplace:
            return  # a source tree finds them in interpose/build
        for name in NATIVE:
            target = Path(self.build_lib) / "hami" / "native" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / name, target)


setup(
    ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, force=CHECKED), cmdclass={"build_ext": BuildAll}
)
