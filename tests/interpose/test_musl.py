"""A container whose C library is musl: programs run as without us, and one that wants the GPU is told why it gets none.

musl reads no /etc/ld.so.preload, so only LD_PRELOAD brings the library into such a program.
"""

import os
import platform
import subprocess
from pathlib import Path

import pytest

from hami.node.simulated import native_dir
from tests.interpose.build import zig_environment
from tests.interpose.debian import needed

SOURCE = Path(__file__).parent / "musl" / "asks.c"
LOADER = f"/lib/ld-musl-{platform.machine()}.so.1"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    needed("musl", LOADER)
    binary = tmp_path_factory.mktemp("musl") / "asks"
    environment = zig_environment(f"{platform.machine()}-linux-musl")
    compiler = environment["CC"].split()
    subprocess.run([*compiler, "-dynamic", "-O1", str(SOURCE), "-o", str(binary)], env=environment, check=True)
    interpreter = subprocess.run(["readelf", "-lW", str(binary)], capture_output=True, text=True, check=True).stdout
    assert LOADER in interpreter
    return str(binary)


def _run(*command: str, library: bool, **more: str) -> tuple[int, str, str]:
    environment = {"PATH": os.environ["PATH"], **more}
    if library:
        environment["LD_PRELOAD"] = str(native_dir() / "libvgpu.so")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_program_without_gpu_runs_as_before(program: str) -> None:
    assert _run(program, library=False) == (0, "getpid 1\nabsent 1\n", "")
    assert _run(program, library=True) == (0, "getpid 1\nabsent 1\n", "")


def test_a_program_that_wants_the_gpu_is_told_once_and_gets_none(program: str) -> None:
    code, out, err = _run(program, "gpu", library=True, CUDA_DEVICE_MEMORY_LIMIT="1g")
    assert (code, out) == (0, "getpid 1\nabsent 1\ndriver 0\nallocates 0\n")
    (line,) = err.splitlines()
    assert line.endswith(
        "limits cannot be held with this program's C library, which is not glibc: it gets no GPU driver"
    )
