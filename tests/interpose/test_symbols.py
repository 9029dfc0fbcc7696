"""Every symbol of both vendors' headers, asked for in every way, with the library and without.

With it the answer is the stand-in of exactly the ABI that the driver answered with, or the driver's own function; what
the driver lacks stays absent.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hami.node.simulated import native_dir
from tests.interpose.container import Container
from tests.interpose.simulation import Simulation

INTERPOSE = Path(__file__).parents[2] / "interpose"
ROWS = set(re.findall(r"^HOOK\(\w+, (\w+),", (INTERPOSE / "hooks.def").read_text(), flags=re.MULTILINE))
LIBRARY = "libvgpu.so"

PROGRAM = """
import ctypes, json, sys
class Info(ctypes.Structure):
    _fields_ = [("fname", ctypes.c_char_p), ("fbase", ctypes.c_void_p),
                ("sname", ctypes.c_char_p), ("saddr", ctypes.c_void_p)]
own = ctypes.CDLL(None)
def told(address):
    # Name of the function at an address and of the file it lies in.
    info = Info()
    if not address or not own.dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        return None
    return [info.sname.decode() if info.sname else None, info.fname.decode().rsplit("/", 1)[-1]]
cuda, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
own.dlsym.restype = own.dlvsym.restype = ctypes.c_void_p
def dlsym(library, name):
    return told(own.dlsym(ctypes.c_void_p(library._handle), name.encode()))
asked = json.load(sys.stdin)
by_symbol = {n: dlsym(cuda, n) for n in asked["cuda"]} | {n: dlsym(nvml, n) for n in asked["nvml"]}
answer = {"dlsym": by_symbol, "driver": {}}
for name in asked["names"]:
    for version in asked["versions"]:
        for flags in (0, 1, 2):
            found, status = ctypes.c_void_p(), ctypes.c_int(-1)
            rc = cuda.cuGetProcAddress_v2(
                name.encode(), ctypes.byref(found), version, ctypes.c_ulonglong(flags), ctypes.byref(status))
            old = ctypes.c_void_p()
            cuda.cuGetProcAddress(name.encode(), ctypes.byref(old), version, ctypes.c_ulonglong(flags))
            answer["driver"][f"{name} {version} {flags}"] = [rc, status.value, told(found.value), told(old.value)]
print(json.dumps(answer))
"""


def _names(file: str) -> list[str]:
    lines = (INTERPOSE / "sim" / file).read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def _ask(environment: dict[str, str], question: dict[str, Any]) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Without the library, and with it."""
    directory = tmp_path_factory.mktemp("symbols")
    machine = Simulation(directory, driver={"version": "580.65.06", "cuda": "13.0"})
    cuda = _names("cuda_symbols.txt")
    question = {
        "cuda": [*cuda, "cuNoSuchFunction"],
        "nvml": [*_names("nvml_symbols.txt"), "nvmlNoSuchFunction"],
        "names": sorted({re.sub(r"(_v\d+)?(_ptsz|_ptds)?$", "", name) for name in cuda}),
        "versions": [2000, 3020, 4000, 7000, 11020, 11030, 12000, 12080, 13000],
    }
    container = Container(directory / "one", machine)
    return _ask(machine.environment(), question), _ask(container.environment, question)


def _expected(driver: list[str] | None) -> list[str] | None:
    return [driver[0], LIBRARY] if driver and driver[0] in ROWS else driver


def test_rows_give_the_headers_name_and_version() -> None:
    row = re.compile(r"^HOOK\(cuda, (\w+), (\w+), (\d+), (\w+),", flags=re.MULTILINE)
    ours = {" ".join(fields) for fields in row.findall((INTERPOSE / "hooks.def").read_text())}
    theirs = set((INTERPOSE / "sim" / "cuda_symbols.txt").read_text().splitlines())
    assert ours - theirs == set()


def test_by_dlsym(answers: tuple[Any, Any]) -> None:
    without, under = (answer["dlsym"] for answer in answers)
    assert len(without) > 1_000
    assert sum(1 for found in without.values() if found) > 1_000
    assert under == {name: _expected(found) for name, found in without.items()}
    assert without["cuNoSuchFunction"] is None


def test_by_the_drivers_own_look_up(answers: tuple[Any, Any]) -> None:
    without, under = (answer["driver"] for answer in answers)
    wrong = {}
    for request, (rc, status, found, old) in without.items():
        want = [rc, status, _expected(found), _expected(old)]
        if under[request] != want:
            wrong[request] = (under[request], want)
    assert wrong == {}
    stand_ins = {found[0] for _, _, found, _ in under.values() if found and found[1] == LIBRARY}
    assert {row for row in ROWS if row.startswith("cu")} - stand_ins == set()


def test_the_driver_lies_where_the_container_has_it(answers: tuple[Any, Any]) -> None:
    without, _ = answers
    files = {found[1] for found in without["dlsym"].values() if found}
    assert files == {"libcuda.so.1", "libnvidia-ml.so.1"}, native_dir()
