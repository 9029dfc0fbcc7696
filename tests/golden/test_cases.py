"""Every family's cases by hand: admitted, placed, bound, and read back as after a restart (`cases/README.md`)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from hami.alloc.admit import admit
from hami.model.names import VendorWord
from hami.model.settings import SchedulerSettings
from hami.model.vendor import Vendor
from hami.model.wire import pod as keys
from hami.vendors import ALL, registry
from tests.alloc.jsonpatch import apply_patch
from tests.golden.test_filter import World

FOLDER = Path(__file__).parent / "cases"
FAMILIES = registry(ascend=True, iluvatar=True)
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
CASES = [
    pytest.param(file, case, id=f"{name}: {case['pod']}") for name, file in FILES.items() for case in file["cases"]
]
Json = dict[str, Any]


def vendor_of(file: Json) -> Vendor:
    return FAMILIES[VendorWord(file["family"])]


def described(name: str, node: Json, vendor: Vendor) -> Json:
    """A node object's parts as the family's plug-in leaves them."""
    notes = dict(node.get("annotations") or {})
    count = node.get("cards", 0)
    if count:
        cards = [dict(node["card"]) | {"index": i} | (node.get("each") or {}).get(i, {}) for i in range(count)]
        notes[vendor.node_key] = [
            {key: value.format(card["index"]) if isinstance(value, str) else value for key, value in card.items()}
            for card in cards
        ]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in notes.items()}
    amounts = {key: str(value) for key, value in (node.get("capacity") or {}).items()}
    capacity = amounts or {vendor.resources.count: str(100 * max(1, count))}
    return {"name": name, "annotations": texts, "labels": node.get("labels") or {}, "capacity": capacity}


def allocation(file: Json, node: str, told: Any) -> str:
    """The allocation text of `number memory cores, ...`, a segment for each container."""
    text = ""
    for segment in told if isinstance(told, list) else [told]:
        for part in filter(None, str(segment or "").split(",")):
            number, memory, cores = part.split()
            text += f"{file['card'].format(number, node=node)},{file.get('kind', file['family'])},{memory},{cores}:"
        text += ";"
    return text


def pod(name: str, containers: list[Json], notes: Json) -> Json:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": notes},
        "spec": {"containers": containers},
    }


def holder(file: Json, node: str, number: int, told: str) -> Json:
    notes = {
        keys.NODE: node,
        keys.BIND_PHASE: keys.SUCCESS,
        vendor_of(file).done_key: allocation(file, node, told),
        **(file.get("held_notes") or {}),
    }
    found = pod(f"held-{number}", [{"name": "c"}], notes)
    found["spec"]["nodeName"] = node
    return found


@pytest.mark.parametrize(("file", "case"), CASES)
def test_case(file: Json, case: Json) -> None:
    vendor = vendor_of(file)
    node = case.get("node") or next(iter(file["nodes"]))
    listed = case["asks"] if isinstance(case["asks"], list) else [case["asks"]]
    containers = [
        {"name": f"c{i}", "resources": {"limits": {file["prefix"] + key: str(value) for key, value in asks.items()}}}
        for i, asks in enumerate(listed)
    ]
    asking = pod("asking", containers, {key: str(text) for key, text in (case.get("notes") or {}).items()})
    verdict = admit(asking, registry=FAMILIES, settings=SchedulerSettings(), namespace="default", username="somebody")
    if "denied" in case:
        assert not verdict.allowed
        assert case["denied"] in verdict.message
        return
    assert verdict.allowed, verdict.message
    record = {
        "config": {"devices": {}, "flags": {}},
        "nodes": [described(name, one, vendor) for name, one in file["nodes"].items()],
        "existing": [holder(file, node, i, told) for i, told in enumerate(case.get("held") or ())],
        "pod": asking,
    }
    world = World(record, FAMILIES)
    assert not world.problems
    answer = world.filter(apply_patch(asking, verdict.patch), [node])
    if "refused" in case:
        assert answer.nodes is None, answer.written
        assert case["refused"] in answer.failed[node]
        return
    assert answer.nodes == [node], answer.failed
    assert answer.written[vendor.done_key] == allocation(file, node, case["gets"])
    assert {key: answer.written.get(key) for key in case.get("writes") or {}} == (case.get("writes") or {})


def test_every_family_has_twenty_and_no_case_is_there_twice() -> None:
    shared = {VendorWord("Ascend"): "Ascend", VendorWord("Iluvatar"): "MR-V100"}
    counts = Counter(file["family"] for file in FILES.values() for _ in file["cases"])
    for vendor in ALL:
        word = shared.get(vendor.name, vendor.name)
        assert sum(number for family, number in counts.items() if family.startswith(word)) >= 20, vendor.name
    for name, file in FILES.items():
        titles = [case["pod"] for case in file["cases"]]
        assert len(set(titles)) == len(titles), name
        for case in file["cases"]:
            assert len({"gets", "refused", "denied"} & case.keys()) == 1, case["pod"]
