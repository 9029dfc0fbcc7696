"""Kill `hami run` at every step it takes, and look at what is left. Started by test_crash.py as

    killed_at_every_step.py DIRECTORY STATE MODE

where MODE is `run` (it would be granted) or `wait` (it would queue). A step is an operation that Python announces to
audit hooks: opening, renaming, removing, locking, executing. Prints one JSON object: `steps`, how many were tried, and
`left`, what lay in the directory after the next program had looked, for the steps where that was not nothing.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hami.local.ask import Ask
from hami.local.directory import listing
from hami.local.machine import Machine
from hami.local.run import run
from hami.model.claim import Mib, Percent
from hami.model.settings import DEFAULT_DEVICE_CONFIG
from hami.node.probe_nvidia import NvidiaProbe
from hami.node.simulated import load_nvml, native_dir
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

MOST = 400
WAITED_S = 0.4
"""Enough for a slow machine to take all steps; less than a waiter's pause (`queue.CHECK_S`), which more follow."""


def die_at(step: int) -> None:
    seen = 0

    def count(event: str, _: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open" or event.startswith(("os.", "fcntl.", "shutil.")):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def child(step: int, machine: Machine, ask: Ask, wait: bool) -> int:
    """Fork one that dies at `step`; its wait status, or 0 when it went on waiting."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        die_at(step)
        os._exit(run(["true"], ask, machine, wait=wait))
    deadline = time.monotonic() + WAITED_S if wait else float("inf")
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 0


def main(directory: Path, state: Path, mode: str) -> None:
    load_nvml(state)
    with NvidiaProbe(DEFAULT_DEVICE_CONFIG.nvidia, sysfs=None) as probe:
        machine = Machine(
            inventory=probe.inventory(),
            vendor=registry(DEFAULT_DEVICE_CONFIG)[NVIDIA.name],
            directory=directory,
            library=native_dir() / "libvgpu.so",
            additions={},
            simulated=True,
        )
    everything = Ask(gpus=len(machine.inventory.devices), memory=Percent(100), cores=100, policy="spread")
    little = Ask(gpus=1, memory=Mib(10), cores=0, policy="spread")
    holder = 0
    if mode == "wait":
        holder = os.fork()
        if holder == 0:
            os._exit(run(["sleep", "60"], everything, machine, wait=False))
        while not listing(directory).running:
            time.sleep(0.01)
    kept = {"lock", *(path.name for path in directory.iterdir())}
    left: dict[int, list[str]] = {}
    step, status = 0, 1
    while status and step < MOST:
        step += 1
        status = child(step, machine, little if mode == "wait" else everything, mode == "wait")
        listing(directory)
        rest = sorted(path.name for path in directory.iterdir() if path.name not in kept)
        if rest:
            left[step] = rest
    if holder:
        os.kill(holder, signal.SIGKILL)
    print(json.dumps({"steps": step, "left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
