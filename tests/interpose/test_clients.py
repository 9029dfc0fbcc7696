"""Real clients under the library: NVIDIA's NVML and CUDA bindings see and obey the limit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interpose.container import Container
from tests.interpose.simulation import Simulation

CONTEXT_MIB = 100
CUDA_13 = {"version": "580.65.06", "cuda": "13.0"}  # what the CUDA bindings' newest calls ask for


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "one", Simulation(tmp_path, driver=CUDA_13), memory_mib=300)


def _python(container: Container, program: str) -> Any:
    """The JSON that a Python program prints."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=container.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


NVML = """
import json
from pynvml import *
nvmlInit()
h = nvmlDeviceGetHandleByIndex(0)
one, two = nvmlDeviceGetMemoryInfo(h), nvmlDeviceGetMemoryInfo(h, nvmlMemory_v2)
print(json.dumps({
    "one": [one.total >> 20, one.used >> 20, one.free >> 20],
    "two": [two.total >> 20, two.used >> 20, two.free >> 20, two.reserved],
    "compute": [[p.pid, p.usedGpuMemory >> 20] for p in nvmlDeviceGetComputeRunningProcesses(h)],
    "compute_v2": [[p.pid, p.usedGpuMemory >> 20] for p in nvmlDeviceGetComputeRunningProcesses_v2(h)],
    "graphics": len(nvmlDeviceGetGraphicsRunningProcesses(h)),
    "mps": len(nvmlDeviceGetMPSComputeRunningProcesses(h)),
}))
"""


def test_nvml_bindings_see_the_containers_part(container: Container) -> None:
    held = container.start("hold", 120, 30)
    while container.region.snapshot().devices[0].used_bytes == 0:
        assert held.process.poll() is None
    seen = _python(container, NVML)
    held.kill()
    used = 120 + CONTEXT_MIB
    assert seen["one"] == [300, used, 300 - used]
    assert seen["two"] == [300, used, 300 - used, 0]
    assert seen["compute"] == seen["compute_v2"] == [[held.process.pid, used]]
    assert (seen["graphics"], seen["mps"]) == (0, 0)
    # A program that only looks holds no slot.
    container.region.reap()
    assert container.region.snapshot().slots == ()


def test_nvml_process_list_says_how_much_room_it_needs(container: Container) -> None:
    program = """
import ctypes, json
from pynvml import *
import pynvml
nvmlInit()
call = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetComputeRunningProcesses_v3")
h, none = nvmlDeviceGetHandleByIndex(0), ctypes.c_uint(0)
answers = [call(h, ctypes.byref(none), None), none.value]
room = (c_nvmlProcessInfo_v2_t * 5)()
five = ctypes.c_uint(5)
answers += [call(h, ctypes.byref(five), room), five.value, room[0].pid]
print(json.dumps(answers))
"""
    assert _python(container, program) == [0, 0, 0, 0, 0]
    held = container.start("hold", 10, 30)
    while container.region.snapshot().devices[0].used_bytes == 0:
        assert held.process.poll() is None
    insufficient = 7
    assert _python(container, program) == [insufficient, 1, 0, 1, held.process.pid]
    held.kill()


def test_cuda_bindings_meet_the_limit_on_every_path(container: Container) -> None:
    program = """
import json
from cuda.bindings import driver as cu
MIB = 1 << 20
def ok(answer):
    assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer
    return answer[1] if len(answer) == 2 else answer[1:]
ok(cu.cuInit(0))
device = ok(cu.cuDeviceGet(0))
context = ok(cu.cuDevicePrimaryCtxRetain(device))
ok(cu.cuCtxSetCurrent(context))
stream = ok(cu.cuStreamCreate(0))
said = {"info": [n // MIB for n in ok(cu.cuMemGetInfo())], "total": ok(cu.cuDeviceTotalMem(device)) // MIB}
linear = ok(cu.cuMemAlloc(100 * MIB))
said["linear"] = cu.cuMemAlloc(201 * MIB)[0].name
pooled = ok(cu.cuMemAllocAsync(60 * MIB, stream))
said["after_pool"] = ok(cu.cuMemGetInfo())[0] // MIB
said["pool"] = cu.cuMemAllocAsync(200 * MIB, stream)[0].name
prop = cu.CUmemAllocationProp()
prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
prop.location.id = 0
said["physical"] = cu.cuMemCreate(200 * MIB, prop, 0)[0].name
handle = ok(cu.cuMemCreate(100 * MIB, prop, 0))
ok(cu.cuMemRelease(handle))
ok(cu.cuMemFreeAsync(pooled, stream))
ok(cu.cuStreamSynchronize(stream))
ok(cu.cuMemFree(linear))
ok(cu.cuDevicePrimaryCtxRelease(device))
print(json.dumps(said))
"""
    refused = "CUDA_ERROR_OUT_OF_MEMORY"
    assert _python(container, program) == {
        "info": [300 - CONTEXT_MIB, 300],
        "total": 300,
        "linear": refused,
        "after_pool": 300 - CONTEXT_MIB - 100 - 64,
        "pool": refused,
        "physical": refused,
    }
    assert container.region.snapshot().devices[0].refused >= 3


def test_a_replayed_graph_is_limited_like_its_kernels(tmp_path: Path) -> None:
    container = Container(tmp_path / "one", Simulation(tmp_path, driver=CUDA_13), cores=25)
    program = """
import json, time
from cuda.bindings import driver as cu
def ok(answer):
    assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer
    return answer[1] if len(answer) == 2 else answer[1:]
ok(cu.cuInit(0))
ok(cu.cuCtxSetCurrent(ok(cu.cuDevicePrimaryCtxRetain(0))))
stream = ok(cu.cuStreamCreate(1))
module = ok(cu.cuModuleLoadData(b"sim_ns_500000\\0"))
kernel = ok(cu.cuModuleGetFunction(module, b"sim_ns_500000"))
ok(cu.cuStreamBeginCapture(stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
for _ in range(4):
    ok(cu.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, 0, 0))
graph = ok(cu.cuStreamEndCapture(stream))
replay = ok(cu.cuGraphInstantiate(graph, 0))
begun, replays = time.monotonic(), 0
while time.monotonic() < begun + 3:
    ok(cu.cuGraphLaunch(replay, stream))
    ok(cu.cuStreamSynchronize(stream))
    replays += 1
print(json.dumps(100 * replays * 0.002 / (time.monotonic() - begun)))
"""
    assert _python(container, program) == pytest.approx(25, abs=3)
