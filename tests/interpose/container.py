"""A container as its programs see it: the library preloaded, a region with limits, a simulated machine beneath."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hami.node._region import Region
from hami.node.simulated import native_dir
from tests.interpose.simulation import Simulation

LIBRARY = native_dir() / "libvgpu.so"
PROBE = native_dir() / "sim" / "gpuprobe"


class Container:
    """One container on a machine; several containers may share the machine."""

    def __init__(
        self,
        directory: Path,
        machine: Simulation,
        *,
        devices: Sequence[int] = (0,),
        memory_mib: int = 0,
        cores: int = 0,
        **more: str,
    ) -> None:
        self.region_path = directory / "region.cache"
        directory.mkdir(exist_ok=True)
        uuids = [machine.uuids[i] for i in devices]
        self.region = Region.create(
            self.region_path, uuids, [memory_mib << 20] * len(uuids), [cores] * len(uuids), priority=1
        )
        for i, device in enumerate(devices):
            self.region.expect_context(i, machine.machine.devices[device].context_mib << 20)
        self.environment = {
            "PATH": os.environ["PATH"],
            **machine.environment(),
            "LD_PRELOAD": str(LIBRARY),
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(self.region_path),
            "NVIDIA_VISIBLE_DEVICES": ",".join(uuids),
            **more,
        }

    def start(self, *words: str | int | float) -> "Probe":
        """A `gpuprobe` with these commands, running."""
        return Probe(words, self.environment)

    def run(self, *words: str | int | float) -> list[Any]:
        """What the commands say."""
        return self.start(*words).answers()


class Probe:
    """A running `gpuprobe`."""

    def __init__(self, words: Sequence[str | int | float], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(PROBE), *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answers(self) -> list[Any]:
        """Its JSON lines; it must end well and print nothing else."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, out + err
        assert err == ""
        return [json.loads(line) for line in out.splitlines()]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)
