"""The description of a simulated machine: what it fills in, and how it names what it refuses."""

import re
from typing import Any

import pytest

from hami.model.machine import MAX_DEVICES, derived_uuid, read_machine
from hami.model.names import WireError

A100 = "NVIDIA A100-SXM4-80GB"


def machine(**root: Any) -> Any:
    return read_machine({"devices": [{"model": A100}], **root}, "node-1")


def device(**values: Any) -> Any:
    return machine(devices=[{"model": A100, **values}]).devices[0]


def test_a_known_model_fills_in_what_is_not_said() -> None:
    one = machine()
    assert (one.name, one.driver_version, one.cuda_version) == ("node-1", "550.90.07", 12040)
    (only,) = one.devices
    assert (only.memory_mib, only.sm_count, only.capability, only.numa) == (81920, 108, (8, 0), 0)
    assert (only.context_mib, only.time_slice_us, only.side_by_side, only.mig) == (300, 2000, False, False)
    assert (only.switch_links, only.peer_links) == (0, (0,))


def test_uuids_follow_name_and_index() -> None:
    named = read_machine({"name": "a", "devices": [{"model": A100, "count": 3}]}, "ignored")
    assert [d.uuid for d in named.devices] == [derived_uuid("a", n) for n in range(3)]
    assert all(re.fullmatch(r"GPU(-[0-9a-f]+){5}", d.uuid) and len(d.uuid) == 40 for d in named.devices)
    other = read_machine({"devices": [{"model": A100}]}, "b").devices[0].uuid
    assert other == derived_uuid("b", 0) != derived_uuid("a", 0)


def test_lists_give_each_device_its_own_value() -> None:
    group = {
        "model": A100,
        "count": 2,
        "numa": [0, 1],
        "memory_mib": [1000, 2000],
        "uuid": [None, derived_uuid("x", 9)],
    }
    first, second = machine(devices=[group]).devices
    assert (first.numa, first.memory_mib, first.uuid) == (0, 1000, derived_uuid("node-1", 0))
    assert (second.numa, second.memory_mib, second.uuid) == (1, 2000, derived_uuid("x", 9))


def test_groups_follow_each_other() -> None:
    names = [d.model.name for d in machine(devices=[{"model": A100, "count": 2}, {"model": "Tesla T4"}]).devices]
    assert names == [A100, A100, "Tesla T4"]


def test_an_unknown_model_says_what_a_known_one_fills_in() -> None:
    made_up = device(model="Acme 1", memory_mib=100, sm_count=2, compute_capability=9.0, context_mib=1)
    assert (made_up.model.name, made_up.memory_mib, made_up.sm_count, made_up.capability) == ("Acme 1", 100, 2, (9, 0))


def test_links_by_switch_and_by_pair() -> None:
    eight = [{"model": A100, "count": 3}]
    assert [d.switch_links for d in machine(devices=eight, links={"nvlink": "switch"}).devices] == [12, 12, 12]
    pairs = machine(devices=eight, links={"pairs": [[0, 1, 4], [1, 2, 2]]}).devices
    assert [d.peer_links for d in pairs] == [(0, 4, 0), (4, 0, 2), (0, 2, 0)]
    assert [d.peer_links for d in machine(devices=eight, links={"nvlink": {"pairs": [[0, 2, 1]]}}).devices] == [
        (0, 0, 1),
        (0, 0, 0),
        (1, 0, 0),
    ]


def test_faults() -> None:
    rows = [
        {"call": "cuMemAlloc_v2", "nth": 3, "result": "CUDA_ERROR_OUT_OF_MEMORY"},
        {"call": "cuInit", "delay_ms": 500},
        {"device": 0, "xid": 79, "after_s": 0.5},
        {"call": "cuMemCreate", "absent": True},
        {"call": "nvmlInit_v2", "result": 9, "crash": False},
    ]
    oom, slow, xid, absent, number = machine(faults=rows).faults
    assert (oom.call, oom.nth, oom.result) == ("cuMemAlloc_v2", 3, 2)
    assert (slow.delay_ms, slow.result) == (500, None)
    assert (xid.call, xid.device, xid.xid, xid.after_s) == ("", 0, 79, 0.5)
    assert absent.absent
    assert number.result == 9


