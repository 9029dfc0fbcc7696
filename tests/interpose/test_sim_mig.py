"""MIG in the simulated driver, through NVIDIA's NVML bindings and real CUDA clients.

The library loads once a process, so every test's machine has a process of its own: `nvml` runs a few lines in one.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.model.mig import MODELS, identify
from hami.node.simulated import native_dir
from tests.interpose.simulation import A100, Simulation

ROOT = Path(__file__).parents[2]
PRELUDE = """
import json, sys
from pynvml import *
from tests.interpose.mig_client import *
def name(call, *arguments):
    try:
        call(*arguments)
    except NVMLError as error:
        return type(error).__name__
    return "done"
nvmlInit()
card = nvmlDeviceGetHandleByIndex(0)
"""


def nvml(machine: Simulation, program: str, **environment: str) -> Any:
    """The JSON that the lines print, run with the machine's NVML and `card`, its first device."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env=machine.environment(PYTHONPATH=str(ROOT), **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def probe(machine: Simulation, *words: str, **environment: str) -> list[Any]:
    done = subprocess.run(
        [str(native_dir() / "sim" / "gpuprobe"), *words],
        env=machine.environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path, devices=[{"model": A100, "count": 2, "mig": ["enabled", "disabled"]}])


@pytest.fixture
def holder(machine: Simulation) -> Iterator[subprocess.Popen[str]]:
    """A program with a context on the first instance that there is."""
    nvml(machine, 'make(card, "2g.20gb", 2, 2); print(1)')
    with subprocess.Popen(
        [str(native_dir() / "sim" / "gpuprobe"), "info", "hold", "100", "600"],
        env=machine.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "MIG-" in process.stdout.readline()
        yield process
        process.kill()


def test_profiles_are_those_of_the_model(machine: Simulation) -> None:
    seen = nvml(
        machine,
        """
found = []
for number in range(NVML_GPU_INSTANCE_PROFILE_COUNT):
    try:
        info = nvmlDeviceGetGpuInstanceProfileInfo(card, number)
    except NVMLError_NotSupported:
        continue
    first = nvmlDeviceGetGpuInstanceProfileInfo(card, number, version=1)
    again = nvmlDeviceGetGpuInstanceProfileInfoById(card, info.id)
    told = info.name.removeprefix("MIG ")
    assert (first.id, first.memorySizeMB, again.name) == (info.id, info.memorySizeMB, info.name)
    found.append([told, info.id, number, info.memorySizeMB, info.sliceCount, info.multiprocessorCount,
                  info.instanceCount, nvmlDeviceGetGpuInstanceRemainingCapacity(card, info.id), placements(card, told)])
print(json.dumps(found))
""",
    )
    model = identify(A100, 81920)
    assert model is not None
    expected = [
        [
            str(known.name), known.shape.profile_id, known.shape.nvml_index, known.memory_mib, known.shape.slices,
            known.sm_count, known.shape.instances, known.shape.instances,
            [[start, known.shape.size] for start in known.shape.starts],
        ]
        for known in model.profiles
    ]  # fmt: skip
    assert sorted(seen) == sorted(expected)


def test_every_model_fits_the_state() -> None:
    definition = (native_dir() / "sim" / "state.def").read_text()
    most = int(definition.partition("SIM_PROFILES, ")[2].partition(",")[0])
    assert max(len(model.profiles) for model in MODELS) <= most


def test_the_mode_changes_on_an_idle_device_only(machine: Simulation, tmp_path: Path) -> None:
    seen = nvml(
        machine,
        """
other = nvmlDeviceGetHandleByIndex(1)
print(json.dumps([
    nvmlDeviceGetMigMode(card), nvmlDeviceGetMigMode(other), name(nvmlDeviceGetGpuInstanceProfileInfo, other, 0),
    nvmlDeviceSetMigMode(other, 1), nvmlDeviceGetMigMode(other), nvmlDeviceGetMaxMigDeviceCount(other),
    name(make, other, "1g.10gb", 0, 1),
    nvmlDeviceSetMigMode(other, 0), nvmlDeviceGetMigMode(other),
    unmake(instances(other, "1g.10gb")[0]), nvmlDeviceSetMigMode(other, 0), nvmlDeviceGetMigMode(other),
    name(nvmlDeviceSetMigMode, card, 2)]))
""",
    )
    in_use = 19
    assert seen[:2] == [[1, 1], [0, 0]]
    assert seen[2:7] == ["NVMLError_NotSupported", 0, [1, 1], 7, "done"]
    assert seen[7:9] == [in_use, [1, 0]], "an instance is in the way; the mode stays pending"
    assert seen[9:] == [None, 0, [0, 0], "NVMLError_InvalidArgument"]
    (tmp_path / "old").mkdir()
    old = Simulation(tmp_path / "old", devices=[{"model": "Tesla T4"}])
    assert nvml(old, "print(json.dumps(name(nvmlDeviceGetMigMode, card)))") == "NVMLError_NotSupported"


def test_instances_take_their_slices(machine: Simulation) -> None:
    seen = nvml(
        machine,
        """
def room():
    return [nvmlDeviceGetGpuInstanceRemainingCapacity(card, profile(card, n).id)
            for n in ("1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")]
three = make(card, "3g.40gb", 4, 4)
one = make(card, "1g.10gb+me", 1, 1, compute=False)
info = nvmlGpuInstanceGetInfo(three)
answers = [room(), info.placement.start, info.placement.size, info.profileId,
           name(make, card, "2g.20gb", 0, 2), name(make, card, "2g.20gb", 1, 2), name(make, card, "1g.10gb+me", 0, 1),
           name(make, card, "1g.10gb", 7, 1),
           len(mig_devices(card)), name(nvmlGpuInstanceDestroy, three)]
two = nvmlDeviceCreateGpuInstance(card, profile(card, "2g.20gb").id)
answers += [nvmlGpuInstanceGetInfo(two).placement.start,
            nvmlGpuInstanceGetInfo(nvmlDeviceGetGpuInstanceById(card, info.id)).placement.start,
            name(nvmlDeviceGetGpuInstanceById, card, 99)]
nvmlGpuInstanceDestroy(two); nvmlGpuInstanceDestroy(one); unmake(three)
print(json.dumps([*answers, room(), name(nvmlGpuInstanceGetInfo, three)]))
""",
    )
    # A 3g holds slices 4 to 7, the media engines are taken, and so is slice 1.
    assert seen[0] == [3, 0, 1, 1, 0, 0, 0]
    assert seen[1:4] == [4, 4, 9]
    assert seen[4:8] == ["NVMLError_InsufficientResources"] * 4
    assert seen[8:10] == [1, "NVMLError_InUse"], "its compute instance is in the way"
    assert seen[10:13] == [2, 4, "NVMLError_NotFound"]
    assert seen[13:] == [[7, 1, 4, 3, 2, 1, 1], "NVMLError_InvalidArgument"]


def test_a_mig_device_tells_its_part(machine: Simulation) -> None:
    program = """
instance = instances(card, "3g.40gb")[0] if instances(card, "3g.40gb") else make(card, "3g.40gb", 0, 4)
(mig,) = mig_devices(card)
parent = nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)
attributes = nvmlDeviceGetAttributes(mig)
print(json.dumps([
    nvmlDeviceGetUUID(mig), nvmlDeviceGetName(mig), nvmlDeviceIsMigDeviceHandle(mig).value,
    nvmlDeviceIsMigDeviceHandle(card).value, nvmlDeviceGetUUID(parent) == nvmlDeviceGetUUID(card),
    nvmlDeviceGetGpuInstanceId(mig) == nvmlGpuInstanceGetInfo(instance).id, nvmlDeviceGetComputeInstanceId(mig),
    nvmlDeviceGetMemoryInfo(mig).total >> 20, nvmlDeviceGetMemoryInfo(mig, nvmlMemory_v2).total >> 20,
    [attributes.multiprocessorCount, attributes.gpuInstanceSliceCount, attributes.memorySizeMB],
    nvmlDeviceGetUUID(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(mig))),
    name(nvmlDeviceGetUtilizationRates, mig), name(nvmlDeviceGetUtilizationRates, card)]))
"""
    seen = nvml(machine, program)
    uuid = seen[0]
    assert uuid.startswith("MIG-")
    assert seen[1:10] == [f"{A100} MIG 3g.40gb", 1, 0, True, True, 0, 40192, 40192, [42, 3, 40192]]
    assert seen[10:] == [uuid, "NVMLError_InvalidArgument", "NVMLError_NotSupported"]
    assert nvml(machine, program)[0] == uuid, "it is the machine's, not the process's"


def test_a_program_runs_on_the_instance_that_it_may_see(machine: Simulation) -> None:
    first, second = nvml(
        machine,
        """
make(card, "2g.20gb", 2, 2); make(card, "1g.10gb", 6, 1)
print(json.dumps([nvmlDeviceGetUUID(mig) for mig in mig_devices(card)]))
""",
    )
    whole = machine.uuids[1]

    def shown(**environment: str) -> list[tuple[str, float]]:
        (answer,) = probe(machine, "info", **environment)
        return [(d["uuid"], d["total_mib"]) for d in answer["devices"]] if "devices" in answer else []

    assert shown(NVIDIA_VISIBLE_DEVICES=second) == [(second, 9728)]
    assert shown(NVIDIA_VISIBLE_DEVICES="0:0") == [(first, 19968)]
    assert shown(NVIDIA_VISIBLE_DEVICES=f"{first},{second}") == [(first, 19968)], "one instance a process"
    assert shown(CUDA_VISIBLE_DEVICES=second) == [(second, 9728)]
    assert shown(CUDA_VISIBLE_DEVICES="0") == [(first, 19968)]
    assert shown(CUDA_VISIBLE_DEVICES="1") == [(whole, 81920)]
    assert shown() == [(first, 19968)], "with an instance there is nothing beside it"
    assert shown(NVIDIA_VISIBLE_DEVICES=second, CUDA_VISIBLE_DEVICES=first) == []
    counted = """
print(json.dumps([nvmlDeviceGetCount(), [nvmlDeviceGetUUID(mig) for mig in mig_devices(card)]]))
"""
    assert nvml(machine, counted, NVIDIA_VISIBLE_DEVICES=second) == [1, [second]]


def test_memory_and_time_are_the_instances_own(machine: Simulation) -> None:
    first, second = nvml(
        machine,
        """
make(card, "2g.20gb", 2, 2); make(card, "1g.10gb", 6, 1)
print(json.dumps([nvmlDeviceGetUUID(mig) for mig in mig_devices(card)]))
""",
    )
    with subprocess.Popen(
        [str(native_dir() / "sim" / "gpuprobe"), "alloc", "15000", "burn", "30", "1000000"],
        env=machine.environment(NVIDIA_VISIBLE_DEVICES=first),
        stdout=subprocess.PIPE,
        text=True,
    ) as neighbour:
        assert neighbour.stdout is not None
        assert json.loads(neighbour.stdout.readline())["got_mib"] == 15000
        alloc, _, burn = probe(machine, "alloc", "15000", "free", "burn", "1", "1000000", NVIDIA_VISIBLE_DEVICES=second)
        assert (alloc["got_mib"], alloc["result"]) == (9728 - 300, "CUDA_ERROR_OUT_OF_MEMORY")
        # 14 of 108 multiprocessors, whatever the neighbour does.
        assert burn["share"] == pytest.approx(14 / 108, abs=0.04)
        seen = nvml(
            machine,
            """
(process,) = nvmlDeviceGetComputeRunningProcesses(card)
mig = mig_devices(card)[0]
print(json.dumps([process.pid, process.gpuInstanceId == nvmlDeviceGetGpuInstanceId(mig), process.computeInstanceId,
                  len(nvmlDeviceGetComputeRunningProcesses(mig)),
                  len(nvmlDeviceGetComputeRunningProcesses(mig_devices(card)[1])),
                  nvmlDeviceGetMemoryInfo(card).used >> 20, nvmlDeviceGetMemoryInfo(mig).used >> 20]))
""",
        )
        assert seen == [neighbour.pid, True, 0, 1, 0, 15300, 15300]
        neighbour.kill()


def test_an_instance_in_use_stays(machine: Simulation, holder: subprocess.Popen[str]) -> None:
    look = """
(instance,) = instances(card, "2g.20gb")
print(json.dumps([name(unmake, instance), len(mig_devices(card)), nvmlDeviceSetMigMode(card, 0),
                  nvmlDeviceGetMigMode(card)]))
"""
    assert nvml(machine, look) == ["NVMLError_InUse", 1, 19, [1, 0]]
    holder.kill()
    holder.wait()
    assert nvml(machine, look.replace("name(unmake, instance)", "unmake(instance)")) == [None, 0, 0, [0, 0]]


def test_a_program_does_not_move_to_a_later_instance(machine: Simulation) -> None:
    uuid = nvml(machine, 'make(card, "1g.10gb", 0, 1); print(json.dumps(nvmlDeviceGetUUID(mig_devices(card)[0])))')
    with machine.client(NVIDIA_VISIBLE_DEVICES=uuid) as client:
        assert client.init() == 0
        nvml(machine, 'unmake(instances(card, "1g.10gb")[0]); make(card, "1g.10gb", 0, 1); print(1)')
        invalid_device = 101
        assert client.use() == invalid_device
    with machine.client(NVIDIA_VISIBLE_DEVICES=uuid) as client:
        assert client.use() == 0, "the same place has the same name again"


def test_faults_hit_mig_calls_too(tmp_path: Path) -> None:
    machine = Simulation(
        tmp_path,
        devices=[{"model": A100, "mig": "enabled"}],
        faults=[{"call": "nvmlGpuInstanceCreateComputeInstance", "nth": 1, "result": 999}],
    )
    seen = nvml(
        machine,
        """
print(json.dumps([name(make, card, "1g.10gb", 0, 1), len(instances(card, "1g.10gb")), len(mig_devices(card)),
                  name(make, card, "1g.10gb", 1, 1), len(mig_devices(card))]))
""",
    )
    assert seen == ["NVMLError_Unknown", 1, 0, "done", 1]
