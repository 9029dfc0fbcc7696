"""Every symbol of both vendors' headers, asked for in every way, with the library and without, on three drivers.

With it the answer is the stand-in of exactly the ABI that the driver answered with, or the very function the driver
gives; what the driver lacks stays absent, and result and status are the driver's.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hami.node.simulated import native_dir
from tests.interpose import older_driver
from tests.interpose.container import Container
from tests.interpose.simulation import Simulation

INTERPOSE = Path(__file__).parents[2] / "interpose"
ROWS = set(re.findall(r"^HOOK\(\w+, (\w+),", (INTERPOSE / "hooks.def").read_text(), flags=re.MULTILINE))
LIBRARY = "libvgpu.so"
FLAGS = (0, 1, 2, 3)
"""Default, legacy stream, per-thread stream, and one that the driver refuses."""
DRIVERS = {"11.8": ("520.61.05", 11080), "12.9": ("575.51.03", 12090), "13.5": ("615.71.01", 13050)}

PROGRAM = """
import ctypes, json, sys
class Info(ctypes.Structure):
    _fields_ = [("fname", ctypes.c_char_p), ("fbase", ctypes.c_void_p),
                ("sname", ctypes.c_char_p), ("saddr", ctypes.c_void_p)]
own = ctypes.CDLL(None)
seen = {None: None}
def told(address):
    # Name of the function at an address, file it lies in, its place there.
    if address not in seen:
        info = Info()
        found = own.dladdr(ctypes.c_void_p(address), ctypes.byref(info))
        assert found and info.saddr == address, hex(address)
        seen[address] = [info.sname.decode(), info.fname.decode().rsplit("/", 1)[-1], address - info.fbase]
    return seen[address]
own.dlsym.restype = own.dlvsym.restype = ctypes.c_void_p
def dlsym(handle, name):
    return told(own.dlsym(ctypes.c_void_p(handle), name.encode()))
def dlvsym(handle, name, version):
    return told(own.dlvsym(ctypes.c_void_p(handle), name.encode(), version))
cuda, nvml = (ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL) for name in ("libcuda.so.1", "libnvidia-ml.so.1"))
asked = json.load(sys.stdin)
answer = {"dlsym": {}, "default": {}, "dlvsym": {}, "dlvsym, another version": {}, "request": {}, "old request": {}}
for library, names in ((cuda, asked["cuda"]), (nvml, asked["nvml"])):
    for name in names:
        answer["dlsym"][name] = dlsym(library._handle, name)
        answer["dlvsym"][name] = dlvsym(library._handle, name, b"DRIVER_1")
        answer["dlvsym, another version"][name] = dlvsym(library._handle, name, b"DRIVER_2")
        answer["default"][name] = dlsym(None, name)
oldest = cuda.cuGetProcAddress
newest = cuda.cuGetProcAddress_v2 if dlsym(cuda._handle, "cuGetProcAddress_v2") else None
for name in asked["names"]:
    for version in asked["versions"]:
        for flags in asked["flags"]:
            at, status, wide = ctypes.c_void_p(), ctypes.c_int(-1), ctypes.c_ulonglong(flags)
            key = f"{name} {version} {flags}"
            rc = oldest(name.encode(), ctypes.byref(at), version, wide)
            answer["old request"][key] = [rc, None, told(at.value)]
            if newest:
                at.value = None
                rc = newest(name.encode(), ctypes.byref(at), version, wide, ctypes.byref(status))
                answer["request"][key] = [rc, status.value, told(at.value)]
print(json.dumps(answer))
"""


class Names(NamedTuple):
    """One row of the simulated driver's list."""

    symbol: str
    name: str
    version: int


def _cuda() -> list[Names]:
    lines = (INTERPOSE / "sim" / "cuda_symbols.txt").read_text().splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return [Names(symbol, name, int(version)) for symbol, name, version, _ in rows]


