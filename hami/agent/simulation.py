"""The simulated machine behind `--simulate`: one state file a node and description, shared by agent and containers."""

import fcntl
import hashlib
from pathlib import Path
from typing import Any

import orjson

from hami.model.machine import read_machine
from hami.node.installed import HookTree
from hami.node.simulated import compile_state, load_nvml


def simulated_machine(description: Any, node_name: str, tree: HookTree) -> Path:
    """The machine's state, made if it is not there yet, with its NVML loaded into this process.

    An agent that starts again finds the same description and so the same file: programs in containers have it mapped,
    and a new one would be another machine. Raises WireError for a description that cannot be meant.
    """
    machine = read_machine(description, default_name=node_name)
    digest = hashlib.sha256(orjson.dumps([node_name, description], default=str)).hexdigest()[:16]
    state = tree.vgpu / f"simulated-{digest}.state"
    tree.vgpu.mkdir(parents=True, exist_ok=True)
    with (tree.vgpu / ".simulated.lock").open("w") as lock:
        # Plug-in and monitor start at the same time and must mean the same machine.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            compile_state(machine, state)
    load_nvml(state)
    return state
