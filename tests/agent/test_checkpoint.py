"""The kubelet's checkpoint: what is understood is used, whatever else stands in it."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from hami.agent.checkpoint import FILE_NAME, CheckpointEntry, read_checkpoint, read_checkpoint_file
from hami.agent.pb.deviceplugin_pb2 import ContainerAllocateResponse, Mount
from hami.model.names import PodUid, WireError

GPU = "nvidia.com/gpu"
GRANT = "0123456789abcdef0123456789abcdef"


def answer(grant: str = GRANT) -> str:
    mount = Mount(container_path="/etc/hami", host_path=f"/usr/local/vgpu/grants/{grant}/etc", read_only=True)
    return base64.b64encode(ContainerAllocateResponse(mounts=[mount]).SerializeToString()).decode()


def entry(**changes: Any) -> dict[str, Any]:
    whole = {
        "PodUID": "u1",
        "ContainerName": "main",
        "ResourceName": GPU,
        "DeviceIDs": {"-1": ["GPU-a-0"], "1": ["GPU-b-3"]},
        "AllocResp": answer(),
    }
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def checkpoint(*entries: Any) -> bytes:
    return json.dumps({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {GPU: []}}, "Checksum": 7}).encode()


def test_an_entry_leads_from_the_grant_to_the_container() -> None:
    assert read_checkpoint(checkpoint(entry(), entry(ResourceName="other.com/nic")), GPU) == (
        CheckpointEntry(
            pod_uid=PodUid("u1"),
            container="main",
            device_ids=frozenset({"GPU-a-0", "GPU-b-3"}),
            answer=base64.b64decode(answer()),
            grant=GRANT,
        ),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"AllocResp": None},
        {"AllocResp": ...},
        {"AllocResp": "not base64!"},
        {"AllocResp": base64.b64encode(b"some other plug-in's answer").decode()},
        {"AllocResp": answer("short")},
    ],
    ids=str,
)
def test_an_answer_that_is_not_ours(changes: dict[str, Any]) -> None:
    (found,) = read_checkpoint(checkpoint(entry(**changes)), GPU)
    assert found.grant is None


def test_ids_as_a_plain_list() -> None:
    (found,) = read_checkpoint(checkpoint(entry(DeviceIDs=["GPU-a-0", 7])), GPU)
    assert found.device_ids == {"GPU-a-0"}


@pytest.mark.parametrize("broken", [7, None, [], {"PodUID": 3, "ContainerName": "x", "ResourceName": GPU}], ids=str)
def test_a_broken_entry_costs_itself_alone(broken: Any) -> None:
    assert len(read_checkpoint(checkpoint(broken, entry()), GPU)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"Data": 3}', '{"Data": {"PodDeviceEntries": 3}}'])
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(WireError) as caught:
        read_checkpoint(text.encode(), GPU)
    assert caught.value.field.startswith(FILE_NAME)


def test_before_the_first_device(tmp_path: Path) -> None:
    assert read_checkpoint(b'{"Data": {"PodDeviceEntries": null}}', GPU) == ()
    assert read_checkpoint_file(tmp_path, GPU) == ()
