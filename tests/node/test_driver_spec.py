"""The vendor's device descriptions: copied for exactly the granted cards, or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hami.agent.answer import Wording
from hami.model.claim import Share
from hami.model.names import DeviceUuid
from hami.model.settings import NvidiaConfig
from hami.node.driver_spec import DriverSpecs
from hami.node.grants import Grant, GrantStore
from hami.node.installed import hook_tree
from hami.vendors.nvidia import NVIDIA

A, B = DeviceUuid("GPU-a"), DeviceUuid("GPU-b")


def spec(kind: str = "nvidia.com/gpu", **changes: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.7.0",
        "kind": kind,
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void", "LIBS=1"],
            "mounts": [{"hostPath": "/usr/lib/libcuda.so.550", "containerPath": "/usr/lib/libcuda.so.550"}],
            "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk"}],
        },
        "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
            {"name": A, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
            {"name": B, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}]}},
        ],
        **changes,
    }


def test_the_granted_cards_and_what_all_need(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(yaml.safe_dump(spec()))
    found = DriverSpecs((tmp_path,)).edits([B])
    assert found is not None
    assert found.version == "0.7.0"
    assert found.edits["deviceNodes"] == [{"path": "/dev/nvidia1"}]
    assert len(found.edits["mounts"]) == len(found.edits["hooks"]) == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "devices: 7", "kind: nvidia.com/gpu\ndevices: [3, {name: GPU-a, containerEdits: 7}]\n"],
)
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "nvidia.yaml").write_text(text)
    assert DriverSpecs((tmp_path, tmp_path / "absent")).edits([A, B]) is None


def test_all_cards_or_none(tmp_path: Path) -> None:
    (tmp_path / "nvidia.json").write_text(json.dumps(spec()))
    specs = DriverSpecs((tmp_path,))
    assert specs.edits([A, DeviceUuid("GPU-other")]) is None
    assert specs.edits([]) is None


def test_the_plug_ins_description_wins_and_changes_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a-nvidia.json").write_text(json.dumps(spec()))
    specs = DriverSpecs((tmp_path,))
    assert specs.edits([A]) is not None
    special = tmp_path / "k8s.device-plugin.nvidia.com-gpu.json"
    special.write_text(json.dumps(spec("k8s.device-plugin.nvidia.com/gpu", cdiVersion="0.8.0")))
    found = specs.edits([A])
    assert found is not None
    assert found.version == "0.8.0"
    special.write_text(json.dumps(spec("k8s.device-plugin.nvidia.com/gpu", cdiVersion="0.9.0")))
    os.utime(special, ns=(1, 1))
    found = specs.edits([A])
    assert found is not None
    assert found.version == "0.9.0"


def edits(folder: Path, driver: DriverSpecs | None) -> tuple[str, dict[str, str], dict[str, Any]]:
    wording = Wording(
        store=GrantStore(hook_tree(str(folder)), folder / "cdi"),
        vendor=NVIDIA,
        nvidia=NvidiaConfig(),
        library=folder / "lib.so",
        strategy="cdi",
        driver=driver,
    )
    shares = (Share(uuid=A, kind="NVIDIA", memory_mib=100, cores=10),)
    device = wording.edits(Grant(id="0" * 32, device_ids=frozenset(), made_unix=0, shares=shares), None)
    return device.version, dict(entry.split("=", 1) for entry in device.edits["env"]), dict(device.edits)


def test_a_described_card_needs_no_runtime(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(yaml.safe_dump(spec()))
    version, env, found = edits(tmp_path, DriverSpecs((tmp_path,)))
    assert version == "0.7.0"
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void", "the runtime would add the card a second time"
    assert env["HAMI_DEVICE_UUIDS"] == A
    assert env["LIBS"] == "1"
    assert [mount["containerPath"] for mount in found["mounts"]] == ["/usr/lib/libcuda.so.550", "/etc/ld.so.preload"]
    assert found["deviceNodes"] == [{"path": "/dev/nvidia0"}]


@pytest.mark.parametrize("described", [True, False])
def test_without_a_description_the_runtime_is_told(tmp_path: Path, described: bool) -> None:
    version, env, found = edits(tmp_path, DriverSpecs((tmp_path,)) if described else None)
    assert version == "0.5.0"
    assert env["NVIDIA_VISIBLE_DEVICES"] == A
    assert "deviceNodes" not in found
