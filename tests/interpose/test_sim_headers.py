"""Our lists and signatures against the vendor's own headers, where those are at hand.

`HAMI_VENDOR_HEADERS` names a directory with the unpacked wheels nvidia-cuda-runtime-cu12 12.9.79, nvidia-cuda-runtime
13.5.37, nvidia-nvml-dev-cu12 12.9.79 and nvidia-nvml-dev 13.5.37 (`pip download --no-deps`, then unzip each into a
folder of its own). Nothing of them is needed to build.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SIM = Path(__file__).parents[2] / "interpose" / "sim"
HEADERS = os.environ.get("HAMI_VENDOR_HEADERS")

pytestmark = pytest.mark.skipif(
    not HEADERS, reason="HAMI_VENDOR_HEADERS=DIR with the vendor's unpacked header wheels runs these"
)


def found(name: str) -> list[Path]:
    paths = sorted(Path(HEADERS or "").rglob(name))
    assert paths, f"no {name} below {HEADERS}"
    return paths


def test_the_lists_are_what_the_headers_declare(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("symbols", shutil.copy(SIM / "symbols.py", tmp_path / "symbols.py"))
    assert spec is not None
    assert spec.loader is not None
    symbols = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(symbols)  # a copy, so that it writes beside itself and not over ours
    symbols.main([HEADERS])
    for name in ("cuda_symbols.txt", "nvml_symbols.txt"):
        assert (tmp_path / name).read_text() == (SIM / name).read_text()


@pytest.mark.parametrize("major", [12, 13])
def test_every_body_has_the_signature_that_the_headers_declare(major: int, tmp_path: Path) -> None:
    """With the vendor's headers in the place of our declarations, a wrong signature does not compile."""
    for source in SIM.iterdir():
        if source.suffix in (".c", ".h", ".def"):
            shutil.copy(source, tmp_path)
    (tmp_path / "driver_more.h").write_text(
        "#define __CUDA_API_VERSION_INTERNAL\n"  # declares every symbol under its linker name
        "#include <cuda.h>\n#define NVML_NO_UNVERSIONED_FUNC_DEFS\n#include <nvml.h>\n"
    )
    generation = "cu13" if major == 13 else "cuda_runtime", "cu13" if major == 13 else "nvml_dev"
    includes = [
        f"-I{path.parent}"
        for name, folder in zip(("cuda.h", "nvml.h"), generation, strict=True)
        for path in found(name)
        if folder in path.parts
    ]
    assert len(includes) == 2
    for source in sorted(tmp_path.glob("*.c")):
        done = subprocess.run(
            ["gcc", "-std=gnu11", "-fsyntax-only", "-w", *includes, str(source)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
