"""Real clients on the simulated driver: NVIDIA's NVML and CUDA bindings and a compiled program, each a process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hami.node.simulated import native_dir
from tests.interpose.simulation import A100, ManualClock, Simulation

MIB = 1 << 20
CUDA_13 = {"version": "580.65.06", "cuda": "13.0"}  # what the CUDA bindings' newest calls ask for


def python(machine: Simulation, program: str, **environment: str) -> Any:
    """The JSON that a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=machine.environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def gpuprobe(environment: dict[str, str], *words: str, status: int = 0) -> list[Any]:
    done = subprocess.run(
        [str(native_dir() / "sim" / "gpuprobe"), *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_nvml_bindings_see_the_described_machine(tmp_path: Path) -> None:
    machine = Simulation(
        tmp_path,
        devices=[{"model": A100, "count": 2, "numa": [0, 1]}, {"model": "Tesla T4"}],
        links={"pairs": [[0, 1, 2]]},
    )
    seen = python(
        machine,
        """
import json
from pynvml import *
nvmlInit()
handles = [nvmlDeviceGetHandleByIndex(i) for i in range(nvmlDeviceGetCount())]
def text(value): return value if isinstance(value, str) else value.decode()
def answer(call, *arguments):
    try:
        return call(*arguments)
    except NVMLError as error:
        return type(error).__name__
a, b, t = handles
print(json.dumps({
    "driver": text(nvmlSystemGetDriverVersion()), "cuda": nvmlSystemGetCudaDriverVersion(),
    "uuids": [text(nvmlDeviceGetUUID(h)) for h in handles],
    "names": [text(nvmlDeviceGetName(h)) for h in handles],
    "found": all(nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(h))) == i and
                 nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId(nvmlDeviceGetPciInfo(h).busId)) == i and
                 nvmlDeviceGetIndex(nvmlDeviceGetHandleBySerial(nvmlDeviceGetSerial(h))) == i
                 for i, h in enumerate(handles)),
    "memory": [nvmlDeviceGetMemoryInfo(h).total >> 20 for h in handles],
    "memory_v2": [nvmlDeviceGetMemoryInfo(h, nvmlMemory_v2).free >> 20 for h in handles],
    "numa": [nvmlDeviceGetNumaNodeId(h) for h in handles],
    "affinity": list(nvmlDeviceGetMemoryAffinity(b, 1, 0)),
    "minor": [nvmlDeviceGetMinorNumber(h) for h in handles],
    "mig": [answer(nvmlDeviceGetMigMode, h) for h in handles],
    "capability": [nvmlDeviceGetCudaComputeCapability(h) for h in handles],
    "ancestor": [nvmlDeviceGetTopologyCommonAncestor(a, h) for h in handles],
    "links": [answer(nvmlDeviceGetNvLinkState, a, n) for n in range(3)],
    "remote": text(nvmlDeviceGetNvLinkRemotePciInfo(a, 1).busId) == text(nvmlDeviceGetPciInfo(b).busId),
    "no_links": answer(nvmlDeviceGetNvLinkState, t, 0),
    "p2p": [nvmlDeviceGetP2PStatus(a, h, NVML_P2P_CAPS_INDEX_NVLINK) for h in (b, t)],
    "processes": nvmlDeviceGetComputeRunningProcesses(a),
    "power": nvmlDeviceGetPowerUsage(a) <= nvmlDeviceGetEnforcedPowerLimit(a),
    "temperature": nvmlDeviceGetTemperature(a, NVML_TEMPERATURE_GPU),
    "ecc": answer(nvmlDeviceGetTotalEccErrors, a, 0, 0),
    "bad_index": answer(nvmlDeviceGetHandleByIndex, 3),
}))
""",
    )
    assert seen == {
        "driver": "550.90.07",
        "cuda": 12040,
        "uuids": machine.uuids,
        "names": [A100, A100, "Tesla T4"],
        "found": True,
        "memory": [81920, 81920, 15360],
        "memory_v2": [81920, 81920, 15360],
        "numa": [0, 1, 0],
        "affinity": [2],
        "minor": [0, 1, 2],
        "mig": [[0, 0], [0, 0], "NVMLError_NotSupported"],
        "capability": [[8, 0], [8, 0], [7, 5]],
        "ancestor": [0, 50, 40],
        "links": [1, 1, 0],
        "remote": True,
        "no_links": "NVMLError_NotSupported",
        "p2p": [0, 5],
        "processes": [],
        "power": True,
        "temperature": 30,
        "ecc": "NVMLError_NotSupported",
        "bad_index": "NVMLError_InvalidArgument",
    }


def test_an_nvswitch_machine_links_every_device_to_the_switches(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, devices=[{"model": A100, "count": 8}], links={"nvlink": "switch"})
    seen = python(
        machine,
        """
import json
from pynvml import *
nvmlInit()
def switches(h):
    active = [n for n in range(NVML_NVLINK_MAX_LINKS) if nvmlDeviceGetNvLinkState(h, n)]
    return sum(nvmlDeviceGetNvLinkRemoteDeviceType(h, n) == NVML_NVLINK_DEVICE_TYPE_SWITCH for n in active)
print(json.dumps([switches(nvmlDeviceGetHandleByIndex(i)) for i in range(8)]))
""",
    )
    assert seen == [12] * 8


def test_cuda_bindings(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, driver=CUDA_13)
    ManualClock(machine)
    seen = python(
        machine,
        """
import json
from cuda.bindings import driver as d
def ok(answer):
    assert answer[0] == d.CUresult.CUDA_SUCCESS, answer
    return answer[1] if len(answer) == 2 else answer[1:]
ok(d.cuInit(0))
device = ok(d.cuDeviceGet(1))
context = ok(d.cuDevicePrimaryCtxRetain(device))
ok(d.cuCtxSetCurrent(context))
out = {"count": ok(d.cuDeviceGetCount()), "name": ok(d.cuDeviceGetName(64, device)).rstrip(b" \\0").decode(),
       "before": ok(d.cuMemGetInfo())}
at = ok(d.cuMemAlloc(64 << 20))
back = bytearray(5)
ok(d.cuMemcpyHtoD(at, b"hello", 5)); ok(d.cuMemcpyDtoH(back, at, 5))
out["copied"] = back.decode()
ok(d.cuMemsetD8(at, 7, 4)); ok(d.cuMemcpyDtoH(back, at, 5))
out["filled"] = list(back)
out["managed"] = ok(d.cuPointerGetAttribute(d.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_MANAGED, at))
out["too_much"] = d.cuMemAlloc(8 << 30)[0].name
stream = ok(d.cuStreamCreate(0))
pooled = ok(d.cuMemAllocAsync(1 << 20, stream))
out["pool"] = ok(d.cuMemGetInfo())
ok(d.cuMemFreeAsync(pooled, stream)); ok(d.cuStreamSynchronize(stream))
prop = d.CUmemAllocationProp()
prop.type = d.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
prop.location.type = d.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
prop.location.id = 1
physical = ok(d.cuMemCreate(32 << 20, prop, 0))
virtual = ok(d.cuMemAddressReserve(64 << 20, 0, 0, 0))
ok(d.cuMemMap(virtual, 32 << 20, 0, physical, 0)); ok(d.cuMemRelease(physical))
out["mapped"] = ok(d.cuMemGetInfo())
ok(d.cuMemUnmap(virtual, 32 << 20)); ok(d.cuMemAddressFree(virtual, 64 << 20))
array = d.CUDA_ARRAY_DESCRIPTOR()
array.Width, array.Height, array.Format, array.NumChannels = 1024, 1024, d.CUarray_format.CU_AD_FORMAT_FLOAT, 4
handle = ok(d.cuArrayCreate(array))
out["array"] = ok(d.cuMemGetInfo())
ok(d.cuArrayDestroy(handle)); ok(d.cuMemFree(at))
module = ok(d.cuModuleLoadData(b"sim_ns_2000000 other\\0"))
out["absent"] = d.cuModuleGetFunction(module, b"missing")[0].name
kernel = ok(d.cuModuleGetFunction(module, b"sim_ns_2000000"))
start, end = ok(d.cuEventCreate(0)), ok(d.cuEventCreate(0))
ok(d.cuEventRecord(start, stream)); ok(d.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, 0, 0))
ok(d.cuEventRecord(end, stream)); ok(d.cuEventSynchronize(end))
out["kernel_ms"] = ok(d.cuEventElapsedTime(start, end))
ok(d.cuStreamBeginCapture(stream, d.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
for _ in range(3):
    ok(d.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, 0, 0))
out["in_capture"] = d.cuStreamSynchronize(stream)[0].name
executable = ok(d.cuGraphInstantiate(ok(d.cuStreamEndCapture(stream)), 0))
ok(d.cuEventRecord(start, stream)); ok(d.cuGraphLaunch(executable, stream))
ok(d.cuEventRecord(end, stream)); ok(d.cuEventSynchronize(end))
out["graph_ms"] = ok(d.cuEventElapsedTime(start, end))
ok(d.cuDevicePrimaryCtxRelease(device))
print(json.dumps(out))
""",
    )
    total = 4096 * MIB
    assert seen == {
        "count": 2,
        "name": A100,
        "before": [total - 100 * MIB, total],
        "copied": "hello",
        "filled": [7, 7, 7, 7, ord("o")],
        "managed": 0,
        "too_much": "CUDA_ERROR_OUT_OF_MEMORY",
        "pool": [total - (100 + 64 + 32) * MIB, total],
        "mapped": [total - (100 + 64 + 32) * MIB, total],
        "array": [total - (100 + 64 + 16) * MIB, total],
        "absent": "CUDA_ERROR_NOT_FOUND",
        "kernel_ms": 2.0,
        "in_capture": "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        "graph_ms": 6.0,
    }


def test_a_compiled_client(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    words = ("info", "alloc", "5000", "info", "free", "burn", "0.3", "1000000", "info")
    first, taken, full, freed, burnt, last = gpuprobe(machine.environment(), *words)
    assert [d["uuid"] for d in first["devices"]] == machine.uuids
    assert first["devices"][0]["nvml_total_mib"] == first["devices"][0]["total_mib"] == 4096
    assert taken == {"command": "alloc", "asked_mib": 5000, "got_mib": 3996, "result": "CUDA_ERROR_OUT_OF_MEMORY"}
    assert full["devices"][0]["free_mib"] == full["devices"][0]["nvml_free_mib"] == 0
    assert freed["freed_mib"] == 3996
    assert last["devices"][0]["free_mib"] == 3996
    assert burnt["launches"] > 100
    assert burnt["device_ns"] == burnt["launches"] * 1e6
    assert burnt["share"] <= 1.0


def test_without_a_machine_there_is_no_device(tmp_path: Path) -> None:
    nothing = {"LD_LIBRARY_PATH": str(native_dir() / "sim")}
    assert gpuprobe(nothing, "info", status=1) == [{"error": "cuInit", "reason": "CUDA_ERROR_NO_DEVICE"}]
    (tmp_path / "broken").write_bytes(b"HAMI" * 5000)
    broken = {**nothing, "HAMI_SIM_STATE": str(tmp_path / "broken")}
    assert gpuprobe(broken, "info", status=1) == [{"error": "cuInit", "reason": "CUDA_ERROR_NO_DEVICE"}]
    program = """
import pynvml
try:
    pynvml.nvmlInit()
except pynvml.NVMLError_DriverNotLoaded:
    print("not loaded")
"""
    done = subprocess.run([sys.executable, "-c", program], env=nothing, capture_output=True, text=True, timeout=30)
    assert done.stdout == "not loaded\n", done.stderr
