"""The node lock against recorded binds: who gets it, what stands on the node, and what a refused bind is told.

Covers the decisions of `hami.alloc.nodelock` over whole sequences, in a world of two dictionaries. Not covered: the
requests to the API server around them (tests/scheduler).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from hami.alloc.nodelock import Step, acquire, lock_owner
from hami.model.names import NodeName, PodKey
from hami.model.wire import pod as keys

NOW = 1_787_299_200.0
RECORDS = [
    record
    for line in (Path(__file__).parent / "data" / "nvidia.jsonl").read_text().splitlines()
    if (record := json.loads(line))["kind"] == "sequence" and any(s["op"] == "bind" for s in record["got"]["steps"])
]

# Record -> step -> (bound, owner of the lock afterwards) that is right there.
DEFECTS: dict[str, dict[int, tuple[bool, str]]] = {
    # A pod that has ended needs no lock: the next one takes it over.
    "nvy-s-004": {4: (True, "p2")},
    # A repeated bind of a bound pod is no error, and the lock still serves the first.
    "nvy-s-006": {2: (True, "p1")},
}


def document(name: str, namespace: str, chosen: str) -> dict[str, Any]:
    notes = {keys.NODE: chosen}
    return {"metadata": {"name": name, "namespace": namespace, "annotations": notes}, "spec": {}, "status": {}}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["id"])
def test_recorded_binds(record: dict[str, Any]) -> None:
    pods: dict[PodKey, dict[str, Any]] = {}
    locks: dict[str, str] = {}
    for number, step in enumerate(record["got"]["steps"]):
        match step["op"]:
            case "place":
                meta = step["pod"]["metadata"]
                if step["got"]["node_names"]:
                    key = PodKey(meta["namespace"], meta["name"])
                    pods[key] = document(key.name, key.namespace, step["got"]["node_names"][0])
            case "bind":
                key = next(key for key in pods if key.name == step["name"])
                node = step["node"]
                owner = lock_owner(locks.get(node))
                verdict = acquire(
                    locks.get(node),
                    claimant=key,
                    node=NodeName(node),
                    owner=None if owner is None else pods.get(owner),
                    now_unix=NOW + number,
                )
                if verdict.step in (Step.SET, Step.TAKE_OVER):
                    locks[node] = keys.write_lock(NOW + number, key)
                bound = verdict.step is not Step.WAIT
                if bound:
                    pods[key]["spec"]["nodeName"] = node
                    pods[key]["metadata"]["annotations"][keys.BIND_PHASE] = keys.ALLOCATING
                got = step["got"]
                want = DEFECTS.get(record["id"], {}).get(number)
                if want is None:
                    want = not got["error"], got["node_lock"].rpartition(",")[2]
                    assert got["error"] in verdict.reason or bound
                assert (bound, lock_owner(locks[node])) == (want[0], PodKey(key.namespace, want[1]))
            case "delete":
                pods.pop(next((key for key in pods if key.name == step["name"]), PodKey("", "")), None)
            case "status":
                next(pod for key, pod in pods.items() if key.name == step["name"])["status"] = step["status"]
            case "terminate":
                found = next(pod for key, pod in pods.items() if key.name == step["name"])
                found["metadata"]["deletionTimestamp"] = "2026-08-21T08:00:00Z"
            case "unlock":
                locks.pop(step["node"], None)
            case op:
                assert op in ("refilter", "quota", "node")


def test_the_defects_are_there() -> None:
    assert set(DEFECTS) <= {record["id"] for record in RECORDS if "defect" in record}
    assert len(RECORDS) >= 5
