"""Admission against what the reference answered: the whole verdict, and the pod after the patch.

Covers `admit` with quotas and running pods. Not covered: the HTTP and AdmissionReview layers around it.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hami.alloc.admit import Admission, admit
from hami.alloc.quota import Amounts, Quotas, peak
from hami.alloc.record import read_pod
from hami.model.names import VendorWord
from hami.model.quantity import parse_quantity
from hami.model.settings import SchedulerSettings, read_device_config
from hami.model.vendor import Registry, Resources, Vendor
from hami.vendors import registry
from tests.alloc.jsonpatch import apply_patch

DATA = Path(__file__).parent / "data"

# Families that occur in these records beside NVIDIA, as far as admission needs them: names and the unit of memory.
OTHERS = (
    Vendor(
        name=VendorWord("MLU"),
        config_section="cambricon",
        resources=Resources(
            count="cambricon.com/vmlu", memory="cambricon.com/mlu.smlu.vmemory", cores="cambricon.com/mlu.smlu.vcore"
        ),
        node_key="",
        pending_key="hami.io/cambricon-mlu-devices-to-allocate",
        done_key="hami.io/cambricon-mlu-devices-allocated",
        default_count=0,
        memory_factor=256,
    ),
    Vendor(
        name=VendorWord("DCU"),
        config_section="hygon",
        resources=Resources(count="hygon.com/dcunum", memory="hygon.com/dcumem", cores="hygon.com/dcucores"),
        node_key="hami.io/node-dcu-register",
        pending_key="hami.io/dcu-devices-to-allocate",
        done_key="hami.io/dcu-devices-allocated",
    ),
)


def records() -> list[dict[str, Any]]:
    lines = [line for name in ("nvidia", "admission") for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    return [record for record in map(json.loads, lines) if record["kind"] == "webhook"]


def judge(record: dict[str, Any]) -> Admission:
    return judge_with(record, with_others(registry(read_device_config(record["config"]["devices"]))))


def judge_with(record: dict[str, Any], families: Registry) -> Admission:
    flags = record["config"]["flags"]
    namespace = record["pod"]["metadata"]["namespace"]
    quotas = Quotas(families)
    for name, hard in (record.get("quotas") or {}).items():
        assert not quotas.put({"metadata": {"namespace": namespace, "name": name}, "spec": {"hard": hard}})
    return admit(
        record["pod"],
        registry=families,
        settings=SchedulerSettings(
            scheduler_name=flags["scheduler-name"],
            force_overwrite_default_scheduler=flags.get("force-overwrite-default-scheduler", "true") == "true",
        ),
        namespace=namespace,
        username="somebody",
        quotas=quotas,
        used=used(record, families),
    )


def with_others(base: Registry) -> Registry:
    named = {vendor.name for vendor in base}
    return Registry((*base, *(vendor for vendor in OTHERS if vendor.name not in named)))


def used(record: dict[str, Any], families: Registry) -> dict[VendorWord, Amounts]:
    totals: dict[VendorWord, Amounts] = {}
    for document in record.get("existing") or ():
        pod, problems = read_pod(document, families)
        assert pod is not None
        assert not problems
        for name, segments in pod.segments.items():
            parts = list(zip(pod.roles, segments, strict=True))
            memory = peak((role, sum(share.memory_mib for share in segment)) for role, segment in parts)
            cores = peak((role, sum(share.cores for share in segment)) for role, segment in parts)
            before = totals.get(name, (0, 0))
            totals[name] = before[0] + memory, before[1] + cores
    return totals


def by_value(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod with every quantity as its exact value."""
    pod = copy.deepcopy(pod)
    for container in resource_holders(pod):
        for amounts in (container.get("resources") or {}).values():
            for name, value in amounts.items():
                amounts[name] = parse_quantity(value, name)
    return pod


def resource_holders(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield pod["spec"]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod["spec"].get(kind) or ()


TAKEN_OVER = [{"op": "add", "path": "/spec/schedulerName", "value": "hami-scheduler"}]
COUNT = "resources.limits[nvidia.com/gpu]"
# Record -> (verdict, what the message names or None, the exact patch). After each: why the reference is wrong.
DEFECTS: dict[str, tuple[bool, str | None, list[dict[str, Any]]]] = {
    # Half a device cannot be had; placed nowhere later, so the author is told now.
    "nvw-w-016": (False, f"spec.containers[0].{COUNT}", []),
    # Nor can less than none.
    "nvw-w-017": (False, f"spec.containers[0].{COUNT}", []),
    # The same for another family.
    "adm-w-038": (False, "spec.containers[0].resources.limits[cambricon.com/vmlu]", []),
    # Fields newer than the program are the author's: only the scheduler's name changes.
    "nvw-w-052": (True, None, TAKEN_OVER),
    "adm-w-041": (True, None, TAKEN_OVER),
    # A pod without devices is none of our business, unknown field or not.
    "nvw-w-053": (True, None, []),
    # Not a pod we take over (the amounts stand in requests only), so its quota is not ours to judge either.
    "adm-w-049": (True, None, []),
    # Every quota of a namespace holds, not the one written last.
    "adm-w-053": (False, "exceeding resource quota", []),
}


@pytest.mark.parametrize("record", [r for r in records() if "defect" not in r], ids=lambda r: f"{r['id']}")
def test_same_verdict_and_same_pod(record: dict[str, Any]) -> None:
    verdict, got = judge(record), record["got"]
    assert verdict.allowed == got["allowed"], verdict.message
    assert verdict.code == got["code"]
    if record["id"] == "adm-w-044":
        # The reference quotes a regular expression; ours names the field.
        assert "spec.containers[0].resources.limits[nvidia.com/gpu]: expected a Kubernetes quantity" in verdict.message
    else:
        assert got["message"] in verdict.message
        assert bool(got["message"]) == bool(verdict.message)
    if got["allowed"]:
        # The recorded pod lacks fields that its program does not know, so the patched original is put beside it.
        assert by_value(apply_patch(record["pod"], verdict.patch)) == by_value(got["pod"])
    else:
        assert verdict.patch == []


@pytest.mark.parametrize("record", [r for r in records() if "defect" in r], ids=lambda r: f"{r['id']}")
def test_right_where_the_reference_is_wrong(record: dict[str, Any]) -> None:
    allowed, named, patch = DEFECTS[record["id"]]
    verdict = judge(record)
    assert verdict.allowed is allowed
    assert verdict.patch == patch
    if named:
        assert named in verdict.message
    assert verdict.code == (200 if allowed else 403)


def test_every_defect_entry_is_used() -> None:
    assert set(DEFECTS) == {record["id"] for record in records() if "defect" in record}


@pytest.mark.parametrize("record", records(), ids=lambda r: f"{r['id']}")
def test_the_patch_is_minimal(record: dict[str, Any]) -> None:
    """Nothing is written that was there already, and what comes out needs no second pass."""
    verdict = judge(record)
    if not verdict.allowed:
        return
    patched = apply_patch(record["pod"], verdict.patch)
    for op in verdict.patch:
        if not op["path"].endswith("/env/-"):
            assert apply_patch(record["pod"], [other for other in verdict.patch if other is not op]) != patched
    settled = judge({**record, "pod": patched})
    assert [op for op in settled.patch if "/env" not in op["path"]] == []


def test_an_untouched_document() -> None:
    """Judging never changes the document it is given."""
    for record in records():
        before = copy.deepcopy(record["pod"])
        judge(record)
        assert record["pod"] == before


def test_records_are_there() -> None:
    assert len(records()) > 90
