"""The library as it is shipped, for both machines: what it needs, shows and does at load; arm64 run in an emulator.

qemu answers some of the system's questions by itself, so programs that fork or run themselves again are left out there:
it has no robust futexes, and shows another start time and another /proc/self/exe than the kernel.
"""

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hami.node.simulated import native_dir
from tests.interpose.build import GLIBC, cross_built
from tests.interpose.debian import needed
from tests.interpose.simulation import Simulation
from tests.interpose.test_driven import limits

HERE = Path(__file__).parent
INTERPOSE = HERE.parents[1] / "interpose"
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
CROSS_C_LIBRARY = {"aarch64": "libc6-arm64-cross", "x86_64": "libc6-amd64-cross"}
LIBRARIES = {platform.machine(): native_dir() / "libvgpu.so", OTHER: native_dir() / OTHER / "libvgpu.so"}
MACHINES = {"x86_64": "Advanced Micro Devices X86-64", "aarch64": "AArch64"}
PROGRAMS = [
    (folder, path.stem)
    for folder in ("c", "driven")
    for path in sorted((HERE / folder).glob("*.c"))
    if not re.search(r"\b(fork|execl)\(", path.read_text())
]


def _readelf(*words: str) -> str:
    assert shutil.which("readelf"), "readelf is part of binutils"
    return subprocess.run(["readelf", "-W", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture(params=sorted(LIBRARIES))
def library(request: pytest.FixtureRequest) -> str:
    path = LIBRARIES[request.param]
    assert path.is_file(), "make setup builds it"
    assert MACHINES[request.param] in _readelf("-h", str(path))
    return str(path)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_needs_no_newer_c_library_than_old_containers_have(library: str) -> None:
    versions = set(re.findall(r"Name: (\S+)", _readelf("-V", library)))
    assert versions
    assert {version.partition("_")[0] for version in versions} == {"GLIBC"}
    assert max(_version(version.partition("_")[2]) for version in versions) <= _version(GLIBC)


@pytest.mark.parametrize("name", ["libcuda.so.1", "libnvidia-ml.so.1", "gpuprobe"])
def test_nor_does_what_plays_the_driver(name: str) -> None:
    versions = set(re.findall(r"Name: GLIBC_(\S+)", _readelf("-V", str(native_dir() / "sim" / name))))
    assert max(map(_version, versions)) <= _version(GLIBC)


def test_shows_the_rows_of_the_table_and_nothing_else(library: str) -> None:
    rows = set(re.findall(r"^HOOK\(\w+, (\w+),", (INTERPOSE / "hooks.def").read_text(), flags=re.MULTILINE))
    symbols = [line.split() for line in _readelf("--dyn-syms", library).splitlines() if re.match(r"\s+\d+:", line)]
    shown = {fields[7] for fields in symbols if len(fields) > 7 and fields[6] != "UND"}
    assert shown == rows | {"dlsym", "dlvsym", "dlopen"}


def test_does_nothing_at_load_or_unload(library: str) -> None:
    dynamic = _readelf("-d", library)
    assert re.findall(r"\((\w*(?:INIT|FINI)\w*)\)", dynamic) == []
    assert "TEXTREL" not in dynamic
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == ["libc.so.6"]
    assert re.search(r"FLAGS_1.*NOW.*NODELETE", dynamic)
    assert re.search(r"GNU_STACK.* RW +0", _readelf("-l", library))


class TestEmulated:
    """The other machine's library on the other machine's simulated driver."""

    @pytest.fixture
    def emulator(self) -> list[str]:
        needed(CROSS_C_LIBRARY[OTHER], f"/usr/{OTHER}-linux-gnu/lib/libc.so.6")
        qemu = needed("qemu-user-static", f"qemu-{OTHER}-static")
        # Less address space than the simulated driver asks for at once: qemu would keep a table of all of it.
        return [qemu, "-R", str(64 << 30), "-L", f"/usr/{OTHER}-linux-gnu"]

    def environment(self, machine: Simulation, directory: Path) -> dict[str, str]:
        """qemu is linked statically, so that only the emulated program takes notice of the preload."""
        where = cross_built(OTHER)
        return {
            "PATH": os.environ["PATH"],
            **machine.environment(),
            **limits(machine, directory),
            "TMPDIR": str(directory),
            "LD_LIBRARY_PATH": str(where / "sim"),
            "LD_PRELOAD": str(where / "libvgpu.so"),
        }

    def run(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    @pytest.mark.parametrize(("folder", "program"), PROGRAMS, ids=lambda part: part)
    def test_behaviour(self, emulator: list[str], tmp_path: Path, folder: str, program: str) -> None:
        prefix = "test" if folder == "c" else folder
        binary = cross_built(OTHER) / folder / f"{prefix}_{program}"
        self.run([*emulator, str(binary)], self.environment(Simulation(tmp_path), tmp_path))

    def test_limit_of_the_library_that_is_shipped(self, emulator: list[str], tmp_path: Path) -> None:
        environment = self.environment(Simulation(tmp_path), tmp_path) | {"LD_PRELOAD": str(LIBRARIES[OTHER])}
        out = self.run([*emulator, str(cross_built(OTHER) / "sim" / "gpuprobe"), "alloc", "200"], environment)
        answer = json.loads(out)
        assert (answer["got_mib"], answer["result"]) == (100, "CUDA_ERROR_OUT_OF_MEMORY")
