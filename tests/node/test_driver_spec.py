"""The vendor's device descriptions: copied for exactly the granted cards, or not at all."""

import json
import os
from collections.abc import Sequence
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


CAP_HOOK = {
    "hookName": "createRuntime",
    "path": "/usr/bin/nvidia-ctk",
    "args": ["nvidia-ctk", "hook", "apply-cuda-memory-limits", "--driver-root", "", "--gpu-id", str(A)],
}


class Driver:
    """A driver that can hold what the test says."""

    def __init__(self, can: bool) -> None:
        self.can = can

    def can_hold(self, shares: Sequence[Share]) -> bool:
        return self.can


def share(uuid: DeviceUuid, memory_mib: int = 3000) -> Share:
    return Share(uuid=uuid, kind="NVIDIA", memory_mib=memory_mib, cores=0)


@pytest.mark.parametrize(
    ("hooks", "can", "shares", "capped"),
    [
        pytest.param([CAP_HOOK], True, (share(A),), True, id="hook and driver"),
        pytest.param([CAP_HOOK], True, (share(A), share(B)), True, id="equal amounts"),
        pytest.param([CAP_HOOK], True, (share(A), share(B, 1)), False, id="amounts that differ"),
        pytest.param([CAP_HOOK], False, (share(A),), False, id="a driver that cannot"),
        pytest.param([], True, (share(A),), False, id="a toolkit without the hook"),
        pytest.param([{"hookName": "x", "path": "y"}], True, (share(A),), False, id="another hook"),
    ],
)
def test_the_vendors_hook_is_given_an_amount_only_where_it_can_act_on_it(
    tmp_path: Path, hooks: list[Any], can: bool, shares: tuple[Share, ...], capped: bool
) -> None:
    """A driver that cannot do it would make the container's start fail."""
    (tmp_path / "nvidia.yaml").write_text(yaml.safe_dump(spec(containerEdits={"hooks": hooks})))
    wording = wording_in(tmp_path, Driver(can))
    grant = Grant(id="0" * 32, device_ids=frozenset(), made_unix=0, shares=shares)
    env = dict(entry.split("=", 1) for entry in wording.edits(grant, None).edits["env"])
    assert env.get("NVIDIA_GPU_MEMORY_LIMIT") == ("3000" if capped else None)
    assert env.get("NVIDIA_GPU_MEMORY_REQUEST") == ("0" if capped else None)
    assert wording.enforcer(grant) == ("driver" if capped else "library")
    assert "NVIDIA_GPU_MEMORY_LIMIT" not in wording.allocate(grant, preload=True).envs


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


def wording_in(folder: Path, caps: Driver | None, *, described: bool = True) -> Wording:
    return Wording(
        store=GrantStore(hook_tree(str(folder)), folder / "cdi"),
        vendor=NVIDIA,
        nvidia=NvidiaConfig(),
        library=folder / "lib.so",
        strategy="cdi",
        driver=DriverSpecs((folder,)) if described else None,
        caps=caps,
    )


def edits(folder: Path, *, described: bool = True) -> tuple[str, dict[str, str], dict[str, Any]]:
    wording = wording_in(folder, None, described=described)
    shares = (Share(uuid=A, kind="NVIDIA", memory_mib=100, cores=10),)
    device = wording.edits(Grant(id="0" * 32, device_ids=frozenset(), made_unix=0, shares=shares), None)
    return device.version, dict(entry.split("=", 1) for entry in device.edits["env"]), dict(device.edits)


def test_a_described_card_needs_no_runtime(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(yaml.safe_dump(spec()))
    version, env, found = edits(tmp_path)
    assert version == "0.7.0"
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void", "the runtime would add the card a second time"
    assert env["HAMI_DEVICE_UUIDS"] == A
    assert env["LIBS"] == "1"
    assert [mount["containerPath"] for mount in found["mounts"]] == ["/usr/lib/libcuda.so.550", "/etc/ld.so.preload"]
    assert found["deviceNodes"] == [{"path": "/dev/nvidia0"}]


@pytest.mark.parametrize("described", [True, False])
def test_without_a_description_the_runtime_is_told(tmp_path: Path, described: bool) -> None:
    version, env, found = edits(tmp_path, described=described)
    assert version == "0.5.0"
    assert env["NVIDIA_VISIBLE_DEVICES"] == A
    assert "deviceNodes" not in found
