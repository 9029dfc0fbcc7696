"""Names: each of the vendor's headers exists, resolves to its own function, has a body where we stand in for it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hami.node.simulated import native_dir
from tests.interpose import older_driver
from tests.interpose.simulation import Simulation

INTERPOSE = Path(__file__).parents[2] / "interpose"


def rows() -> list[tuple[str, str, int, str]]:
    lines = (INTERPOSE / "sim" / "cuda_symbols.txt").read_text().splitlines()[1:]
    return [(symbol, name, int(version), family) for symbol, name, version, family in map(str.split, lines)]


def nvml_names() -> list[str]:
    return (INTERPOSE / "sim" / "nvml_symbols.txt").read_text().splitlines()[1:]


def exported(library: str) -> dict[str, str]:
    """Defined dynamic symbols and their kind: T has a body, W is a name only."""
    path = native_dir() / "sim" / library
    text = subprocess.run(["nm", "-D", "--defined-only", str(path)], capture_output=True, text=True, check=True).stdout
    return {name: kind for _, kind, name in map(str.split, text.splitlines())}


def test_the_libraries_show_the_headers_names_and_nothing_else() -> None:
    assert sorted(exported("libcuda.so.1")) == sorted(symbol for symbol, *_ in rows())
    assert sorted(exported("libnvidia-ml.so.1")) == sorted(nvml_names())
    assert len(rows()) == 686
    assert len(nvml_names()) == 436


def test_what_the_interposer_stands_in_for_has_a_body() -> None:
    """A hook whose driver call is only a name would never be tested."""
    hooks = re.findall(r"^HOOK\((\w+), (\w+),", (INTERPOSE / "hooks.def").read_text(), re.M)
    assert len(hooks) > 50
    bodies = exported("libcuda.so.1") | exported("libnvidia-ml.so.1")
    not_played = {
        "cuMemAllocPitch",  # 32-bit addresses
        "cuMemPoolImportFromShareableHandle",
        *("cuMemMapArrayAsync", "cuMemMapArrayAsync_ptsz"),  # sparse arrays; `fake` has them
        # Confidential mode; `fake` has it.
        *("nvmlDeviceGetConfComputeMemSizeInfo", "nvmlDeviceGetConfComputeProtectedMemoryUsage"),
    }
    assert {symbol for _, symbol in hooks if bodies.get(symbol) != "T"} <= not_played


@pytest.mark.parametrize("library", ["libcuda.so.1", "libnvidia-ml.so.1"])
def test_sonames_and_no_work_at_load_time(library: str) -> None:
    text = subprocess.run(
        ["readelf", "-dW", str(native_dir() / "sim" / library)], capture_output=True, text=True, check=True
    ).stdout
    assert f"[{library}]" in text
    assert "SYMBOLIC" in text
    assert set(re.findall(r"Shared library: \[(.*?)\]", text)) <= {
        "libc.so.6",
        "libpthread.so.0",
        "ld-linux-x86-64.so.2",
    }
    sizes = re.findall(r"INIT_ARRAYSZ\)\s+(\d+)", text)
    assert sizes in ([], ["8"]), "only the compiler's own frame_dummy"


LOOKUP = """
import ctypes, json, sys
cu = ctypes.CDLL("libcuda.so.1")
def address(symbol): return ctypes.cast(getattr(cu, symbol), ctypes.c_void_p).value
def get(name, version, flags):
    at, status = ctypes.c_void_p(), ctypes.c_int(-1)
    flags = ctypes.c_ulonglong(flags)
    rc = cu.cuGetProcAddress_v2(name.encode(), ctypes.byref(at), version, flags, ctypes.byref(status))
    old = ctypes.c_void_p()
    old_rc = cu.cuGetProcAddress(name.encode(), ctypes.byref(old), version, flags)
    assert old.value == at.value and old_rc == (rc or (0 if at.value else 500))
    return rc, at.value, status.value
rows, requests = json.load(sys.stdin)
symbols = {address(symbol): symbol for symbol in rows}
print(json.dumps([len(symbols), [[rc, symbols.get(at), status] for rc, at, status in (get(*r) for r in requests)]]))
"""


def resolve(machine: Simulation, requests: list[tuple[str, int, int]]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", LOOKUP],
        env=machine.environment(),
        input=json.dumps([[symbol for symbol, *_ in rows()], requests]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def newest(name: str, version: int, twins: bool) -> str | None:
    """The obvious rule: of the wanted family if it has any, the last calling convention not newer than asked."""
    for families in (("ptsz", "ptds"), ("legacy",)) if twins else (("legacy",),):
        fitting = [(v, symbol) for symbol, n, v, family in rows() if n == name and family in families and v <= version]
        if fitting:
            return max(fitting)[1]
    return None


def test_every_name_version_and_flag_resolves_to_the_right_function(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, driver={"version": "600.1", "cuda": "13.5"})
    versions = (2000, 3020, 7000, 11030, 12000, 12040, 13000, 13050)
    names = sorted({name for _, name, _, _ in rows()})
    requests = [(name, version, flags) for name in names for version in versions for flags in (0, 1, 2)]
    distinct, answers = resolve(machine, requests)
    assert distinct == len(rows()), "no two names share an address"
    for (name, version, flags), (rc, symbol, status) in zip(requests, answers, strict=True):
        expected = newest(name, version, flags == 2)
        assert (rc, symbol) == (0, expected), (name, version, flags)
        assert status == (0 if expected else 2)


def test_a_driver_knows_no_function_newer_than_itself(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"call": "cuMemCreate", "absent": True}])  # CUDA 12.4
    _, answers = resolve(
        machine,
        [
            ("cuEventElapsedTime", 12040, 0),
            ("cuMemcpyBatchAsync", 12040, 0),
            ("cuInit", 12050, 0),
            ("cuNoSuchThing", 12040, 0),
            ("cuMemCreate", 12040, 0),
            ("cuMemcpy", 3020, 0),
        ],
    )
    assert answers == [
        [0, "cuEventElapsedTime", 0],  # its second form is of 12.8
        [0, None, 1],
        [1, None, -1],  # asks for more than the driver is
        [0, None, 1],
        [0, None, 1],
        [0, None, 2],  # there, but only from 4.0 on
    ]


def test_a_per_thread_twin_uses_the_per_thread_stream(tmp_path: Path) -> None:
    """Capture is refused on the legacy default stream and allowed on the per-thread one: that tells them apart."""
    machine = Simulation(tmp_path)
    with machine.client() as client:
        assert client.use() == 0
        assert client.call("cuStreamBeginCapture_v2", None, 0) == 900
        assert client.call("cuStreamBeginCapture_v2_ptsz", None, 0) == 0


def test_a_copy_of_the_driver_can_lack_functions(tmp_path: Path) -> None:
    """For programs that use `dlsym`, which finds whatever a library defines."""
    machine = Simulation(tmp_path)
    newer = {symbol for symbol, _, version, _ in rows() if version > machine.machine.cuda_version}
    libraries = older_driver.without(newer | {"cuMemCreate"}, tmp_path / "old")
    with machine.client(LD_LIBRARY_PATH=str(libraries)) as client:
        assert client.use() == 0
        assert client.alloc(1 << 20)[0] == 0
        assert client.has("cuMemAlloc_v2")
        assert not client.has("cuMemCreate")
        assert not client.has("cuEventElapsedTime_v2")
