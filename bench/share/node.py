"""A node to measure on: the agent's own regions and monitor, over the real driver or a simulated machine."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio.from_thread

from bench.share.loads import Row, Sharer
from hami.agent.monitor import Monitor
from hami.agent.regions import RegionFiles
from hami.model.claim import Share
from hami.model.machine import read_machine
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.model.settings import NvidiaConfig
from hami.node.grants import Grant, GrantStore, Holder, State, new_id
from hami.node.installed import hook_tree
from hami.node.probe_nvidia import NvidiaProbe
from hami.node.simulated import compile_state, environment, load_nvml, native_dir
from hami.vendors.nvidia import NVIDIA

HERE: Final = Path(__file__).parent
START_S: Final = 0.4
"""From starting a row's first program to its first launch, and as much more for every eight programs."""
BIN_S: Final = 0.01

MACHINE: Final[dict[str, Any]] = {
    "devices": [
        {"model": "NVIDIA A100-SXM4-80GB", "context_mib": 100},
        {"model": "NVIDIA A100-SXM4-80GB", "context_mib": 100, "sharing": "mps"},
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is measured on."""

    uuids: tuple[DeviceUuid, ...]
    words: str
    """For people: the model, and whether it is simulated."""
    simulated: bool
    environment: dict[str, str]
    """What a program needs to find the driver."""


@contextlib.contextmanager
def simulated_device(directory: Path) -> Iterator[Device]:
    """A simulated machine; from here on this process's NVML is the simulated one."""
    machine = read_machine(MACHINE, default_name="bench")
    state = directory / "machine"
    compile_state(machine, state)
    load_nvml(state)
    yield Device(
        uuids=tuple(device.uuid for device in machine.devices),
        words=f"simulated {machine.devices[0].model.name}, turns of {machine.devices[0].time_slice_us / 1000:g} ms",
        simulated=True,
        environment=environment(state),
    )


@contextlib.contextmanager
def real_device(index: int) -> Iterator[Device]:
    """The machine's own driver; card `index` by NVML."""
    with NvidiaProbe(NvidiaConfig()) as probe:
        device = next(device for device in probe.inventory().devices if device.index == index)
    yield Device(uuids=(device.uuid,), words=device.model, simulated=False, environment={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Device time that each container of a row had, nanoseconds a bin of 10 ms from the row's start."""

    bins: tuple[tuple[float, ...], ...]
    late_ms: float = 0.0
    """How late the machine woke programs meanwhile: nineteen of twenty times less."""


class Node:
    """The agent's monitor at work over the regions of the containers measured."""

    def __init__(self, device: Device, directory: Path) -> None:
        self.device = device
        tree = hook_tree(str(directory))
        tree.grants.mkdir(parents=True)
        self._store = GrantStore(tree, None)
        self._grants: list[Grant] = []
        self._client = directory / "client"
        compiler = os.environ.get("CC", "cc")
        common = [compiler, "-O2", "-Wall", "-Wextra", "-I", str(HERE.parents[1] / "interpose")]
        subprocess.run([*common, str(HERE / "client.c"), "-ldl", "-o", str(self._client)], check=True)
        self._rounds_per_us = self._calibrate()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The monitor looks while the block lasts."""
        with NvidiaProbe(NvidiaConfig()) as probe, RegionFiles(self._store) as regions:
            self._regions = regions
            monitor = Monitor(regions, lambda: self._grants, probe, NodeName("bench"))
            with anyio.from_thread.start_blocking_portal() as portal:
                looking = portal.start_task_soon(monitor.run)
                yield
                looking.cancel()

    def run(self, row: Row) -> Outcome:
        """What the row's containers had."""
        programs = sum(sharer.processes for sharer in row.sharers)
        epoch_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(START_S * (1 + programs / 8) * 1e9)
        uuid = self.device.uuids[row.device]
        started: list[list[subprocess.Popen[str]]] = []
        try:
            for number, sharer in enumerate(row.sharers):
                grant = self._grant(number, sharer, uuid)
                words = self._words(sharer, epoch_ns, row.seconds)
                started.append([self._start(grant, sharer, uuid, words) for _ in range(sharer.processes)])
            watch = [str(self._client), "late", str(epoch_ns), str(row.seconds)]
            late = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
            started.append([late])
            bins = tuple(_sum([_bins(program) for program in group]) for group in started[:-1])
            return Outcome(bins=bins, late_ms=float(late.communicate(timeout=120)[0]))
        finally:
            for program in (program for group in started for program in group):
                program.kill()
                program.wait()
            for grant in self._grants:
                self._regions.close(grant.id)
            self._grants.clear()

    def _calibrate(self) -> float:
        """Rounds of the kernel's loop in a microsecond, on the idle device."""
        command = [str(self._client), "calibrate"]
        out = subprocess.run(command, env=self._environment(0), capture_output=True, text=True, check=True, timeout=60)
        return 1e6 / float(out.stdout)

    def _environment(self, device: int) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "CUDA_VISIBLE_DEVICES": self.device.uuids[device],
            **self.device.environment,
        }

    def _grant(self, number: int, sharer: Sharer, uuid: DeviceUuid) -> Grant:
        name = f"c{number}"
        grant = Grant(
            id=new_id(),
            device_ids=frozenset({f"{uuid}-{number}"}),
            made_unix=0,
            state=State.SETTLED,
            holder=Holder(pod_uid=PodUid(name), key=PodKey("bench", name), container="main", position=0, containers=1),
            shares=(Share(uuid=uuid, kind=NVIDIA.name, memory_mib=0, cores=sharer.cores),),
        )
        self._store.create(grant)
        self._regions.ensure(grant, sharer.priority)
        self._grants.append(grant)
        return grant

    def _words(self, sharer: Sharer, epoch_ns: int, seconds: float) -> list[str]:
        load = sharer.load
        to_s = seconds if sharer.to_s is None else sharer.to_s
        rounds = max(1, round(self._rounds_per_us * load.kernel_ns / 1000))
        numbers = (load.kernel_ns, rounds, load.depth, load.graph, load.on_ms, load.off_ms)
        return [str(self._client), "run", str(epoch_ns), str(sharer.from_s), str(to_s), *map(str, numbers)]

    def _start(self, grant: Grant, sharer: Sharer, uuid: DeviceUuid, words: Sequence[str]) -> subprocess.Popen[str]:
        more = {
            "LD_PRELOAD": str(native_dir() / "libvgpu.so"),
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(self._store.region(grant.id)),
            "GPU_CORE_UTILIZATION_POLICY": sharer.policy,
        }
        if sharer.mps_percent:
            more["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(sharer.mps_percent)
        env = self._environment(self.device.uuids.index(uuid)) | more
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)


def _bins(program: subprocess.Popen[str]) -> list[float]:
    out, _ = program.communicate(timeout=120)
    if program.returncode != 0:
        raise RuntimeError(f"a program ended with {program.returncode}; its message is above")
    return [float(value) for value in json.loads(out)["bins"]]


def _sum(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    length = max(len(row) for row in rows)
    return tuple(sum(row[i] for row in rows if i < len(row)) for i in range(length))
