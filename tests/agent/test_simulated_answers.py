"""What containers get of simulated devices: each vendor's environment and files, as far as they are public."""

import json
from dataclasses import replace

import pytest

from hami.agent.family_answer import Answer, Given, consumed
from hami.agent.simulated_answers import TOLD, answer
from hami.model.claim import Share
from hami.model.device import Device
from hami.model.names import DeviceUuid
from hami.model.vendor import Vendor
from tests.agent.families import EVERY

BY_NAME: dict[str, Vendor] = {vendor.name: vendor for vendor in EVERY}


def device(index: int, *, memory_mib: int = 65536, cores: int = 100, slots: int = 4) -> Device:
    return Device(
        uuid=DeviceUuid(f"dev-{index}"), index=index, slots=slots, memory_mib=memory_mib, cores=cores, model="x"
    )


def given(name: str, *shares: Share, notes: dict[str, str] | None = None, slots: int = 4, **units: list[int]) -> Answer:
    vendor: Vendor = BY_NAME[name]
    devices = {one.uuid: one for one in (device(i, slots=slots) for i in range(4))}
    return answer(
        Given(
            vendor=vendor,
            shares=shares,
            devices=devices,
            notes=notes or {},
            folder="/node/c",
            units={DeviceUuid(uuid.replace("_", "-")): chosen for uuid, chosen in units.items()},
        )
    )


def share(index: int, memory_mib: int = 4096, cores: int = 25) -> Share:
    return Share(uuid=DeviceUuid(f"dev-{index}"), kind="x", memory_mib=memory_mib, cores=cores)


@pytest.mark.parametrize("vendor", EVERY, ids=lambda vendor: vendor.name)
def test_every_container_is_told_its_devices(vendor: Vendor) -> None:
    assert given(vendor.name, share(2), share(3, 1, 2)).env[TOLD] == "dev-2,4096,25;dev-3,1,2"


def test_a_share_of_a_hygon_card_is_a_file_with_two_masks() -> None:
    found = given("DCU", share(1), dev_1=[30, 63, 64, 65])
    (mount,) = found.mounts
    assert (mount.container, mount.host, mount.read_only) == ("/etc/vdev/docker/", "/node/c", True)
    assert found.files["/node/c/vdev0.conf"].splitlines() == [
        "PciBusId: 0000:02:00.0",
        "cu_mask: 0x8000000040000000",
        "cu_mask: 0x0000000000000003",
        "cu_count: 4",
        "mem: 4096 MiB",
        "device_id: 1",
        "vdev_id: 0",
        "pipe_id: 10",
        "enable: 1",
    ]


@pytest.mark.parametrize("shares", [[share(0, 65536, 100)], [share(0), share(1)]], ids=["whole", "two"])
def test_whole_hygon_cards_need_no_file(shares: list[Share]) -> None:
    found = given("DCU", *shares)
    assert (found.mounts, found.files) == ((), {})


def test_amd_names_units_device_by_device() -> None:
    env = given("AMD", share(0), share(2), dev_0=[0, 1, 2, 5], dev_2=[7]).env
    assert env["ROCR_VISIBLE_DEVICES"] == "dev-0,dev-2"
    assert env["HSA_CU_MASK"] == "0:0-2,5-5;1:7-7"
    assert env["HIP_DEVICE_MEMORY_LIMIT"] == "4096m"


def test_an_ascend_template_and_the_soft_mode() -> None:
    listed = json.dumps([{"UUID": "dev-3", "temp": "vir05_1c_16g", "memory": 16384}])
    hard = given("Ascend910B3", share(3, 16384, 0), notes={"huawei.com/Ascend910B3": listed})
    assert hard.env == {
        "ASCEND_VISIBLE_DEVICES": "3",
        "ASCEND_VNPU_SPECS": "vir05_1c_16g",
        TOLD: "dev-3,16384,0",
    }
    whole = given("Ascend910B3", share(3), notes={"huawei.com/Ascend910B3": '[{"UUID":"dev-3","memory":65536}]'})
    assert "ASCEND_VNPU_SPECS" not in whole.env
    soft = given("Ascend910B3", share(1, 1000, 30), notes={"huawei.com/vnpu-mode": "hami-core"})
    assert (soft.env["NPU_MEM_QUOTA"], soft.env["NPU_PRIORITY"]) == ("1000", "30")
    assert soft.env["NPU_GLOBAL_SHM_PATH"] == "/hami-shared-region/1_global_registry"
    assert [(mount.container, mount.read_only) for mount in soft.mounts] == [("/hami-shared-region", False)]


def test_neuron_devices_by_index_and_cores_through_all_devices() -> None:
    assert given("AWSNeuron", share(1, 0, 2)).env["AWS_NEURON_VISIBLE_DEVICES"] == "1"
    one = replace(share(1, 0, 1), units=0b10)
    found = given("AWSNeuron", one, notes={"NEURON_RESOURCE_TYPE": "aws.amazon.com/neuroncore"}, slots=2)
    assert found.env == {"NEURON_RT_VISIBLE_CORES": "3", TOLD: "dev-1,0,2"}


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("Mthreads", "MTHREADS_VISIBLE_DEVICES"),
        ("GCU", "ENFLAME_VISIBLE_DEVICES"),
        ("Enflame", "ENFLAME_VISIBLE_DEVICES"),
        ("kunlun", "XPU_VISIBLE_DEVICES"),
    ],
)
def test_runtimes_that_take_indices(name: str, variable: str) -> None:
    assert given(name, share(2), share(0)).env[variable] == "2,0"


def test_marks_that_wait_for_a_plug_in_are_taken() -> None:
    waiting = {"CAMBRICON_DSMLU_ASSIGNED": "false", "other": "false"}
    assert consumed(BY_NAME["MLU"], waiting, "main", last=True) == {"CAMBRICON_DSMLU_ASSIGNED": "true"}
    assert consumed(BY_NAME["MLU"], waiting, "main", last=False) == {}
    entries = {"a": {"allocated": False, "request": 2}, "b": {"allocated": False, "request": 1}}
    marks = consumed(BY_NAME["Enflame"], {"assigned-containers": json.dumps(entries)}, "b", last=False)
    assert json.loads(marks["assigned-containers"]) == {**entries, "b": {"allocated": True, "request": 1}}