def _nvml() -> list[str]:
    lines = (INTERPOSE / "sim" / "nvml_symbols.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def _ask(environment: dict[str, str], question: dict[str, Any]) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


@pytest.fixture(scope="module", params=DRIVERS)
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Without the library, and with it."""
    driver, newest = DRIVERS[request.param]
    directory = tmp_path_factory.mktemp("symbols")
    machine = Simulation(directory, driver={"version": driver, "cuda": request.param})
    rows = _cuda()
    libraries = older_driver.without({row.symbol for row in rows if row.version > newest}, directory / "driver")
    versions = sorted({row.version for row in rows if row.version} | {newest, newest + 10})
    question = {
        "cuda": [*(row.symbol for row in rows), "cuNoSuchFunction", "cuMemAlloc_v9"],
        "nvml": [*_nvml(), "nvmlNoSuchFunction"],
        "names": [*sorted({row.name for row in rows}), "cuNoSuchFunction", "cuMemAlloc_v2", "getpid"],
        "versions": versions,
        "flags": FLAGS,
    }
    container = Container(directory / "one", machine)
    path = {"LD_LIBRARY_PATH": str(libraries)}
    return _ask(machine.environment() | path, question), _ask(container.environment | path, question)


def _expected(driver: list[Any] | None) -> list[Any] | None:
    """The stand-in of the driver's function, of which the place says nothing; else that function."""
    return [driver[0], LIBRARY, None] if driver and driver[0] in ROWS else driver


def _comparable(found: list[Any] | None) -> list[Any] | None:
    return [found[0], LIBRARY, None] if found and found[1] == LIBRARY else found


def test_rows_give_the_headers_name_and_version() -> None:
    row = re.compile(r"^HOOK\(cuda, (\w+), (\w+), (\d+), (\w+),", flags=re.MULTILINE)
    ours = {" ".join(fields) for fields in row.findall((INTERPOSE / "hooks.def").read_text())}
    theirs = set((INTERPOSE / "sim" / "cuda_symbols.txt").read_text().splitlines())
    assert ours - theirs == set()


def _check(without: dict[str, Any], under: dict[str, Any]) -> None:
    assert len(without) > 1_100
    assert {name: _comparable(found) for name, found in under.items()} == {
        name: _expected(found) for name, found in without.items()
    }
    assert [without[name] for name in ("cuNoSuchFunction", "cuMemAlloc_v9", "nvmlNoSuchFunction")] == [None] * 3


@pytest.mark.parametrize("way", ["dlsym", "default"])
def test_by_the_loaders_look_up(answers: tuple[Any, Any], way: str) -> None:
    without, under = (answer[way] for answer in answers)
    _check(without, under)
    stand_ins = {found[0] for found in under.values() if found and found[1] == LIBRARY}
    assert len(stand_ins) > 60
    assert stand_ins == ROWS & {name for name, found in without.items() if found}


def test_by_symbol_version(tmp_path: Path) -> None:
    """On a driver whose symbols carry a version, as the simulated one's do not."""
    names = {"libcuda.so.1": [row.symbol for row in _cuda()], "libnvidia-ml.so.1": _nvml()}
    for library, symbols in names.items():
        _versioned(tmp_path / library, symbols)
    question = {
        "cuda": [*names["libcuda.so.1"], "cuNoSuchFunction", "cuMemAlloc_v9"],
        "nvml": [*names["libnvidia-ml.so.1"], "nvmlNoSuchFunction"],
        "names": [],
        "versions": [],
        "flags": [],
    }
    path = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(tmp_path)}
    without, under = _ask(path, question), _ask(path | {"LD_PRELOAD": str(native_dir() / LIBRARY)}, question)
    for way in ("dlsym", "dlvsym", "dlvsym, another version"):
        _check(without[way], under[way])
    assert sum(1 for found in without["dlvsym"].values() if found) > 1_100
    assert {found[0] for found in under["dlvsym"].values() if found and found[1] == LIBRARY} == ROWS
    assert [found for found in under["dlvsym, another version"].values() if found] == []


def _versioned(library: Path, symbols: list[str]) -> None:
    """A library of these functions, each of version DRIVER_1; none does anything."""
    source, script = library.with_suffix(".c"), library.with_suffix(".map")
    source.write_text("\n".join(f"int {symbol}(void) {{ return {at}; }}" for at, symbol in enumerate(symbols)))
    script.write_text("DRIVER_1 { global: cu*; nvml*; local: *; };\n")
    options = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}", f"-Wl,--version-script={script}"]
    subprocess.run(["cc", *options, str(source), "-o", str(library)], check=True)


@pytest.mark.parametrize("way", ["request", "old request"])
def test_by_the_drivers_own_look_up(answers: tuple[Any, Any], way: str) -> None:
    without, under = (answer[way] for answer in answers)
    if not without:
        assert answers[0]["dlsym"]["cuGetProcAddress_v2"] is None
        return
    assert len(without) > 50_000
    wrong = {}
    for request, (rc, status, found) in without.items():
        got_rc, got_status, got = under[request]
        if (got_rc, got_status, _comparable(got)) != (rc, status, _expected(found)):
            wrong[request] = (under[request], without[request])
    assert wrong == {}
    stand_ins = {found[0] for _, _, found in under.values() if found and found[1] == LIBRARY}
    there = {name for name, found in answers[0]["dlsym"].items() if found}
    assert stand_ins == {row for row in ROWS & there if row.startswith("cu")}


def test_the_driver_lies_where_the_container_has_it(answers: tuple[Any, Any]) -> None:
    without, _ = answers
    files = {found[1] for found in without["dlsym"].values() if found}
    assert files == {"libcuda.so.1", "libnvidia-ml.so.1"}, native_dir()
