"""What NVML programs in a container are told: its own processes and devices, beside others on the same device.

Two containers share a device of the machine; NVIDIA's own bindings look from inside one, and from outside both.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.model.wire.grant import GrantDevice, GrantFile, write_grant
from tests.interpose.container import LIBRARY, Container, Probe
from tests.interpose.simulation import Simulation

HEAD = """
import ctypes, json
from pynvml import *
nvmlInit()
def answer(call, *arguments):
    try:
        return call(*arguments)
    except NVMLError as error:
        return type(error).__name__
def details(h, mode):
    return nvmlDeviceGetRunningProcessDetailList(h, nvmlProcessDetailList_v1, mode)
def stats_v2(h, pid):
    stats = c_nvmlAccountingStats_v2_t(pid=pid)
    code = ctypes.CDLL("libnvidia-ml.so.1").nvmlDeviceGetAccountingStats_v2(h, ctypes.byref(stats))
    return [code, stats.pid, stats.isRunning]
def pids(rows):
    return sorted(row.pid for row in rows)
"""

PROCESSES = """
h = nvmlDeviceGetHandleByIndex(0)
samples = nvmlDeviceGetProcessUtilization(h, 0)
print(json.dumps({
    "compute": pids(nvmlDeviceGetComputeRunningProcesses(h)),
    "details": {mode: pids(details(h, mode)) for mode in range(4)},
    "memory": {p.pid: p.usedGpuMemory >> 20 for p in details(h, 0)},
    "share": {s.pid: s.smUtil for s in samples},
    "share_info": pids(nvmlDeviceGetProcessesUtilizationInfo(h, 0)),
    "accounted": sorted(nvmlDeviceGetAccountingPids(h)),
    "stats": [answer(lambda: nvmlDeviceGetAccountingStats(h, pid).isRunning) for pid in ASKED],
    "rates": nvmlDeviceGetUtilizationRates(h).gpu,
    "stats_v2": [answer(stats_v2, h, pid) for pid in ASKED],
    "history": answer(lambda: len(nvmlDeviceGetSamples(h, NVML_GPU_UTILIZATION_SAMPLES, 0)[1])),
    "domain": nvmlDeviceGetDynamicPstatesInfo(h).utilization[0].percentage,
}))
"""

DEVICES = """
handles = [nvmlDeviceGetHandleByIndex(i) for i in range(nvmlDeviceGetCount())]
print(json.dumps({
    "uuids": [nvmlDeviceGetUUID(h) for h in handles],
    "indices": [nvmlDeviceGetIndex(h) for h in handles],
    "beyond": answer(nvmlDeviceGetHandleByIndex, len(handles)),
    "first_by": [
        answer(lambda call=call, name=name: nvmlDeviceGetUUID(call(name)))
        for call, name in (
            (nvmlDeviceGetHandleByUUID, UUID),
            (nvmlDeviceGetHandleByPciBusId, PCI),
            (nvmlDeviceGetHandleBySerial, SERIAL),
        )
    ],
}))
"""


def _ask(environment: dict[str, str], program: str, **names: object) -> Any:
    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    command = [sys.executable, "-c", HEAD + given + program]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    return json.loads(run.stdout)


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


class TestProcesses:
    @pytest.fixture
    def own(self, tmp_path: Path, machine: Simulation) -> Container:
        return Container(tmp_path / "own", machine, memory_mib=300, cores=40, GPU_CORE_UTILIZATION_POLICY="force")

    @pytest.fixture
    def foreign(self, tmp_path: Path, machine: Simulation) -> Container:
        return Container(tmp_path / "foreign", machine, memory_mib=300)

    @pytest.fixture
    def running(self, own: Container, foreign: Container) -> Iterator[tuple[Probe, Probe]]:
        """A busy program in each."""
        pair = own.start("alloc", 50, "burn", 30, 1_000_000), foreign.start("alloc", 70, "burn", 30, 1_000_000)
        try:
            for container, probe in zip((own, foreign), pair, strict=True):
                while container.region.snapshot().devices[0].launches < 100:
                    assert probe.process.poll() is None
            yield pair
        finally:
            for probe in pair:
                probe.kill()

    def test_are_the_containers_own(self, own: Container, machine: Simulation, running: tuple[Probe, Probe]) -> None:
        mine, other = (probe.process.pid for probe in running)
        both = sorted((mine, other))
        outside = _ask(machine.environment(), PROCESSES, ASKED=[mine, other])
        assert outside["compute"] == outside["share_info"] == outside["accounted"] == both
        assert outside["details"] == {"0": both, "1": [], "2": [], "3": both}
        assert outside["stats"] == [1, 1]
        assert outside["stats_v2"] == [[0, mine, 1], [0, other, 1]]
        inside = _ask(own.environment, PROCESSES, ASKED=[mine, other])
        assert inside["compute"] == inside["share_info"] == inside["accounted"] == [mine]
        assert inside["details"] == {"0": [mine], "1": [], "2": [], "3": [mine]}
        assert inside["memory"] == {str(mine): 150}  # with its context
        assert list(inside["share"]) == [str(mine)]
        assert inside["stats"] == [1, "NVMLError_NotFound"]
        assert inside["stats_v2"] == [[0, mine, 1], [6, other, 0]]  # 6: not found

    def test_a_part_of_the_time_shows_what_is_used_of_it(
        self, own: Container, foreign: Container, machine: Simulation, running: tuple[Probe, Probe]
    ) -> None:
        inside = _ask(own.environment, PROCESSES, ASKED=[])
        (driver,) = inside["share"].values()
        assert inside["rates"] == pytest.approx(driver, abs=20)
        assert inside["domain"] == pytest.approx(driver, abs=20)
        # Without a part of its own, a container sees the device as it is.
        outside = _ask(machine.environment(), PROCESSES, ASKED=[])
        whole = outside["rates"]
        assert _ask(foreign.environment, PROCESSES, ASKED=[])["rates"] == pytest.approx(whole, abs=30)
        assert whole > inside["rates"]
        assert outside["domain"] > inside["domain"]
        assert outside["history"] == _ask(foreign.environment, PROCESSES, ASKED=[])["history"] == 1
        assert inside["history"] == "NVMLError_NotSupported"

    def test_of_another_numbering_are_known_too(self, own: Container, running: tuple[Probe, Probe]) -> None:
        """The driver may say host pids; the node side notes those."""
        own.region.reap()
        (slot,) = own.region.snapshot().slots
        assert slot.host_pid == running[0].process.pid

    def test_nobody_running_is_as_the_driver_says_it(self, own: Container) -> None:
        idle = "h = nvmlDeviceGetHandleByIndex(0)\nprint(json.dumps([answer(nvmlDeviceGetProcessUtilization, h, 0)]))"
        assert _ask(own.environment, idle) == ["NVMLError_NotFound"]


class TestDevices:
    def test_that_the_grant_does_not_name_are_not_shown(self, machine: Simulation, tmp_path: Path) -> None:
        first, second = machine.machine.devices
        grant = tmp_path / "grant"
        named = GrantDevice(uuid=second.uuid, memory_mib=123, cores=0, enforced_by="library")
        grant.write_text(write_grant(GrantFile(devices=(named,), region=str(tmp_path / "region.cache"))))
        names = {
            "UUID": str(first.uuid),
            **_ask(
                machine.environment(),
                "h = nvmlDeviceGetHandleByIndex(0)\n"
                "print(json.dumps({'PCI': nvmlDeviceGetPciInfo(h).busId, 'SERIAL': nvmlDeviceGetSerial(h)}))",
            ),
        }
        outside = _ask(machine.environment(), DEVICES, **names)
        assert outside["uuids"] == machine.uuids
        assert outside["first_by"] == [str(first.uuid)] * 3
        inside = _ask({**machine.environment(), "LD_PRELOAD": str(LIBRARY), "HAMI_GRANT": str(grant)}, DEVICES, **names)
        assert (inside["uuids"], inside["indices"]) == ([str(second.uuid)], [0])
        assert inside["beyond"] == "NVMLError_InvalidArgument"
        assert inside["first_by"] == ["NVMLError_NotFound"] * 3
