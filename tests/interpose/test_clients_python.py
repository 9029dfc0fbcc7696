"""Python clients under the library: cuda-core, numba, gpustat, nvitop, cuda-bindings in threads and workers.

Each sees 600 MiB of a device of 4,096 and is refused more with the driver's own error, as its own exception. What it
does otherwise, it does as without the library.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interpose.container import Container
from tests.interpose.simulation import A100, Simulation

LIMIT_MIB = 600
CONTEXT_MIB = 100
DRIVERS = {
    "12.4": {"version": "550.90.07", "cuda": "12.4"},
    "13.0": {"version": "580.65.06", "cuda": "13.0"},
    "13.5": {"version": "615.10", "cuda": "13.5"},
}


@pytest.fixture(params=DRIVERS)
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Container:
    return Container(tmp_path / "one", Simulation(tmp_path, driver=DRIVERS[request.param]), memory_mib=LIMIT_MIB)


def python(container: Container, program: str, *words: str, **more: str) -> Any:
    """The JSON that a Python program prints; it must end well and print nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words] if program else [sys.executable, *words],
        env={**container.environment, "HOME": os.environ.get("HOME", "/"), **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def used_mib(container: Container) -> int:
    container.region.reap()
    return container.region.snapshot().devices[0].used_bytes >> 20


CUDA_CORE = """
import json
from cuda.core import Device, DeviceMemoryResource
device = Device(0); device.set_current()
stream = device.create_stream()
said = {"name": device.name}
def refusal(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except Exception as error:
        return str(error).partition(":")[0]
resource = device.memory_resource
buffer = resource.allocate(100 << 20, stream=stream)
said["size"] = buffer.size >> 20
said["refused"] = refusal(resource.allocate, 700 << 20, stream=stream)
buffer.close(stream); stream.sync()
own = DeviceMemoryResource(device)
buffer = own.allocate(64 << 20, stream=stream)
said["own_refused"] = refusal(own.allocate, 550 << 20, stream=stream)
buffer.close(stream); stream.sync()
print(json.dumps(said))
"""


DEEP = "import os, sys; sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)\n"
"""How an interpreter is embedded in programs that bring their own versions of common libraries."""
QUIET: Final = {
    "CUDA_PYTHON_DISABLE_MAJOR_VERSION_WARNING": "1"
}  # else it says that bindings of 13.5 meet a driver of 12.4
WAYS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "lazy": ("", {}),
    "bind-now": ("", {"LD_BIND_NOW": "1"}),
    "deep-bound": (DEEP, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_cuda_core(container: Container, way: str) -> None:
    before, more = WAYS[way]
    said = python(container, before + CUDA_CORE, **QUIET, **more)
    refused = "CUDA_ERROR_OUT_OF_MEMORY"
    assert said == {"name": A100, "size": 100, "refused": refused, "own_refused": refused}
    assert used_mib(container) == 0


NUMBA = """
import gc, json, warnings
warnings.simplefilter("ignore")
import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError
context = cuda.current_context()
said = {"devices": len(cuda.gpus), "before": [n >> 20 for n in context.get_memory_info()]}
data = cuda.to_device(np.arange(1 << 20, dtype=np.float32))
said["sum"] = float(data.copy_to_host()[:100].sum())
more = cuda.device_array(100 << 20, dtype=np.uint8)
said["after"] = [n >> 20 for n in context.get_memory_info()]
try:
    cuda.device_array(700 << 20, dtype=np.uint8)
except CudaAPIError as error:
    said["refused"] = error.code
del data, more
gc.collect()
context.memory_manager.deallocations.clear()
said["end"] = [n >> 20 for n in context.get_memory_info()]
stream = cuda.stream()
with cuda.pinned(np.zeros(10)):
    stream.synchronize()
print(json.dumps(said))
"""


@pytest.mark.parametrize("way", WAYS)
def test_numba(container: Container, way: str) -> None:
    before, more = WAYS[way]
    said = python(container, before + NUMBA, **more)
    at_start = LIMIT_MIB - CONTEXT_MIB
    assert said == {
        "devices": 1,
        "before": [at_start, LIMIT_MIB],
        "sum": sum(range(100)),
        "after": [at_start - 104, LIMIT_MIB],
        "refused": 2,
        "end": [at_start, LIMIT_MIB],
    }
    assert used_mib(container) == 0


def _hold(container: Container, mib: int) -> Any:
    held = container.start("hold", mib, 60)
    while container.region.snapshot().devices[0].used_bytes < mib << 20:
        assert held.process.poll() is None
    return held


def test_gpustat(container: Container) -> None:
    held = _hold(container, 120)
    said = python(container, "", "-m", "gpustat", "--json")
    held.kill()
    (gpu,) = said["gpus"]
    assert (gpu["name"], gpu["memory.total"], gpu["memory.used"]) == (A100, LIMIT_MIB, 120 + CONTEXT_MIB)
    (process,) = gpu["processes"]
    assert (process["pid"], process["gpu_memory_usage"]) == (held.process.pid, 120 + CONTEXT_MIB)
    assert process["command"] == "gpuprobe"


NVML = """
import json
from cuda.bindings import nvml
from cuda.core import system
nvml.init_v2()
device = nvml.device_get_handle_by_index_v2(0)
memory = nvml.device_get_memory_info_v2(device)
high = system.Device(index=0).memory_info
print(json.dumps({
    "memory": [memory.total >> 20, memory.used >> 20, memory.free >> 20],
    "cuda-core": [high.total >> 20, high.used >> 20, high.free >> 20],
    "processes": [[p.pid, p.used_gpu_memory >> 20] for p in nvml.device_get_compute_running_processes_v3(device)],
}))
"""


def test_nvml_of_cuda_bindings_and_cuda_core(container: Container) -> None:
    held = _hold(container, 120)
    said = python(container, NVML, **QUIET)
    held.kill()
    used = 120 + CONTEXT_MIB
    seen = [LIMIT_MIB, used, LIMIT_MIB - used]
    assert said == {"memory": seen, "cuda-core": seen, "processes": [[held.process.pid, used]]}


NVITOP = """
import json
from nvitop import Device
(device,) = Device.all()
print(json.dumps({
    "name": device.name(),
    "memory": [device.memory_total() >> 20, device.memory_used() >> 20, device.memory_free() >> 20],
    "human": device.memory_usage(),
    "processes": {pid: process.gpu_memory() >> 20 for pid, process in device.processes().items()},
    "cuda": [d.memory_total() >> 20 for d in Device.cuda.all()],
}))
"""


def test_nvitop(container: Container) -> None:
    held = _hold(container, 120)
    said = python(container, NVITOP)
    used = 120 + CONTEXT_MIB
    assert said == {
        "name": A100,
        "memory": [LIMIT_MIB, used, LIMIT_MIB - used],
        "human": f"{used}.0MiB / {LIMIT_MIB}.0MiB",
        "processes": {str(held.process.pid): used},
        "cuda": [LIMIT_MIB],
    }
    screen = subprocess.run(
        [sys.executable, "-m", "nvitop", "--once", "--ascii", "--no-unicode"],
        env={**container.environment, "HOME": "/", "TERM": "xterm", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    held.kill()
    assert (screen.returncode, screen.stderr) == (0, "")
    assert f"{used}.0MiB / {LIMIT_MIB}.0MiB" in screen.stdout
    assert str(held.process.pid) in screen.stdout


THREADS = """
import json, threading
from cuda.bindings import driver as cu
MIB = 1 << 20
def ok(answer):
    assert answer[0] == cu.CUresult.CUDA_SUCCESS, answer
    return answer[1] if len(answer) == 2 else answer[1:]
ok(cu.cuInit(0))
context = ok(cu.cuDevicePrimaryCtxRetain(0))
got, lock = [], threading.Lock()
def work():
    ok(cu.cuCtxSetCurrent(context))
    stream = ok(cu.cuStreamCreate(0))
    for turn in range(200):
        error, pooled = cu.cuMemAllocAsync(3 * MIB, stream)
        if error == cu.CUresult.CUDA_SUCCESS:
            ok(cu.cuMemFreeAsync(pooled, stream))
    ok(cu.cuStreamSynchronize(stream))
    while (answer := cu.cuMemAlloc(10 * MIB))[0] == cu.CUresult.CUDA_SUCCESS:
        with lock:
            got.append(answer[1])
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(len(got)))
"""


def test_bindings_in_threads_meet_the_limit_together(container: Container) -> None:
    assert python(container, THREADS) == LIMIT_MIB // 10
    assert used_mib(container) == 0


WORKERS = """
import json, multiprocessing, os, sys
MIB = 1 << 20
def most(_):
    from cuda.bindings import driver as cu
    cu.cuInit(0)
    error, context = cu.cuDevicePrimaryCtxRetain(0)
    cu.cuCtxSetCurrent(context)
    count = 0
    while cu.cuMemAlloc(10 * MIB)[0] == cu.CUresult.CUDA_SUCCESS:
        count += 1
    return count
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        one = pool.map(most, [0])
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        three = pool.map(most, range(3), chunksize=1)
    print(json.dumps([one, sum(three)]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_bindings_in_workers_of_every_kind(container: Container, tmp_path: Path, method: str) -> None:
    """Data loaders and servers start workers; together they have the one limit, and a dead pool's memory is back."""
    program = tmp_path / "workers.py"
    program.write_text(WORKERS)
    assert python(container, "", str(program), method) == [[LIMIT_MIB // 10], LIMIT_MIB // 10]
    assert used_mib(container) == 0
