"""Our declarations of the driver's interface against the vendor's headers, by the compiler.

The headers come in the wheels `nvidia-cuda-runtime` and `nvidia-nvml-dev`, of CUDA 12 and 13; whichever are installed
are compared. Prototypes are declared a second time after the vendor's own, which compiles only if they agree. Sizes,
offsets and constants are taken from our header and asserted against theirs.
"""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[2] / "interpose" / "driver.h"
SITE = Path(sysconfig.get_path("purelib")) / "nvidia"
INSTALL = "pip install nvidia-cuda-runtime nvidia-nvml-dev (or -cu12) to compare with the vendor's headers"
GENERATIONS = {
    "12": ("cuda_runtime/include", "nvml_dev/include"),
    "13": ("cu13/include", "cu13/include"),
}


@pytest.fixture(params=sorted(GENERATIONS))
def includes(request: pytest.FixtureRequest) -> list[str]:
    directories = [SITE / part for part in GENERATIONS[request.param]]
    if not ((directories[0] / "cuda.h").is_file() and (directories[1] / "nvml.h").is_file()):
        pytest.skip(f"CUDA {request.param}: {INSTALL}")
    return [f"-I{directory}" for directory in directories]


def _compiler() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is part of the development environment"
    return compiler


def _compile(source: str, includes: list[str], tmp_path: Path) -> None:
    path = tmp_path / "check.c"
    # With this macro cuda.h declares every version of a function under the name the linker sees.
    path.write_text("#define __CUDA_API_VERSION_INTERNAL\n#define NVML_NO_UNVERSIONED_FUNC_DEFS\n" + source)
    command = [_compiler(), "-std=gnu11", "-fsyntax-only", "-w", *includes, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def _structures(text: str) -> dict[str, list[str]]:
    """Names of our structures and of their members."""
    found = {}
    for body, name in re.findall(r"typedef struct \w+ \{\n(.*?)^\} (\w+);", text, flags=re.DOTALL | re.MULTILINE):
        plain = re.sub(r"struct \{.*?\}", "struct", body, flags=re.DOTALL)
        members = re.findall(r"(\w+)(?:\[\w+\])?;", plain)
        found[name] = [member for member in members if member != "reserved"]  # a newer header cuts members from it
    return found


def _asserts(tmp_path: Path, theirs: str) -> str:
    """What our header says, as assertions on theirs; what an old one lacks is left out."""
    text = HEADER.read_text()
    ours = re.findall(r"^\s+((?:CU|NVML)\w+) = (\w+),?$", text, flags=re.MULTILINE)
    constants = [(name, value) for name, value in ours if re.search(rf"\b{name}\b", theirs)]
    assert len(constants) > 100
    lines = [f'_Static_assert({name} == {value}, "{name}");' for name, value in constants]
    structures = {name: members for name, members in _structures(text).items() if re.search(rf"\b{name}\b", theirs)}
    facts = [f"sizeof({name})" for name in structures]
    facts += [f"offsetof({name}, {member})" for name, members in structures.items() for member in members]
    assert len(facts) > 80
    prints = [f'printf("%zu\\n", {fact});' for fact in facts]
    program = ["#include <stdio.h>", f'#include "{HEADER}"', "int main(void) {", *prints, "return 0; }"]
    (tmp_path / "facts.c").write_text("\n".join(program))
    subprocess.run([_compiler(), str(tmp_path / "facts.c"), "-o", str(tmp_path / "facts")], check=True)
    numbers = subprocess.run([tmp_path / "facts"], capture_output=True, text=True, check=True).stdout.split()
    lines += [f'_Static_assert({fact} == {n}, "{fact}");' for fact, n in zip(facts, numbers, strict=True)]
    return "\n".join(lines)


VENDOR = "#include <stddef.h>\n#include <cuda.h>\n#include <nvml.h>\n"


def test_prototypes_agree(includes: list[str], tmp_path: Path) -> None:
    _compile(VENDOR + f'#define HAMI_DRIVER_PROTOTYPES_ONLY\n#include "{HEADER}"\n', includes, tmp_path)


def test_layouts_and_constants_agree(includes: list[str], tmp_path: Path) -> None:
    headers = (Path(directory.removeprefix("-I")) / name for directory in includes for name in ("cuda.h", "nvml.h"))
    theirs = "".join(header.read_text(errors="replace") for header in headers if header.is_file())
    _compile(VENDOR + _asserts(tmp_path, theirs), includes, tmp_path)


def test_a_wrong_prototype_would_be_noticed(includes: list[str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="conflicting types"):
        _compile(VENDOR + "CUresult cuMemAlloc_v2(CUdeviceptr *address, int bytes);\n", includes, tmp_path)
