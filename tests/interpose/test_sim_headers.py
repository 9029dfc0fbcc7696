"""The simulated driver's names and signatures against the vendor's headers, by the compiler.

The headers come in the wheels `nvidia-cuda-runtime` and `nvidia-nvml-dev`, of CUDA 12 and 13, where installed.
Nothing of them is needed to build.
"""

import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

SIM = Path(__file__).parents[2] / "interpose" / "sim"
SITE = Path(sysconfig.get_path("purelib")) / "nvidia"
INSTALL = "pip install nvidia-cuda-runtime nvidia-nvml-dev (and -cu12) to compare with the vendor's headers"
GENERATIONS = {
    "12": ("cuda_runtime/include", "nvml_dev/include"),
    "13": ("cu13/include", "cu13/include"),
}
SINCE = {"nvml_accounting.c": "13", "nvml_limit.c": "13"}
"""Sources whose functions older headers do not know."""


def includes(generation: str) -> list[Path]:
    """The directories of cuda.h and nvml.h; the test is skipped without them."""
    cuda, nvml = (SITE / part for part in GENERATIONS[generation])
    if not ((cuda / "cuda.h").is_file() and (nvml / "nvml.h").is_file()):
        pytest.skip(f"CUDA {generation}: {INSTALL}")
    return [cuda, nvml]


def test_the_lists_are_what_the_headers_declare(tmp_path: Path) -> None:
    """Newer headers than those named in the lists may add names, and cannot take any."""
    directories = {directory for generation in GENERATIONS for directory in includes(generation)}
    copy = shutil.copy(SIM / "symbols.py", tmp_path / "symbols.py")  # it writes beside itself
    spec = importlib.util.spec_from_file_location("symbols", copy)
    assert spec is not None
    assert spec.loader is not None
    symbols = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(symbols)
    symbols.main([str(directory) for directory in sorted(directories)])
    for name in ("cuda_symbols.txt", "nvml_symbols.txt"):
        ours, theirs = ((where / name).read_text().splitlines()[1:] for where in (SIM, tmp_path))
        assert set(ours) <= set(theirs)


@pytest.mark.parametrize("generation", sorted(GENERATIONS))
def test_every_body_has_the_signature_that_the_headers_declare(generation: str, tmp_path: Path) -> None:
    """With the vendor's headers in the place of our declarations, a wrong signature does not compile."""
    search = [f"-I{directory}" for directory in includes(generation)]
    for source in SIM.iterdir():
        if source.suffix in (".c", ".h", ".def"):
            shutil.copy(source, tmp_path)
    (tmp_path / "driver_more.h").write_text(
        "#define __CUDA_API_VERSION_INTERNAL\n"  # declares every symbol under its linker name
        "#include <cuda.h>\n#define NVML_NO_UNVERSIONED_FUNC_DEFS\n#include <nvml.h>\n"
    )
    for source in sorted(tmp_path.glob("*.c")):
        if generation < SINCE.get(source.name, generation):
            continue
        done = subprocess.run(
            ["cc", "-std=gnu11", "-fsyntax-only", "-w", *search, str(source)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
