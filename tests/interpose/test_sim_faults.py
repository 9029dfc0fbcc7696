"""Faults on demand: results, delays, deaths, absent functions, and Xid events through NVML."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hami.model.machine import read_machine
from hami.model.names import WireError
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY
from tests.interpose.simulation import A100, ManualClock, Simulation


def test_the_nth_call_of_all_processes_fails(tmp_path: Path) -> None:
    faults = [{"call": "cuMemAlloc_v2", "nth": 3, "result": "CUDA_ERROR_OUT_OF_MEMORY"}]
    machine = Simulation(tmp_path, faults=faults)
    with machine.client() as first, machine.client() as second:
        assert first.use() == 0
        assert second.use() == 0
        results = [client.alloc(MIB)[0] for client in (first, second, first, second)]
        assert results == [0, 0, OUT_OF_MEMORY, 0]


def test_every_call_fails_where_no_number_is_given(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"call": "cuMemAllocManaged", "result": 801}])
    with machine.client() as client:
        assert client.use() == 0
        assert [client.alloc(MIB, "cuMemAllocManaged", 1)[0] for _ in range(3)] == [801] * 3
        assert client.alloc(MIB)[0] == 0


def test_a_call_takes_longer(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"call": "cuInit", "delay_ms": 300}])
    with machine.client() as client:
        client.count()  # the process is up
        began = time.monotonic()
        assert client.init() == 0
        assert 0.3 <= time.monotonic() - began < 2


def test_a_call_kills_the_process(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"call": "cuMemFree_v2", "nth": 1, "crash": True}])
    with machine.client() as victim, machine.client() as other:
        assert victim.use() == 0
        assert other.use() == 0
        _, address = victim.alloc(500 * MIB)
        victim.start("free", address)
        assert victim.process.wait(10) < 0
        rc, free, total = other.info()
        assert (rc, total - free) == (0, 100 * MIB)


def test_an_unimplemented_call_has_faults_too(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"call": "cuLinkCreate_v2", "result": 304}])
    with machine.client() as client:
        assert client.use() == 0
        assert client.call("cuLinkCreate_v2") == 304
        assert client.call("cuLinkComplete") == 801, "not supported"


def test_xid_errors_arrive_at_their_time(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"device": 1, "xid": 79, "after_s": 0.8}, {"device": 0, "xid": 13}])
    program = """
import json, time
from pynvml import *
nvmlInit()
began = time.monotonic()
events = nvmlEventSetCreate()
nvmlDeviceRegisterEvents(nvmlDeviceGetHandleByIndex(1), nvmlEventTypeXidCriticalError, events)
out = []
for timeout in (50, 5000, 50):
    try:
        data = nvmlEventSetWait_v2(events, timeout)
        out.append([data.eventData, nvmlDeviceGetIndex(data.device), time.monotonic() - began])
    except NVMLError_Timeout:
        out.append("timeout")
nvmlEventSetFree(events)
print(json.dumps(out))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=machine.environment(), capture_output=True, text=True, timeout=30
    )
    early, (xid, index, seconds), late = json.loads(done.stdout)
    assert (early, late) == ("timeout", "timeout"), "device 0 is not watched, and each Xid comes once"
    assert (xid, index) == (79, 1)
    assert 0.5 < seconds < 3


def test_a_sigsegv_is_not_how_a_crash_looks(tmp_path: Path) -> None:
    """The crash is a trap, so that it cannot be taken for a fault of the library under test."""
    machine = Simulation(tmp_path, faults=[{"call": "cuInit", "crash": True}])
    with machine.client() as client:
        client.start("init")
        assert client.process.wait(10) in (-signal.SIGILL, -signal.SIGTRAP)


def test_a_call_takes_longer_by_chance(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"call": "cuMemGetInfo_v2", "delay_ms": 5, "random_ms": 40}])
    clock = ManualClock(machine)
    with machine.client() as client:
        assert client.use() == 0
        took = []
        for _ in range(30):
            before = clock.now
            client.info()
            took.append((clock.now - before) / 1e6)
    assert all(5 <= ms < 45 for ms in took)
    assert len(set(took)) > 25, "each is another"
    assert min(took) < 15 < 35 < max(took), "and all lengths occur"


def test_a_lost_device_answers_no_more_and_the_others_do(tmp_path: Path) -> None:
    machine = Simulation(tmp_path, faults=[{"device": 0, "lost": True, "xid": 79, "after_s": 100}])
    clock = ManualClock(machine)
    with machine.client() as client, machine.client() as other:
        assert client.use(0) == 0
        assert other.use(1) == 0
        _, address = client.alloc(MIB)
        function = client.function("sim_ns_1000")
        clock.now += 101_000_000_000
        unknown = 999
        assert client.info()[0] == unknown
        assert client.alloc(MIB)[0] == unknown
        assert client.free(address) == unknown
        assert client.launch(function) == unknown
        assert client.sync() == unknown
        assert (other.info()[0], other.alloc(MIB)[0]) == (0, 0)
        with machine.client() as late:
            assert late.use(0) == unknown
            assert late.use(1) == 0
        program = """
import json
from pynvml import *
nvmlInit()
out = [nvmlDeviceGetCount()]
for index in range(2):
    try:
        out.append(nvmlDeviceGetMemoryInfo(nvmlDeviceGetHandleByIndex(index)).total >> 20)
    except NVMLError as error:
        out.append(type(error).__name__)
print(json.dumps(out))
"""
        done = subprocess.run(
            [sys.executable, "-c", program], env=machine.environment(), capture_output=True, text=True, timeout=30
        )
        assert json.loads(done.stdout) == [2, "NVMLError_GpuIsLost", 4096]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"device": 0}, "machine.faults[0].xid"),
        ({"device": 9, "lost": True}, "machine.faults[0].device"),
        ({"device": 0, "lost": "yes"}, "machine.faults[0].lost"),
        ({"call": "cuInit", "random_ms": -1}, "machine.faults[0].random_ms"),
        ({"call": "cuInit", "lost": True}, "machine.faults[0].lost"),
    ],
)
def test_a_wrong_row_is_named(row: dict[str, object], field: str) -> None:
    with pytest.raises(WireError) as caught:
        read_machine({"devices": [{"model": A100, "count": 2}], "faults": [row]}, "x")
    assert caught.value.field == field
