"""Faults on demand: results, delays, deaths, absent functions, and Xid events through NVML."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY
from tests.interpose.simulation import Simulation


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