@pytest.mark.parametrize(
    ("root", "field"),
    [
        ({"devices": []}, "machine.devices"),
        ({"devices": {"model": A100}}, "machine.devices"),
        ({"devices": [{}]}, "machine.devices[0].model"),
        ({"devices": [{"model": 3}]}, "machine.devices[0].model"),
        ({"devices": [{"model": "Acme 1", "sm_count": 1}]}, "machine.devices[0].model"),
        ({"devices": [{"model": A100, "colour": "red"}]}, "machine.devices[0].colour"),
        ({"devices": [{"model": A100, "count": MAX_DEVICES + 1}]}, "machine.devices[0].count"),
        ({"devices": [{"model": A100, "count": 16}, {"model": A100}]}, "machine.devices"),
        ({"devices": [{"model": A100, "count": 2, "numa": [0]}]}, "machine.devices[0].numa"),
        ({"devices": [{"model": A100, "memory_mib": "80Gi"}]}, "machine.devices[0].memory_mib"),
        ({"devices": [{"model": A100, "memory_mib": 10**30}]}, "machine.devices[0].memory_mib"),
        ({"devices": [{"model": A100, "sm_count": True}]}, "machine.devices[0].sm_count"),
        ({"devices": [{"model": A100, "compute_capability": "8"}]}, "machine.devices[0].compute_capability"),
        ({"devices": [{"model": A100, "uuid": "GPU-1"}]}, "machine.devices[0].uuid"),
        ({"devices": [{"model": A100, "count": 2, "uuid": derived_uuid("x", 0)}]}, "machine.devices"),
        ({"devices": [{"model": A100, "mig": True}]}, "machine.devices[0].mig"),
        ({"devices": [{"model": "Tesla T4", "mig": "enabled"}]}, "machine.devices[0].mig"),
        ({"devices": [{"model": A100, "context_mib": 99999}]}, "machine.devices[0].context_mib"),
        ({"devices": [{"model": A100, "sharing": "magic"}]}, "machine.devices[0].sharing"),
        ({"driver": {"cuda": 12.4}}, "machine.driver.cuda"),
        ({"driver": {"cuda": "twelve"}}, "machine.driver.cuda"),
        ({"driver": {"version": "1" * 40}}, "machine.driver.version"),
        ({"name": "n" * 64}, "machine.name"),
        ({"name": "a\0b"}, "machine.name"),
        ({"links": {"nvlink": "wifi"}}, "machine.links.nvlink"),
        ({"links": {"pairs": [[0, 1, 1]]}}, "machine.links.pairs[0]"),
        ({"links": {"pairs": [[0, 0, 1]]}}, "machine.links.pairs[0]"),
        ({"cgroups": "tmp"}, "machine.cgroups"),
        ({"faults": [{"call": "rm -rf"}]}, "machine.faults[0].call"),
        ({"faults": [{"call": "cuInit", "result": "CUDA_ERROR_NONE"}]}, "machine.faults[0].result"),
        ({"faults": [{"device": 1, "xid": 79}]}, "machine.faults[0].device"),
        ({"faults": [{"device": 0, "xid": 79, "after_s": -1}]}, "machine.faults[0].after_s"),
        ({"faults": [{"call": "cuInit"}] * 33}, "machine.faults"),
        ({"machine": 1}, "machine.machine"),
        ({1: 2}, "machine"),
    ],
)
def test_what_cannot_be_meant_is_named(root: dict[Any, Any], field: str) -> None:
    with pytest.raises(WireError) as refused:
        read_machine({"devices": [{"model": A100}], **root}, "node-1")
    assert refused.value.field == field


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_that_is_no_mapping(document: object) -> None:
    with pytest.raises(WireError) as refused:
        read_machine(document, "node-1")
    assert refused.value.field == "machine"
