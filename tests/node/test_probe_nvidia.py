"""The probe over the simulated NVML, through the vendor's own Python binding; each case in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = """
import dataclasses, json, sys
from pathlib import Path
import yaml
from hami.model.machine import read_machine
from hami.model.names import DeviceUuid
from hami.model.settings import NodeOverrides, NvidiaConfig
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import NvidiaProbe
from hami.node.simulated import compile_state, load_nvml

asked = yaml.safe_load(sys.stdin)
state = Path(asked["folder"], "state")
compile_state(read_machine(asked["machine"], default_name="node-1"), state)
load_nvml(state)
overrides = dict(asked["overrides"])
for key in ("hidden_uuids", "hidden_indices"):
    if key in overrides:
        overrides[key] = frozenset(overrides[key])
with NvidiaProbe(NvidiaConfig(**asked["config"]), NodeOverrides(**overrides), sysfs=None) as probe:
    before = probe.inventory()
    events = [probe.wait(asked["wait_s"])] if asked["wait_s"] else []
    after = probe.inventory()
    print(json.dumps({
        "devices": [dataclasses.asdict(device) for device in before.devices],
        "links": None if before.links is None else dict((a, dict(row)) for a, row in before.links.scores),
        "health": dict(probe.health()),
        "healthy_after": [device.healthy for device in after.devices],
        "events": events,
        "usage": {uuid: list(values) for uuid, values in probe.usage().items()},
    }))
"""


def probe(folder: Path, machine: dict[str, Any], *, wait_s: float = 0, overrides: Any = None, **config: Any) -> Any:
    asked = {
        "folder": str(folder), "machine": machine, "wait_s": wait_s, "config": config, "overrides": overrides or {}
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=yaml.safe_dump(asked),
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if not key.startswith(("HAMI_SIM", "NVIDIA_", "CUDA_"))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EIGHT = {
    "devices": [{"model": "NVIDIA A100-SXM4-80GB", "count": 8, "numa": [0, 0, 0, 0, 1, 1, 1, 1]}],
    "links": {"nvlink": "switch"},
}


def test_eight_cards_with_a_switch(tmp_path: Path) -> None:
    found = probe(tmp_path, EIGHT)
    assert [d["index"] for d in found["devices"]] == list(range(8))
    assert {(d["model"], d["memory_mib"], d["cores"], d["slots"]) for d in found["devices"]} == {
        ("NVIDIA A100-SXM4-80GB", 81920, 100, 10)
    }
    assert [d["numa"] for d in found["devices"]] == [0, 0, 0, 0, 1, 1, 1, 1]
    a, near, *_, far = (d["uuid"] for d in found["devices"])
    # Twelve links to the switches, and PCIe on one NUMA node or across sockets.
    assert found["links"][a][near] == 1220
    assert found["links"][a][far] == 1210
    assert a not in found["links"][a]
    assert found["health"] == {}
    assert found["usage"][a][0] >= 0


def test_direct_links(tmp_path: Path) -> None:
    machine = {"devices": [{"model": "Tesla V100-SXM2-16GB", "count": 3}], "links": {"nvlink": {"pairs": [[0, 1, 2]]}}}
    found = probe(tmp_path, machine)
    a, b, c = (d["uuid"] for d in found["devices"])
    assert found["links"][a][b] - found["links"][a][c] == 200
    assert {d["model"] for d in found["devices"]} == {"NVIDIA-Tesla V100-SXM2-16GB"}


def test_scaling_and_split(tmp_path: Path) -> None:
    machine = {"devices": [{"model": "Tesla T4", "count": 1, "memory_mib": 15109}]}
    found = probe(tmp_path, machine, device_memory_scaling=1.5, device_core_scaling=1.25, device_split_count=4)
    (card,) = found["devices"]
    assert (card["memory_mib"], card["cores"], card["slots"]) == (22663, 125, 4)
    assert found["links"] is None


@pytest.mark.parametrize("overrides", [{"hidden_indices": [1]}, {"hidden_indices": [0], "device_split_count": 3}])
def test_hidden_cards_keep_the_others_indices(tmp_path: Path, overrides: dict[str, Any]) -> None:
    machine = {"devices": [{"model": "Tesla T4", "count": 3}]}
    found = probe(tmp_path, machine, overrides=overrides)
    assert [d["index"] for d in found["devices"]] == [i for i in range(3) if i not in overrides["hidden_indices"]]
    assert {d["slots"] for d in found["devices"]} == {overrides.get("device_split_count", 10)}


def test_an_xid_error_makes_a_card_unhealthy(tmp_path: Path) -> None:
    machine = {
        "devices": [{"model": "Tesla T4", "count": 2}],
        "faults": [{"device": 1, "xid": 79, "after_s": 0.5}],
    }
    found = probe(tmp_path, machine, wait_s=5)
    assert found["events"] == [True]
    assert found["healthy_after"] == [True, False]
    assert list(found["health"].values()) == ["Xid 79"]


def test_an_error_of_a_program_does_not(tmp_path: Path) -> None:
    machine = {
        "devices": [{"model": "Tesla T4", "count": 2}],
        "faults": [{"device": 1, "xid": 31, "after_s": 0.5}],
    }
    found = probe(tmp_path, machine, wait_s=5)
    assert found["events"] == [False]
    assert found["healthy_after"] == [True, True]
